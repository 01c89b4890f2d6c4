"""Error replies that several commands share, in Redis' own words where Redis has the case."""

from __future__ import annotations

from typing import Final

from balsadb.kv.limits import (
    CHANGE_BYTES_MAX,
    KEY_BYTES_MAX,
    REPLY_BYTES_MAX,
    SESSION_NONCE_BYTES_MAX,
    SESSION_TTL_MS_MAX,
    SESSION_TTL_MS_MIN,
    SESSION_WINDOW,
    SHOWN_BYTES_MAX,
)
from balsadb.kv.reply import Refusal

SYNTAX_ERROR: Final = Refusal(b"ERR syntax error")
NOT_AN_INTEGER: Final = Refusal(b"ERR value is not an integer or out of range")
OVERFLOW: Final = Refusal(b"ERR increment or decrement would overflow")
DECREMENT_OVERFLOW: Final = Refusal(b"ERR decrement would overflow")
VALUE_TOO_LONG: Final = Refusal(b"ERR string exceeds maximum allowed size (proto-max-bulk-len)")
KEY_TOO_LONG: Final = Refusal(b"ERR key exceeds maximum allowed size of %d bytes" % KEY_BYTES_MAX)
REPLY_TOO_LONG: Final = Refusal(b"ERR reply would exceed %d bytes; nothing was done" % REPLY_BYTES_MAX)
OVER_BUDGET: Final = Refusal(
    b"TRYAGAIN one log entry can change no more, and others came first; nothing was done"
)
"""Answered to a command and to all after it in its entry, once the entry's budget is used up (rule S5)."""
TRANSACTION_TOO_LARGE: Final = Refusal(
    b"EXECABORT Transaction discarded because it would change more than %d bytes." % CHANGE_BYTES_MAX
)
"""Answered to an EXEC that no entry has room for, so that trying again is of no use."""
NOT_IN_TRANSACTION: Final = Refusal(b"ERR Command not allowed inside a transaction")
NOT_A_READ: Final = Refusal(b"ERR command changes data or belongs to one node and can't be read")
NOT_LOGGED: Final = Refusal(b"ERR command belongs to one node and can't go through the log")
BAD_TRANSACTION: Final = Refusal(b"ERR malformed transaction")

NOT_A_FLOAT: Final = Refusal(b"ERR value is not a valid float")
NO_SUCH_KEY: Final = Refusal(b"ERR no such key")
SESSION_EXPIRED: Final = Refusal(
    b"SESSIONEXPIRED there is no such session, or no more; this request did nothing"
)
SEQUENCE_BELOW: Final = Refusal(
    b"ERR the sequence number is below what the session has acknowledged; this request did nothing"
)
SEQUENCE_BEYOND: Final = Refusal(
    b"ERR the sequence number is %d or more above the session's lowest; nothing was done" % SESSION_WINDOW
)
SEQUENCE_REUSED: Final = Refusal(
    b"ERR the sequence number was used for another command; this request did nothing"
)
REPLY_NOT_KEPT: Final = Refusal(
    b"DONE the command was done exactly once, and its reply was too large to be kept"
)
"""The one error reply that says that something was done, though not by this request."""
SESSION_TABLE_FULL: Final = Refusal(b"TRYAGAIN there are too many sessions; none was opened")
SESSIONS_TOO_LARGE: Final = Refusal(
    b"TRYAGAIN the sessions hold too many unacknowledged commands; nothing was done"
)
BAD_NONCE: Final = Refusal(b"ERR a session's nonce has 1 to %d bytes" % SESSION_NONCE_BYTES_MAX)
BAD_TTL: Final = Refusal(
    b"ERR a session's ttl is %d to %d milliseconds" % (SESSION_TTL_MS_MIN, SESSION_TTL_MS_MAX)
)
BAD_SEQUENCE: Final = Refusal(b"ERR sequence numbers and acknowledgements are integers from 1 on")
NOT_ONCE: Final = Refusal(b"ERR Command not allowed inside ONCE")
EXEC_WITHOUT_MULTI: Final = Refusal(b"ERR EXEC without MULTI")

_LINE_ENDS: Final = bytes.maketrans(b"\r\n", b"  ")


def unknown_command(argv: list[bytes]) -> Refusal:
    """Refuse a name that the table lacks, repeating at most 128 bytes of the name and of the arguments."""
    shown = b""
    for word in argv[1:]:
        if len(shown) >= SHOWN_BYTES_MAX:
            break
        shown += b"'%b' " % _text(word, SHOWN_BYTES_MAX - len(shown))
    name = _text(argv[0], SHOWN_BYTES_MAX) if argv else b""
    # No text of a client may end its line early and so forge another reply (bad input 23).
    text = b"ERR unknown command '%b', with args beginning with: %b" % (name, shown)
    return Refusal(text.translate(_LINE_ENDS))


def wrong_arity(name: bytes) -> Refusal:
    """Refuse a wrong number of arguments; a subcommand is named as `client|id`."""
    return Refusal(b"ERR wrong number of arguments for '%b' command" % name.lower())


def invalid_expire_time(command: bytes) -> Refusal:
    """Refuse a time at which nothing can expire; the command is named in lower case."""
    return Refusal(b"ERR invalid expire time in '%b' command" % command)


def unknown_subcommand(family: bytes, name: bytes) -> Refusal:
    """Refuse a subcommand that a family lacks."""
    text = b"ERR unknown subcommand '%b'. Try %b HELP." % (_text(name, SHOWN_BYTES_MAX), family)
    return Refusal(text.translate(_LINE_ENDS))


def _text(word: bytes, size: int) -> bytes:
    """Return the beginning of a word as C's printf shows it: up to `size` bytes or the first NUL."""
    return word[:size].partition(b"\0")[0]
