"""Numbers as commands read them."""

from __future__ import annotations

from typing import Final

INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**63 - 1
_TEXT_BYTES_MAX: Final = 20
"""Length of the longest 64-bit integer with its sign."""


def integer(text: bytes) -> int | None:
    """Return a 64-bit integer written in its one canonical way, or None.

    Python's int() would also take `+5`, `05`, ` 5`, `1_0` and thousands of digits.
    """
    if len(text) > _TEXT_BYTES_MAX:
        return None
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or (digits[:1] == b"0" and text != b"0"):
        return None
    value = int(text)
    return value if INTEGER_MIN <= value <= INTEGER_MAX else None
