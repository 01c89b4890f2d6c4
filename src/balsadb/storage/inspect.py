"""Looking at a data directory without touching it, whether its node runs or not.

Everything that a start would find out is found out here with the very code of a start (`recovery.Replay`,
`opening.fit`), but nothing is locked, written, repaired or removed, and damage is a finding instead of the
end.

A running node writes meanwhile. What looks damaged then is looked at again a few times: only damage stays.
"""

from __future__ import annotations

import os
import time
from typing import Final

import msgspec

from balsadb.errors import DataError, LocalFault
from balsadb.kv.cut import Bookkeeping
from balsadb.raft.configuration import decode_configuration
from balsadb.raft.options import Recovered
from balsadb.raft.types import Configuration, HardState, Index, Term
from balsadb.storage.files import OsFiles
from balsadb.storage.index import LogIndex
from balsadb.storage.log_end import LogEnd, check_present, check_reached
from balsadb.storage.meta import META_BYTES_MAX, Meta, decode_meta
from balsadb.storage.opening import fit
from balsadb.storage.records import CompactionMark
from balsadb.storage.recovery import RESTORE, Replay
from balsadb.storage.segments import SegmentName, is_segment
from balsadb.storage.state import POINTER, POINTER_BYTES_MAX, read_pointer
from balsadb.storage.view import open_state, read_end, read_file
from balsadb.storage.wal import check_header, segment_names

LOOKS: Final = 5
"""How often the directory of a running node is looked at before damage is believed."""
PAUSE_SECONDS: Final = 0.1


class Finding(msgspec.Struct, frozen=True):
    """Something that an operator should know."""

    damage: bool
    """True when a node would not start because of it."""
    path: str
    offset: int | None
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        where = self.path if self.offset is None else f"{self.path} at offset {self.offset}"
        return f"{where}: {self.problem}" + (f". {self.remedy}" if self.remedy else "")


class Segment(msgspec.Struct):
    """One file of the log."""

    name: str
    length: int
    first_index: Index = 0
    """Of the entries in it that count; 0 where none does."""
    last_index: Index = 0
    first_term: Term = 0
    last_term: Term = 0
    batches: int = 0
    used: int = 0
    """Bytes up to the end of the last batch."""
    examined: bool = False
    """False: it is damaged, or it stands behind one that is."""


class LogReport(msgspec.Struct):
    """The write-ahead log."""

    segments: list[Segment]
    first_index: Index = 1
    last_index: Index = 0
    terms: tuple[tuple[Index, Term], ...] = ()
    """(first index, term) of each run of entries of one term."""
    batch: int = 0
    """Number of the last batch."""
    hard_state: HardState = HardState()
    mark: CompactionMark = CompactionMark()
    """Behind which entry the log begins."""
    configuration: Configuration | None = None
    """The newest in the log; None when it holds none."""


class StateReport(msgspec.Struct):
    """The state on disk."""

    path: str
    installed: Index
    """Its index when it was received from another node or restored; 0 when it grew here."""
    files: int = 0
    size: int = 0
    """Bytes of all files."""
    bookkeeping: Bookkeeping | None = None
    """None when no cut was made yet: everything is in the log."""
    configuration: Configuration | None = None


class Start(msgspec.Struct):
    """What a start would go on from, log and state taken together."""

    last_index: Index
    last_term: Term
    commit: Index
    """Known to be committed up to there; more may be."""
    configuration: Configuration | None
    """In force; None when it is the initial one."""
    stateless: bool
    """The log continues a state that is not there: only another node has it."""


class Report(msgspec.Struct):
    """All that is known of a data directory."""

    directory: str
    process: int | None
    """Process that holds the directory; None when none is known to."""
    meta: Meta | None = None
    log: LogReport | None = None
    state: StateReport | None = None
    start: Start | None = None
    """None when a node would not start."""
    left_over: list[str] = []
    """Files that the next start removes or goes on with."""
    findings: list[Finding] = []

    @property
    def sound(self) -> bool:
        """Tell whether nothing here keeps a node from starting."""
        return not any(finding.damage for finding in self.findings)


def inspect(directory: str) -> Report:
    """Look at a data directory. Raises StorageError or OSError only when there is none to look at."""
    for look in range(LOOKS):
        if look:
            time.sleep(PAUSE_SECONDS)
        try:
            report = _Inspection(directory).report
        except FileNotFoundError:
            if look == LOOKS - 1 or not os.path.isdir(directory):
                raise
            continue  # a running node has removed it meanwhile
        if report.sound or report.process is None:
            break
    return report


