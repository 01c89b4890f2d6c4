"""Numbers in header lines, and the headers of short bulk strings."""

from __future__ import annotations

import re

HEADERS = [b"$%d" % length for length in range(4096)]
"""The header line of a bulk string, by its length. For longer strings copying dominates any parsing."""
LENGTHS = {header: length for length, header in enumerate(HEADERS)}
"""The same the other way round."""

CRLF_BYTES = 2
"""Bytes of a line end."""

_NUMBER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
"""The only forms of a number that Redis takes; int() would also take `+5`, ` 5`, `05`, `-0` and `1_0`."""
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


def parse_number(text: bytes) -> int | None:
    """Read a decimal 64-bit number as strictly as Redis does; None when it is not one."""
    if _NUMBER.fullmatch(text) is None:
        return None
    value = int(text)
    return value if _INT64_MIN <= value <= _INT64_MAX else None
