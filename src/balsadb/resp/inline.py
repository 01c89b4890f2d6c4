"""Commands typed by hand: one line, arguments separated by blanks, quotes as in a Redis configuration file.

Inside double quotes a backslash starts an escape (`\\n \\r \\t \\a \\b`, `\\xHH`, or the next character
itself); inside single quotes only `\\'` is one. A closing quote must end the argument.
"""

from __future__ import annotations

import re

_BLANKS = re.compile(rb"[ \t\n\v\f\r]*+")
_PLAIN = re.compile(rb"[^ \t\n\r\"']++")
_DOUBLE = re.compile(rb'"((?:[^"\\]++|\\.)*+)"(?=[ \t\n\v\f\r]|\Z)', re.DOTALL)
_SINGLE = re.compile(rb"'((?:[^'\\]++|\\'|\\(?!'))*+)'(?=[ \t\n\v\f\r]|\Z)", re.DOTALL)
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}
_QUOTES = (0x22, 0x27)


def _unescape(match: re.Match[bytes]) -> bytes:
    digits, character = match.groups()
    if digits is not None:
        return bytes.fromhex(digits.decode("ascii"))
    return _ESCAPED.get(character, character)


def split_arguments(line: bytes) -> list[bytes] | None:
    """Split a line without its line end into arguments; None when its quotes are unbalanced.

    Time is linear in the length of the line, whatever it holds.
    """
    arguments: list[bytes] = []
    position = 0
    while True:
        position = _BLANKS.match(line, position).end()  # type: ignore[union-attr]  # matches always
        if position == len(line):
            return arguments
        argument, position = _argument(line, position)
        if argument is None:
            return None
        arguments.append(argument)


def _argument(line: bytes, position: int) -> tuple[bytes | None, int]:
    """Read one argument; it may begin plainly and go on in quotes, which then end it."""
    argument = b""
    plain = _PLAIN.match(line, position)
    if plain is not None:
        argument, position = plain.group(), plain.end()
    if position == len(line) or line[position] not in _QUOTES:
        return argument, position
    double = line[position] == _QUOTES[0]
    quoted = (_DOUBLE if double else _SINGLE).match(line, position)
    if quoted is None:
        return None, position
    content = quoted.group(1)
    content = _ESCAPE.sub(_unescape, content) if double else content.replace(b"\\'", b"'")
    return argument + content, quoted.end()
