"""One simulated machine: a disk that survives, and now and then a process on it.

The process is the production code: `replica`, `raft`, `kv` and the WAL. This module plays the part of
`server/driver.py` with simulated time, and of the kernel: it kills, pauses and restarts.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import google_crc32c
from msgspec import structs

from balsadb.errors import DataError, EntriesLost, LocalFault
from balsadb.kv.cut import Bookkeeping, Cut, decode_bookkeeping
from balsadb.kv.machine import Outcome, StateMachine
from balsadb.kv.memory import MemoryBase
from balsadb.kv.store import Record
from balsadb.raft.configuration import decode_configuration
from balsadb.raft.entry import Entry
from balsadb.raft.invariants import Observation, check_step, observe
from balsadb.raft.messages import Message
from balsadb.raft.node import Node, Options
from balsadb.raft.options import Recovered
from balsadb.raft.ready import Fetch
from balsadb.raft.types import Configuration, HardState, NodeId
from balsadb.replica import Replica, ReplicaOptions
from balsadb.replica.replica import Warm
from balsadb.sim.checkers.witness import AppliedOrder
from balsadb.sim.disk import Disk, Interrupted
from balsadb.sim.state import SimulatedState
from balsadb.storage.datadir import DataDirectory
from balsadb.storage.opening import open_log
from balsadb.storage.wal import Wal, WalOptions, WalWrite

if TYPE_CHECKING:
    from balsadb.sim.world import World

TICK_US = 10_000
"""One tick of Raft's timers, as in the server."""
TURN_US_MAX = 200
"""Time from an input to the turn that takes it."""
FILE_OPERATIONS_MAX = 12
"""A process that ends in the middle of a start or a write does so before one of so many file operations."""
PREPARE_US_MAX = 20_000
"""Time that it takes to fill the next segment with zeros."""
NOTE_US_MAX = 50_000
"""Time until the end of the log is noted after a write."""
FETCH_BYTES_MAX = 4_000
WARM_US_MAX = 5_000
"""Time that it takes to read keys from the disk."""
CUT_US_MAX = 20_000
"""Time that it takes to write a cut."""
SEND_US_MAX = 500_000
"""Time that it takes to send a state, or to find out that it can't be sent."""
SEND_TIMEOUT_US = 3 * SEND_US_MAX
"""A sending without an answer for so long has failed."""
SWITCH_US_MAX = 20_000
SLOW_SYNC_US_MAX = 2_000_000
START_MS = 1_600_000_000_000
"""Wall clock at the start of a run."""

OPTIONS = Options()
SMALL = Options(
    append_bytes_max=1,
    inflight_messages_max=4,
    inflight_bytes_max=2_000,
    uncommitted_bytes_max=20_000,
    cache_bytes_max=600,
    reads_max=3,
)
"""Tiny caches and windows: every bound is met all the time."""


class WatchedMachine(StateMachine):
    """A state machine that reports every entry before it applies it."""

    def __init__(
        self,
        members: tuple[NodeId, ...],
        base: MemoryBase,
        bookkeeping: Bookkeeping | None,
        cache_bytes_max: int,
        watch: Callable[[int, int, bytes], None],
        order: AppliedOrder,
    ) -> None:
        super().__init__(members, base, bookkeeping, cache_bytes_max)
        self._watch = watch
        self._order = order

    def apply_commands(
        self,
        index: int,
        term: int,
        time_ms: int,
        payload: bytes,
        reads: Sequence[tuple[int, list[bytes]]] = (),
    ) -> Outcome:
        """Report and apply."""
        self._watch(index, term, payload)
        outcome = super().apply_commands(index, term, time_ms, payload, reads)
        self._order.applied(index, payload, [slot for slot, _ in reads], outcome)
        return outcome

    def apply_empty(self, index: int, term: int, time_ms: int) -> None:
        """Report and apply."""
        self._watch(index, term, b"")
        super().apply_empty(index, term, time_ms)

    def apply_membership(
        self,
        index: int,
        term: int,
        time_ms: int,
        members: tuple[int, ...],
        removed: tuple[int, ...],
        payload: bytes,
    ) -> None:
        """Report and apply."""
        self._watch(index, term, payload)
        super().apply_membership(index, term, time_ms, members, removed, payload)


