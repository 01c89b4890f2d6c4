"""The write-ahead log: plan decides bytes and places, execute does the I/O, complete lets it count.

One write is under way at a time (rule W3):

    event loop       write = wal.plan(batch)                      wal.complete(write)
    sync thread                              wal.execute(write)
    any worker             wal.read(...)     wal.prepare()     wal.collect()     wal.note_end()

`plan` and `complete` touch memory only, `execute` touches files only. `begin` is the first half of `execute`,
for an event loop that has the kernel sync without waiting for it. `read`, `prepare`, `collect` and `note_end`
may run in worker threads at any time, beside all others. After a failed write or sync the object refuses
everything: what is on disk is in doubt then, and only a recovery in a new process can tell (rule W4).
"""

from __future__ import annotations

from itertools import accumulate, pairwise

import msgspec

from balsadb.errors import DataError, InvariantError, ProtocolError, StorageError
from balsadb.raft.entry import Entry, decode_entry
from balsadb.raft.options import Recovered
from balsadb.raft.ready import LogStart, WriteBatch
from balsadb.raft.types import HardState, Index, Term
from balsadb.storage import records, segments
from balsadb.storage.files import File, Files
from balsadb.storage.index import LogIndex
from balsadb.storage.log_end import EndFile, LogEnd, check_present, check_reached
from balsadb.storage.records import BATCH_HEADER_BYTES, SECTOR_BYTES, Codec, CompactionMark, SegmentHeader
from balsadb.storage.recovery import REPLACE, RESTORE, Replay, in_force
from balsadb.storage.segments import SegmentMaker, SegmentName

FIRST_SEGMENT_BYTES = 1 << 20
"""A new log begins with a small segment, so that a first start does not wait; each next one is up to
`SEGMENT_GROWTH` times as large, until they have the size of the options."""
SEGMENT_GROWTH = 4
SEGMENT_BYTES_MAX = 1 << 31
"""Offsets are kept as 32-bit numbers."""


class WalOptions(msgspec.Struct, frozen=True):
    """Sizes of a log."""

    segment_bytes: int = 16 * 1024 * 1024
    """Length of a full-grown segment file. A batch that is larger gets a segment of its own size."""
    tail_bytes_max: int = 4 * 1024 * 1024
    """Bytes of the newest entries that a start reads for the memory cache."""


class NewSegment(msgspec.Struct):
    """The wish for a segment, made by `plan`; `execute` fills in the lower half."""

    header: SegmentHeader
    bytes_min: int
    bytes_wanted: int
    file: File | None = None
    path: str = ""
    length: int = 0


class WalWrite(msgspec.Struct):
    """One durable step on its way to the disk. Only its number is of use to others."""

    number: int
    """The `WriteBatch`'s number, for `Node.persisted`."""
    buffers: list[bytes]
    offset: int
    length: int
    first_index: Index
    """Of the first entry; 0 when there is none."""
    entry_lengths: list[int]
    hard_state: HardState
    """In force after this write."""
    new_segment: NewSegment | None
    start: LogStart | None
    """Where the log begins after this write, if that changes."""


