"""The server's half of a backup: what it waits for, what it gives, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.append(str(Path(__file__).parent.parent / "storage"))
from state_kit import RECORDS, bookkeeping, make_state

from balsadb.kv.reply import Refusal
from balsadb.server.backups import Backups, Unavailable
from balsadb.storage.files import OsFiles
from balsadb.storage.state import StateStore
from balsadb.storage.transfer import Incoming
from balsadb.wire.frame import FrameDecoder
from balsadb.wire.transfer import Chunk, Offer


class Server:
    """A replica and its cuts, as far as a backup sees them, moved by the test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests = []
        self.cuts_wanted = 0
        self.applied_index = 5
        self.snapshot_index = 5
        self.machine = self
        self.replica = self
        self.store = StateStore(str(make_state(path / "state", RECORDS)))
        self.backups = Backups(self, SimpleNamespace(store=self.store), str(path / "outgoing" / "backup"))

    def submit(self, request) -> None:
        self.requests.append(request)

    def wake(self) -> None:
        pass

    def take_snapshot(self) -> None:
        self.cuts_wanted += 1

    def answer(self, *replies) -> None:
        """Answer the oldest question, as the listener does at the end of a turn."""
        request = self.requests.pop(0)
        request.replies = list(replies)
        request.lane.owner.marked = True
        request.lane.owner.flush()

    @property
    def copies(self) -> list[Path]:
        place = self.path / "outgoing"
        return list(place.iterdir()) if place.exists() else []


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.store.close()


async def rounds(count: int = 5) -> None:
    """Let everything run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


async def begin(stream) -> asyncio.Task:
    task = asyncio.ensure_future(anext(stream))
    await rounds()
    return task


def test_it_waits_for_a_read_index_and_then_for_a_cut_that_includes_what_was_applied_there(server):
    async def run() -> None:
        stream = server.backups.stream()
        first = await begin(stream)
        assert len(server.requests) == 1
        assert not server.cuts_wanted
        server.applied_index = 9  # what the answer waited for
        server.answer()
        await rounds()
        assert server.cuts_wanted == 1
        assert not first.done()
        assert server.copies == []
        server.snapshot_index = 9
        await asyncio.wait_for(first, 5)
        await stream.aclose()

    asyncio.run(run())


def test_the_frames_are_a_whole_state_that_a_receiver_can_check(server, tmp_path):
    async def run() -> None:
        stream = server.backups.stream()
        first = await begin(stream)
        server.answer()
        decoder = FrameDecoder()
        decoder.expect_transfer()
        (offer,) = decoder.feed(await asyncio.wait_for(first, 5))
        assert isinstance(offer, Offer)
        assert (offer.index, offer.term) == (9, 4)
        (tmp_path / "received").mkdir()
        incoming = Incoming(OsFiles(), str(tmp_path / "received"), offer)
        async for piece in stream:
            (chunk,) = decoder.feed(piece)
            assert isinstance(chunk, Chunk)
            incoming.take(chunk)
        assert incoming.complete
        incoming.verify()
        received = StateStore(str(tmp_path / "received" / "incoming" / "files"), read_only=True)
        assert {key: record[0] for key, record in received.sorted_items()} == RECORDS
        assert received.bookkeeping == bookkeeping(len(RECORDS))
        received.close()
        assert server.copies == []
        assert server.cuts_wanted == 0  # the state was new enough

    asyncio.run(run())


def test_a_refused_read_index_is_the_reason_why_there_is_no_backup(server):
    async def run() -> None:
        first = await begin(server.backups.stream())
        server.answer(Refusal(b"CLUSTERDOWN no leader was found"))
        with pytest.raises(Unavailable, match="CLUSTERDOWN no leader was found"):
            await asyncio.wait_for(first, 5)
        assert server.copies == []

    asyncio.run(run())


def test_there_is_one_backup_at_a_time(server):
    async def run() -> None:
        stream = server.backups.stream()
        first = await begin(stream)
        with pytest.raises(Unavailable, match="another backup of this node is under way"):
            await anext(server.backups.stream())
        server.answer()
        await asyncio.wait_for(first, 5)
        await stream.aclose()
        again = server.backups.stream()
        first = await begin(again)
        server.answer()
        await asyncio.wait_for(first, 5)
        await again.aclose()

    asyncio.run(run())


def test_a_backup_that_nobody_takes_leaves_no_copy(server):
    async def run() -> None:
        stream = server.backups.stream()
        first = await begin(stream)
        server.answer()
        await asyncio.wait_for(first, 5)
        assert len(server.copies) == 1
        await stream.aclose()
        assert server.copies == []

    asyncio.run(run())


def test_a_state_that_can_not_be_copied_is_a_reason_and_no_crash(server):
    async def run() -> None:
        (server.path / "outgoing").write_text("in the way")
        first = await begin(server.backups.stream())
        server.answer()
        with pytest.raises(Unavailable, match="outgoing"):
            await asyncio.wait_for(first, 5)

    asyncio.run(run())
