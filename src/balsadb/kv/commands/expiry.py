"""Keys that expire: by log time, at the same entry on every replica (rules S5, S6)."""

from __future__ import annotations

from functools import partial
from typing import Final

from balsadb.kv.command import Command, Handler, Kind
from balsadb.kv.commands.numbers import INTEGER_MAX, INTEGER_MIN, integer
from balsadb.kv.commands.options import SECOND_MS, parse_options, positive_deadline
from balsadb.kv.keyspace import Keyspace
from balsadb.kv.refusals import NOT_AN_INTEGER, invalid_expire_time
from balsadb.kv.reply import OK, Refusal, Reply
from balsadb.kv.store import deadline_of

_NO_KEY: Final = -2
_NO_DEADLINE: Final = -1
_SHOWN_MAX: Final = 128
_CLASH: Final = Refusal(b"ERR NX and XX, GT or LT options at the same time are not compatible")
_CLASH_GT_LT: Final = Refusal(b"ERR GT and LT options at the same time are not compatible")
_PRINTABLE: Final = bytes.maketrans(b"\r\n", b"  ")


def _set_with_time(unit_ms: int, command: bytes, space: Keyspace, argv: list[bytes]) -> Reply:
    deadline = positive_deadline(space, argv[2], unit_ms, True, command)
    if isinstance(deadline, Refusal):
        return deadline
    return space.replace(argv[1], argv[3], deadline, space.get(argv[1])) or OK


def getex(space: Keyspace, argv: list[bytes]) -> Reply:
    """GETEX key [EX seconds | PX ms | EXAT seconds | PXAT ms | PERSIST]."""
    options = parse_options(argv[2:], setting=False)
    if isinstance(options, Refusal):
        return options
    key = argv[1]
    record = space.get(key)
    if record is None:
        return None
    deadline = options.deadline(space, b"getex")
    if isinstance(deadline, Refusal):
        return deadline
    if deadline or (options.persist and deadline_of(record)):
        refusal = space.replace(key, record[0], deadline, record)
        if refusal is not None:
            return refusal
    return record[0]


def persist(space: Keyspace, argv: list[bytes]) -> Reply:
    """PERSIST key."""
    record = space.get(argv[1])
    if record is None or not deadline_of(record):
        return 0
    refusal = space.replace(argv[1], record[0], 0, record)
    return 1 if refusal is None else refusal


# ------------------------------------------------------------------------ EXPIRE


def _expire(unit_ms: int, relative: bool, command: bytes, space: Keyspace, argv: list[bytes]) -> Reply:
    conditions = _conditions(argv[3:])
    if isinstance(conditions, Refusal):
        return conditions
    time = integer(argv[2])
    if time is None:
        return NOT_AN_INTEGER
    deadline = time * unit_ms
    if not INTEGER_MIN <= deadline <= INTEGER_MAX:
        return invalid_expire_time(command)
    deadline += space.log_time_ms if relative else 0
    if deadline > INTEGER_MAX:
        return invalid_expire_time(command)
    key = argv[1]
    record = space.get(key)
    if record is None or not _suits(conditions, deadline_of(record), deadline):
        return 0
    # A time that has passed, 0 and negative ones among them: the key goes at once.
    refusal = space.replace(key, record[0], max(deadline, 1), record)
    return 1 if refusal is None else refusal


def _conditions(words: list[bytes]) -> set[bytes] | Refusal:
    chosen: set[bytes] = set()
    for word in words:
        option = word[:3].upper()
        if option not in (b"NX", b"XX", b"GT", b"LT"):
            shown = word[:_SHOWN_MAX].partition(b"\0")[0].rstrip(b"\r\n").translate(_PRINTABLE)
            return Refusal(b"ERR Unsupported option " + shown)
        chosen.add(option)
    if b"NX" in chosen and len(chosen) > 1:
        return _CLASH
    return _CLASH_GT_LT if {b"GT", b"LT"} <= chosen else chosen


def _suits(conditions: set[bytes], former: int, deadline: int) -> bool:
    """Tell whether a deadline may replace the former one; 0 is none, which counts as later than any."""
    if b"NX" in conditions and former:
        return False
    if b"XX" in conditions and not former:
        return False
    if b"GT" in conditions and (not former or deadline <= former):
        return False
    return not (b"LT" in conditions and former and deadline >= former)


# --------------------------------------------------------------------------- TTL


