"""Every bound that `apply` looks at.

These are constants of the format level: all replicas of a cluster must agree on them, so none is an option
of a node (rule S4). Changing one needs a new format level.
"""

from __future__ import annotations

from typing import Final

KEY_BYTES_MAX: Final = 64 * 1024
"""Length of a key. Longer ones can't be written; reading one finds nothing."""
VALUE_BYTES_MAX: Final = 8 * 1024 * 1024
"""Length of a value, however it came about."""
CHANGE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Keys and values that one log entry may write; commands past it are told to try again (rule S5)."""
REPLY_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bytes of all values in the one reply of a command or transaction; past it the command is refused."""
DIGESTS_KEPT: Final = 16
"""Digests that can still be asked for by their index (rule S8)."""
SHOWN_BYTES_MAX: Final = 128
"""How much of a client's own words an error text repeats, as in Redis."""
NAME_BYTES_MAX: Final = 32
"""No command's name is longer, so longer words are not worth a change of case."""
EXPIRED_PER_ENTRY_MAX: Final = 1_000
"""Keys and sessions that one entry removes because they are due; further entries follow (rule S5)."""

SESSIONS_MAX: Final = 131_072
"""Living sessions; past it none is opened."""
SESSION_NONCE_BYTES_MAX: Final = 64
"""Length of the name that a client draws for its session."""
SESSION_TTL_MS_MIN: Final = 1_000
SESSION_TTL_MS_MAX: Final = 24 * 60 * 60 * 1_000
"""Bounds of a session's time to live; one outside of them is refused."""
SESSION_WINDOW: Final = 1_024
"""Sequence numbers from a session's floor on that may be used; those beyond are refused."""
SEQUENCE_MAX: Final = 2**62
"""No sequence number and no acknowledgement may be greater."""
SESSION_BYTES_MAX: Final = 256 * 1024
"""What the kept replies of one session may take; past it a reply is not kept."""
REPLIES_BYTES_MAX: Final = 128 * 1024 * 1024
"""The same for all sessions together."""
SESSIONS_BYTES_MAX: Final = 256 * 1024 * 1024
"""What the sequence numbers of all sessions may take, kept or not; past it nothing new runs in a session."""