class Server:
    """A machine of the simulated cluster."""

    def __init__(
        self, world: World, node_id: NodeId, rng: random.Random, joins: Configuration | None = None
    ) -> None:
        """`joins` is what a server that was no initial member has heard of the cluster."""
        self.id = node_id
        self.joins = joins
        self._admitted = joins is None
        """Whether it may vote: one that joined may when the log knows its directory (rule W5)."""
        self.replica: Replica | None = None
        """The process; None while it is down."""
        self.paused = False
        self.wall_offset_ms = 0
        """How wrong this machine's wall clock is."""
        self.durable = HardState()
        """What this server has promised: the newest hard state on its disk."""
        self.starts = 0
        self.broken: str | None = None
        """Why this server must not start again: what its disk holds can't be trusted any more."""
        self._world = world
        self._rng = rng
        self.disk = Disk(random.Random(rng.getrandbits(64)))
        self._segment_bytes = rng.choice((2_048, 8_192, 65_536))
        if world.plan.log_bytes_max:
            self._segment_bytes = world.plan.log_bytes_max // 4
        self.states_sent = 0
        """How often it began to send its state to another server."""
        self.installs = 0
        """How often it went on from the state of another server."""
        self.state = SimulatedState(self.disk, random.Random(rng.getrandbits(64)))
        self._cuts: list[Cut] = []
        """Waiting to be written to the state; the first one is under way."""
        self._sending: dict[NodeId, int] = {}
        """By follower, the number of the sending that is under way."""
        self._tail_bytes = 0
        """Bytes of the log that are kept for slow followers."""
        self._wal: Wal | None = None
        self._flying: WalWrite | None = None
        """What is on its way to the disk."""
        self._preparing = False
        self._noting = False
        self._entries: list[tuple[int, int, int]] = []
        """Index, term and checksum of the entries of the write that is under way."""
        self._durable_next: HardState | None = None
        """Its hard state."""
        self._incarnation = 0
        """Counts starts and ends; a callback of an earlier process finds another number and does nothing."""
        self._awake = False
        self._deferred: list[tuple[Callable[..., None], tuple[object, ...]]] = []
        """What happened to a paused process; it finds out when it goes on."""
        self._observation: Observation | None = None

    # ---------------------------------------------------------------- lifecycle

    @property
    def up(self) -> bool:
        """Tell whether a process runs and is not paused."""
        return self.replica is not None and not self.paused

    def start(self) -> None:
        """Start a process on what the disk holds; it may fail, or end before it has begun."""
        assert self.replica is None
        if self.broken is not None:
            return
        world, disk = self._world, self.disk
        self._incarnation += 1
        self.starts += 1
        self.paused = self._awake = self._preparing = self._noting = False
        self._flying = None
        self._cuts.clear()
        self._sending.clear()
        self._deferred.clear()
        disk.failing = 0.0 if world.healthy else world.plan.failing_disk
        if not world.healthy and self._rng.random() < world.plan.interrupted_starts:
            disk.interrupt_after(self._rng.randrange(FILE_OPERATIONS_MAX))
        try:
            directory, recovered = self._open()
        except DataError as error:
            self.broken = str(error)
            self.end(power_loss=False)
            return
        except (LocalFault, Interrupted):
            self.end(power_loss=self._rng.random() < 0.5)
            return
        disk.interrupt_after(None)
        self._begin(directory.meta.boot, recovered)

    def _open(self) -> tuple[DataDirectory, Recovered]:
        world, rng = self._world, self._rng
        directory = DataDirectory.open(
            "data", self.disk, self.id, "the cluster", new_store_id=lambda: b"store of %7d" % self.id
        )
        options = WalOptions(
            segment_bytes=self._segment_bytes, tail_bytes_max=rng.choice((1, 1_000, 100_000))
        )
        self.state.reopen()
        state = self.state.bookkeeping
        wal, recovered = open_log(
            self.disk, directory.wal_path, directory.meta.store_id, options, state, self.state.installed
        )
        self._wal = wal
        if state is not None:
            world.log_checker.covered(self.id, state.index)
        entries: list[Entry] = []
        while recovered.first_index + len(entries) <= recovered.last_index:
            entries += wal.read(recovered.first_index + len(entries), recovered.last_index, FETCH_BYTES_MAX)
        world.log_checker.recovered(self.id, [_identity(entry) for entry in entries])
        return directory, recovered

    def _begin(self, boot: int, recovered: Recovered) -> None:
        world = self._world
        initial = self._initial()
        known = self.joins or initial
        ever = {*known.everyone(), *known.removed}
        state = self.state.bookkeeping
        if state is not None and state.configuration:
            initial = decode_configuration(state.configuration)
        node = Node(
            self.id,
            initial,
            recovered,
            structs.replace(
                SMALL if world.plan.small_caches else OPTIONS,
                election_ticks=world.plan.election_ticks,
                heartbeat_ticks=max(1, world.plan.election_ticks // 10),
            ),
            random.Random(self._rng.getrandbits(64)),
            self.wall_ms,
            applied=0 if state is None else state.index,
            boot=boot,
        )
        cache_bytes = self._rng.choice((0, 1_000, 1_000_000))
        machine = WatchedMachine(
            tuple(sorted(ever)), self.state.base, state, cache_bytes, self._applied, world.order
        )
        self.replica = Replica(
            node,
            machine,
            boot,
            self._draw_options(),
            store_id=b"store-%d" % self.id,
            fresh_cluster_id=b"cluster of the simulator",
            log_bytes=self._unreleased_bytes(),
        )
        for other in world.servers:
            self.meet(other)
        node.eligible = self._admitted
        self._observation = observe(node)
        world.started(self)
        self._after(self._rng.randrange(TICK_US), self._tick)
        self.wake()

    def _initial(self) -> Configuration:
        """Return the configuration before the first one in the log, as far as this server knows.

        One that joins takes that of the day, without itself; see `server.node`.
        """
        if self.joins is None:
            return self._world.configuration
        voters = tuple(node for node in self.joins.voters if node != self.id)
        return structs.replace(self.joins, voters=voters, outgoing=(), learners=(), promote=(), retire=())

    def meet(self, other: NodeId) -> None:
        """Take what a hello says."""
        if self.replica is not None:
            self.replica.identities[other] = (b"store-%d" % other, f"client:{other}")

    def _draw_options(self) -> ReplicaOptions:
        plan, rng = self._world.plan, self._rng
        options = ReplicaOptions(payload_commands_max=3) if plan.small_caches else ReplicaOptions()
        options = structs.replace(options, collect_commands_min=rng.choice((1, 1, 4, 64)))
        self._tail_bytes = rng.choice((0, 500, 5_000))
        if plan.log_bytes_max:
            self._tail_bytes = plan.log_bytes_max // 2
            return structs.replace(options, release_bytes=plan.log_bytes_max // 2)
        if not plan.small_cuts:
            return options
        return structs.replace(
            options,
            cut_keys_max=rng.choice((1, 3, 100)),
            cut_bytes_max=rng.choice((100, 2_000)),
            cuts_max=rng.choice((1, 4)),
            release_bytes=rng.choice((500, 2_000, 20_000)),
        )

    def _unreleased_bytes(self) -> int:
        """Return how much log a start finds behind the tail. Without a maximum a start counts from zero."""
        assert self._wal is not None
        return max(0, self._wal.bytes - self._tail_bytes) if self._world.plan.log_bytes_max else 0

    def end(self, *, power_loss: bool) -> None:
        """End the process; with `power_loss` the machine forgets what it had not synced."""
        self._incarnation += 1
        self.paused = False
        was_up, self.replica = self.replica is not None, None
        if self._wal is not None:
            self._interrupt(self._wal)
        self._wal = None
        self.disk.process_ended()
        self.state.process_ended()
        if power_loss:
            self._world.note(f"server {self.id} loses power", self.id)
            self.disk.power_loss()
        self._world.ended(self, was_up=was_up)

    def _interrupt(self, wal: Wal) -> None:
        """End what the process's threads were doing to its files somewhere in the middle."""
        work: list[Callable[[], None]] = []
        if (flying := self._flying) is not None:
            work.append(lambda: wal.execute(flying))
        if self._preparing:
            work.append(wal.prepare)
        if self._noting:
            work.append(wal.note_end)
        self._rng.shuffle(work)
        for step in work:
            self.disk.interrupt_after(self._rng.randrange(FILE_OPERATIONS_MAX))
            with contextlib.suppress(LocalFault, Interrupted):
                step()
        if flying is not None:
            self._world.log_checker.in_doubt(self.id, flying.first_index)

    def pause(self) -> None:
        """Stop the process in its tracks."""
        self.paused = True

    def resume(self) -> None:
        """Let a paused process find out what it missed."""
        if not self.paused:
            return
        self.paused = False
        deferred, self._deferred = self._deferred, []
        process = self._incarnation
        # The sockets are read before the timer counts (rule B3): ticks come last.
        for callback, arguments in deferred:
            if callback != self._tick and self._incarnation == process:
                callback(*arguments)
        if self._incarnation == process and any(callback == self._tick for callback, _ in deferred):
            self._tick()

    # -------------------------------------------------------------------- input

    @property
    def wall_ms(self) -> int:
        """What this machine's wall clock shows."""
        return START_MS + self._world.scheduler.now_ms + self.wall_offset_ms

    def receive(self, message: Message) -> None:
        """Take a message from the network."""
        if self.replica is None:
            return
        if self.paused:
            self._deferred.append((self.receive, (message,)))
            return
        self.replica.tell_time(self._world.scheduler.now_ms, self.wall_ms)
        self._guarded(self.replica.step, message)
        self.wake()

    def wake(self) -> None:
        """Run a turn soon."""
        if not self._awake:
            self._awake = True
            self._after(self._rng.randrange(TURN_US_MAX), self._turn)

    def lost(self, peer: NodeId) -> None:
        """Note that the connection from `peer` closed."""
        if self.replica is not None:
            self.replica.peer_lost(peer)
            self.wake()

    def connected(self, peer: NodeId) -> None:
        """Note that `peer` can be reached again."""
        if self.replica is not None:
            self.meet(peer)
            self.replica.peer_up(peer)
            self.wake()

    # --------------------------------------------------------------- the driver

    def _after(self, delay_us: int, callback: Callable[..., None], *arguments: object) -> None:
        """Call back unless the process has ended by then; a paused one is called when it goes on."""
        self._world.scheduler.after(delay_us, self._call, self._incarnation, callback, arguments)

    def _call(self, incarnation: int, callback: Callable[..., None], arguments: tuple[object, ...]) -> None:
        if incarnation != self._incarnation:
            return
        if self.paused:
            self._deferred.append((callback, arguments))
            return
        try:
            callback(*arguments)
        except Interrupted:
            self.end(power_loss=self._rng.random() < 0.5)

    def _guarded(self, function: Callable[..., object], *arguments: object) -> None:
        """Call into the process; a local fault ends it, as it ends a real one."""
        try:
            function(*arguments)
        except EntriesLost:
            raise  # a disk that may lose what it has synced is not simulated
        except LocalFault:
            self.end(power_loss=False)

    def _tick(self) -> None:
        assert self.replica is not None
        self._after(TICK_US, self._tick)
        self._guarded(self.replica.tick, self._world.scheduler.now_ms, self.wall_ms)
        self.wake()

    def _turn(self) -> None:
        self._awake = False
        self._guarded(self._take_turn)

    def _take_turn(self) -> None:
        world, replica = self._world, self.replica
        assert replica is not None
        effects = replica.turn(world.scheduler.now_ms, self.wall_ms, self._flying is None)
        if effects.write is not None:
            assert self._wal is not None
            self._entries = [_identity(entry) for entry in effects.write.entries]
            self._durable_next = effects.write.hard_state
            self._flying = self._wal.plan(effects.write)
            sync_us = self._sync_us()
            self._after(sync_us, self._synced, self._flying)
            risk = 0.0 if world.healthy else world.plan.crashes_in_writes
            state = effects.write.hard_state
            if state is not None and state.term != self.durable.term:
                risk *= 100
            if risk and self._rng.random() < risk:
                self._after(self._rng.randrange(sync_us), self._crash_in_write)
        for message in effects.messages:
            world.network.send(message)
        for fetch in effects.fetches:
            self._after(self._rng.randrange(1_000), self._fetch, fetch)
        for follower, _ in effects.snapshots:
            self._send_state(follower)
        if effects.warm is not None:
            self._after(
                self._rng.randrange(WARM_US_MAX), self._warmed, effects.warm, self._rng.random() < 0.5
            )
        if effects.cuts:
            if not self._cuts:
                self._after(self._rng.randrange(CUT_US_MAX), self._write_cut)
            self._cuts += effects.cuts
        member = replica.node.configuration.member(self.id)
        if not self._admitted and member is not None and member.store_id:
            self._admitted = replica.node.eligible = True
        assert self._observation is not None
        self._observation = check_step(self._observation, replica.node)
        world.turned(self)
        for request in effects.finished:
            world.finished(self, request)
        if effects.again:
            self.wake()

    def _crash_in_write(self) -> None:
        if not self._world.healthy:
            self.end(power_loss=self._rng.random() < 0.5)

    def _sync_us(self) -> int:
        plan = self._world.plan
        if not self._world.healthy and self._rng.random() < plan.slow_sync:
            return self._rng.randrange(SLOW_SYNC_US_MAX)
        return self._rng.randint(plan.sync_us_min, plan.sync_us_max)

    def _synced(self, write: WalWrite) -> None:
        assert self.replica is not None
        assert self._wal is not None
        wal = self._wal
        try:
            wal.execute(write)  # rule W4: a failure is final for this process
            wal.complete(write)
        except LocalFault:
            self._flying = None
            self._world.log_checker.in_doubt(self.id, write.first_index)
            self.end(power_loss=False)
            return
        self._flying = None
        if self._durable_next is not None:
            self.durable = self._durable_next
        self._note_sync()
        self.replica.persisted(write.number)
        if wal.prepare_due and not self._preparing:
            self._preparing = True
            self._after(self._rng.randrange(PREPARE_US_MAX), self._prepare)
        if wal.collect_due:
            self._after(self._rng.randrange(PREPARE_US_MAX), self._collect)
        if wal.end_due and not self._noting:
            self._noting = True
            self._after(self._rng.randrange(NOTE_US_MAX), self._note_end)
        self.wake()

    def _note_sync(self) -> None:
        """Tell what has just become durable."""
        world, entries, state = self._world, self._entries, self._durable_next
        world.log_checker.synced(self.id, entries)
        first, last, term = (entries[0][0], *entries[-1][:2]) if entries else (0, 0, 0)
        what = f"server {self.id} has synced"
        if entries:
            what += f" entries {first}..{last} up to term {term}"
        if state is not None:
            what += f" term {state.term} vote {state.vote} commit {state.commit}"
        world.note(what, self.id, first=first, last=last)

    def _prepare(self) -> None:
        assert self._wal is not None
        self._preparing = False
        self._guarded(self._wal.prepare)

    def _note_end(self) -> None:
        assert self._wal is not None
        self._noting = False
        self._guarded(self._wal.note_end)

    def _collect(self) -> None:
        assert self._wal is not None
        self._guarded(self._wal.collect)

    # ---------------------------------------------------------------- the state

    def _write_cut(self) -> None:
        assert self.replica is not None
        assert self._wal is not None
        cut, store = self._cuts.pop(0), self.replica.machine.store
        while store.count(cut):
            pass
        batch = self.state.base.batch()
        for _ in cut.build(batch):
            pass
        try:
            self.state.write(batch)
            if cut.release:
                self.state.flush()
                self._world.log_checker.covered(self.id, cut.index)
        except LocalFault:
            self.end(power_loss=False)
            return
        self.replica.cut_written(cut, self._wal.first_within(self._tail_bytes))
        if self._cuts:
            self._after(self._rng.randrange(CUT_US_MAX), self._write_cut)
        self.wake()

    def _warmed(self, warm: Warm, slow: bool) -> None:
        """Read keys; a slow thread has read them and hands them over later."""
        assert self.replica is not None
        records = warm.read()
        if slow:
            self._after(self._rng.randrange(WARM_US_MAX), self._hand_over, warm, records)
        else:
            self._hand_over(warm, records)

    def _hand_over(self, warm: Warm, records: list[Record | None]) -> None:
        assert self.replica is not None
        self.replica.warmed(warm, records)
        self.wake()

    def _send_state(self, follower: NodeId) -> None:
        """Send a copy of the state; the network may fail, and either end may end."""
        assert self.replica is not None
        world, state = self._world, self.state.bookkeeping
        assert state is not None
        if follower in self._sending:
            return
        self.replica.sending(follower, state.index, 0)
        copy, index, process = self.state.base.copy(), state.index, self._incarnation

        def arrive() -> None:
            if world.network.passes(self.id, follower):
                world.servers[follower].receive_state(copy, answer)
            else:
                answer(0)

        def answer(arrived: int) -> None:
            if arrived and not world.network.passes(follower, self.id):
                arrived = 0
            delay = self._rng.randrange(SEND_US_MAX)
            world.scheduler.after(delay, self._call, process, self._sent, (follower, arrived, sending))

        self.states_sent += 1
        sending = self.states_sent
        self._sending[follower] = sending
        world.note(f"{self.id}->{follower} state of {index}", self.id, follower)
        world.scheduler.after(self._rng.randrange(SEND_US_MAX), arrive)
        world.scheduler.after(SEND_TIMEOUT_US, self._call, process, self._sent, (follower, 0, sending))

    def _sent(self, follower: NodeId, index: int, sending: int) -> None:
        """Note the end of a sending, unless it has ended before."""
        assert self.replica is not None
        if self._sending.get(follower) == sending:
            del self._sending[follower]
            self.replica.snapshot_ended(follower, index)
            self.wake()

    def receive_state(self, base: MemoryBase, answer: Callable[[int], None]) -> None:
        """Take a copy of another server's state; `answer` gets its index, or 0 when it was not taken."""
        if not self.up:
            answer(0)
            return
        assert self.replica is not None
        state = decode_bookkeeping(base.data)
        if not self.replica.begin_install(state.index):
            answer(state.index if self.replica.machine.applied_index >= state.index else 0)
            return
        self._after(self._rng.randrange(SWITCH_US_MAX), self._switch, base, state, answer)

    def _switch(self, base: MemoryBase, state: Bookkeeping, answer: Callable[[int], None]) -> None:
        try:
            self.state.install(base, state.index)
        except LocalFault:
            self.end(power_loss=False)
            return
        self._world.log_checker.covered(self.id, state.index)
        assert self.replica is not None
        if self.replica.node.log.term_at(state.index) != state.term:
            self._world.log_checker.replaced(self.id, state.index)
        self._after(self._rng.randrange(SWITCH_US_MAX), self._install, state, answer)

    def _install(self, state: Bookkeeping, answer: Callable[[int], None]) -> None:
        assert self.replica is not None
        self._world.note(f"server {self.id} installs the state of {state.index}", self.id)
        self.state.reopen()
        installed = self.replica.install(self.state.base, state)
        assert installed
        self.installs += 1
        self._observation = observe(self.replica.node)
        answer(state.index)
        self.wake()

    def _fetch(self, fetch: Fetch) -> None:
        assert self.replica is not None
        assert self._wal is not None
        entries = self._wal.read(fetch.first, fetch.last, FETCH_BYTES_MAX)
        self.replica.fetched(fetch, tuple(entries))
        self.wake()

    def _applied(self, index: int, term: int, payload: bytes) -> None:
        self._world.applied(self.id, index, term, payload)


def _identity(entry: Entry) -> tuple[int, int, int]:
    return entry.index, entry.term, google_crc32c.value(entry.encoded)
