"""The replicated state machine: entries in log order in, replies out.

`apply_*` is a function of (state, entry) and of nothing else: no clock, no randomness, no setting of a node,
no order of an unordered set (rule S4). Two machines that applied the same entries hold the same state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final

import msgspec

from balsadb.errors import InvariantError
from balsadb.kv import expiry
from balsadb.kv.batch import Batch, decode_batch
from balsadb.kv.commands.scans import place
from balsadb.kv.cut import STATE_VERSION, Base, Bookkeeping, Cut
from balsadb.kv.deadlines import split_hint
from balsadb.kv.delta import DeltaStore
from balsadb.kv.digests import Digests, hash_state
from balsadb.kv.execution import READS, run_batch, run_inside, run_read, run_read_transaction
from balsadb.kv.keyspace import Keyspace
from balsadb.kv.limits import EXPIRED_PER_ENTRY_MAX, SESSIONS_MAX
from balsadb.kv.memory import MemoryBase
from balsadb.kv.places import cold_keys
from balsadb.kv.reply import Reply
from balsadb.kv.sessions import Sessions
from balsadb.kv.store import deadline_of

CACHE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Memory for records that are also on disk. A node's own matter: no reply depends on it."""


class Origin(msgspec.Struct, frozen=True, gc=False):
    """How far the batches of one node have run (rule P2)."""

    boot: int = 0
    """The newest boot of the node of which a batch ran."""
    last: int = 0
    """Sequence of the last batch that ran, within that boot."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of one payload."""

    node: int
    """Its origin; 0 when the payload was malformed."""
    boot: int
    sequence: int
    ran: bool
    """False when it was skipped without effect: a duplicate, out of order, malformed, of a non-member."""
    replies: list[Reply]
    """One for each command, transaction and local slot, in order; empty when it did not run."""


_MALFORMED = Outcome(0, 0, 0, False, [])
_NEVER_RAN = Origin()


def load_sessions(base: Base, bookkeeping: Bookkeeping) -> Sessions:
    """Read the sessions that a base and its bookkeeping hold; may run in a worker thread."""
    return Sessions.load(base.sessions(), bookkeeping.log_time_ms, bookkeeping.term_time_ms)


class _ExpiringKeys:
    """The keys as a part of the state that has deadlines."""

    def __init__(self, store: DeltaStore) -> None:
        self._store = store

    def next_deadline_ms(self) -> int | None:
        """Return the smallest deadline, or an earlier moment; None when no key has one."""
        return self._store.deadlines.next_ms

    def expire(self, index: int, now_ms: int, limit: int) -> int:
        """Look at up to `limit` hints that are due, and remove the keys that are; return how many hints.

        Hints and not keys are counted: a thousand looks are the work that an entry may do.
        """
        store = self._store
        next_ms = store.deadlines.next_ms
        if next_ms is None or next_ms > now_ms:
            return 0
        due = store.deadlines.due(now_ms, limit)
        for hint in due:
            deadline, key = split_hint(hint)
            record = store.get(key)
            if record is not None and deadline_of(record) == deadline:
                store.remove(key)
            store.hint(hint, False)
        return len(due)


