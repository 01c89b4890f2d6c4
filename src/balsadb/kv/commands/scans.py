"""Looking through the keys of a node: SCAN, KEYS, RANDOMKEY.

What these answer depends on what the node remembers of its scans, or on chance. So they are never in the log,
nor in a transaction (rule S4). Each call looks at a bounded number of keys.
"""

from __future__ import annotations

from typing import Final

from balsadb.kv.command import Command, Kind
from balsadb.kv.commands.local import local
from balsadb.kv.commands.numbers import integer
from balsadb.kv.cursors import CURSOR_MAX
from balsadb.kv.glob import PATTERN_BYTES_MAX, Glob
from balsadb.kv.keyspace import Keyspace
from balsadb.kv.refusals import NOT_AN_INTEGER, SYNTAX_ERROR
from balsadb.kv.reply import Refusal, Reply

SCAN_KEYS: Final = 10
"""Keys that a SCAN looks at when it does not say how many."""
SCAN_KEYS_MAX: Final = 512
"""Keys that a SCAN looks at, whatever COUNT it has: about a millisecond."""
KEYS_BYTES_MAX: Final = 1 << 20
"""Bytes of keys that KEYS holds against its pattern."""
RANDOM_SLICES_MAX: Final = 4
"""Slices in which RANDOMKEY looks for a key that is not due, behind its point and from the beginning."""
SCAN_BYTES_MAX: Final = 64 * 1024
"""Bytes of keys that are held against a pattern in one SCAN; past it the scan goes on with the next call."""
KEYS_MAX: Final = 8_192
"""Keys that a KEYS may look at. Where a pattern begins with plain text, only keys that begin so are."""

_INVALID_CURSOR: Final = Refusal(b"ERR invalid cursor")
_PATTERN_TOO_LONG: Final = Refusal(
    b"ERR pattern exceeds maximum allowed size of %d bytes" % PATTERN_BYTES_MAX
)
_TOO_MANY: Final = Refusal(b"ERR KEYS would have to look at more than %d keys; use SCAN" % KEYS_MAX)
_CURSOR_DIGITS_MAX: Final = 20


def scan(space: Keyspace, argv: list[bytes]) -> Reply:
    """SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]."""
    cursor = _cursor(argv[1])
    if cursor is None:
        return _INVALID_CURSOR
    count, pattern, kind = SCAN_KEYS, b"*", b"string"
    for at in range(2, len(argv), 2):
        option, value = argv[at], argv[at + 1 : at + 2]
        if not value:
            return SYNTAX_ERROR
        match option[:8].upper():
            case b"COUNT":
                number = integer(value[0])
                if number is None:
                    return NOT_AN_INTEGER
                if number < 1:
                    return SYNTAX_ERROR
                count = number
            case b"MATCH":
                pattern = value[0]
            case b"TYPE":
                kind = value[0][:8].lower()
            case _:
                return SYNTAX_ERROR
    if len(pattern) > PATTERN_BYTES_MAX:
        return _PATTERN_TOO_LONG
    return _scan(space, cursor, min(count, SCAN_KEYS_MAX), Glob(pattern), kind == b"string")


def _scan(space: Keyspace, cursor: int, count: int, glob: Glob, strings: bool) -> Reply:
    start = space.cursors.position(cursor) if cursor else b""
    keys, then, _ = space.slice(start, count)
    found: list[Reply] = []
    left = SCAN_BYTES_MAX
    for key in keys:
        if left <= 0:
            then = key
            break
        left -= len(key) + 1
        if strings and glob.matches(key):
            found.append(key)
    return [b"%d" % (0 if then is None else space.cursors.cursor(then)), found]


def _cursor(text: bytes) -> int | None:
    if (text and not text.isdigit()) or len(text) > _CURSOR_DIGITS_MAX:
        return None
    cursor = int(text or b"0")  # as Redis, to which an empty one is a beginning
    return cursor if cursor <= CURSOR_MAX else None


