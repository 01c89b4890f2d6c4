"""Sending and taking states over real connections, between halves of servers (rules C4, C5)."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace

import pytest

from balsadb.kv.machine import StateMachine
from balsadb.server import snapshots
from balsadb.server.snapshots import Inbox, SnapshotReceiver, SnapshotSender
from balsadb.storage import transfer
from balsadb.storage.files import OsFiles
from balsadb.storage.state import StateDirectory, StateStore
from balsadb.wire.frame import FrameDecoder, Welcome, encode_handshake, encode_transfer
from balsadb.wire.handshake import PROTOCOL_VERSION, Hello
from balsadb.wire.transfer import Chunk, Installed, Offer, Resume, StateFile
from kv.delta_model import write
from kv.some_log import MEMBERS, SomeLog

LOG = SomeLog(60)
HELLO = Hello(PROTOCOL_VERSION, b"c" * 16, b"d" * 32, 1, 2, b"s" * 16, 7, "10.0.0.1:7001", True, 1)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Small pieces, short pauses."""
    monkeypatch.setattr(transfer, "CHUNK_BYTES_MAX", 700)
    monkeypatch.setattr(snapshots, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(snapshots, "REST_SECONDS_MAX", 0.0)


class FakeReplica:
    """What the two sides ask of a replica, noted."""

    def __init__(self, base: int = 0, snapshot_index: int = 40, applied: int = 0) -> None:
        self.node = SimpleNamespace(first_index=base + 1)
        self.snapshot_index = snapshot_index
        self.machine = SimpleNamespace(applied_index=applied)
        self.kept: dict[int, int] = {}
        self.ended: list[tuple[int, int]] = []
        self.busy = 0
        """How often an install is not possible yet."""
        self.installed: list[int] = []

    def sending(self, follower, index, size):
        self.kept[follower] = index

    def snapshot_ended(self, follower, index):
        self.kept.pop(follower, None)
        self.ended.append((follower, index))

    def begin_install(self, index):
        self.busy -= 1
        return self.busy < 0 and index > self.machine.applied_index

    def install(self, base, bookkeeping, sessions):
        assert len(sessions) == 0
        self.installed.append(bookkeeping.index)
        self.machine.applied_index = bookkeeping.index
        return True


def driver_of(replica) -> SimpleNamespace:
    return SimpleNamespace(replica=replica, wake=lambda: None)


def state(path, *cuts: int) -> StateStore:
    """A state as of the last of these cuts."""
    store = StateStore(str(path))
    machine = StateMachine(MEMBERS, store)
    for index in cuts:
        go_on(store, machine, index)
    return store


def go_on(store: StateStore, machine: StateMachine, index: int) -> None:
    cut = LOG.apply(machine, index).freeze()
    while machine.store.count(cut):
        pass
    write(store, cut)
    machine.store.written(cut)


class Sender:
    """The sending half of a server with a state as of entry 40."""

    def __init__(self, path, addresses, **replica) -> None:
        self.store = state(path / "sender", 20, 40)
        self.replica = FakeReplica(**replica)
        self.directory = str(path / "outgoing")
        admission = SimpleNamespace(hello=lambda follower, purpose: HELLO)
        cuts = SimpleNamespace(store=self.store)
        self.sender = SnapshotSender(driver_of(self.replica), cuts, admission, addresses, self.directory)

    async def send(self, *followers: int, least: int = 0) -> None:
        """Send to these at once, and wait for the end."""
        for follower in followers:
            self.sender.send(follower, least)
        await asyncio.gather(*self.sender._tasks.values(), return_exceptions=True)

    async def close(self) -> None:
        await self.sender.stop()
        self.store.close()

    @property
    def copies(self) -> list[str]:
        return sorted(os.listdir(self.directory)) if os.path.isdir(self.directory) else []


class Receiver:
    """The receiving half, behind a real port."""

    def __init__(self, path, **replica) -> None:
        self.path = path
        self.states = StateDirectory(OsFiles(), str(path / "state"))
        self.cuts = SimpleNamespace(store=StateStore(self.states.current().path))
        self.replica = FakeReplica(**replica)
        self.receiver = SnapshotReceiver(driver_of(self.replica), self.cuts, self.states, OsFiles())
        self.connections = 0
        self.break_after = 0
        """Frames after which the first connection breaks; 0: it does not."""
        self.inboxes: list[Inbox] = []
        self.greeting: bytes = encode_handshake(Welcome(2, b"t" * 16, b"c" * 16, "", True))

    async def listen(self) -> tuple[str, int]:
        self.server = await asyncio.get_running_loop().create_server(lambda: _Door(self), "127.0.0.1", 0)
        return self.server.sockets[0].getsockname()

    async def close(self) -> None:
        self.server.close()
        for inbox in self.inboxes:
            inbox.close()
            inbox.lost()
        await asyncio.gather(*(inbox._task for inbox in self.inboxes), return_exceptions=True)
        self.cuts.store.close()

    def digest(self) -> bytes:
        store = self.cuts.store
        return StateMachine((), store, store.bookkeeping).digest()


class _Door(asyncio.Protocol):
    """As `server/peers.py` opens it, without the admission."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.decoder = FrameDecoder()
        self.inbox: Inbox | None = None
        self.frames = 0

    def connection_made(self, transport):
        self.transport = transport
        self.receiver.connections += 1

    def data_received(self, data):
        receiver = self.receiver
        for frame in self.decoder.feed(data):
            if self.inbox is None:
                self.transport.write(receiver.greeting)
                self.decoder.expect_transfer()
                self.inbox = Inbox(receiver.receiver, self.transport)
                receiver.inboxes.append(self.inbox)
                continue
            self.frames += 1
            if receiver.connections == 1 and receiver.break_after and self.frames > receiver.break_after:
                self.transport.abort()
                return
            self.inbox.feed(frame)

    def connection_lost(self, error):
        if self.inbox is not None:
            self.inbox.lost()


def between(tmp_path, act, *, sender=None, receiver=None) -> None:
    """Run `act(sender, receiver)` on a fresh pair."""

    async def run() -> None:
        one = Receiver(tmp_path / "receiver", **(receiver or {}))
        addresses = {2: await one.listen(), 3: ("127.0.0.1", 1)}
        other = Sender(tmp_path, addresses, **(sender or {}))
        try:
            await asyncio.wait_for(act(other, one), 30)
        finally:
            await other.close()
            await one.close()

    (tmp_path / "receiver").mkdir()
    asyncio.run(run())


# ------------------------------------------------------------------------------- the whole way


def test_a_state_arrives_is_installed_and_both_sides_say_so(tmp_path):
    async def act(sender, receiver):
        await sender.send(2)
        assert sender.replica.ended == [(2, 40)]
        assert sender.replica.kept == {}
        assert receiver.replica.installed == [40]
        assert receiver.digest() == LOG.digest(40)

    between(tmp_path, act)


def test_both_sides_say_how_far_a_transfer_is_and_nothing_when_it_is_over(tmp_path):
    async def act(sender, receiver):
        seen: dict[str, list[tuple[int, int]]] = {"there": [], "here": []}
        take = receiver.receiver.take

        async def watched(owner, chunk):
            seen["there"].append(sender.sender.progress[2])
            done = await take(owner, chunk)
            if receiver.receiver.progress is not None:
                seen["here"].append(receiver.receiver.progress)
            return done

        receiver.receiver.take = watched
        await sender.send(2)
        length = sender.sender._copy.offer.length
        for progress in seen.values():
            assert progress
            assert progress == sorted(progress)
            assert {whole for _, whole in progress} == {length}
        assert seen["there"][-1][0] <= length
        assert sender.sender.sent_bytes == length
        assert (sender.sender.progress, receiver.receiver.progress) == ({}, None)

    between(tmp_path, act)


@pytest.mark.parametrize("frames", [1, 2, 5, 12])
def test_a_connection_that_breaks_is_tried_again_and_goes_on(tmp_path, frames):
    async def act(sender, receiver):
        receiver.break_after = frames
        await sender.send(2)
        assert receiver.connections == 2
        assert sender.replica.ended == [(2, 40)]
        assert receiver.digest() == LOG.digest(40)

    between(tmp_path, act)


def test_a_follower_that_is_as_far_is_sent_nothing(tmp_path):
    async def act(sender, receiver):
        await sender.send(2)
        assert sender.replica.ended == [(2, 45)]
        assert receiver.replica.installed == []
        assert not (tmp_path / "receiver" / "incoming").exists()

    between(tmp_path, act, receiver={"applied": 45})


def test_an_install_waits_for_the_cuts_under_way(tmp_path):
    async def act(sender, receiver):
        receiver.replica.busy = 5
        await sender.send(2)
        assert receiver.replica.installed == [40]

    between(tmp_path, act)


def test_a_follower_that_got_as_far_by_itself_meanwhile_drops_what_it_received(tmp_path):
    async def act(sender, receiver):
        def gets_on(index):
            receiver.replica.machine.applied_index = 44
            return False

        receiver.replica.begin_install = gets_on
        await sender.send(2)
        assert sender.replica.ended == [(2, 44)]
        assert receiver.replica.installed == []
        assert not (tmp_path / "receiver" / "incoming").exists()
        assert receiver.states.current().installed == 0

    between(tmp_path, act)


# ----------------------------------------------------------------------------------- the sender


def test_a_follower_that_can_not_be_reached_ends_the_sending_after_some_attempts(tmp_path):
    async def act(sender, receiver):
        await sender.send(3)
        assert sender.replica.ended == [(3, 0)]
        assert sender.replica.kept == {}

    between(tmp_path, act)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_connection_that_closes_between_two_pieces_does_not_end_it_without_a_word(tmp_path, loop):
    """A follower is killed while the next piece is read: then the write is to a closed connection."""
    if loop == "uvloop":
        runner = asyncio.Runner(loop_factory=pytest.importorskip("uvloop").new_event_loop)
    else:
        runner = asyncio.Runner()

    async def run() -> None:
        async def slam(reader, writer):
            await reader.read(100)
            writer.write(encode_handshake(Welcome(2, b"t" * 16, b"c" * 16, "", True)))
            writer.write(encode_transfer(Resume(0, 0)))
            await writer.drain()
            writer.transport.abort()

        server = await asyncio.start_server(slam, "127.0.0.1", 0)
        sender = Sender(tmp_path, {2: server.sockets[0].getsockname()})
        await asyncio.wait_for(sender.send(2), 30)
        assert sender.replica.ended == [(2, 0)]
        assert sender.replica.kept == {}
        server.close()
        await sender.close()

    with runner:
        runner.run(run())


def test_a_copy_that_can_not_be_made_ends_the_sending(tmp_path):
    async def act(sender, receiver):
        os.symlink("/dev/null", sender.directory)  # no directory can be there
        await sender.send(2)
        assert sender.replica.ended == [(2, 0)]
        assert sender.replica.kept == {}
        os.unlink(sender.directory)

    between(tmp_path, act)


def test_the_log_behind_the_copy_is_kept_from_before_it_is_made_until_the_end(tmp_path):
    """Rule C5."""
    seen = []

    async def act(sender, receiver):
        make = snapshots.Outgoing.make

        def watched(store, path):
            seen.append(dict(sender.replica.kept))
            return make(store, path)

        snapshots.Outgoing.make = watched
        try:
            await sender.send(2)
        finally:
            snapshots.Outgoing.make = make
        assert seen == [{2: 40}]

    between(tmp_path, act)


def test_one_copy_serves_all_followers_and_later_attempts(tmp_path):
    """Rule C5: it stays, so that a broken transfer goes on and does not start over."""

    async def act(sender, receiver):
        await sender.send(3)
        before = sender.copies
        inode = os.stat(f"{sender.directory}/40/CURRENT").st_ino
        await sender.send(2)
        assert sender.copies == before == ["40"]
        assert os.stat(f"{sender.directory}/40/CURRENT").st_ino == inode

    between(tmp_path, act)


def test_a_copy_is_still_of_use_while_the_log_begins_right_behind_it(tmp_path):
    """While it is sent the log is let go up to it; a second follower must not take it from the first."""

    async def act(sender, receiver):
        await sender.send(3)
        inode = os.stat(f"{sender.directory}/40/CURRENT").st_ino
        sender.replica.node.first_index = 41
        await sender.send(2)
        assert os.stat(f"{sender.directory}/40/CURRENT").st_ino == inode
        assert receiver.replica.installed == [40]

    between(tmp_path, act)


def test_a_copy_that_the_log_does_not_continue_any_more_is_replaced(tmp_path):
    async def act(sender, receiver):
        await sender.send(3)
        machine = StateMachine((), sender.store, sender.store.bookkeeping)
        go_on(sender.store, machine, 50)
        sender.replica.snapshot_index = 50
        sender.replica.node.first_index = 42
        await sender.send(2)
        assert sender.copies == ["50"]
        assert receiver.replica.installed == [50]
        assert receiver.digest() == LOG.digest(50)

    between(tmp_path, act)


def test_a_copy_that_is_too_old_for_a_follower_is_replaced(tmp_path):
    """One that lost its state has a log that begins later than this node's."""

    async def act(sender, receiver):
        await sender.send(3)
        machine = StateMachine((), sender.store, sender.store.bookkeeping)
        go_on(sender.store, machine, 50)
        sender.replica.snapshot_index = 50
        await sender.send(2, least=45)
        assert receiver.replica.installed == [50]

    between(tmp_path, act)


def test_a_copy_that_nobody_asks_for_is_removed_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshots, "KEEP_SECONDS", 0.01)

    async def act(sender, receiver):
        await sender.send(2)
        while sender.copies:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    between(tmp_path, act)


