"""The drive loop: the only place where clients, peers, disk and time meet.

Whatever happens (a client's bytes, a peer's frame, a finished sync, a tick) is given to the replica at
once and wakes the driver. The driver then runs one *turn* at the end of the event loop's round: the
replica decides, and the driver does what it decided. So everything that arrived in one round shares one
payload, one write, one frame per peer and one write per client.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import NoReturn, Protocol

from balsadb.errors import BalsaError, EntriesLost, ProtocolError, StorageError
from balsadb.kv.cut import Cut
from balsadb.kv.store import Record
from balsadb.raft.messages import Message
from balsadb.raft.ready import Fetch
from balsadb.raft.types import Configuration, Index, NodeId
from balsadb.replica.replica import Replica, Warm
from balsadb.replica.request import Request
from balsadb.server.clock import Clock
from balsadb.server.disk import LogDisk
from balsadb.server.failure import stop_process
from balsadb.storage.wal import Wal, WalWrite

TICK_SECONDS = 0.010
"""Length of one tick of Raft's timers."""
END_TICKS = 20
"""Ticks between two notes of how far the log reaches."""
FETCH_BYTES_MAX = 4 * 1024 * 1024
"""Bytes of entries read back from the WAL at a time (rule B2)."""


class Sender(Protocol):
    """Where messages for other nodes go."""

    def send(self, target: NodeId, messages: list[Message]) -> None:
        """Send messages to a node, or drop them when they can't be sent (rule B1)."""
        ...


