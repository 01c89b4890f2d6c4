"""Hash slots as cluster-aware clients compute them: CRC-16 of the key, or of its hash tag."""

from __future__ import annotations

import binascii
from typing import Final

SLOTS: Final = 16_384
"""Number of hash slots in a Redis cluster."""


def key_slot(key: bytes) -> int:
    """Return the hash slot of a key.

    When the key holds a non-empty part between the first `{` and the first `}` after it, only that part
    counts, so that users can bring keys together in one slot.
    """
    start = key.find(b"{") + 1
    if start:
        end = key.find(b"}", start)
        if end > start:
            key = key[start:end]
    # binascii's CRC-CCITT with a start value of 0 is the XMODEM variant that Redis uses.
    return binascii.crc_hqx(key, 0) % SLOTS
