"""INCRBYFLOAT: numbers with a fraction, calculated as Redis does and alike on every machine.

Redis calculates with the `long double` of its processor, which has a mantissa of 64 bits on the usual ones.
Replicas may run on different processors, so here the same is done with whole numbers (rule S4).
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

_TEXT_BYTES_MAX: Final = 8_192
"""Longer than any number that INCRBYFLOAT can have written."""
_PIECE: Final = 1_000
"""Digits that are converted at a time: Python refuses more than 4,300."""
_MANTISSA_BITS: Final = 64
_EXPONENT_MIN: Final = -16_445
"""Of the last bit of the smallest number."""
_LIMIT: Final = 1 << 16_384
"""Numbers from here on are infinite."""
_POWER_MAX: Final = 6_000
"""Powers of ten far outside what a number can be."""
_POWER_BYTES_MAX: Final = 20
_DIGITS: Final = 17
_NUMBER: Final = re.compile(rb"([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d+))?")
_HEX: Final = re.compile(rb"([+-]?)0[xX]([0-9a-fA-F]*)(?:\.([0-9a-fA-F]*))?(?:[pP]([+-]?\d+))?")
_INFINITE: Final = re.compile(rb"[+-]?inf(?:inity)?", re.IGNORECASE)


class Infinite:
    """What INCRBYFLOAT takes as an increment, and refuses as a result."""


INFINITE: Final = Infinite()


def parse_float(text: bytes) -> Fraction | Infinite | None:
    """Return the number that a text stands for, or None when there is none."""
    if not 0 < len(text) <= _TEXT_BYTES_MAX:
        return None
    if _INFINITE.fullmatch(text):
        return INFINITE
    hexadecimal = True
    found = _HEX.fullmatch(text)
    if found is None:
        hexadecimal, found = False, _NUMBER.fullmatch(text)
    if found is None:
        return None
    sign, whole, part, power = found.groups()
    digits = whole + (part or b"")
    if not digits:
        return None
    mantissa = int(digits, 16) if hexadecimal else _whole(digits)
    if not mantissa:
        return Fraction(0)
    if power is not None and len(power) > _POWER_BYTES_MAX:
        return None
    exponent = int(power or b"0")
    shift = len(part or b"")
    if hexadecimal:
        exponent -= 4 * shift
        if abs(exponent) > 4 * _POWER_MAX:
            return None
        value = Fraction(mantissa) * Fraction(2) ** exponent
    else:
        exponent -= shift
        if abs(exponent) > _POWER_MAX + len(digits):
            return None
        value = Fraction(mantissa) * Fraction(10) ** exponent
    rounded = _round(value)
    if not rounded or rounded >= _LIMIT:
        return None  # as Redis, which looks at the range error of its library
    return -rounded if sign == b"-" else rounded


def add_floats(first: Fraction, second: Fraction) -> Fraction | Infinite:
    """Return the sum as a processor rounds it."""
    total = first + second
    rounded = _round(abs(total))
    if rounded >= _LIMIT:
        return INFINITE
    return -rounded if total < 0 else rounded


def format_float(value: Fraction) -> bytes:
    """Return a number without an exponent, with at most 17 digits of a fraction and no zeros at its end."""
    scaled = round(abs(value) * 10**_DIGITS)
    whole, part = divmod(scaled, 10**_DIGITS)
    text = b"-" if value < 0 and scaled else b""
    text += _decimal(whole)
    return text + b"." + (b"%017d" % part).rstrip(b"0") if part else text


def _whole(digits: bytes) -> int:
    value = 0
    for start in range(0, len(digits), _PIECE):
        piece = digits[start : start + _PIECE]
        value = value * 10 ** len(piece) + int(piece)
    return value


def _decimal(value: int) -> bytes:
    parts: list[bytes] = []
    while value >= 10**_PIECE:
        value, part = divmod(value, 10**_PIECE)
        parts.append(b"%0*d" % (_PIECE, part))
    return b"%d" % value + b"".join(reversed(parts))


def _round(value: Fraction) -> Fraction:
    """Return a number that is not negative, rounded to a mantissa of 64 bits, to the even one of two."""
    if not value:
        return value
    numerator, denominator = value.numerator, value.denominator
    exponent = max(_EXPONENT_MIN, numerator.bit_length() - denominator.bit_length() - _MANTISSA_BITS)
    mantissa = round(value / Fraction(2) ** exponent)
    if mantissa.bit_length() > _MANTISSA_BITS:
        exponent += 1
        mantissa = round(value / Fraction(2) ** exponent)
    return mantissa * Fraction(2) ** exponent
