"""Names for the moments at which a process can end: who asks for which operation on which file.

A name is read off the code that runs, so that a step which moves or disappears takes its name along, and the
tests that want every name to be met notice.
"""

from __future__ import annotations

import os.path
import sys
from types import FrameType
from typing import Any

WHAT_MUST_HOLD = {
    "start: write the newest batch again": "it counts, as it did before",
    "start: write zeros behind the newest batch": "a torn batch is gone, all others are there",
    "start: sync the log": "what was found is still found",
    "start: remove spare.tmp": "the left-over is removed by the next start",
    "start: remove END.tmp": "the left-over is removed by the next start",
    "start: remove segment.tmp": "the left-over is removed by the next start",
    "start: sync the log's directory": "every segment that a batch was acknowledged in has its name",
    "first segment: create segment.tmp": "the next start makes it",
    "first segment: write zeros": "the next start makes it",
    "first segment: sync zeros": "the next start makes it",
    "first segment: write the header": "the next start makes it",
    "first segment: sync the header": "the next start makes it",
    "first segment: rename": "an empty log, with the segment or without",
    "first segment: sync the log's directory": "an empty log, with the segment or without",
    "segment ahead: create spare.tmp": "the log is as it was",
    "segment ahead: write zeros": "the log is as it was",
    "segment ahead: sync zeros": "the log is as it was",
    "next segment, at once: create segment.tmp": "the log is as it was",
    "next segment, at once: write zeros": "the log is as it was",
    "next segment, at once: sync zeros": "the log is as it was",
    "next segment, at once: write the header": "the log is as it was",
    "next segment, at once: sync the header": "the log is as it was",
    "next segment, at once: rename": "the log is as it was, in one segment more or not",
    "next segment, at once: sync the log's directory": "the log is as it was, in one segment more or not",
    "next segment, of the spare: write the header": "the log is as it was",
    "next segment, of the spare: sync the header": "the log is as it was",
    "next segment, of the spare: rename": "the log is as it was, in one segment more or not",
    "next segment, of the spare: sync the log's directory": "the log is as it was, in one or two segments",
    "log: write entries": "all of the batch or nothing of it",
    "log: sync entries": "all of the batch or nothing of it",
    "log: write entries over others": "the old suffix or the new one, whole",
    "log: sync entries over others": "the old suffix or the new one, whole",
    "log: write a hard state": "the old vote or the new one",
    "log: sync a hard state": "the old vote or the new one",
    "log: write the first batch of a segment": "all of the batch or nothing of it",
    "log: sync the first batch of a segment": "all of the batch or nothing of it",
    "compaction: write the new beginning": "the log begins where it did, or anew",
    "compaction: sync the new beginning": "the log begins where it did, or anew",
    "compaction: remove a segment": "no gap: the oldest goes first",
    "compaction: sync the log's directory": "no gap: the oldest goes first",
    "install: write the log's beginning": "the state decides: the log continues it or is dropped",
    "install: sync the log's beginning": "the state decides: the log continues it or is dropped",
    "start after an install: write the log's beginning": "the next start drops the log",
    "start after an install: sync the log's beginning": "the next start drops the log",
    "first note of the end: create END.tmp": "no log yet",
    "first note of the end: write": "no log yet",
    "first note of the end: sync": "no log yet",
    "first note of the end: rename": "no log yet",
    "first note of the end: sync the log's directory": "no log yet",
    "note of the end: write": "the log is as it was; its end was noted here or earlier",
    "note of the end: sync": "the log is as it was; its end was noted here or earlier",
    "first META: create META.tmp": "no identity yet, and nothing was promised under one",
    "first META: write": "no identity yet, and nothing was promised under one",
    "first META: sync": "no identity yet, and nothing was promised under one",
    "first META: rename": "no identity, or this one",
    "first META: sync the directory": "no identity, or this one",
    "META: create META.tmp": "the old boot counter or the new one, the same identity",
    "META: write": "the old boot counter or the new one, the same identity",
    "META: sync": "the old boot counter or the new one, the same identity",
    "META: rename": "the old boot counter or the new one, the same identity",
    "META: sync the directory": "the old boot counter or the new one, the same identity",
    "state: write a cut": "a whole cut, this one or an older one; the log continues it",
    "state: flush": "a whole cut, this one or an older one; the log continues it",
    "state: install": "the old state or the received one",
}
"""All points in a simulated run, and what the next start finds."""

