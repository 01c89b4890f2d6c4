"""Giving the whole state to somebody who wants to keep it: the server's half of `balsadb backup`.

Everything that was acknowledged before the question is in the answer. So this is a linearizable read: a read
index is asked for and waited for, then a cut of what is applied becomes durable, and a copy of the state is
made by hard links. Its files are sent as they are, in the frames of a transfer between nodes; the other side
checks them and makes a backup of them. So a node that serves clients neither sorts nor encodes anything, and
after each piece it rests for as long as the piece took.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from balsadb.errors import LocalFault
from balsadb.kv.reply import Refusal
from balsadb.raft.types import Index
from balsadb.replica.request import Lane, Request, RequestKind
from balsadb.server.cuts import CutWriter
from balsadb.server.driver import TICK_SECONDS, Driver
from balsadb.server.snapshots import REST_SECONDS_MAX
from balsadb.storage.transfer import Outgoing
from balsadb.wire.frame import encode_transfer

CUT_SECONDS_MAX: Final = 60.0
"""How long a durable cut may take before a backup is refused."""


class Unavailable(Exception):
    """No backup now; the message is a sentence that says why."""


class _Barrier:
    """Stands for a client connection with one question: has everything acknowledged been applied here?"""

    def __init__(self) -> None:
        self.marked = False
        """Set and cleared by the listener, as for any connection."""
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def flush(self) -> None:
        """Note the answer, at the end of the turn that gave it."""
        self.marked = False
        if not self.answered.done():
            self.answered.set_result(None)


class Backups:
    """Gives the state, to one at a time."""

    def __init__(self, driver: Driver, cuts: CutWriter, directory: str) -> None:
        """`directory` is where the copy is made."""
        self._driver = driver
        self._cuts = cuts
        self._directory = directory
        self._busy = False

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the frames of an `Offer` and of the pieces of all its files.

        Raises Unavailable; before the first frame when there can't be a backup now.
        """
        if self._busy:
            raise Unavailable("another backup of this node is under way")
        self._busy = True
        copy: Outgoing | None = None
        try:
            index = await self._barrier()
            await self._cut(index)
            copy = await asyncio.to_thread(Outgoing.make, self._cuts.store, self._directory)
            yield encode_transfer(copy.offer)
            loop = asyncio.get_running_loop()
            for number, file in enumerate(copy.offer.files):
                offset = 0
                while True:
                    began = loop.time()
                    chunk = await asyncio.to_thread(copy.chunk, number, offset)
                    yield encode_transfer(chunk)
                    offset += len(chunk.data)
                    await asyncio.sleep(min(loop.time() - began, REST_SECONDS_MAX))
                    if offset >= file.length or not chunk.data:
                        break
        except (LocalFault, OSError) as error:
            raise Unavailable(str(error)) from error
        finally:
            try:
                if copy is not None:
                    await asyncio.to_thread(copy.remove)
            finally:
                self._busy = False

    async def _barrier(self) -> Index:
        """Wait until everything acknowledged anywhere is applied here; returns the applied index."""
        replica = self._driver.replica
        barrier = _Barrier()
        request = Request(Lane(barrier), RequestKind.READ, [], [], answers=1, size=0)
        replica.submit(request)
        self._driver.wake()
        await barrier.answered
        for reply in request.replies or ():
            if isinstance(reply, Refusal):
                raise Unavailable(reply.text.decode(errors="replace"))
        return replica.machine.applied_index

    async def _cut(self, index: Index) -> None:
        """Wait until the state on disk includes `index`."""
        replica = self._driver.replica
        if replica.snapshot_index < index:
            replica.take_snapshot()
            self._driver.wake()
        deadline = asyncio.get_running_loop().time() + CUT_SECONDS_MAX
        # Nothing signals the end of a cut.
        while replica.snapshot_index < index:
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable("the state could not be written in time")
            await asyncio.sleep(TICK_SECONDS)
