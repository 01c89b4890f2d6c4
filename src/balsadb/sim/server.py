"""One simulated machine: a disk that survives, and now and then a process on it.

The process is the production code: `replica`, `raft`, `kv` and the WAL. This module plays the part of
`server/driver.py` with simulated time, and of the kernel: it kills, pauses and restarts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import google_crc32c

from balsadb.errors import LocalFault
from balsadb.kv.machine import Outcome, StateMachine
from balsadb.raft.invariants import Observation, check_step, observe
from balsadb.raft.messages import Message
from balsadb.raft.node import Node, Options
from balsadb.raft.ready import Fetch, WriteBatch
from balsadb.raft.types import Configuration, NodeId, Term
from balsadb.replica import Replica, ReplicaOptions
from balsadb.sim.storage import Storage

if TYPE_CHECKING:
    from balsadb.sim.world import World

TICK_US = 10_000
"""One tick of Raft's timers, as in the server."""
TURN_US_MAX = 200
"""Time from an input to the turn that takes it."""
START_MS = 1_600_000_000_000
"""Wall clock at the start of a run."""

OPTIONS = Options()
SMALL = Options(append_bytes_max=500, inflight_messages_max=4, inflight_bytes_max=2_000, cache_bytes_max=600)
"""Tiny caches and windows: every bound is met all the time."""


class WatchedMachine(StateMachine):
    """A state machine that reports every entry before it applies it."""

    def __init__(self, members: tuple[NodeId, ...], watch: Callable[[int, int, bytes], None]) -> None:
        super().__init__(members)
        self._watch = watch

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
        return super().apply_commands(index, term, time_ms, payload, reads)

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

    def __init__(self, world: World, node_id: NodeId, rng: random.Random) -> None:
        self.id = node_id
        self.replica: Replica | None = None
        """The process; None while it is down."""
        self.paused = False
        self.wall_offset_ms = 0
        """How wrong this machine's wall clock is."""
        self.durable_term: Term = 0
        """Newest term that this server has on disk."""
        self.starts = 0
        self._world = world
        self._rng = rng
        self.storage = Storage(node_id, random.Random(rng.getrandbits(64)), world.plan)
        self._incarnation = 0
        """Counts starts and ends; a callback of an earlier process finds another number and does nothing."""
        self._awake = False
        self._disk_idle = True
        self._deferred: list[tuple[Callable[..., None], tuple[object, ...]]] = []
        """What happened to a paused process; it finds out when it goes on."""
        self._observation: Observation | None = None

    # ---------------------------------------------------------------- lifecycle

    @property
    def up(self) -> bool:
        """Tell whether a process runs and is not paused."""
        return self.replica is not None and not self.paused

    def start(self) -> None:
        """Start a process on what the disk holds."""
        assert self.replica is None
        world = self._world
        self._incarnation += 1
        self.starts += 1
        self.paused = False
        self._deferred.clear()
        self._disk_idle = True
        self._awake = False
        recovered = self.storage.open()
        configuration: Configuration = world.configuration
        node = Node(
            self.id,
            configuration,
            recovered,
            SMALL if world.plan.small_caches else OPTIONS,
            random.Random(self._rng.getrandbits(64)),
            self.wall_ms,
            boot=self.starts,
        )
        machine = WatchedMachine(configuration.voters, self._applied)
        self.replica = Replica(
            node,
            machine,
            self.starts,
            ReplicaOptions(payload_commands_max=3) if world.plan.small_caches else ReplicaOptions(),
            store_id=b"store-%d" % self.id,
            fresh_cluster_id=b"cluster of the simulator",
        )
        for other in world.servers:
            self.replica.identities[other] = (b"store-%d" % other, f"client:{other}")
        self._observation = observe(node)
        world.started(self)
        self._after(self._rng.randrange(TICK_US), self._tick)
        self.wake()

    def end(self, *, power_loss: bool) -> None:
        """End the process; with `power_loss` the machine forgets what it had not synced."""
        self._incarnation += 1
        self.replica = None
        self.paused = False
        self.storage.crash(power_loss=power_loss)
        self._world.ended(self)

    def pause(self) -> None:
        """Stop the process in its tracks."""
        self.paused = True

    def resume(self) -> None:
        """Let a paused process find out what it missed."""
        if not self.paused:
            return
        self.paused = False
        deferred, self._deferred = self._deferred, []
        # The sockets are read before the timer counts (rule B3): ticks come last.
        for callback, arguments in deferred:
            if callback != self._tick:
                callback(*arguments)
        if any(callback == self._tick for callback, _ in deferred):
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
        else:
            callback(*arguments)

    def _guarded(self, function: Callable[..., object], *arguments: object) -> None:
        """Call into the process; a local fault ends it, as it ends a real one."""
        try:
            function(*arguments)
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
        effects = replica.turn(world.scheduler.now_ms, self.wall_ms, self._disk_idle)
        if effects.write is not None:
            self._disk_idle = False
            self.storage.begin(effects.write)
            self._after(self.storage.sync_us(world.healthy), self._synced, effects.write)
        for message in effects.messages:
            world.network.send(message)
        for fetch in effects.fetches:
            self._after(self._rng.randrange(1_000), self._fetch, fetch)
        assert self._observation is not None
        self._observation = check_step(self._observation, replica.node)
        world.turned(self)
        for request in effects.finished:
            world.finished(self, request)
        if effects.again:
            self.wake()

    def _synced(self, write: WriteBatch) -> None:
        assert self.replica is not None
        if not self.storage.finish(healthy=self._world.healthy):
            self.end(power_loss=False)  # rule W4: a failed sync is final for this process
            return
        if write.hard_state is not None:
            self.durable_term = write.hard_state.term
        self._world.log_checker.synced(
            self.id, tuple((e.index, e.term, google_crc32c.value(e.encoded)) for e in write.entries)
        )
        self._disk_idle = True
        self.replica.persisted(write.number)
        self.wake()

    def _fetch(self, fetch: Fetch) -> None:
        assert self.replica is not None
        self.replica.fetched(fetch, self.storage.read(fetch.first, fetch.last))
        self.wake()

    def _applied(self, index: int, term: int, payload: bytes) -> None:
        self._world.applied(self.id, index, term, payload)
