"""inspect: what a data directory holds, for people and for machines."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec

from balsadb.errors import DataError, UsageError
from balsadb.kv.cut import Bookkeeping
from balsadb.kv.machine import StateMachine
from balsadb.raft.types import Configuration, Index, Term
from balsadb.storage.inspect import LOOKS, LogReport, Report, Segment, StateReport
from balsadb.storage.inspect import inspect as look
from balsadb.storage.meta import Meta
from balsadb.storage.state import Current
from balsadb.storage.view import committed_machine

TERMS_SHOWN = 8


def inspect(directory: str, as_json: bool) -> bool:
    """Show everything but the keys. False: a node would not start on it."""
    report = _look(directory)
    if as_json:
        print(json.dumps({"sound": report.sound, **_plain(report)}, indent=2))
        return report.sound
    for line in _lines(report):
        print(line)
    return report.sound


def keys(directory: str, prefix: str) -> None:
    """Print the keys that begin with a prefix, as of the last entry known to be committed."""
    wanted = os.fsencode(prefix)
    with _machine(directory) as machine:
        for key in machine.store:
            if key.startswith(wanted):
                print(_quote(key))


def get(directory: str, key: str) -> bool:
    """Print a value. False: there is no such key."""
    with _machine(directory) as machine:
        record = machine.store.get(os.fsencode(key))
    if record is None:
        return False
    sys.stdout.buffer.write(record[0] + b"\n")
    return True


def _look(directory: str) -> Report:
    if not os.path.isdir(directory):
        raise UsageError(f"{directory} is not a directory")
    return look(directory)


@contextmanager
def _machine(directory: str) -> Iterator[StateMachine]:
    """Yield the state machine, trying again when a running node has moved on from the files just seen."""
    with ExitStack() as stack:
        for attempt in range(1, LOOKS + 1):
            report = _look(directory)
            try:
                machine = stack.enter_context(committed_machine(*_where(report)))
                break
            except (DataError, FileNotFoundError):
                if report.process is None or attempt == LOOKS:
                    raise
        yield machine


def _where(report: Report) -> tuple[str, Meta, Current | None]:
    """Return where the keys are; raises what keeps them from being read."""
    for finding in report.findings:
        if finding.damage:
            raise DataError(finding.path, finding.offset, finding.problem, finding.remedy)
    if report.meta is None:
        raise UsageError(f"{report.directory} is not the data of a node")
    state = report.state
    return (
        f"{report.directory}/group-0",
        report.meta,
        None if state is None else Current(state.path, state.installed),
    )


def _plain(value: Any) -> Any:
    """Turn a report into what JSON knows: structs by field name, bytes in hex."""
    if isinstance(value, Bookkeeping):
        fields = msgspec.structs.asdict(value)
        # The configuration stands decoded beside it, and digests are text by themselves.
        del fields["configuration"]
        fields["digests"] = {index: digest.decode() for index, digest in value.digests}
        return _plain(fields)
    if isinstance(value, msgspec.Struct):
        return _plain(msgspec.structs.asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.hex() if isinstance(value, bytes) else value


# ------------------------------------------------------------------------------------------- for people


def _lines(report: Report) -> Iterable[str]:
    used = "" if report.process is None else f", in use by process {report.process}"
    yield f"{report.directory}{used}"
    if report.meta is not None:
        yield from _meta_lines(report.meta)
    if report.log is not None:
        yield ""
        yield from _log_lines(report.log)
    if report.state is not None:
        yield ""
        yield from _state_lines(report.state)
    if report.left_over:
        yield ""
        yield "left over from work that was interrupted or is under way"
        yield from (f"  {path}" for path in report.left_over)
    if report.findings:
        yield ""
        yield from (f"{'DAMAGE' if f.damage else 'note'}  {f}" for f in report.findings)
    yield ""
    yield "Nothing here keeps the node from starting." if report.sound else "The node does not start on this."


def _meta_lines(meta: Meta) -> Iterable[str]:
    voting = "admitted to vote" if meta.admitted else "not admitted to vote yet"
    yield f"node {meta.node_id} of cluster {meta.cluster_id.hex() or '(not named yet)'}"
    yield f"  store    {meta.store_id.hex()}, {meta.boot} start{'s' * (meta.boot != 1)}, {voting}"
    yield "  joined   its cluster later" if meta.joined else f"  began    as {meta.cluster_text}"
    if meta.restored:
        yield f"  restored from the backup {meta.restored.hex()}"
    for node, store in sorted(meta.met.items()):
        yield f"  met      node {node}, store {store.hex()}"


def _log_lines(log: LogReport) -> Iterable[str]:
    state, mark = log.hard_state, log.mark
    yield f"log      {_entries(log.first_index, log.last_index)}, {_batches(log.batch)}"
    yield f"  hard state: term {state.term}, vote {state.vote or 'none'}, commit {state.commit}"
    if mark.index:
        yield f"  begins behind entry {mark.index} of term {mark.term}"
    if log.terms:
        shown = log.terms[-TERMS_SHOWN:]
        dots = "... " if len(shown) < len(log.terms) else ""
        yield f"  terms: {dots}" + ", ".join(f"{term} from entry {first}" for first, term in shown)
    if log.configuration is not None:
        yield f"  configuration: {_configuration(log.configuration)}"
    if log.segments:
        yield from _segment_table(log.segments)


def _segment_table(segments: Sequence[Segment]) -> Iterable[str]:
    yield f"  {'segment':<36}{'entries':>20}{'terms':>10}{'batches':>9}{'used':>12}{'of':>12}"
    for segment in segments:
        entries = _range(segment.first_index, segment.last_index) if segment.first_index else "-"
        terms = _range(segment.first_term, segment.last_term) if segment.first_index else "-"
        batches, used = str(segment.batches), f"{segment.used:,}"
        if not segment.examined:
            batches, used = "?", "?"
        yield f"  {segment.name:<36}{entries:>20}{terms:>10}{batches:>9}{used:>12}{segment.length:>12,}"


def _state_lines(state: StateReport) -> Iterable[str]:
    held = state.bookkeeping
    if held is None:
        yield f"state    {state.path}: nothing yet, everything is in the log"
        return
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(held.log_time_ms / 1000))
    yield f"state    as of entry {held.index} of term {held.term}, log time {when}, {held.keys:,} keys"
    came = f"received or restored at entry {state.installed}" if state.installed else "grown here"
    yield f"  {state.path}: {state.files} files, {state.size:,} bytes, {came}"
    if state.configuration is not None:
        yield f"  configuration: {_configuration(state.configuration)}"
    else:
        yield f"  configuration: the initial one, members {_ids(held.members)}"
    for node, boot, last in held.origins:
        yield f"  origin {node}: boot {boot}, last payload {last}"
    if held.digests:
        yield f"  digests kept of entries {', '.join(str(index) for index, _ in held.digests)}"


def _configuration(configuration: Configuration) -> str:
    parts = [f"voters {_ids(configuration.voters)}"]
    for name, ids in (
        ("outgoing voters", configuration.outgoing),
        ("learners", configuration.learners),
        ("to be promoted", configuration.promote),
        ("to retire", configuration.retire),
        ("removed", configuration.removed),
    ):
        if ids:
            parts.append(f"{name} {_ids(ids)}")
    if configuration.former:
        times = f"recovered {len(configuration.former)} time{'s' * (len(configuration.former) != 1)}"
        parts.append(f"{times}, last from cluster {configuration.former[-1].hex()}")
    members = ", ".join(f"{m.id}={m.peer_address}" for m in configuration.members)
    return "; ".join(parts) + (f"; {members}" if members else "")


def _ids(ids: Iterable[int]) -> str:
    return " ".join(map(str, ids))


def _entries(first: Index, last: Index) -> str:
    return "no entries" if last < first else f"entries {_range(first, last)}"


def _range(first: Index | Term, last: Index | Term) -> str:
    return str(first) if first == last else f"{first}..{last}"


def _batches(newest: int) -> str:
    return f"newest batch {newest}" if newest else "no batch"


def _quote(key: bytes) -> str:
    """Write a key on one line, such that different keys look different."""
    text = key.decode("utf-8", "backslashreplace") if b"\\" not in key else ""
    return text if text.isprintable() and text else repr(key)[2:-1]
