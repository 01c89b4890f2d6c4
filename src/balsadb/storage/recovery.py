"""What the bytes of the log mean after a crash: a decision table, without any I/O (rule W3).

One write is in flight at a time, into zeros, and a segment is made only when everything before it is synced.
So a crash can leave at most the newest batch incomplete, with any set of its sectors missing, and a missing
sector is a sector of zeros. Everything else that is wrong is damage, and a node with a damaged log must not
guess: it may have acknowledged what it can no longer read.

Where batch `n` should begin, at a sector of a segment, this is decided, from top to bottom:

    segment  header of n        what else is there               verdict
    -------  -----------------  -------------------------------  -----------------------------------------
    any      zeros              zeros up to the end              END, nothing more is here
    any      sound, number n    all records and the fill sound   TAKE the batch, go on behind it
    older    anything else                                       DAMAGE
    newest   sound, not n       or longer than the segment       DAMAGE
    newest   sound              something behind the batch       DAMAGE, in an older batch
    newest   sound              sectors are missing              TORN
    newest   sound              no sector is missing             DAMAGE
    newest   a sector of zeros  a later batch's header behind    DAMAGE, in an older batch
    newest   a sector of zeros  no later header behind           TORN
    newest   bytes, not sound   nothing behind the header        TORN (a file system that cut the write short)
    newest   bytes, not sound   something behind it              DAMAGE

"Sectors are missing" is exact: the header says how many sectors of the batch are zeros by their content, and
the last byte of a batch is never zero. A torn batch was never acknowledged; it is dropped as a whole, and
its bytes are zeroed before anything else is written. After the last segment one more row: a log that ends
below the recorded commit index is DAMAGE, whatever was torn.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right

from balsadb.errors import DataError, ProtocolError
from balsadb.raft.entry import Entry, decode_entry
from balsadb.raft.options import Recovered
from balsadb.raft.types import NOBODY, NUMBER_MAX, EntryKind, HardState, Index, Millis, Term
from balsadb.storage import records
from balsadb.storage.index import LogIndex
from balsadb.storage.records import (
    BATCH_HEADER_BYTES,
    FILLS,
    FRAME,
    RECORD_COMPACTION,
    RECORD_ENTRY,
    RECORD_HARD_STATE,
    SECTOR_BYTES,
    BatchHeader,
    Codec,
    CompactionMark,
    SegmentHeader,
)

REPLACE = (
    "This node can no longer prove what it has acknowledged: check the disk, start a new node under a new id "
    "on an empty directory (balsadb serve --join), and put it in this one's place (balsadb member replace); "
    "never start this id again on an emptied directory"
)
RESTORE = "Put the missing files back from where they were moved; if they are lost: " + REPLACE

_ENTRY = struct.Struct("<BQQQB")
_KIND_MAX = max(EntryKind)


class _Scanned:
    """The records of one batch, checked but not yet believed."""

    __slots__ = ("bad", "extras", "heads", "lengths", "memberships", "offsets")

    def __init__(self) -> None:
        self.bad: int | None = None
        """Offset of the first record that is not sound."""
        self.offsets = array("I")
        self.lengths = array("I")
        self.heads: list[tuple[int, Term, Index, Millis, int]] = []
        """Record kind, term, index, time, entry kind of each entry."""
        self.memberships: list[bytes] = []
        self.extras: list[tuple[int, bytes]] = []
        """Offset and body of the other records."""


class Replay:
    """Reads segments one after another, in order, and remembers what they add up to.

    `feed` every segment's header and bytes, then `finish`. Both raise DataError; nothing has been changed on
    disk by then.
    """

    def __init__(self, store_id: bytes, index: LogIndex) -> None:
        self.index = index
        self.hard_state = HardState()
        self.mark = CompactionMark()
        self.batch = 0
        """Number of the last batch."""
        self.end = 0
        """Where the next batch goes in the newest segment."""
        self.newest_batch: tuple[int, int] | None = None
        """Start and stop of the last batch in the newest segment."""
        self.torn = False
        """The newest batch was torn: what lies behind `end` in the newest segment must be zeroed."""
        self._codec = Codec(store_id)
        self._terms: list[tuple[Index, Term]] = []
        self._memberships: list[Entry] = []
        self._last_time_ms: Millis = 0
        self._fed = 0
        self._floating = True
        """No entry has been seen yet, so the log may begin anywhere."""
        self._path = ""

    @property
    def terms(self) -> tuple[tuple[Index, Term], ...]:
        """Runs of equal terms so far: (first index, term), ascending; of the mark's entry, too."""
        return tuple(self._terms)

    # --------------------------------------------------------------------------- one segment

    def feed(self, path: str, header: SegmentHeader, data: bytes, *, newest: bool) -> None:
        """Take a whole segment, its header sector included."""
        self._path = path
        self._take_header(header)
        self.index.add_segment(path)
        self._fed += 1
        self.newest_batch = None
        at = SECTOR_BYTES
        while at < len(data):
            batch = self._codec.decode_batch_header(data, at)
            if batch is None:
                self._end(data, at, newest)
                break
            stop = at + batch.length
            if batch.number != self.batch + 1 or not at < stop <= len(data) or stop % SECTOR_BYTES:
                raise self._damage(at, f"batch {batch.number} stands where {self.batch + 1} belongs")
            scanned = _scan(self._codec, data, at, batch)
            if scanned.bad is not None:
                self._bad_batch(data, at, batch, scanned.bad, newest)
                break
            self._take(scanned)
            self.batch = batch.number
            self.newest_batch = at, stop
            at = stop
        self.end = at

    def _take_header(self, header: SegmentHeader) -> None:
        if self._fed == 0:
            self.hard_state, self.mark, self.batch = header.hard_state, header.mark, header.batch
            self.index.reset(header.first_index)
            if header.mark.index:
                self._terms = [(header.mark.index, header.mark.term)]
            return
        if header.batch != self.batch:
            raise self._damage(
                0, f"the segment follows batch {header.batch}, and the one before it ends with {self.batch}"
            )
        if header.first_index > self.index.last_index + 1:
            last = self.index.last_index
            raise self._damage(0, f"the segment begins at entry {header.first_index}, the log ends at {last}")
        if header.hard_state != self.hard_state or header.mark != self.mark:
            raise self._damage(0, "the segment's header contradicts the hard state before it")

    def _end(self, data: bytes, at: int, newest: bool) -> None:
        """Decide where no sound batch header stands."""
        if records.is_zero(data, at):
            return
        problem = f"batch {self.batch + 1} has no sound header and is not the end of the log"
        if not newest:
            raise self._damage(at, problem)
        if data[at : at + SECTOR_BYTES] == records.ZERO_SECTOR:
            if self._later_batch(data, at):
                raise self._damage(at, problem)
        elif not records.is_zero(data, at + BATCH_HEADER_BYTES):
            raise self._damage(at, problem)
        self.torn = True

    def _later_batch(self, data: bytes, at: int) -> bool:
        """Tell whether a batch that can only have been written after this one stands behind `at`."""
        for later in range(at + SECTOR_BYTES, len(data), SECTOR_BYTES):
            header = self._codec.decode_batch_header(data, later)
            if header is not None and header.number > self.batch + 1:
                return True
        return False

    def _bad_batch(self, data: bytes, at: int, batch: BatchHeader, bad: int, newest: bool) -> None:
        """Decide on a batch with a sound header and a record, at `bad`, that is not."""
        stop = at + batch.length
        problem = f"batch {batch.number}, which begins at offset {at}, has a damaged record"
        if not newest or not records.is_zero(data, stop):
            raise self._damage(bad, problem)
        body = data[at:stop]
        if body[-1] != 0 and records.count_zero_sectors(body) <= batch.zero_sectors:
            raise self._damage(bad, problem)
        self.torn = True

    # --------------------------------------------------------------------------- one batch

    def _take(self, scanned: _Scanned) -> None:
        """Let a sound batch count."""
        if scanned.heads:
            self._take_entries(scanned)
        for offset, body in scanned.extras:
            if body[0] == RECORD_HARD_STATE and (state := records.decode_hard_state(body)) is not None:
                if state.term < self.hard_state.term or state.commit < self.hard_state.commit:
                    raise self._damage(offset, f"{state} follows {self.hard_state}")
                self.hard_state = state
            elif body[0] == RECORD_COMPACTION and (found := records.decode_compaction(body)) is not None:
                self._take_mark(offset, *found)
            else:
                raise self._damage(offset, f"a record of kind {body[0]} and {len(body)} bytes is unknown")

    def _take_entries(self, scanned: _Scanned) -> None:
        heads, offsets = scanned.heads, scanned.offsets
        first = heads[0][2]
        expected = self.index.last_index + 1
        if self._floating and first < expected:
            # The maker of the oldest segment meant to begin at its header's index, was stopped, and came
            # back to overwrite a suffix that had begun in a segment that is compacted by now.
            self.index.reset(first)
            expected = first
        self._floating = False
        if not self.mark.index < first <= expected:
            raise self._damage(offsets[0], f"entry {first} stands where {expected} belongs")
        if first < expected:
            self._drop(first)
        terms = self._terms
        term = terms[-1][1] if terms else 0
        for number, (_, entry_term, index, _, kind) in enumerate(heads):
            if index != first + number or not term <= entry_term <= NUMBER_MAX or kind > _KIND_MAX:
                raise self._damage(offsets[number], f"entry ({entry_term}, {index}) can't stand there")
            if entry_term != term or not terms:
                term = entry_term
                terms.append((index, term))
        for encoded in scanned.memberships:
            try:
                self._memberships.append(decode_entry(encoded))
            except ProtocolError as error:
                raise self._damage(offsets[0], str(error)) from error
        self._last_time_ms = heads[-1][3]
        self.hard_state = in_force(self.hard_state, term)
        self.index.extend(first, offsets, scanned.lengths)

    def _drop(self, first: Index) -> None:
        """Forget the entries from `first` on: an entry replaces them (rule W2)."""
        while self._terms and self._terms[-1][0] >= first:
            self._terms.pop()
        while self._memberships and self._memberships[-1].index >= first:
            self._memberships.pop()

    def _take_mark(self, offset: int, mark: CompactionMark, keep: bool) -> None:
        """Let a compaction count: the entries up to it are no longer part of the log (rule C4).

        Whether the entries behind it continue it is said by the record and not found out here: the segment
        with the marked entry itself may be gone by now.
        """
        index = self.index
        contradicts = mark.index < self.mark.index
        if keep and not contradicts:
            # Of entries below the first one here nothing is known: their segment is gone.
            known = self._term_at(mark.index) if mark.index >= index.first_index else mark.term
            contradicts = index.last_index < mark.index or known != mark.term
        if contradicts:
            raise self._damage(offset, f"{mark} contradicts the log")
        if not keep:
            self._terms, self._memberships = [], []
            index.reset(mark.index + 1)
            self._floating = False
        # Where the segment with the marked entry is gone, the entries behind it began a run of their own.
        behind = [run for run in self._terms if run[0] > mark.index]
        self._terms = [(mark.index, mark.term), *behind[behind[:1] == [(mark.index + 1, mark.term)] :]]
        self._memberships = [entry for entry in self._memberships if entry.index > mark.index]
        self.mark = mark

    def _term_at(self, index: Index) -> Term | None:
        if not self._terms or not self._terms[0][0] <= index <= self.index.last_index:
            return None
        return self._terms[bisect_right(self._terms, index, key=lambda run: run[0]) - 1][1]

    # --------------------------------------------------------------------------- the sum

    def finish(self) -> Recovered:
        """Check what the whole log must fulfil, and return what it says. The tail is not filled in."""
        index, state, base = self.index, self.hard_state, self.mark.index
        last = index.last_index
        if index.first_index > base + 1:
            problem = f"the log's entries {base + 1}..{index.first_index - 1} are missing"
            raise DataError(self._path, None, problem, RESTORE)
        if state.commit > last:
            raise self._damage(self.end, f"entry {state.commit} was committed and the log ends at {last}")
        return Recovered(
            hard_state=state,
            first_index=base + 1,
            last_index=last,
            terms=tuple(self._terms),
            last_time_ms=self._last_time_ms,
            memberships=tuple(self._memberships),
        )

    def _damage(self, offset: int, problem: str) -> DataError:
        return DataError(self._path, offset, problem, REPLACE)