def test_copies_of_a_process_that_was_killed_are_removed_at_the_start(tmp_path):
    """Hard links keep files on the disk that the state has long done without."""

    async def act(sender, receiver):
        assert sender.copies == []

    (tmp_path / "outgoing" / "17").mkdir(parents=True)
    between(tmp_path, act)


def test_a_sending_that_is_under_way_is_not_begun_twice(tmp_path):
    async def act(sender, receiver):
        await sender.send(2, 2, 2)
        assert receiver.connections == 1
        assert sender.replica.ended == [(2, 40)]

    between(tmp_path, act)


def test_stopping_gives_up_what_is_under_way_and_leaves_no_copy(tmp_path):
    async def act(sender, receiver):
        receiver.replica.busy = 10**9
        sender.sender.send(2, 0)
        while not receiver.inboxes:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await sender.sender.stop()
        assert sender.copies == []
        receiver.replica.busy = 0

    between(tmp_path, act)


# --------------------------------------------------------------------------------- the receiver


OTHER = Offer(70, 8, (StateFile("a", 3, 1),))


def test_a_newer_connection_takes_over_from_an_older_one(tmp_path):
    async def act(sender, receiver):
        first, second = SimpleNamespace(close=lambda: closed.append(1)), SimpleNamespace(close=lambda: None)
        closed: list[int] = []
        assert await receiver.receiver.begin(first, OTHER) == Resume(0, 0)
        assert await receiver.receiver.begin(second, OTHER) == Resume(0, 0)
        assert closed == [1]
        with pytest.raises(snapshots.ProtocolError, match="another transfer has begun"):
            await receiver.receiver.take(first, Chunk(0, 0, b"abc"))
        receiver.receiver.left(first)  # its end says nothing about the second one
        with pytest.raises(snapshots.ProtocolError, match="sends 4 bytes of a file of 3"):
            await receiver.receiver.take(second, Chunk(0, 0, b"abcd"))

    between(tmp_path, act)


