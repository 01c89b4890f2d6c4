"""A second parser of requests, for tests to compare with: slow, and written down straight from the rules."""

from __future__ import annotations

import re

from balsadb.resp.inline import split_arguments
from balsadb.resp.parser import (
    ARGUMENTS_MAX,
    BULK_BYTES_MAX,
    COMMAND_BYTES_MAX,
    LINE_BYTES_MAX,
    CommandParser,
)

Result = tuple[list[list[bytes]], bytes | None, bool]
"""Commands, error, and whether something is unfinished."""


def reference(
    stream: bytes,
    arguments_max: int = ARGUMENTS_MAX,
    bulk_bytes_max: int = BULK_BYTES_MAX,
    command_bytes_max: int = COMMAND_BYTES_MAX,
) -> Result:
    """A second parser: slow, sees the whole stream at once, written down straight from the rules."""
    commands: list[list[bytes]] = []
    rest = stream

    def failed(problem: bytes) -> Result:
        return commands, b"Protocol error: " + problem, False

    while rest:
        if not rest.startswith(b"*"):
            line, newline, after = rest.partition(b"\n")
            if len(line) > LINE_BYTES_MAX or b"\0" in line:
                return failed(b"too big inline request")
            if not newline:
                return commands, None, True
            argv = split_arguments(line[:-1] if line.endswith(b"\r") else line)
            if argv is None:
                return failed(b"unbalanced quotes in request")
            if argv and argv[0].lower() in (b"post", b"host:"):
                return failed(b"this is not HTTP")
            commands += [argv] if argv else []
            rest = after
            continue
        line, crlf, rest = rest.partition(b"\r\n")
        if len(line) > LINE_BYTES_MAX and (crlf or len(line) >= LINE_BYTES_MAX + 2):
            return failed(b"too big mbulk count string")
        if not crlf:
            return commands, None, True
        if not re.fullmatch(rb"\*(0|-?[1-9][0-9]*)", line) or not -(2**63) <= int(line[1:]) <= arguments_max:
            return failed(b"invalid multibulk length")
        argv, total = [], 0
        for _ in range(int(line[1:])):
            line, crlf, rest = rest.partition(b"\r\n")
            if len(line) > LINE_BYTES_MAX and (crlf or len(line) >= LINE_BYTES_MAX + 2):
                return failed(b"too big bulk count string")
            if not crlf:
                return commands, None, True
            if not line.startswith(b"$"):
                first = line[:1] if line[:1].isascii() and line[:1].decode("ascii").isprintable() else b"."
                return failed(
                    b"expected '$', got '%b'" % (b" " if line[:1] in (b"", b"\r", b"\n") else first)
                )
            if not re.fullmatch(rb"\$(0|[1-9][0-9]*)", line) or int(line[1:]) > bulk_bytes_max:
                return failed(b"invalid bulk length")
            length = int(line[1:])
            total += length
            if total > command_bytes_max:
                return failed(b"invalid bulk length")
            if len(rest) < length + 2:
                return commands, None, True
            argv.append(rest[:length])
            rest = rest[length + 2 :]
        commands += [argv] if argv else []
    return commands, None, False


def parse(parser: CommandParser, pieces: list[bytes]) -> Result:
    commands = [argv for piece in pieces for argv in parser.feed(piece)]
    return commands, parser.error, parser.buffered_bytes > 0