class Wal:
    """The log of one Raft peer. `open` makes one; the module's docstring says who may call what."""

    def __init__(self, files: Files, directory: str, store_id: bytes, options: WalOptions) -> None:
        """Prepare an object; `open` completes it."""
        if not SECTOR_BYTES < options.segment_bytes <= SEGMENT_BYTES_MAX:
            raise ValueError(f"segment_bytes {options.segment_bytes} is not in 513..{SEGMENT_BYTES_MAX}")
        self._files = files
        self._directory = directory
        self._store_id = store_id
        self._options = options
        self._segment_bytes = records.sectors(options.segment_bytes)
        self._codec = Codec(store_id)
        self._maker = SegmentMaker(files, directory)
        self._index = LogIndex()
        self._end_file: EndFile | None = None
        self._file: File | None = None
        """The newest segment. Changed by `execute` only."""
        self._length = 0
        """Of the newest segment's file."""
        self._end = 0
        """Where the next batch goes in it."""
        self._sequence = 0
        self._batch = 0
        self._hard_state = HardState()
        self._mark = CompactionMark()
        self._flying: WalWrite | None = None
        self._failure: str | None = None
        self._obsolete: list[str] = []
        """Files of segments before the log's start, oldest first."""

    # ------------------------------------------------------------------------------- start and stop

    @classmethod
    def open(
        cls, files: Files, directory: str, store_id: bytes, options: WalOptions
    ) -> tuple[Wal, Recovered]:
        """Recover the log in `directory`, making it when there is none.

        Raises DataError when the log can't be trusted, StorageError when a file operation fails.
        """
        wal = cls(files, directory, store_id, options)
        try:
            return wal, wal._recover()
        except BaseException:
            wal.close()
            raise

    def close(self) -> None:
        """Close the files. The caller has waited for the write under way; `prepare` is interrupted."""
        self._failure = self._failure or "the log is closed"
        self._maker.close()
        if self._end_file is not None:
            self._end_file.close()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _recover(self) -> Recovered:
        files, directory = self._files, self._directory
        files.make_directories(directory)
        names = segment_names(files, directory)
        self._end_file = end_file = EndFile(files, directory, self._store_id)
        check_present(directory, end_file.end, names)
        replay = Replay(self._store_id, self._index)
        for name in names:
            newest = name is names[-1]
            path = f"{directory}/{name}"
            file = files.open(path)
            try:
                data = file.read(file.size, 0)
                replay.feed(path, check_header(path, name, self._store_id, data), data, newest=newest)
            except BaseException:
                file.close()
                raise
            if not newest:
                file.close()
                continue
            self._file, self._length = file, len(data)
            recovered = replay.finish()
            check_reached(path, end_file.end, replay)
            self._make_certain(file, data, replay)
        for left_over in filter(segments.is_temporary, files.list(directory)):
            files.remove(f"{directory}/{left_over}")
        # A name may be there that no sync has made durable, and what follows relies on it.
        files.sync_directory(directory)
        if not names:
            end_file.note(LogEnd())
            self._make_first()
            self.note_end()
            return Recovered()
        self._sequence, self._batch, self._end = names[-1].sequence, replay.batch, replay.end
        self._hard_state, self._mark = recovered.hard_state, replay.mark
        self._obsolete = self._index.drop_before(self._mark.index + 1)
        return msgspec.structs.replace(recovered, tail=self._read_tail())

    def restart(self, index: Index, term: Term) -> Recovered:
        """Drop the whole log, durably; it begins behind an installed state (rule C4). Only at a start."""
        state = in_force(self._hard_state, term)
        state = HardState(state.term, state.vote, index)
        write = self.plan(WriteBatch(0, (), state, LogStart(index, term, False)))
        self.execute(write)
        self.complete(write)
        return Recovered(state, index + 1, index, ((index, term),))

    def _make_certain(self, file: File, data: bytes, replay: Replay) -> None:
        """Make what recovery found durable: everything it returns counts as such.

        The newest batch may have been read from memory only: the process was killed before its sync, or the
        sync failed, after which the system takes the bytes for written though the disk never got them.
        Writing them again makes a sync reach the disk in both cases. The same holds for the zeros behind:
        they replace a torn batch, or one that an interrupted start has replaced in memory only.
        """
        if replay.newest_batch is not None:
            start, stop = replay.newest_batch
            file.write([data[start:stop]], start)
        segments.write_zeros(file, replay.end, len(data))
        file.sync()

    def _make_first(self) -> None:
        length = min(FIRST_SEGMENT_BYTES, self._segment_bytes)
        header = SegmentHeader(self._store_id, 1, 1, 0, 0, HardState(), CompactionMark())
        self._file, path, self._length = self._maker.make(header, length, length)
        self._index.add_segment(path)
        self._sequence, self._end = 1, SECTOR_BYTES

    def _read_tail(self) -> tuple[Entry, ...]:
        last = self._index.last_index
        first = max(self._mark.index + 1, self._index.tail_first(self._options.tail_bytes_max))
        tail: list[Entry] = []
        while first <= last:
            tail += self.read(first, last, self._options.tail_bytes_max)
            first = tail[-1].index + 1
        return tuple(tail)

    # ------------------------------------------------------------------------------- writing

    def plan(self, batch: WriteBatch) -> WalWrite:
        """Decide what bytes go where. On the event loop; only when no write is under way."""
        self._check()
        if self._flying is not None:
            raise InvariantError(f"write {batch.number} is planned while {self._flying.number} is under way")
        entries, state = batch.entries, batch.hard_state
        buffers = [entry.encoded for entry in entries]
        lengths = list(map(len, buffers))
        if entries and not self._mark.index < entries[0].index <= self._index.last_index + 1:
            raise InvariantError(
                f"write {batch.number} begins at entry {entries[0].index}, "
                f"the log has {self._mark.index + 1}..{self._index.last_index}"
            )
        if state is not None:
            buffers.append(self._codec.hard_state(state))  # rule W2: after the entries
        if (start := batch.start) is not None:
            if entries or start.index < self._mark.index:
                raise InvariantError(
                    f"write {batch.number} has entries, or moves {self._mark} back to {start}"
                )
            buffers.append(self._codec.compaction(CompactionMark(start.index, start.term), keep=start.keep))
        buffers, length = self._codec.batch(self._batch + 1, buffers)
        new_segment = None
        offset = self._end
        if offset + length > self._length:
            new_segment = self._wish(entries[0].index if entries else self._index.last_index + 1, length)
            offset = SECTOR_BYTES
        self._flying = WalWrite(
            number=batch.number,
            buffers=buffers,
            offset=offset,
            length=length,
            first_index=entries[0].index if entries else 0,
            entry_lengths=lengths,
            hard_state=state or in_force(self._hard_state, entries[-1].term if entries else 0),
            new_segment=new_segment,
            start=batch.start,
        )
        return self._flying

    def _wish(self, first_index: Index, length: int) -> NewSegment:
        """Describe the next segment: what is in force now goes into its header (rule W2)."""
        if length > SEGMENT_BYTES_MAX - SECTOR_BYTES:
            raise InvariantError(f"a batch of {length} bytes is larger than any segment")
        header = SegmentHeader(
            store_id=self._store_id,
            sequence=self._sequence + 1,
            first_index=first_index,
            length=0,
            batch=self._batch,
            hard_state=self._hard_state,
            mark=self._mark,
        )
        return NewSegment(header, bytes_min=SECTOR_BYTES + length, bytes_wanted=self._next_length())

    def execute(self, write: WalWrite) -> None:
        """Write and sync: one `pwritev` and one `fdatasync`, but for a new segment. In the sync thread.

        Raises StorageError; the log refuses everything afterwards (rule W4).
        """
        self._check()
        try:
            if (new := write.new_segment) is not None:
                new.file, new.path, new.length = self._maker.make(new.header, new.bytes_min, new.bytes_wanted)
                assert self._file is not None
                self._file.close()
                self._file = new.file
                # rule W5: from here on the log is not whole without this segment.
                assert self._end_file is not None
                self._end_file.note(LogEnd(new.header.sequence, new.header.batch))
            assert self._file is not None
            self._file.write(write.buffers, write.offset)
            self._file.sync()
        except BaseException as error:
            self._failure = str(error)
            raise

    def begin(self, write: WalWrite) -> int | None:
        """Write without syncing, and return the descriptor that must be synced. On the event loop.

        None, and nothing is written: `execute` must do all of it. Raises StorageError like that one.
        """
        self._check()
        assert self._file is not None
        descriptor = self._file.descriptor if write.new_segment is None else None
        if descriptor is not None:
            try:
                self._file.write(write.buffers, write.offset)
            except BaseException as error:
                self._failure = str(error)
                raise
        return descriptor

    def failed(self, reason: str) -> None:
        """Take nothing any more: what was begun could not be synced (rule W4)."""
        self._failure = reason

    def complete(self, write: WalWrite) -> None:
        """Let a write count that is durable. On the event loop."""
        self._check()
        if write is not self._flying:
            raise InvariantError(f"write {write.number} is completed and was not under way")
        self._flying = None
        if (new := write.new_segment) is not None:
            self._sequence += 1
            self._length = new.length
            self._index.add_segment(new.path)
        self._batch += 1
        self._end = write.offset + write.length
        self._hard_state = write.hard_state
        if write.first_index:
            lengths = write.entry_lengths
            offsets = accumulate(lengths[:-1], initial=write.offset + BATCH_HEADER_BYTES)
            self._index.extend(write.first_index, offsets, lengths)
        if (start := write.start) is not None:
            self._mark = CompactionMark(start.index, start.term)
            if not start.keep:
                self._index.reset(start.index + 1)
            self._obsolete += self._index.drop_before(start.index + 1)

    # ------------------------------------------------------------------------------- old segments

    @property
    def collect_due(self) -> bool:
        """Tell whether `collect` should be called now."""
        return bool(self._obsolete) and self._failure is None

    def collect(self) -> None:
        """Remove the files of segments before the log's start. In a worker thread. Raises StorageError.

        The newest segment names the start, the vote and the term in its header or behind it (rule W2), so
        nothing that counts lies in them. Oldest first, each durably: a crash in between leaves no gap.
        """
        while self._obsolete:
            self._files.remove(self._obsolete[0])
            self._files.sync_directory(self._directory)
            self._obsolete.pop(0)

    @property
    def bytes(self) -> int:
        """Bytes that the log takes in its files."""
        return self._index.bytes

    def first_within(self, bytes_max: int) -> Index:
        """Return the first index of the longest suffix of the log that takes at most `bytes_max` bytes."""
        return self._index.tail_first(bytes_max)

    # ------------------------------------------------------------------------------- segments ahead of need

    @property
    def prepare_due(self) -> bool:
        """Tell whether `prepare` should be called now: a quarter of the newest segment is used."""
        return self._end * 4 > self._length and not self._maker.has_spare and self._failure is None

    def prepare(self) -> None:
        """Fill the next segment's file with zeros. In a worker thread, beside everything else.

        Raises StorageError; the log refuses everything afterwards, unless it was being closed.
        """
        self._check()
        try:
            self._maker.prepare(self._next_length())
        except BaseException as error:
            self._failure = self._failure or str(error)
            raise

    def _next_length(self) -> int:
        return max(SECTOR_BYTES * 2, min(self._segment_bytes, self._length * SEGMENT_GROWTH))

    # ------------------------------------------------------------------------------- the end

    @property
    def end_due(self) -> bool:
        """Tell whether `note_end` has something to note: a write was completed since."""
        noted = self._end_file.end if self._end_file is not None else None
        return noted is not None and noted.batch < self._batch and self._failure is None

    def note_end(self, lost: Index = 0) -> None:
        """Note durably how far the log reaches, so that a loss behind that is noticed (rule W5).

        `lost` names an entry that this node had acknowledged and lacks, if a leader has found one. In a
        worker thread, beside everything else. Raises StorageError; the log refuses everything afterwards.
        """
        self._check()
        assert self._end_file is not None
        try:
            # A batch counts before its segment does, or after; a bound for each of them is all that is said.
            self._end_file.note(LogEnd(self._sequence, self._batch, lost))
        except BaseException as error:
            self._failure = self._failure or str(error)
            raise

    # ------------------------------------------------------------------------------- reading

    def read(self, first: Index, last: Index, bytes_max: int) -> list[Entry]:
        """Read entries back, from `first` on, at most to `last` and within `bytes_max` bytes, at least one.

        In a worker thread, beside everything else. Fewer may come, because they lie in several files. None
        come when `first` is not in the log any more: it was overwritten or compacted since the caller asked.
        Raises DataError when the bytes are not what was written there.
        """
        self._check()
        extent = self._index.locate(first, last, bytes_max)
        if extent is None:
            return []
        start = extent.offsets[0]
        length = extent.offsets[-1] + extent.lengths[-1] - start
        try:
            file = self._files.open(extent.path)
        except StorageError:
            now = self._index.locate(first, first, bytes_max)
            if now is None or now.path != extent.path:
                return []  # compacted since it was found, and the file is removed
            raise
        try:
            data = file.read(length, start)
        finally:
            file.close()
        entries: list[Entry] = []
        for offset, size in zip(extent.offsets, extent.lengths, strict=True):
            try:
                entry = decode_entry(data[offset - start : offset - start + size])
            except ProtocolError as error:
                raise DataError(extent.path, offset, str(error), REPLACE) from error
            expected = first + len(entries)
            if entry.index != expected:
                problem = f"entry {entry.index} stands where {expected} was written"
                raise DataError(extent.path, offset, problem, REPLACE)
            entries.append(entry)
        return entries

    def _check(self) -> None:
        if self._failure is not None:
            raise StorageError(f"nothing more is written to the log or read from it: {self._failure}")