def test_of_two_offers_at_once_the_later_one_counts(tmp_path):
    async def act(sender, receiver):
        first, second = SimpleNamespace(close=lambda: None), SimpleNamespace(close=lambda: None)
        later = Offer(71, 8, OTHER.files)
        begin = receiver.receiver.begin
        old, new = await asyncio.gather(begin(first, OTHER), begin(second, later), return_exceptions=True)
        assert isinstance(old, snapshots.ProtocolError)
        assert new == Resume(0, 0)
        assert receiver.receiver._incoming.offer == later

    between(tmp_path, act)


def test_a_piece_without_an_offer_is_refused(tmp_path):
    async def act(sender, receiver):
        owner = SimpleNamespace(close=lambda: None)
        with pytest.raises(snapshots.ProtocolError):
            await receiver.receiver.take(owner, Chunk(0, 0, b"abc"))

    between(tmp_path, act)


def test_damage_on_the_way_is_found_and_the_sending_fails(tmp_path):
    async def act(sender, receiver):
        real = sender.sender._current_copy

        async def damaged(follower, least):
            copy = await real(follower, least)
            files = list(copy.offer.files)
            files[-1] = StateFile(files[-1].name, files[-1].length, files[-1].checksum ^ 1)
            copy.offer = Offer(copy.offer.index, copy.offer.term, tuple(files))
            return copy

        sender.sender._current_copy = damaged
        await sender.send(2)
        assert sender.replica.ended == [(2, 0)]
        assert receiver.replica.installed == []
        assert receiver.states.current().installed == 0
        assert not (tmp_path / "receiver" / "incoming").exists()

    between(tmp_path, act)