class _NoRestart:
    """Stands for a log that `fit` would drop; nothing is dropped here."""

    def restart(self, index: Index, term: Term) -> Recovered:
        return Recovered(HardState(term), index + 1, index, ((index, term),))


class _Inspection:
    """One look."""

    def __init__(self, directory: str) -> None:
        os.listdir(directory)  # a directory that is not there is no finding
        self._group = f"{directory}/group-0"
        self.report = report = Report(directory, _holder(f"{directory}/LOCK"), findings=[], left_over=[])
        report.meta = self._meta(f"{directory}/META")
        recovered = self._log(f"{self._group}/wal")
        state_known = self._state(f"{self._group}/state")
        if recovered is not None and state_known:
            self._fit(recovered)
        self._left_overs(directory)

    def _damage(self, error: DataError) -> None:
        self.report.findings.append(Finding(True, error.path, error.offset, error.problem, error.remedy))

    def _note(self, path: str, problem: str, offset: int | None = None) -> None:
        self.report.findings.append(Finding(False, path, offset, problem))

    # ------------------------------------------------------------------ META

    def _meta(self, path: str) -> Meta | None:
        has_log = any(map(is_segment, OsFiles().list(f"{self._group}/wal")))
        try:
            data = read_file(path, META_BYTES_MAX + 1)
        except FileNotFoundError:
            if has_log:
                problem = f"the file is missing, and {self._group}/wal holds a log"
                self._damage(DataError(path, None, problem, RESTORE))
            else:
                self._note(path, "there is none: no node has started here")
            return None
        try:
            meta = decode_meta(path, data)
        except DataError as error:
            self._damage(error)
            return None
        if not has_log and (meta.admitted or meta.cluster_id or meta.met or meta.restored):
            problem = f"the log that belongs to {path} is missing"
            self._damage(DataError(f"{self._group}/wal", None, problem, RESTORE))
        return meta

    # ------------------------------------------------------------------- log

    def _log(self, directory: str) -> Recovered | None:
        """Replay the log; None when it is damaged."""
        files = OsFiles()
        log = self.report.log = LogReport([])
        meta = self.report.meta
        names: list[SegmentName] = []
        end: LogEnd | None = None
        try:
            # Before the segments: a running node may go on meanwhile, and the bound must not be newer.
            end = None if meta is None else read_end(directory, meta.store_id)
            names = segment_names(files, directory)
            if meta is not None:
                check_present(directory, end, names)
        except DataError as error:
            self._damage(error)
            # Show the files all the same.
            for text in filter(is_segment, files.list(directory)):
                log.segments.append(Segment(text, os.path.getsize(f"{directory}/{text}")))
            return None
        if not names:
            return Recovered()
        index = LogIndex()
        replay = Replay(b"" if meta is None else meta.store_id, index)
        try:
            if meta is None:
                log.segments += [Segment(str(n), os.path.getsize(f"{directory}/{n}")) for n in names]
                return None  # without META the checksums can't be checked
            recovered = self._replay(directory, names, replay, meta.store_id, log)
            check_reached(f"{directory}/{names[-1]}", end, replay)
            return recovered
        except DataError as error:
            self._damage(error)
            return None
        finally:
            self._describe(log, replay)

    def _replay(
        self, directory: str, names: list[SegmentName], replay: Replay, store_id: bytes, log: LogReport
    ) -> Recovered:
        log.segments += [Segment(str(name), os.path.getsize(f"{directory}/{name}")) for name in names]
        for name, segment in zip(names, log.segments, strict=True):
            path = f"{directory}/{name}"
            data = read_file(path)
            header = check_header(path, name, store_id, data)
            before = max(replay.batch, header.batch)
            replay.feed(path, header, data, newest=name is names[-1])
            segment.batches, segment.used, segment.examined = replay.batch - before, replay.end, True
        if replay.torn:
            problem = (
                "the newest batch is incomplete; it was never acknowledged, and the next start cuts it"
                if self.report.process is None
                else "the newest batch is incomplete; the running node may be writing it"
            )
            self._note(f"{directory}/{names[-1]}", problem, replay.end)
        recovered = replay.finish()
        if recovered.memberships:
            log.configuration = decode_configuration(recovered.memberships[-1].payload)
        return recovered

    def _describe(self, log: LogReport, replay: Replay) -> None:
        """Note what the log adds up to, as far as it was understood."""
        index = replay.index
        log.first_index, log.last_index = max(index.first_index, replay.mark.index + 1), index.last_index
        log.terms, log.batch = replay.terms, replay.batch
        log.hard_state, log.mark = replay.hard_state, replay.mark
        places = {os.path.basename(path): (first, last) for path, first, last in index.places()}
        for segment in log.segments:
            first, last = places.get(segment.name, (1, 0))
            if first <= last:
                segment.first_index, segment.last_index = first, last
                segment.first_term, segment.last_term = _term(log.terms, first), _term(log.terms, last)

    # ----------------------------------------------------------------- state

    def _state(self, directory: str) -> bool:
        """Look at the state; False when it can't be read."""
        pointer = f"{directory}/{POINTER}"
        try:
            current = read_pointer(pointer, read_file(pointer, POINTER_BYTES_MAX))
        except FileNotFoundError:
            return True  # the first start makes it
        except DataError as error:
            self._damage(error)
            return False
        state = self.report.state = StateReport(current.path, current.installed)
        try:
            with open_state(current) as store:
                state.bookkeeping = bookkeeping = None if store is None else store.bookkeeping
                sizes = [entry.stat().st_size for entry in os.scandir(current.path) if entry.is_file()]
                state.files, state.size = len(sizes), sum(sizes)
        except DataError as error:
            self._damage(DataError(current.path, None, error.problem, error.remedy))
            return False
        except LocalFault as error:
            remedy = "Start the version of BalsaDB that wrote it"
            self._damage(DataError(current.path, None, str(error), remedy))
            return False
        except FileNotFoundError:
            return True
        if bookkeeping is not None and bookkeeping.configuration:
            state.configuration = decode_configuration(bookkeeping.configuration)
        return True

    def _fit(self, recovered: Recovered) -> None:
        state = self.report.state
        bookkeeping = None if state is None else state.bookkeeping
        installed = 0 if state is None else state.installed
        try:
            begun = fit(_NoRestart(), recovered, f"{self._group}/wal", bookkeeping, installed)
        except DataError as error:
            self._damage(error)
            return
        index = 0 if bookkeeping is None else bookkeeping.index
        newest = None if state is None else state.configuration
        if begun.memberships:
            newest = decode_configuration(begun.memberships[-1].payload)
        self.report.start = Start(
            last_index=begun.last_index,
            last_term=begun.terms[-1][1] if begun.terms else 0,
            commit=max(begun.hard_state.commit, index),
            configuration=newest,
            stateless=index < begun.first_index - 1,
        )
        if index < recovered.first_index - 1:
            problem = f"the state ends at entry {index} and the log begins at {recovered.first_index}"
            path, meta = f"{self._group}/state", self.report.meta
            if meta is not None and not (meta.joined or "," in meta.cluster_text):  # the only member
                self._damage(DataError(path, None, problem, "Put the state back: no other node has it"))
            else:
                self._note(path, problem + "; the node fetches the state from the others")
        elif index > recovered.last_index:
            self._note(
                f"{self._group}/wal", f"the next start drops the log: the state of entry {index} replaces it"
            )

    # ------------------------------------------------------------- left over

    def _left_overs(self, directory: str) -> None:
        files = OsFiles()
        left = [
            f"{directory}/{name}" for name in ("META.tmp", "restoring") if files.exists(f"{directory}/{name}")
        ]
        wal, states = f"{self._group}/wal", f"{self._group}/state"
        left += [f"{wal}/{name}" for name in files.list(wal) if name.endswith(".tmp")]
        current = "" if self.report.state is None else os.path.basename(self.report.state.path)
        left += [
            f"{states}/{name}"
            for name in files.list(states)
            if name not in (POINTER, current) and not (name == "1" and not current)
        ]
        for name in ("incoming", "outgoing"):
            left += [f"{self._group}/{name}/{inner}" for inner in files.list(f"{self._group}/{name}")]
        self.report.left_over = left


def _term(terms: tuple[tuple[Index, Term], ...], index: Index) -> Term:
    return next((term for first, term in reversed(terms) if first <= index), 0)


def _holder(path: str) -> int | None:
    """Return the process that holds the lock at `path`, where the system tells; taking it could disturb.

    A node that starts in the very moment in which a lock is tried would take it for another node's.
    """
    try:
        inode = os.stat(path).st_ino
        with open("/proc/locks") as locks:
            for line in locks:
                words = line.split()
                if words[1] == "FLOCK" and words[3] == "WRITE" and words[5].rpartition(":")[2] == str(inode):
                    return int(words[4])
    except (OSError, IndexError, ValueError):
        pass
    return None
