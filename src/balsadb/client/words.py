"""What the Clerk knows about commands: how to write them, which may be repeated, how their answers look.

The safe answer is always the default: a command that is not known to be a read is taken for a write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from balsadb.client.call import Command, Kind
from balsadb.errors import CommandError, UsageError
from balsadb.kv.reply import Mapping, NullArray, Refusal, Reply, Status

ARGUMENTS_MAX = 65_536
"""Arguments of one command, as the server counts them."""
ARGUMENT_BYTES_MAX = 8 * 1024 * 1024
"""Bytes of one argument: the largest value."""
COMMAND_BYTES_MAX = 16 * 1024 * 1024
"""Bytes of one command. The server closes the connection on a longer one, and with it every other call."""

ONCE_WORDS = 4
"""Words that a session adds to a command: ONCE, the session's id, and two numbers."""
ONCE_BYTES = 4096
"""Bytes that they may take, generously."""
TRANSACTION_COMMANDS_MAX = 65_536
"""Commands of one transaction, as the server counts them."""
TRANSACTION_BYTES_MAX = 16 * 1024 * 1024
"""Bytes of all commands of one transaction."""

Word = str | bytes | int
"""What a caller may pass as key, value or argument. Texts are sent as UTF-8."""

READS = frozenset(
    # Commands without effect: asking twice does no harm, so they are repeated after a lost connection.
    b"CLUSTER COMMAND DBSIZE ECHO EXISTS EXPIRETIME GET GETRANGE INFO KEYS LASTSAVE MGET PEXPIRETIME PING "
    b"PTTL RANDOMKEY ROLE SCAN STRLEN SUBSTR TIME TTL TYPE".split()
)

NODE_COMMANDS = frozenset(
    b"ACL BGREWRITEAOF BGSAVE CONFIG DEBUG FAILOVER LATENCY MEMORY MODULE ONCE RAFT REPLICAOF SAVE SESSION "
    b"SHUTDOWN SLAVEOF SLOWLOG WAIT".split()
)
"""Commands that have an effect but concern one node or the cluster, so that no session can hold them. All
others are taken for writes of data."""

RAFT_READS = frozenset(b"STATUS MEMBERS DIGEST HELP".split())
"""Forms of RAFT that change nothing. (RAFT DIGEST goes through the log but leaves the data as it is.)"""

CONNECTION_STATE = frozenset(
    b"ASKING AUTH CLIENT DISCARD EXEC HELLO MONITOR MULTI PSUBSCRIBE PSYNC PUNSUBSCRIBE QUIT READONLY "
    b"READWRITE REPLCONF RESET SELECT SSUBSCRIBE SUBSCRIBE SYNC UNSUBSCRIBE UNWATCH WATCH".split()
)
"""Commands that change what a connection means. A Clerk shares one connection among all its callers and
replaces it at will, so these would strike strangers or be lost without a word."""

MULTI = b"*1\r\n$5\r\nMULTI\r\n"


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


def bulk(word: bytes) -> bytes:
    """Encode one word of a command."""
    return b"$%d\r\n%b\r\n" % (len(word), word)


def encode(*words: Word) -> bytes:
    """Encode one command, refusing what the server would answer by closing the connection."""
    argv = [word if type(word) is bytes else to_bytes(word) for word in words]
    return b"*%d\r\n%b" % (len(argv), _body(argv))


def command(kind: Kind, *words: Word) -> Command:
    """Encode one command for a Clerk, with the same checks."""
    argv = [word if type(word) is bytes else to_bytes(word) for word in words]
    return Command(kind, len(argv), _body(argv))


def transaction(commands: Sequence[Command]) -> Command:
    """Return the commands as one that runs in a session, all or nothing."""
    lead = b"".join([MULTI, *(one.encoded() for one in commands)])
    if len(lead) > TRANSACTION_BYTES_MAX:
        raise UsageError(f"a transaction has at most {TRANSACTION_BYTES_MAX:,} bytes, not {len(lead):,}")
    if len(commands) > TRANSACTION_COMMANDS_MAX:
        raise UsageError(
            f"a transaction has at most {TRANSACTION_COMMANDS_MAX:,} commands, not {len(commands):,}"
        )
    return Command(Kind.ONCE, 1, bulk(b"EXEC"), lead, len(commands) + 1)


def _body(argv: list[bytes]) -> bytes:
    body = b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in argv])
    if len(body) > ARGUMENT_BYTES_MAX or len(argv) > ARGUMENTS_MAX - ONCE_WORDS:
        _check_sizes(argv, len(body))
    return body


def _check_sizes(argv: list[bytes], total: int) -> None:
    if (longest := max(map(len, argv))) > ARGUMENT_BYTES_MAX:
        raise UsageError(
            f"a key, value or argument has at most {ARGUMENT_BYTES_MAX:,} bytes, not {longest:,}"
        )
    if total > COMMAND_BYTES_MAX - ONCE_BYTES:
        most = COMMAND_BYTES_MAX - ONCE_BYTES
        raise UsageError(f"a command has at most {most:,} bytes, not {total:,}")
    if len(argv) > ARGUMENTS_MAX - ONCE_WORDS:
        most = ARGUMENTS_MAX - ONCE_WORDS
        raise UsageError(f"a command has at most {most:,} arguments, not {len(argv):,}")


def classify(words: tuple[Word, ...]) -> Kind:
    """Say what may be done when the answer to a command is lost. Refuse what can't share a connection."""
    if not words:
        raise UsageError("execute() needs a command, such as execute('GET', 'key')")
    name = to_bytes(words[0]).upper()
    if name in CONNECTION_STATE:
        raise UsageError(
            f"{name.decode()} changes the state of a connection, and a Clerk shares its connection"
        )
    if name in READS:
        return Kind.READ
    if name == b"RAFT" and len(words) > 1 and to_bytes(words[1]).upper() in RAFT_READS:
        return Kind.READ
    return Kind.PLAIN if name in NODE_COMMANDS else Kind.ONCE


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
