"""Strings that hold a number: count up and down."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from balsadb.kv.command import Command, Handler, Kind
from balsadb.kv.commands.floats import Infinite, add_floats, format_float, parse_float
from balsadb.kv.commands.numbers import INTEGER_MAX, INTEGER_MIN, integer
from balsadb.kv.keyspace import Keyspace
from balsadb.kv.limits import CHANGE_BYTES_MAX
from balsadb.kv.refusals import DECREMENT_OVERFLOW, NOT_A_FLOAT, NOT_AN_INTEGER, OVER_BUDGET, OVERFLOW
from balsadb.kv.reply import Refusal, Reply

_SIMPLE_BITS: Final = 512
_LARGE_FLOAT_BYTES: Final = 512 * 1024
"""What adding a number with thousands of digits counts for in an entry's budget: it takes milliseconds."""
_INFINITE_SUM: Final = Refusal(b"ERR increment would produce NaN or Infinity")


def incr(space: Keyspace, argv: list[bytes]) -> Reply:
    """INCR key."""
    return _add(space, argv[1], 1)


def decr(space: Keyspace, argv: list[bytes]) -> Reply:
    """DECR key."""
    return _add(space, argv[1], -1)


def incrby(space: Keyspace, argv: list[bytes]) -> Reply:
    """INCRBY key increment."""
    amount = integer(argv[2])
    return NOT_AN_INTEGER if amount is None else _add(space, argv[1], amount)


def decrby(space: Keyspace, argv: list[bytes]) -> Reply:
    """DECRBY key decrement."""
    amount = integer(argv[2])
    if amount is None:
        return NOT_AN_INTEGER
    if amount == INTEGER_MIN:  # it has no positive counterpart in 64 bits
        return DECREMENT_OVERFLOW
    return _add(space, argv[1], -amount)


def _add(space: Keyspace, key: bytes, amount: int) -> Reply:
    former = space.get(key)
    value = 0 if former is None else integer(former[0])
    if value is None:
        return NOT_AN_INTEGER
    value += amount
    if not INTEGER_MIN <= value <= INTEGER_MAX:
        return OVERFLOW
    refusal = space.update(key, b"%d" % value, former)
    return value if refusal is None else refusal


def incrbyfloat(space: Keyspace, argv: list[bytes]) -> Reply:
    """INCRBYFLOAT key increment."""
    key = argv[1]
    former = space.get(key)
    value = Fraction(0) if former is None else parse_float(former[0])
    amount = parse_float(argv[2])
    if value is None or amount is None:
        return NOT_A_FLOAT
    if isinstance(value, Infinite) or isinstance(amount, Infinite):
        return _INFINITE_SUM
    for operand in (value, amount):
        if operand.numerator.bit_length() + operand.denominator.bit_length() > _SIMPLE_BITS:
            space.spent += _LARGE_FLOAT_BYTES
    if space.spent > CHANGE_BYTES_MAX:
        return OVER_BUDGET
    total = add_floats(value, amount)
    if isinstance(total, Infinite):
        return _INFINITE_SUM
    text = format_float(total)
    return space.update(key, text, former) or text


def _counter(
    name: bytes, handler: Handler, summary: bytes, *, amount: bytes = b"", since: bytes = b"1.0.0"
) -> Command:
    return Command(
        name=name,
        arity=3 if amount else 2,
        flags=(b"write", b"denyoom", b"fast"),
        first_key=1,
        last_key=1,
        step=1,
        kind=Kind.WRITE,
        handler=handler,
        summary=summary,
        group=b"string",
        since=since,
        categories=(b"write", b"string", b"fast"),
        key_access=(b"RW", b"access", b"update"),
        syntax=b"key " + amount if amount else b"key",
    )


COMMANDS: Final = (
    _counter(b"INCR", incr, b"Add 1 to the integer of a key, which is 0 when absent, and return it"),
    _counter(b"INCRBY", incrby, b"Add a number to the integer of a key and return it", amount=b"increment"),
    _counter(b"DECR", decr, b"Subtract 1 from the integer of a key, which is 0 when absent, and return it"),
    _counter(
        b"DECRBY", decrby, b"Subtract a number from the integer of a key and return it", amount=b"decrement"
    ),
    _counter(
        b"INCRBYFLOAT",
        incrbyfloat,
        b"Add a number that may have a fraction to that of a key and return it",
        amount=b"increment",
        since=b"2.6.0",
    ),
)
