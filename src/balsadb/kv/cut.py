"""Cuts: the state machine's changes between two moments of the log, on their way to the disk.

A cut holds every key that changed since the cut before it, and the bookkeeping as of its own index. It is
written as one batch, so what is on disk is always the state right after some entry, whole (rule C1): an entry
is never half there, and is never applied twice.

A cut is built in slices, so that nobody waits for the sorting of thousands of keys:

    count     how many of the keys that were set blindly had been there before
    sort      runs of a slice each, and then one sort that only has to merge them
    encode    keys and records into the batch, and the hints at when keys are due in the same way
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

import msgspec

from balsadb.errors import LocalFault
from balsadb.kv.sessions import Session
from balsadb.kv.store import Record

STATE_VERSION: Final = 3
"""Version of everything in a cut. Another one stops the node with a sentence."""
RECORDS_VERSION: Final = 2
"""Version of the records alone, which is all that a backup takes of a state."""
SLICE_KEYS: Final = 512
"""Keys that one slice of the work handles: well below a millisecond."""

SLICE_SESSION_BYTES: Final = 16 * 1024
"""The same for sessions, in bytes, because each of them may have a window full of replies."""

_REVISION: Final = struct.Struct("<QI")
_EXPIRES: Final = 1 << 31
"""Set in a record's position when a deadline follows; no entry has that many commands."""
_DEADLINE: Final = struct.Struct("<Q")


