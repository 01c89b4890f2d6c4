"""What the Clerk knows about commands and refusals: how to write them, which may be repeated, what they mean.

The safe answer is always the default: a command that is not known to be a read is treated as a write, and a
refusal that is not known to be temporary is given to the caller.
"""

from __future__ import annotations

from typing import Any

from balsadb.errors import CommandError, UsageError
from balsadb.kv.reply import Mapping, NullArray, Refusal, Reply, Status
from balsadb.resp.decode import encode_command

ARGUMENTS_MAX = 65_536
"""Arguments of one command, as the server counts them."""
ARGUMENT_BYTES_MAX = 8 * 1024 * 1024
"""Bytes of one argument: the largest value."""
COMMAND_BYTES_MAX = 16 * 1024 * 1024
"""Bytes of one command. The server closes the connection on a longer one, and with it every other call."""

Word = str | bytes | int
"""What a caller may pass as key, value or argument. Texts are sent as UTF-8."""

READS = frozenset(
    # Commands without effect: asking twice does no harm, so they are repeated after a lost connection.
    b"CLUSTER COMMAND DBSIZE ECHO EXISTS EXPIRETIME GET GETRANGE INFO KEYS LASTSAVE MGET PEXPIRETIME PING "
    b"PTTL RANDOMKEY ROLE SCAN STRLEN SUBSTR TIME TTL TYPE".split()
)

RAFT_READS = frozenset(b"STATUS MEMBERS DIGEST HELP".split())
"""Forms of RAFT that change nothing. (RAFT DIGEST goes through the log but leaves the data as it is.)"""

CONNECTION_STATE = frozenset(
    b"ASKING AUTH CLIENT DISCARD EXEC HELLO MONITOR MULTI PSUBSCRIBE PSYNC PUNSUBSCRIBE QUIT READONLY "
    b"READWRITE REPLCONF RESET SELECT SSUBSCRIBE SUBSCRIBE SYNC UNSUBSCRIBE UNWATCH WATCH".split()
)
"""Commands that change what a connection means. A Clerk shares one connection among all its callers and
replaces it at will, so these would strike strangers or be lost without a word."""

CERTAINLY_NOT_APPLIED = frozenset((b"CLUSTERDOWN", b"TRYAGAIN", b"LOADING"))
"""First words of refusals that say: not done, may be done elsewhere or later (design section 7)."""

OPEN_OUTCOME = b"UNKNOWN"
"""First word of the refusal that says: the deadline passed, and it may happen yet."""

TOO_MANY_CLIENTS = b"ERR max number of clients reached"
"""Answered to a connection before any of its commands is read: certainly not done."""


def to_bytes(word: Word) -> bytes:
    """Return what goes over the wire for a key, value or argument."""
    if type(word) is bytes:
        return word
    if isinstance(word, str):
        return word.encode()
    if isinstance(word, int) and not isinstance(word, bool):
        return b"%d" % word
    if isinstance(word, bytes | bytearray | memoryview):
        return bytes(word)
    raise UsageError(f"a key, value or argument must be str, bytes or int, not {type(word).__name__}")


def encode(*words: Word) -> bytes:
    """Encode one command, refusing what the server would answer by closing the connection."""
    argv = [word if type(word) is bytes else to_bytes(word) for word in words]
    data = encode_command(argv)
    if len(data) > ARGUMENT_BYTES_MAX:
        _check_sizes(argv, len(data))
    elif len(argv) > ARGUMENTS_MAX:
        raise UsageError(f"a command has at most {ARGUMENTS_MAX:,} arguments, not {len(argv):,}")
    return data


def _check_sizes(argv: list[bytes], total: int) -> None:
    if (longest := max(map(len, argv))) > ARGUMENT_BYTES_MAX:
        raise UsageError(
            f"a key, value or argument has at most {ARGUMENT_BYTES_MAX:,} bytes, not {longest:,}"
        )
    if total > COMMAND_BYTES_MAX:
        raise UsageError(f"a command has at most {COMMAND_BYTES_MAX:,} bytes, not {total:,}")
    if len(argv) > ARGUMENTS_MAX:
        raise UsageError(f"a command has at most {ARGUMENTS_MAX:,} arguments, not {len(argv):,}")


def classify(words: tuple[Word, ...]) -> bool:
    """Say whether a command is a read; else it is taken for a write. Refuse what can't share a connection."""
    if not words:
        raise UsageError("execute() needs a command, such as execute('GET', 'key')")
    name = to_bytes(words[0]).upper()
    if name in CONNECTION_STATE:
        raise UsageError(
            f"{name.decode()} changes the state of a connection, and a Clerk shares its connection"
        )
    if name == b"RAFT":
        return len(words) > 1 and to_bytes(words[1]).upper() in RAFT_READS
    return name in READS


def to_python(reply: Reply) -> Any:
    """Return an answer in Python's own types; an error inside an array becomes a `CommandError` value."""
    match reply:
        case Status(text):
            return text
        case list():
            return [to_python(item) for item in reply]
        case Mapping(pairs):
            return {to_python(name): to_python(value) for name, value in pairs}
        case Refusal(text):
            return CommandError(text.decode(errors="replace"))
        case NullArray():
            return None
        case _:
            return reply


def is_certainly_not_applied(refusal: bytes) -> bool:
    """Say whether an error reply promises that the command was not and will not be run."""
    return refusal.split(b" ", 1)[0] in CERTAINLY_NOT_APPLIED or refusal.startswith(TOO_MANY_CLIENTS)


def is_open_outcome(refusal: bytes) -> bool:
    """Say whether an error reply leaves open whether the command was or will be run."""
    return refusal.split(b" ", 1)[0] == OPEN_OUTCOME
