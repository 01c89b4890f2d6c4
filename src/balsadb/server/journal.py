"""The node's journal: one line on standard error for each event that an operator may ask about.

    time=2026-11-25T20:14:09.123Z level=info node=1 event=role role=leader term=7 reason="elected in term 7"

With `--log-format json` the same fields are one JSON object a line. ("Log" is Raft's word here.) What clients
do, keys, values and secrets are never written, and nothing is written per request.

* A text of a stranger can't end a line, begin another one, or move a terminal's cursor: all that is not
  printable ASCII is escaped, and long values are cut.
* No kind of event has more than `BURST` lines at once and one per second after that, whoever causes them. The
  next line of that kind says in `left_out` how many there were.
* A line that the reader at the other end does not take is dropped, and counted in `lost_lines` of the next
  one: a node must not stand still because its log does.
"""

from __future__ import annotations

import json
import logging
import re
import select
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

from balsadb.raft.types import NOBODY, NodeId

TEXT: Final = "text"
JSON: Final = "json"
FORMATS: Final = (TEXT, JSON)
"""What `--log-format` may be."""
BURST: Final = 30
"""Lines of one kind that may come at once."""
LINES_PER_SECOND: Final = 1.0
"""How fast that many may come again, for each kind."""
LINE_BYTES_MAX: Final = 4096
"""A pipe that can be written to takes so much without letting the writer wait."""
VALUE_CHARACTERS: Final = (3000, 1000, 300, 60)
"""A value is cut to the first of these with which its line is short enough. Of a text that is too long the
end is kept as well: a traceback ends with what it is about."""

Level: TypeAlias = Literal["info", "warning", "error"]
Value: TypeAlias = str | int | float | bool | Sequence[int] | None
"""Of a field; a None is left out."""

_BARE = re.compile(r"[A-Za-z0-9_.:/,+@%\[\]-]+\Z")
"""A text that needs no quotes."""


class Journal:
    """Writes events as lines."""

    def __init__(
        self,
        write: Callable[[str], bool] | None = None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`write` takes a line and tells whether it could; the clocks are in seconds."""
        self._write = write or _write_to_standard_error
        self._wall = wall
        self._monotonic = monotonic
        self._format = TEXT
        self._node: NodeId = NOBODY
        self._kinds: dict[str, _Kind] = {}
        """Our own words, so there are few."""
        self._lost = 0

    def begin(self, node: NodeId, format: str) -> None:
        """Write for this node from now on. Of several nodes in one process the newest one signs all lines."""
        self._node, self._format = node, format

    def say(self, event: str, level: Level = "info", /, **fields: Value) -> None:
        """Write one line, unless there were very many of its kind just now."""
        kind = self._kinds.setdefault(event, _Kind())
        if not kind.take(self._monotonic()):
            return
        stamp = datetime.fromtimestamp(self._wall(), UTC).isoformat(timespec="milliseconds")
        record: dict[str, Value] = {"time": stamp.replace("+00:00", "Z"), "level": level}
        record["node"] = self._node or None
        record |= {"event": event, **fields}
        record |= {"left_out": kind.left_out or None, "lost_lines": self._lost or None}
        if self._write(self._line({name: value for name, value in record.items() if value is not None})):
            kind.left_out = self._lost = 0
        else:
            self._lost += 1

    def _line(self, record: dict[str, Value]) -> str:
        encode = _as_json if self._format == JSON else _as_text
        line = ""
        for limit in VALUE_CHARACTERS:
            line = encode({name: _cut(value, limit) for name, value in record.items()}) + "\n"
            if len(line) <= LINE_BYTES_MAX:
                break
        return line


class _Kind:
    """How many lines of one kind may still come."""

    __slots__ = ("_allowance", "_last", "left_out")

    def __init__(self) -> None:
        self._allowance = float(BURST)
        self._last = 0.0
        self.left_out = 0
        """Lines that did not come since the last one that did."""

    def take(self, now: float) -> bool:
        self._allowance = min(float(BURST), self._allowance + (now - self._last) * LINES_PER_SECOND)
        self._last = now
        if self._allowance < 1:
            self.left_out += 1
            return False
        self._allowance -= 1
        return True


def _cut(value: Value, limit: int) -> Value:
    if not isinstance(value, str):
        return value
    # A file name need not be text. What can't be encoded is shown as its number.
    value = value.encode(errors="backslashreplace").decode()
    return value if len(value) <= limit else f"{value[: limit // 2]} ... {value[-(limit // 2) :]}"


def _as_json(record: dict[str, Value]) -> str:
    return _ascii({name: list(v) if _is_list(v) else v for name, v in record.items()})  # type: ignore[arg-type]


def _as_text(record: dict[str, Value]) -> str:
    return " ".join(f"{name}={_text(value)}" for name, value in record.items())


def _text(value: Value) -> str:
    if _is_list(value):
        value = ",".join(map(str, value))  # type: ignore[arg-type]
    if isinstance(value, str):
        return value if _BARE.match(value) else _ascii(value)
    return _ascii(value)


def _is_list(value: Value) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _ascii(value: object) -> str:
    # DEL is the one control character that JSON lets through.
    return json.dumps(value).replace("\x7f", "\\u007f")


def _write_to_standard_error(line: str) -> bool:
    stream = sys.stderr
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        if not poll.poll(0):
            return False  # whoever reads the other end of the pipe has stopped to
    except (OSError, ValueError):
        pass  # no file, but something that a program has put in its place
    try:
        stream.write(line)
        stream.flush()
    except (OSError, ValueError):
        return False  # the reader is gone
    return True


class Forwarded(logging.Handler):
    """What libraries log comes into the journal by its kind alone: their texts repeat what strangers send."""

    def emit(self, record: logging.LogRecord) -> None:
        """Tell that a library has something to say."""
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        journal.say("library", "warning", source=record.name, log_level=record.levelname, error=kind)


def forward_logging() -> None:
    """Take what libraries log. For the owner of the process; errors in the loop come another way."""
    for name in ("aiohttp", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [Forwarded(logging.WARNING)], False


journal: Final = Journal()
"""The one of this process."""
