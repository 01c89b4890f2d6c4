"""Sending the state to followers that need compacted entries, and taking it from a leader (rules C4, C5).

A transfer has a connection of its own, so that heartbeats never wait behind it, and takes only a share of the
time of disk and network: after each piece the sender rests for as long as the piece took. A connection that
breaks is tried again and goes on where it was. The copy that is sent is a checkpoint by hard links; it stays
until the follower has it, or until nobody has asked for it for a while.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping

from balsadb.errors import LocalFault, ProtocolError
from balsadb.kv.cut import Bookkeeping
from balsadb.kv.machine import load_sessions
from balsadb.kv.sessions import Sessions
from balsadb.raft.types import Index, NodeId
from balsadb.server import names
from balsadb.server.admission import Admission
from balsadb.server.cuts import CutWriter
from balsadb.server.driver import TICK_SECONDS, Driver
from balsadb.server.failure import stop_process
from balsadb.server.journal import journal
from balsadb.server.trust import Introduction, PeerTrust, certificate_of
from balsadb.storage.files import Files
from balsadb.storage.state import StateDirectory, StateStore
from balsadb.storage.transfer import Incoming, Outgoing
from balsadb.wire.frame import FrameDecoder, Hello, Proof, Refused, encode_handshake, encode_transfer
from balsadb.wire.handshake import STATE
from balsadb.wire.transfer import Chunk, Installed, Offer, Resume, Transfer

ATTEMPTS = 5
"""Connections that are tried before a transfer counts as failed; Raft then asks for another one."""
PAUSE_SECONDS = 0.5
"""Pause between them."""
STEP_SECONDS_MAX = 10.0
"""A transfer in which nothing moves for so long has failed."""
RECEIVE_SECONDS_MAX = 30.0
"""A receiver that waits for the next frame for so long gives the connection up."""
INSTALL_SECONDS_MAX = 300.0
"""Time that a receiver has for checking and installing what it got."""
REST_SECONDS_MAX = 0.1
"""Longest rest after a piece."""
READ_BYTES = 64 * 1024
KEEP_SECONDS = 600.0
"""A copy that nobody has asked for this long is removed."""


class SnapshotSender:
    """Sends the state of this node to followers, each at most once at a time."""

    def __init__(
        self,
        driver: Driver,
        cuts: CutWriter,
        admission: Admission,
        addresses: Mapping[NodeId, tuple[str, int]],
        directory: str,
        trust: PeerTrust | None = None,
    ) -> None:
        """`directory` is where copies are made."""
        self._trust = trust or PeerTrust()
        self._driver = driver
        self._cuts = cuts
        self._admission = admission
        self._addresses = addresses
        self._directory = directory
        # A process that was killed left its copies, and with them files that its state has long done without.
        shutil.rmtree(directory, ignore_errors=True)
        self._tasks: dict[NodeId, asyncio.Task[None]] = {}
        self.progress: dict[NodeId, tuple[int, int]] = {}
        """For each follower that is being sent the state: bytes that are there, bytes in all."""
        self.sent_bytes = 0
        """Bytes of states sent since the start."""
        self._copy: Outgoing | None = None
        self._copying = asyncio.Lock()
        self._forgetting: asyncio.TimerHandle | None = None

    def send(self, follower: NodeId, least: Index) -> None:
        """Begin to send the state to a follower; the replica is told of the end.

        A copy from before `least` is of no use to it. There is a newer state.
        """
        if follower not in self._addresses:  # it was removed a moment ago
            self._driver.replica.snapshot_ended(follower, 0)
            return
        if follower not in self._tasks:
            sending = self._send(follower, least)
            task = asyncio.get_running_loop().create_task(sending, name=f"state-{follower}")
            self._tasks[follower] = task
            task.add_done_callback(lambda _: self._tasks.pop(follower, None))

    async def stop(self) -> None:
        """Give all transfers up."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._forgetting is not None:
            self._forgetting.cancel()
        if self._copy is not None:
            self._copy.remove()

    async def _send(self, follower: NodeId, least: Index) -> None:
        index: Index = 0
        began = asyncio.get_running_loop().time()
        try:
            copy = await self._current_copy(follower, least)
            offer = copy.offer
            journal.say(
                "state-sending", peer=follower, index=offer.index, term=offer.term, bytes=offer.length
            )
            for attempt in range(ATTEMPTS):
                if attempt:
                    await asyncio.sleep(PAUSE_SECONDS)
                try:
                    index = await self._attempt(follower, copy)
                    seconds = round(asyncio.get_running_loop().time() - began, 3)
                    journal.say("state-sent", peer=follower, goes_on_from=index, seconds=seconds)
                    break
                except (OSError, ProtocolError, TimeoutError) as error:
                    problem = f"the state could not be sent: {error or 'no answer'}"
                    journal.say(
                        "state-not-sent", "warning", peer=follower, attempt=attempt + 1, message=problem
                    )
        except (LocalFault, OSError) as error:
            journal.say("state-not-sent", "error", peer=follower, message=str(error))
        finally:
            # However it ended: without a word Raft would wait for ever, and the log would stay.
            self.progress.pop(follower, None)
            self._driver.replica.snapshot_ended(follower, index)
            self._driver.wake()
            self._forget_later()

    async def _current_copy(self, follower: NodeId, least: Index) -> Outgoing:
        """Return a copy behind which the log is still there, and keep it there (rule C5)."""
        replica = self._driver.replica
        async with self._copying:
            copy = self._copy
            if copy is None or copy.offer.index < max(least, replica.node.first_index - 1):
                if copy is not None:
                    await asyncio.to_thread(copy.remove)
                path = f"{self._directory}/{replica.snapshot_index}"
                # What the copy holds is at least as new as the newest durable cut, where the log begins.
                replica.sending(follower, replica.snapshot_index, 0)
                copy = self._copy = await asyncio.to_thread(Outgoing.make, self._cuts.store, path)
            replica.sending(follower, copy.offer.index, copy.offer.length)
            return copy

    def _forget_later(self) -> None:
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._forgetting = asyncio.get_running_loop().call_later(KEEP_SECONDS, self._forget)

    def _forget(self) -> None:
        if not self._tasks and self._copy is not None:
            copy, self._copy = self._copy, None
            asyncio.get_running_loop().run_in_executor(None, copy.remove)

    async def _attempt(self, follower: NodeId, copy: Outgoing) -> Index:
        """Send what is missing over one connection; returns the index that the follower goes on from."""
        host, port = self._addresses.get(follower, ("", 0))
        if not host:
            raise ProtocolError("it is not a member any more")
        tls = self._trust.calling()
        reader, writer = await names.connect(
            host, port, STEP_SECONDS_MAX, lambda address, port: asyncio.open_connection(address, port, **tls)
        )
        try:
            self._trust.check_target(follower, certificate_of(writer))
            line = _Line(reader, writer)
            await line.greet(self._trust, self._admission.hello(follower, STATE))
            await line.send(copy.offer)
            answer = await line.receive(STEP_SECONDS_MAX)
            if isinstance(answer, Installed):
                return answer.index
            if not isinstance(answer, Resume):
                raise ProtocolError("the answer to an offer is neither a place nor an index")
            await self._stream(follower, line, copy, answer)
            end = await line.receive(INSTALL_SECONDS_MAX)
            if not isinstance(end, Installed):
                raise ProtocolError("a transfer ends with something else than an index")
            return end.index
        finally:
            writer.close()

    async def _stream(self, follower: NodeId, line: _Line, copy: Outgoing, place: Resume) -> None:
        loop = asyncio.get_running_loop()
        files, length = copy.offer.files, copy.offer.length
        offset = place.offset
        there = sum(file.length for file in files[: place.file]) + offset
        self.progress[follower] = there, length
        for number in range(place.file, len(files)):
            while True:
                began = loop.time()
                chunk = await asyncio.to_thread(copy.chunk, number, offset)
                await line.send(chunk)
                offset += len(chunk.data)
                there += len(chunk.data)
                self.sent_bytes += len(chunk.data)
                self.progress[follower] = there, length
                await asyncio.sleep(min(loop.time() - began, REST_SECONDS_MAX))
                if offset >= files[number].length or not chunk.data:
                    break
            offset = 0