def segment_names(files: Files, directory: str) -> list[SegmentName]:
    """List the segments in order. Raises DataError for a gap or a name that is not ours."""
    names = []
    for text in filter(segments.is_segment, files.list(directory)):
        name = segments.parse_name(text)
        if name is None:
            raise DataError(f"{directory}/{text}", None, "this is not the name of a segment", RESTORE)
        names.append(name)
    names.sort()
    for before, after in pairwise(names):
        if after.sequence != before.sequence + 1:
            problem = f"segment {before.sequence + 1} is missing, or a number is there twice"
            raise DataError(f"{directory}/{after}", None, problem, RESTORE)
    return names


def check_header(path: str, name: SegmentName, store_id: bytes, data: bytes) -> SegmentHeader:
    """Return a segment's header. It was synced before the segment got its name, so it is never torn."""
    try:
        header = records.decode_segment_header(data)
    except records.UnknownVersion as error:
        problem = f"the log has {error}, and this program knows {records.FORMAT_VERSION}"
        raise DataError(path, 0, problem, "Start the version of BalsaDB that wrote it") from None
    if header is None:
        raise DataError(path, 0, "the segment's header is damaged", REPLACE)
    if header.store_id != store_id:
        problem = f"the segment belongs to store {header.store_id.hex()}, this directory is {store_id.hex()}"
        raise DataError(path, 0, problem, "Put the log and META of the same node together again")
    if (header.sequence, header.first_index) != name:
        problem = f"the segment was written as {SegmentName(header.sequence, header.first_index)}"
        raise DataError(path, 0, problem, "Give the file its name back")
    if header.length != len(data):
        problem = f"the file has {len(data)} bytes and was made with {header.length}"
        raise DataError(path, min(len(data), header.length), problem, REPLACE)
    return header