def test_an_older_connection_does_not_install_what_a_newer_one_has_begun_to_replace(tmp_path, monkeypatch):
    """Another leader offers another state while the first one waits for its turn to be installed."""
    monkeypatch.setattr(snapshots, "ATTEMPTS", 1)

    async def act(sender, receiver):
        receiver.replica.busy = 10**9
        sender.sender.send(2, 0)
        while 10**9 - receiver.replica.busy < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        newer = SimpleNamespace(close=lambda: None)
        assert await receiver.receiver.begin(newer, OTHER) == Resume(0, 0)
        receiver.replica.busy = 0
        inbox = receiver.inboxes[0]
        await asyncio.wait_for(asyncio.shield(inbox._task), 10)
        assert receiver.replica.installed == []
        assert (tmp_path / "receiver" / "incoming" / "files").is_dir()

    between(tmp_path, act)


def test_nothing_is_offered_while_a_state_is_put_in_place(tmp_path):
    async def act(sender, receiver):
        loop = asyncio.get_running_loop()
        reached, go = asyncio.Event(), asyncio.Event()
        real = transfer.Incoming.put_in_place

        def slow(self, directory):
            loop.call_soon_threadsafe(reached.set)
            asyncio.run_coroutine_threadsafe(go.wait(), loop).result()
            return real(self, directory)

        transfer.Incoming.put_in_place = slow
        try:
            task = asyncio.ensure_future(sender.send(2))
            await reached.wait()
            newer = SimpleNamespace(close=lambda: None)
            with pytest.raises(snapshots.ProtocolError, match="is being installed"):
                await receiver.receiver.begin(newer, OTHER)
            go.set()
            await task
        finally:
            transfer.Incoming.put_in_place = real
        assert receiver.replica.installed == [40]

    between(tmp_path, act)


def test_a_frame_out_of_place_ends_the_connection(tmp_path):
    async def act(sender, receiver):
        host, port = receiver.server.sockets[0].getsockname()
        for frame in (Resume(0, 0), Installed(3)):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(encode_handshake(HELLO))
            assert isinstance(FrameDecoder().feed(await reader.read(1000))[0], Welcome)
            writer.write(encode_transfer(frame))
            assert await reader.read() == b""
            writer.close()

    between(tmp_path, act)


@pytest.mark.parametrize("offered", [False, True])
def test_a_transfer_in_which_nothing_comes_any_more_is_given_up(tmp_path, monkeypatch, offered):
    """Bad input 42: a peer that begins and falls silent keeps neither the connection nor the receiver."""
    monkeypatch.setattr(snapshots, "RECEIVE_SECONDS_MAX", 0.05)

    async def act(sender, receiver):
        host, port = receiver.server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(encode_handshake(HELLO))
        assert isinstance(FrameDecoder().feed(await reader.read(1000))[0], Welcome)
        if offered:
            writer.write(encode_transfer(OTHER))
        await reader.read()
        assert receiver.receiver.progress is None
        writer.close()

    between(tmp_path, act)