def in_force(state: HardState, term: Term) -> HardState:
    """Return the hard state after an entry of `term`: nobody has a vote in a term that began with it (W2)."""
    return state if term <= state.term else HardState(term, NOBODY, state.commit)


def _scan(codec: Codec, data: bytes, at: int, batch: BatchHeader) -> _Scanned:
    """Check every record of a batch and its fill."""
    found = _Scanned()
    stop = at + batch.length
    position = at + BATCH_HEADER_BYTES
    frame, sound, head = FRAME.unpack_from, codec.sound, _ENTRY.unpack_from
    for _ in range(batch.records):
        if position + FRAME.size >= stop:
            found.bad = position
            return found
        length, checksum = frame(data, position)
        end = position + FRAME.size + length
        body = data[position + FRAME.size : end]
        if length == 0 or end > stop or not sound(body, checksum):
            found.bad = position
            return found
        if body[0] == RECORD_ENTRY and length >= _ENTRY.size and not found.extras:
            fields = head(body)
            found.heads.append(fields)
            found.offsets.append(position)
            found.lengths.append(FRAME.size + length)
            if fields[4] == EntryKind.MEMBERSHIP:
                found.memberships.append(data[position:end])
        else:
            found.extras.append((position, body))
        position = end
    fill = stop - position
    if not 0 < fill <= SECTOR_BYTES or data[position:stop] != FILLS[fill]:
        found.bad = position
    return found