def ttl(space: Keyspace, argv: list[bytes]) -> Reply:
    """TTL key."""
    left = _left(space, argv[1])
    return left if left < 0 else (left + SECOND_MS // 2) // SECOND_MS


def pttl(space: Keyspace, argv: list[bytes]) -> Reply:
    """PTTL key."""
    return _left(space, argv[1])


def _left(space: Keyspace, key: bytes) -> int:
    deadline = _deadline(space, key)
    # The leader's clock may have passed a deadline that log time has not: then the key is still there.
    return deadline if deadline < 0 else max(0, deadline - space.now_ms)


def expiretime(space: Keyspace, argv: list[bytes]) -> Reply:
    """EXPIRETIME key."""
    deadline = _deadline(space, argv[1])
    return deadline if deadline < 0 else (deadline + SECOND_MS // 2) // SECOND_MS


def pexpiretime(space: Keyspace, argv: list[bytes]) -> Reply:
    """PEXPIRETIME key."""
    return _deadline(space, argv[1])


def _deadline(space: Keyspace, key: bytes) -> int:
    record = space.get(key)
    return _NO_KEY if record is None else deadline_of(record) or _NO_DEADLINE


# --------------------------------------------------------------------- the table


def _command(
    name: bytes,
    handler: Handler,
    arity: int,
    summary: bytes,
    syntax: bytes,
    since: bytes,
    access: bytes,
    *,
    kind: Kind = Kind.WRITE,
    flags: bytes = b"write fast",
    group: bytes = b"generic",
    categories: bytes = b"keyspace write fast",
    notes: bytes = b"",
    tips: tuple[bytes, ...] = (),
) -> Command:
    return Command(
        name=name,
        arity=arity,
        flags=tuple(flags.split()),
        first_key=1,
        last_key=1,
        step=1,
        kind=kind,
        handler=handler,
        summary=summary,
        group=group,
        since=since,
        categories=tuple(categories.split()),
        key_access=tuple(access.split()),
        key_notes=notes,
        tips=tips,
        syntax=syntax,
    )


def _expiring(name: bytes, unit_ms: int, relative: bool, since: bytes, argument: bytes) -> Command:
    handler = partial(_expire, unit_ms, relative, name.lower())
    when = b"after a time" if relative else b"at a moment"
    unit = b"seconds" if unit_ms == SECOND_MS else b"milliseconds"
    summary = b"Let a key expire %b in %b; return 1 if it will" % (when, unit)
    syntax = b"key %b [NX | XX | GT | LT]" % argument
    return _command(name, handler, -3, summary, syntax, since, b"RW update")


def _telling(name: bytes, handler: Handler, since: bytes, summary: bytes, *tips: bytes) -> Command:
    return _command(
        name,
        handler,
        2,
        summary + b"; -1 if it does not expire, -2 if there is no key",
        b"key",
        since,
        b"RO access",
        kind=Kind.READ,
        flags=b"readonly fast",
        categories=b"keyspace read fast",
        tips=tips,
    )


def _setting(name: bytes, unit_ms: int, since: bytes, argument: bytes) -> Command:
    return _command(
        name,
        partial(_set_with_time, unit_ms, name.lower()),
        4,
        b"Store a value under a key that expires after so many " + argument,
        b"key %b value" % argument,
        since,
        b"OW update",
        flags=b"write denyoom",
        group=b"string",
        categories=b"write string slow",
    )


_CHANGING: Final = b"nondeterministic_output"

COMMANDS: Final = (
    _setting(b"SETEX", SECOND_MS, b"2.0.0", b"seconds"),
    _setting(b"PSETEX", 1, b"2.6.0", b"milliseconds"),
    _command(
        b"GETEX",
        getex,
        -2,
        b"Return the value of a key, and set or take away when it expires",
        b"key [EX seconds | PX milliseconds | EXAT unix-seconds | PXAT unix-milliseconds | PERSIST]",
        b"6.2.0",
        b"RW access update",
        group=b"string",
        categories=b"write string fast",
        notes=b"It writes, because it changes when the key expires",
    ),
    _expiring(b"EXPIRE", SECOND_MS, True, b"1.0.0", b"seconds"),
    _expiring(b"PEXPIRE", 1, True, b"2.6.0", b"milliseconds"),
    _expiring(b"EXPIREAT", SECOND_MS, False, b"1.2.0", b"unix-seconds"),
    _expiring(b"PEXPIREAT", 1, False, b"2.6.0", b"unix-milliseconds"),
    _command(
        b"PERSIST",
        persist,
        2,
        b"Let a key not expire; return 1 if it would have",
        b"key",
        b"2.2.0",
        b"RW update",
    ),
    _telling(b"TTL", ttl, b"1.0.0", b"Return in how many seconds a key expires", _CHANGING),
    _telling(b"PTTL", pttl, b"2.6.0", b"Return in how many milliseconds a key expires", _CHANGING),
    _telling(b"EXPIRETIME", expiretime, b"7.0.0", b"Return at which Unix second a key expires"),
    _telling(b"PEXPIRETIME", pexpiretime, b"7.0.0", b"Return at which Unix millisecond a key expires"),
)