class Bookkeeping(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """All replicated state besides the keys, as of `index` (rule C2)."""

    version: int
    index: int
    """Applied index; the keys of the same cut are those right after this entry."""
    term: int
    """Term of that entry."""
    log_time_ms: int
    """Log time there: a node that leads after an install must not stamp less."""
    members: tuple[int, ...]
    """Voters and learners in force, sorted."""
    configuration: bytes
    """The configuration in force as its entry carried it; empty before the first MEMBERSHIP entry."""
    origins: tuple[tuple[int, int, int], ...]
    """(node, boot, last sequence), by node (rule P2)."""
    digests: tuple[tuple[int, bytes], ...]
    """(index, hex digest) of the digests that can still be asked for, ascending (rule S8)."""
    keys: int = 0
    """Number of keys."""
    term_time_ms: int = 0
    """Log time of the first entry of `term`: sessions live at least one ttl from then on (rule S6)."""


_DECODER: Final = msgspec.msgpack.Decoder(Bookkeeping)


def decode_bookkeeping(data: bytes) -> Bookkeeping:
    """Return what `encode_bookkeeping` encoded. Raises LocalFault for anything else."""
    try:
        found = _DECODER.decode(data)
    except msgspec.MsgspecError as error:
        raise LocalFault(f"the state's bookkeeping can't be read: {error}") from error
    if found.version != STATE_VERSION:
        raise LocalFault(
            f"the state on disk has version {found.version} and this BalsaDB reads version {STATE_VERSION}. "
            "Start the BalsaDB that wrote it."
        )
    return found


def encode_bookkeeping(bookkeeping: Bookkeeping) -> bytes:
    """Return the bookkeeping as it stands in a cut."""
    return msgspec.msgpack.encode(bookkeeping)


def encode_record(record: Record) -> bytes:
    """Return a record as it stands in a cut: revision, deadline if there is one, value."""
    if len(record) == 3:
        return _REVISION.pack(record[1], record[2]) + record[0]
    return _REVISION.pack(record[1], record[2] | _EXPIRES) + _DEADLINE.pack(record[3]) + record[0]


def decode_record(data: bytes) -> Record:
    """Return the record of `encode_record`. Raises LocalFault when it is too short."""
    if len(data) < _REVISION.size:
        raise LocalFault(f"a record of {len(data)} bytes has no revision")
    index, position = _REVISION.unpack_from(data)
    if not position & _EXPIRES:
        return data[_REVISION.size :], index, position
    value = _REVISION.size + _DEADLINE.size
    if len(data) < value:
        raise LocalFault(f"a record of {len(data)} bytes has no deadline")
    return data[value:], index, position ^ _EXPIRES, _DEADLINE.unpack_from(data, _REVISION.size)[0]


class Batch(Protocol):
    """One atomic write that is being put together, keys in ascending order."""

    def put(self, key: bytes, record: bytes) -> None:
        """Set a key to an encoded record."""

    def remove(self, key: bytes) -> None:
        """Take a key away, present or not."""

    def hint(self, hint: bytes, present: bool) -> None:
        """Set a hint at when a key is due, or take it away, present or not."""

    def clear(self) -> None:
        """Take all keys and hints away that are there, without a look at them. Comes first."""

    def put_session(self, id: bytes, data: bytes) -> None:
        """Set a session."""

    def remove_session(self, id: bytes) -> None:
        """Take a session away, present or not."""

    def bookkeeping(self, data: bytes) -> None:
        """Replace the bookkeeping."""


class Base(Protocol):
    """What cuts are written to: the keys as of the newest written cut. Raises LocalFault when it fails."""

    def get(self, key: bytes, /) -> Record | None:
        """Return the record of a key, or None."""

    def get_many(self, keys: Sequence[bytes]) -> list[Record | None]:
        """Return the records of keys, in their order. May be called from a worker thread."""

    def count_present(self, keys: Sequence[bytes]) -> int:
        """Return how many of the keys are there."""

    def sorted_items(self) -> Iterator[tuple[bytes, Record]]:
        """Yield all records in the order of their keys' bytes."""

    def slice(self, start: bytes, count: int) -> tuple[list[tuple[bytes, int]], bytes | None]:
        """Return keys from `start` on, in their order, each with its deadline or 0, and where to go on.

        At most `count` keys, and fewer when their values are large; None when there are no more.
        May be called from a worker thread.
        """

    def last_key(self) -> bytes | None:
        """Return the greatest key, or None."""

    def hints(self, start: bytes, count: int) -> list[bytes]:
        """Return up to `count` hints from `start` on, in their order. May be called from a worker thread."""

    def sessions(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all sessions, encoded, by their ids."""


class Cut:
    """Everything that changed since the cut before, frozen."""

    __slots__ = ("blind", "bookkeeping", "changes", "cleared", "hints", "release", "sessions", "size")

    def __init__(
        self,
        bookkeeping: Bookkeeping,
        changes: dict[bytes, Record | None],
        blind: set[bytes],
        size: int,
        hints: dict[bytes, bool] | None = None,
        cleared: bool = False,
    ) -> None:
        self.bookkeeping = bookkeeping
        """As of the cut's index. Its number of keys is certain once `blind` is empty."""
        self.changes = changes
        """The new record of every changed key; None for one that was removed. Never changed any more."""
        self.blind = blind
        """Keys that were set and counted as new without a look whether they were there."""
        self.size = size
        """Bytes of keys and values that were written; an overwritten value counts, too."""
        self.hints = hints or {}
        """Hints that were set (True) and dropped (False)."""
        self.cleared = cleared
        """True when all keys and hints were taken away before the changes (rule S5)."""
        self.sessions: dict[bytes, Session | None] = {}
        """The sessions that changed; None for one that ended. Never changed any more either."""
        self.release = False
        """True when the log waits to be shortened: make this cut durable at once."""

    @property
    def index(self) -> int:
        """Applied index of the state that this cut completes."""
        return self.bookkeeping.index

    def build(self, batch: Batch) -> Iterator[None]:
        """Fill a batch, slice by slice; all keys must be counted before (`DeltaStore.count`)."""
        if self.cleared:
            batch.clear()
        changes = self.changes
        keys: list[bytes] = []
        yield from _sort(changes, keys)
        for start in range(0, len(keys), SLICE_KEYS):
            yield
            for key in keys[start : start + SLICE_KEYS]:
                record = changes[key]
                if record is None:
                    batch.remove(key)
                else:
                    batch.put(key, encode_record(record))
        hints: list[bytes] = []
        yield from _sort(self.hints, hints)
        for start in range(0, len(hints), SLICE_KEYS):
            yield
            for hint in hints[start : start + SLICE_KEYS]:
                batch.hint(hint, self.hints[hint])
        batch.bookkeeping(encode_bookkeeping(self.bookkeeping))
        size = SLICE_SESSION_BYTES
        for id in sorted(self.sessions):
            if size >= SLICE_SESSION_BYTES:
                size = 0
                yield
            session = self.sessions[id]
            if session is None:
                batch.remove_session(id)
                size += len(id)
            else:
                data = session.encode()
                batch.put_session(id, data)
                size += len(data)


def _sort(names: Iterable[bytes], result: list[bytes]) -> Iterator[None]:
    """Append names to a result in their order, slice by slice."""
    run: list[bytes] = []
    for name in names:
        run.append(name)
        if len(run) == SLICE_KEYS:
            run.sort()
            result += run
            run = []
            yield
    run.sort()
    result += run
    result.sort()  # merges the sorted runs