class Driver:
    """Runs a replica on an event loop."""

    def __init__(self, replica: Replica, wal: Wal, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self.replica = replica
        self.peers: Sender | None = None
        self.on_finished: Callable[[Sequence[Request]], None] = _ignore
        self.on_turn_end: Callable[[], None] = _nothing
        self.on_configuration: Callable[[], None] = _nothing
        """Is called when other members are known, applied or not, and when this node was removed."""
        self.on_cuts: Callable[[Sequence[Cut]], None] = _ignore
        """Takes cuts to be written to the state."""
        self.on_snapshot: Callable[[NodeId, Index], None] = _ignore
        """Is told of a follower that needs the state, and from which index on one is of use."""
        self.on_collect: Callable[[], None] = _nothing
        """Is called when files of the log may have become useless."""
        self.on_measure: Callable[[float], None] = _ignore
        """Is told at the end of a turn when it began, by `perf_counter`."""
        self.on_synced: Callable[[float], None] = _ignore
        """Is told how many seconds a write to the log took until the loop heard of its end."""
        self.turns = 0
        self._wal = wal
        self._clock = clock
        self._loop = loop
        self._disk = LogDisk(wal, loop, self._written)
        self._disk_idle = True
        self._write_began = 0.0
        self._write_took = 0.0
        self._preparing = False
        self._noting = False
        self._ticks = 0
        self._awake = False
        self._tick_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._standing: tuple[Configuration, Configuration, bool] | None = None
        """The configurations applied and known, and whether this node was removed, as last told."""

    @property
    def write_seconds(self) -> float:
        """How long the last write to the log took, or the one under way does, whichever is longer."""
        under_way = 0.0 if self._disk_idle else perf_counter() - self._write_began
        return max(self._write_took, under_way)

    def start(self) -> None:
        """Begin to tick and to run turns."""
        self._disk.start()
        self._timer = self._loop.call_later(TICK_SECONDS, self._on_timer)
        self.wake()

    async def stop(self) -> None:
        """Stop turning; what is being written is finished first."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        await self._disk.stop()
        if self._wal.end_due:
            await self._loop.run_in_executor(None, self._wal.note_end)

    def wake(self) -> None:
        """Run a turn once everything that is ready to be read has been read."""
        if not self._awake:
            self._awake = True
            self._loop.call_soon(self._turn)

    def receive(self, messages: Sequence[Message]) -> None:
        """Take messages of another node. Raises ProtocolError at a malformed one, which changed nothing."""
        self.wake()
        self.replica.tell_time(self._clock.monotonic_ms(), self._clock.wall_ms())
        try:
            for message in messages:
                self.replica.step(message)
        except ProtocolError:
            raise  # the peer's bug or a broken network card; it costs that connection and not this node
        except EntriesLost as lost:
            with contextlib.suppress(StorageError):
                self._wal.note_end(lost.index)  # so that no other start can vote before it hears a leader
            _stop(lost)
        except Exception as error:
            _stop(error)

    # -------------------------------------------------------------------- time

    def _on_timer(self) -> None:
        self._timer = self._loop.call_later(TICK_SECONDS, self._on_timer)
        # Rule B3: after a pause of the process the timer fires before the sockets are read. The tick
        # waits for one more round of the loop, so that buffered heartbeats are delivered first; and
        # however long the pause was, it is one tick.
        self._loop.call_soon(self._loop.call_soon, self._make_tick_due)

    def _make_tick_due(self) -> None:
        self._tick_due = True
        self.wake()

    # ---------------------------------------------------------------- the turn

    def _turn(self) -> None:
        self._awake = False
        if self._stopped:
            return
        began = perf_counter()
        self.turns += 1
        now_ms, wall_ms = self._clock.monotonic_ms(), self._clock.wall_ms()
        replica = self.replica
        try:
            if self._tick_due:
                self._tick_due = False
                replica.tick(now_ms, wall_ms)
                self._ticks += 1
                if self._ticks % END_TICKS == 0:
                    self._note_end()
            effects = replica.turn(now_ms, wall_ms, self._disk_idle)
            if effects.write is not None:
                self._disk_idle = False
                self._write_began = perf_counter()
                self._disk.submit(self._wal.plan(effects.write))
        except Exception as error:
            # A broken invariant or data that can't be trusted: never go on (design section 1, 6). No less
            # when memory ran out in the middle of an entry, or a bug showed there (rule S4).
            _stop(error)
        if effects.messages:
            self._send(effects.messages)
        for fetch in effects.fetches:
            self._fetch(fetch)
        standing = (replica.configuration, replica.node.configuration, replica.removed)
        if standing != self._standing:
            self._standing = standing
            self.on_configuration()
        if effects.cuts:
            self.on_cuts(effects.cuts)
        for follower, least in effects.snapshots:
            self.on_snapshot(follower, least)
        if effects.warm is not None:
            self._warm(effects.warm)
        if effects.finished:
            self.on_finished(effects.finished)
        self.on_turn_end()
        if effects.again:
            self.wake()
        self.on_measure(began)  # last, so that nothing depends on it

    def _send(self, messages: list[Message]) -> None:
        """Send each peer its messages of this turn in one frame."""
        if self.peers is None:
            return
        by_target: dict[NodeId, list[Message]] = {}
        for message in messages:
            batch = by_target.get(message.target)
            if batch is None:
                by_target[message.target] = [message]
            else:
                batch.append(message)
        for target, batch in by_target.items():
            self.peers.send(target, batch)

    # ---------------------------------------------------------------- the disk

    def _written(self, write: WalWrite) -> None:
        self._write_took = took = perf_counter() - self._write_began
        try:
            self._wal.complete(write)
            self.replica.persisted(write.number)
        except Exception as error:
            _stop(error)
        self._disk_idle = True
        if not self._preparing and self._wal.prepare_due:
            self._preparing = True
            self._loop.run_in_executor(None, self._wal.prepare).add_done_callback(self._prepared)
        if self._wal.collect_due:
            self.on_collect()
        self.wake()
        self.on_synced(took)

    def _note_end(self) -> None:
        """Note how far the log reaches, beside the writes (rule W5)."""
        if self._wal.end_due and not self._noting:
            self._noting = True
            self._loop.run_in_executor(None, self._wal.note_end).add_done_callback(self._noted)

    def _noted(self, done: asyncio.Future[None]) -> None:
        self._noting = False
        if self._stopped or done.cancelled():
            return
        if (error := done.exception()) is not None:
            stop_process(f"how far the write-ahead log reaches can't be noted: {error}")

    def _prepared(self, done: asyncio.Future[None]) -> None:
        self._preparing = False
        if self._stopped or done.cancelled():
            return
        if (error := done.exception()) is not None:
            stop_process(f"the next file of the write-ahead log can't be made: {error}")

    def _warm(self, warm: Warm) -> None:
        """Read keys from the disk while the loop goes on (rule R5)."""
        future = self._loop.run_in_executor(None, warm.read)
        future.add_done_callback(lambda done: self._warmed(warm, done))

    def _warmed(self, warm: Warm, done: asyncio.Future[list[Record | None]]) -> None:
        if self._stopped:
            return
        if not self.replica.awaits(warm):
            done.exception()  # the state was replaced; the old one may have been closed while it was read
            return
        try:
            self.replica.warmed(warm, done.result())
        except Exception as error:
            _stop(error)
        self.wake()

    def _fetch(self, fetch: Fetch) -> None:
        future = self._loop.run_in_executor(None, self._wal.read, fetch.first, fetch.last, FETCH_BYTES_MAX)
        future.add_done_callback(lambda done: self._fetched(fetch, done))

    def _fetched(self, fetch: Fetch, done: asyncio.Future) -> None:  # type: ignore[type-arg]
        if self._stopped:
            return
        try:
            self.replica.fetched(fetch, tuple(done.result()))
        except Exception as error:
            _stop(error)
        self.wake()


def _stop(error: Exception) -> NoReturn:
    """Leave with a sentence; an error that nobody foresaw also shows where it came from."""
    foreseen = isinstance(error, BalsaError)
    stop_process(str(error) if foreseen else "".join(traceback.format_exception(error)).rstrip())


def _ignore(*_: object) -> None:
    """Stand in until a listener is there."""


def _nothing() -> None:
    """Stand in until a listener is there."""