class StateMachine:
    """All replicated state, and the only ways to change it."""

    def __init__(
        self,
        members: Iterable[int],
        base: Base | None = None,
        bookkeeping: Bookkeeping | None = None,
        cache_bytes_max: int = CACHE_BYTES_MAX,
    ) -> None:
        """Begin with what `base` and `bookkeeping` hold, or empty.

        `members` are the initial members of the cluster (rule P5); what the bookkeeping says of them wins.
        """
        self.applied_index = 0
        """Log index of the last entry applied; 0 before the first."""
        self.applied_term = 0
        """Term of that entry."""
        self.log_time_ms = 0
        """The database's clock: the greatest time stamp of any entry applied; never decreases."""
        self.origins: dict[int, Origin] = {}
        """By node id; a node without a row has had no batch run."""
        self.members: frozenset[int] = frozenset(members)
        """Voters and learners of the configuration in force."""
        self.configuration = b""
        """That configuration as its entry carried it; empty before the first MEMBERSHIP entry."""
        self.alarms = 0
        """Malformed payloads met. Not part of the state: it counts what this process saw."""
        self.store = DeltaStore(MemoryBase() if base is None else base, 0, cache_bytes_max)
        """The keys."""
        self.sessions = Sessions()
        self._expiring: tuple[expiry.Expiring, ...] = (self.sessions, _ExpiringKeys(self.store))
        """The parts of the state that have deadlines, in the order in which they remove what is due."""
        self._digests = Digests()
        self._space = Keyspace(self.store, self._digests, self.sessions)
        self._space.inside = run_inside
        if bookkeeping is not None and base is not None:
            self.restore(base, bookkeeping)

    def restore(self, base: Base, bookkeeping: Bookkeeping, sessions: Sessions | None = None) -> None:
        """Replace all state by what a base and its bookkeeping hold.

        `sessions` are those of the base (`load_sessions`), if somebody has read them before.
        """
        self.store.restore(base, bookkeeping.keys)
        self.applied_index = bookkeeping.index
        self.applied_term = bookkeeping.term
        self.log_time_ms = bookkeeping.log_time_ms
        self.members = frozenset(bookkeeping.members)
        self.configuration = bookkeeping.configuration
        self.origins = {node: Origin(boot, last) for node, boot, last in bookkeeping.origins}
        self._digests.kept = dict(bookkeeping.digests)
        self.sessions.adopt(load_sessions(base, bookkeeping) if sessions is None else sessions)
        self._pass_time()

    def freeze(self) -> Cut:
        """Take what changed since the newest cut, and all the rest of the state, into a cut (rule C2)."""
        cut = self.store.freeze(
            Bookkeeping(
                version=STATE_VERSION,
                index=self.applied_index,
                term=self.applied_term,
                log_time_ms=self.log_time_ms,
                members=tuple(sorted(self.members)),
                configuration=self.configuration,
                origins=tuple(sorted((node, row.boot, row.last) for node, row in self.origins.items())),
                digests=tuple(self._digests.kept.items()),
                term_time_ms=self.sessions.term_ms,
            )
        )
        cut.sessions = self.sessions.freeze()
        return cut

    @property
    def changed_keys(self) -> int:
        """Keys and sessions that changed since the newest cut."""
        return self.store.changed_keys + self.sessions.changed

    @property
    def changed_bytes(self) -> int:
        """Bytes of keys, values and sessions written since the newest cut."""
        return self.store.changed_bytes + self.sessions.changed_bytes

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self.store)

    def keys(self) -> Iterator[bytes]:
        """Yield all keys in their order."""
        return iter(self.store)

    # ----------------------------------------------------------------- entries

    def apply_commands(
        self,
        index: int,
        term: int,
        time_ms: int,
        payload: bytes,
        reads: Sequence[tuple[int, list[bytes]]] = (),
    ) -> Outcome:
        """Apply a COMMANDS entry, whatever its payload holds.

        `reads` are local slots (rule P6): (position in the flat batch, argument vector), ascending. They run
        right before the command at their position, or at the end, and change nothing; so they may differ
        between replicas. Raises UnknownFormat when this version can't read the payload.
        """
        batch = decode_batch(payload)
        self._advance(index, term, time_ms)
        if batch is None:
            self.alarms += 1  # a deterministic no-op: stopping would stop every replica (rule S4)
            return _MALFORMED
        if not self._admit(batch):
            return Outcome(batch.node, batch.boot, batch.sequence, False, [])
        self._space.index = index
        replies = run_batch(self._space, batch.commands, reads)
        if self._digests.wanted:
            self._digests.fulfil(index, self.digest())
        return Outcome(batch.node, batch.boot, batch.sequence, True, replies)

    @property
    def spent(self) -> int:
        """Bytes of keys and values that the newest COMMANDS entry has written."""
        return self._space.spent

    def cold_keys(self, payload: bytes, reads: Sequence[tuple[int, list[bytes]]]) -> Iterable[bytes]:
        """Return the keys that a COMMANDS payload and its local slots look at and that are not in memory."""
        batch = decode_batch(payload)
        commands = batch.commands if batch is not None else []
        return cold_keys(self.store, [*commands, *(argv for _, argv in reads)])

    @property
    def next_deadline_ms(self) -> int | None:
        """When the next thing is due by log time, or a moment before that; None for never (rule S6)."""
        return expiry.next_deadline_ms(self._expiring)

    def cold_deadlines(self, time_ms: int) -> bytes | None:
        """Return from where on hints must be read from the disk before an entry of a time may run.

        None: all are in memory that it needs (rule R5).
        """
        return self.store.deadlines.unknown(time_ms, EXPIRED_PER_ENTRY_MAX)

    def places(self, commands: Sequence[list[bytes]]) -> list[tuple[bytes, int]]:
        """Return from where on how many keys reads look at one after the other, if not all are in memory."""
        if self.store.complete:
            return []
        return [found for argv in commands if (found := place(argv, self._space)) is not None]

    def cold_due_keys(self, time_ms: int, entries: int) -> list[bytes]:
        """Return those keys that so many entries up to a time look at as due, and that are not in memory."""
        store = self.store
        next_ms = store.deadlines.next_ms
        if next_ms is None or next_ms > time_ms:
            return []
        due = store.deadlines.known_due(time_ms, entries * EXPIRED_PER_ENTRY_MAX)
        return [key for hint in due if not store.is_resident(key := split_hint(hint)[1])]

    def apply_empty(self, index: int, term: int, time_ms: int) -> None:
        """Apply a NOOP or CLOCK entry."""
        self._advance(index, term, time_ms)

    def apply_membership(
        self,
        index: int,
        term: int,
        time_ms: int,
        members: tuple[int, ...],
        removed: tuple[int, ...],
        payload: bytes,
    ) -> None:
        """Apply a MEMBERSHIP entry: `members` vote or learn from here on, `removed` never come back."""
        self._advance(index, term, time_ms)
        self.members = frozenset(members)
        self.configuration = payload
        for node in removed:
            self.origins.pop(node, None)  # rule P5

    def _advance(self, index: int, term: int, time_ms: int) -> None:
        if index != self.applied_index + 1 or term < self.applied_term:
            raise InvariantError(
                f"entry {index} of term {term} was to be applied after entry {self.applied_index} of term "
                f"{self.applied_term}"
            )
        self.applied_index = index
        if term > self.applied_term:
            # A new term gives sessions more time (rule S6), but none whose time was over: clients were told.
            self.sessions.expire(index, self.log_time_ms, SESSIONS_MAX)
        if time_ms > self.log_time_ms:
            self.log_time_ms = time_ms
        self.sessions.clock(self.log_time_ms, term > self.applied_term)
        self.applied_term = term
        # The one place where time removes anything: before the entry's own commands, whatever its kind.
        expiry.expire(self._expiring, index, self.log_time_ms)
        self._pass_time()

    def _pass_time(self) -> None:
        next_ms = self.store.deadlines.next_ms
        self._space.pass_time(self.log_time_ms, next_ms is not None and next_ms <= self.log_time_ms)

    def _admit(self, batch: Batch) -> bool:
        """Note a batch and tell whether to run it: in its origin's order, each once (rule P2)."""
        if batch.node not in self.members:
            return False  # rule P5
        origin = self.origins.get(batch.node, _NEVER_RAN)
        follows = batch.boot == origin.boot and batch.sequence == origin.last + 1
        begins = batch.boot > origin.boot and batch.sequence == 1
        if not (follows or begins):
            return False
        self.origins[batch.node] = Origin(batch.boot, batch.sequence)
        return True

    # ------------------------------------------------------------------- reads

    def tell_time(self, clock_ms: int) -> None:
        """Let the reads that follow subtract the leader's clock from deadlines (rule S6).

        It decides nothing but what TTL answers: a key is there or not by log time alone.
        """
        self._space.now_ms = max(clock_ms, self.log_time_ms)

    def read(self, argv: list[bytes]) -> Reply:
        """Answer a READ command from the state as it is."""
        runner = READS.get(argv[0]) if argv else None
        if runner is not None and runner[1] <= len(argv) <= runner[2]:
            return runner[0](self._space, argv)
        return run_read(self._space, argv)

    def read_transaction(self, commands: Sequence[list[bytes]]) -> Reply:
        """Answer an EXEC of reads alone."""
        return run_read_transaction(self._space, commands)

    def digest(self) -> bytes:
        """Return the hex digest of all replicated state."""
        header = (
            self.applied_index,
            self.applied_term,
            self.log_time_ms,
            sorted(self.members),
            self.configuration,
            sorted((node, origin.boot, origin.last) for node, origin in self.origins.items()),
            list(self._digests.kept.items()),
            len(self.store),
            self.sessions.term_ms,
            len(self.sessions),
        )
        items = chain(self.store.sorted_items(), self.sessions.sorted_items())
        return hash_state(header, chain(items, ((hint, None) for hint in self.store.deadlines)))