POINTER = {
    "first pointer": "no state, or an empty one",
    "pointer": "the old state or the received one",
}
WHAT_MUST_HOLD_ON_A_REAL_DISK = {
    f"{pointer}: {step}": promise
    for pointer, promise in POINTER.items()
    for step in ("create CURRENT.tmp", "write", "sync", "rename", "sync the directory")
}
"""The simulated state has no files; these are met with real ones."""


def name_of(what: str, path: str) -> str:
    """Name the operation that is about to happen, by the code that asks for it."""
    code: dict[str, dict[str, Any]] = {}
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code[_function(frame)] = frame.f_locals
        frame = frame.f_back
    step = _cut_step(what) if path == "state" else _step(what, os.path.basename(path), code)
    return f"{_activity(what, path, code)}: {step}"


def _function(frame: FrameType) -> str:
    """Name the function that runs, also one in which a fault was planted."""
    _, planted, where = frame.f_code.co_filename.partition("<mutant of ")
    return where.rstrip(">").partition(":")[2] if planted else frame.f_code.co_qualname


def _activity(what: str, path: str, code: dict[str, dict[str, Any]]) -> str:
    if path == "state":
        return "state"
    if "DataDirectory.update_meta" in code:
        return "first META" if code["DataDirectory.update_meta"]["meta"].boot == 1 else "META"
    if "StateDirectory.switch" in code:
        return "first pointer" if "StateDirectory.current" in code else "pointer"
    if "EndFile.note" in code:
        return "first note of the end" if "EndFile._make" in code else "note of the end"
    if "Wal._make_first" in code:
        return "first segment"
    if "SegmentMaker.prepare" in code:
        return "segment ahead"
    if "SegmentMaker.make" in code:
        temporary = code["SegmentMaker.make"].get("temporary", "segment.tmp")
        return "next segment, " + ("of the spare" if temporary == "spare.tmp" else "at once")
    if "Wal.collect" in code:
        return "compaction"
    if "Wal.execute" in code:
        start = code["Wal.execute"]["write"].start
        if start is None:
            return "log"
        if "Wal.restart" in code:
            return "start after an install"
        return "compaction" if start.keep else "install"
    assert "Wal._recover" in code, f"{what} {path} has no name yet: {list(code)[:8]}"
    return "start"


def _cut_step(what: str) -> str:
    return {"write": "write a cut", "sync": "flush", "rename": "install"}[what]


def _step(what: str, file: str, code: dict[str, dict[str, Any]]) -> str:
    if what == "create":
        return f"create {file}"
    if file == "wal":
        return "sync the log's directory"
    if "DataDirectory.update_meta" in code or "StateDirectory.switch" in code:
        return "sync the directory" if what == "sync" and ".tmp" not in file else what
    if "EndFile.note" in code:
        return what
    if "SegmentMaker._fill" in code:
        return f"{what} zeros"
    if "SegmentMaker.make" in code:
        return what if what == "rename" else f"{what} the header"
    if "Wal.collect" in code:
        return "remove a segment"
    if "Wal.execute" in code:
        return f"{what} {_batch(code['Wal.execute']['write'], code['Wal.execute']['self'])}"
    if "write_zeros" in code:
        return "write zeros behind the newest batch"
    if what == "write":
        return "write the newest batch again"
    return f"remove {file}" if what == "remove" else "sync the log"


def _batch(write: Any, wal: Any) -> str:
    """Say what a batch is about, if several names fit by the rarest."""
    if write.start is not None:
        return "the new beginning" if write.start.keep else "the log's beginning"
    if write.new_segment is not None:
        return "the first batch of a segment"
    if not write.first_index:
        return "a hard state"
    return "entries over others" if write.first_index <= wal._index.last_index else "entries"