class _Line:
    """Frames of one transfer on a stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.decoder = FrameDecoder(handshake=True)
        self._reader = reader
        self._writer = writer

    async def greet(self, trust: PeerTrust, hello: Hello) -> None:
        """Say who we are and be let in. Raises ProtocolError."""
        introduction = Introduction(trust, hello)
        self._writer.write(encode_handshake(introduction.hello))
        answer = introduction.take(await self.receive(STEP_SECONDS_MAX))
        if isinstance(answer, Proof):
            self.decoder.expect_greeting()
            self._writer.write(encode_handshake(answer))
            answer = introduction.take(await self.receive(STEP_SECONDS_MAX))
        if isinstance(answer, Refused):
            raise ProtocolError(answer.reason)
        self.decoder.expect_transfer()

    async def send(self, frame: Transfer) -> None:
        if self._writer.is_closing():
            raise ConnectionResetError("the connection closed in the middle of a transfer")
        self._writer.write(encode_transfer(frame))
        async with asyncio.timeout(STEP_SECONDS_MAX):
            await self._writer.drain()

    async def receive(self, seconds: float) -> object:
        async with asyncio.timeout(seconds):
            while True:
                data = await self._reader.read(READ_BYTES)
                if not data:
                    raise ProtocolError("the connection closed in the middle of a transfer")
                if frames := self.decoder.feed(data):
                    return frames[0]


class SnapshotReceiver:
    """Takes states from leaders, one at a time."""

    def __init__(self, driver: Driver, cuts: CutWriter, directory: StateDirectory, files: Files) -> None:
        self._driver = driver
        self._cuts = cuts
        self._directory = directory
        self._files = files
        self._group = directory.path.rpartition("/")[0]
        self._incoming: Incoming | None = None
        self._owner: Inbox | None = None
        self._beginning = asyncio.Lock()
        self._installing = False

    @property
    def progress(self) -> tuple[int, int] | None:
        """Bytes of a state that are here, and bytes in all; None when none is coming."""
        incoming = self._incoming
        if incoming is None:
            return None
        place, files = incoming.resume, incoming.offer.files
        return sum(file.length for file in files[: place.file]) + place.offset, incoming.offer.length

    async def begin(self, owner: Inbox, offer: Offer) -> Transfer:
        """Answer an offer; what an older connection was sending is given up."""
        if offer.index <= self._driver.replica.machine.applied_index:
            return Installed(self._driver.replica.machine.applied_index)
        if self._installing:
            raise ProtocolError("a state is being installed")
        if self._owner is not None:
            self._owner.close()
        self._owner, self._incoming = owner, None
        async with self._beginning:
            incoming = await asyncio.to_thread(Incoming, self._files, self._group, offer)
        if self._owner is not owner:
            raise ProtocolError("another transfer has begun")
        self._incoming = incoming
        place = incoming.resume
        journal.say(
            "state-receiving", index=offer.index, term=offer.term, bytes=offer.length, file=place.file
        )
        return place

    async def take(self, owner: Inbox, chunk: Chunk) -> Installed | None:
        """Take a piece; with the last one the state is installed."""
        incoming = self._of(owner)
        await asyncio.to_thread(incoming.take, chunk)
        return await self.finish(owner) if incoming.complete else None

    async def finish(self, owner: Inbox) -> Installed:
        """Check what was received, let it take the place of the state, and go on from it."""
        replica = self._driver.replica
        incoming = self._of(owner)
        await asyncio.to_thread(incoming.verify)
        while self._of(owner) and not replica.begin_install(incoming.offer.index):
            if replica.machine.applied_index >= incoming.offer.index:
                await asyncio.to_thread(incoming.drop)
                return Installed(replica.machine.applied_index)
            await asyncio.sleep(TICK_SECONDS)
        # From here on nothing is applied until the install, and a failure ends the process: what counts on
        # the disk and what is in memory must not differ.
        self._incoming, self._installing = None, True
        try:
            store = await asyncio.to_thread(incoming.put_in_place, self._directory)
            old = self._install(store, *await asyncio.to_thread(_read, store))
        except (LocalFault, OSError) as error:
            stop_process(str(error))
        self._installing = False
        await asyncio.to_thread(old.close)
        await asyncio.to_thread(self._directory.clean)
        offer = incoming.offer
        journal.say("state-installed", index=offer.index, term=offer.term, bytes=offer.length)
        return Installed(incoming.offer.index)

    def _of(self, owner: Inbox) -> Incoming:
        """Return what this connection brings. Raises ProtocolError when another one has taken its place."""
        if self._owner is not owner or self._incoming is None:
            raise ProtocolError("another transfer has begun")
        return self._incoming

    def _install(self, store: StateStore, bookkeeping: Bookkeeping, sessions: Sessions) -> StateStore:
        old, self._cuts.store = self._cuts.store, store
        if not self._driver.replica.install(store, bookkeeping, sessions):
            stop_process("the state was replaced while this node went on by itself; start it again")
        self._driver.wake()
        return old

    def left(self, owner: Inbox) -> None:
        """Note the end of a connection."""
        if self._owner is owner:
            self._owner = self._incoming = None


def _read(store: StateStore) -> tuple[Bookkeeping, Sessions]:
    """Read what is kept in memory as a whole, which takes long when there are many sessions."""
    bookkeeping = store.bookkeeping
    assert bookkeeping is not None
    return bookkeeping, load_sessions(store, bookkeeping)


class Inbox:
    """The receiving end of one transfer: frames in, handled one after another, answers out."""

    FRAMES_MAX = 8
    """Frames that may wait; with more the connection is not read."""

    def __init__(self, receiver: SnapshotReceiver, transport: asyncio.Transport) -> None:
        self._receiver = receiver
        self._transport = transport
        self._frames: asyncio.Queue[Transfer] = asyncio.Queue()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="state-inbox")

    def feed(self, frame: Transfer) -> None:
        """Take a frame from the connection."""
        self._frames.put_nowait(frame)
        if self._frames.qsize() > self.FRAMES_MAX:
            self._transport.pause_reading()

    def close(self) -> None:
        """End the connection."""
        self._transport.abort()

    def lost(self) -> None:
        """Note that the connection is gone; an install that has begun goes on."""
        self._frames.put_nowait(Installed(0))

    async def _run(self) -> None:
        try:
            while True:
                async with asyncio.timeout(RECEIVE_SECONDS_MAX):
                    frame = await self._frames.get()
                if self._frames.qsize() <= self.FRAMES_MAX and not self._transport.is_closing():
                    self._transport.resume_reading()
                answer: Transfer | None
                match frame:
                    case Offer():
                        answer = await self._receiver.begin(self, frame)
                        if isinstance(answer, Resume) and answer.file == len(frame.files):
                            self._answer(answer)
                            answer = await self._receiver.finish(self)
                    case Chunk():
                        answer = await self._receiver.take(self, frame)
                    case _:
                        return
                if answer is not None:
                    self._answer(answer)
        except (LocalFault, ProtocolError, OSError) as error:
            why = f"a transfer of the state ended: {error or 'nothing came any more'}"
            journal.say("state-not-received", "warning", message=why)
        finally:
            self._receiver.left(self)
            self._transport.close()

    def _answer(self, frame: Transfer) -> None:
        if not self._transport.is_closing():
            self._transport.write(encode_transfer(frame))