def keys(space: Keyspace, argv: list[bytes]) -> Reply:
    """KEYS pattern."""
    if len(argv[1]) > PATTERN_BYTES_MAX:
        return _PATTERN_TOO_LONG
    glob = Glob(argv[1])
    found: list[Reply] = []
    looked = size = 0
    position: bytes | None = glob.prefix
    while position is not None and looked <= KEYS_MAX:
        some, position, count = space.slice(position, KEYS_MAX + 1 - looked)
        looked += count
        for key in some:
            size += len(key)
            if size > KEYS_BYTES_MAX:
                return _TOO_MANY
            if not key.startswith(glob.prefix):
                return found
            if glob.matches(key):
                found.append(key)
    return found if position is None and looked <= KEYS_MAX else _TOO_MANY


def random_key(space: Keyspace, argv: list[bytes]) -> Reply:
    """RAFT.RANDOMKEY chance. The 8 bytes of chance say where between the first and the last key to look."""
    some, _, _ = space.slice(b"", 1)
    start = some[0] if some else b""
    last = space.last_key()
    if last is None:
        return None
    same = 0
    while same < min(len(start), len(last)) and start[same] == last[same]:
        same += 1
    low = int.from_bytes(start[same : same + 8].ljust(8, b"\0"), "big")
    high = int.from_bytes(last[same : same + 8].ljust(8, b"\xff"), "big")
    chance = int.from_bytes(argv[1][:8], "big")
    point = last[:same] + (low + chance % (high - low + 1)).to_bytes(8, "big")
    for position in (point, b""):
        then: bytes | None = position
        slices = RANDOM_SLICES_MAX
        while then is not None and slices:
            slices -= 1
            some, then, _ = space.slice(then, SCAN_KEYS_MAX)
            if some:
                return some[chance % min(len(some), SCAN_KEYS)]
    return None


def place(argv: list[bytes], space: Keyspace) -> tuple[bytes, int] | None:
    """Return from where on how many keys a command looks at; None for commands that do no such thing."""
    if not argv or len(argv[0]) > len(b"SCAN"):
        return None
    match argv[0].upper():
        case b"SCAN":
            cursor = _cursor(argv[1]) if len(argv) > 1 else None
            return (
                None if cursor is None else (space.cursors.position(cursor) if cursor else b"", SCAN_KEYS_MAX)
            )
        case b"KEYS" if len(argv) == 2 and len(argv[1]) <= PATTERN_BYTES_MAX:
            return Glob(argv[1]).prefix, KEYS_MAX
        case _:
            return None


def _looking(
    name: bytes, arity: int, summary: bytes, syntax: bytes, since: bytes, categories: bytes, tips: bytes
) -> Command:
    return Command(
        name=name,
        arity=arity,
        flags=(b"readonly",),
        first_key=0,
        last_key=0,
        step=0,
        kind=Kind.READ,
        handler=scan if name == b"SCAN" else keys,
        summary=summary,
        group=b"generic",
        since=since,
        categories=tuple(categories.split()),
        tips=tuple(tips.split()),
        syntax=syntax,
        unlogged=True,
    )


COMMANDS: Final = (
    _looking(
        b"SCAN",
        -2,
        b"Return some keys, and a cursor for the call that returns the next ones; 0 begins and ends",
        b"cursor [MATCH pattern] [COUNT count] [TYPE type]",
        b"2.8.0",
        b"keyspace read slow",
        b"nondeterministic_output request_policy:special",
    ),
    _looking(
        b"KEYS",
        2,
        b"Return all keys that match a pattern; refused where it would look at too many",
        b"pattern",
        b"1.0.0",
        b"keyspace read slow dangerous",
        b"request_policy:all_shards nondeterministic_output_order",
    ),
    local(
        b"RANDOMKEY",
        1,
        b"readonly",
        b"Return some key, not every one equally often; nil when there is none",
        group=b"generic",
        since=b"1.0.0",
        categories=b"keyspace read slow",
        tips=b"request_policy:all_shards nondeterministic_output",
    ),
    Command(
        name=b"RAFT.RANDOMKEY",
        arity=2,
        flags=(b"readonly", b"no_multi"),
        first_key=0,
        last_key=0,
        step=0,
        kind=Kind.READ,
        handler=random_key,
        summary=b"Internal: return the key at or behind a place drawn by the node",
        group=b"raft",
        since=b"0.1.0",
        categories=(b"read", b"slow"),
        syntax=b"chance",
        unlogged=True,
    ),
)
