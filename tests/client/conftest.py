"""Both fronts of the Clerk behind one blocking face, so that every test holds for both."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from balsadb.client import BlockingClerk, Clerk, ClerkOptions
from certificates import certificates

__all__ = ["certificates"]

sys.path.insert(0, str(Path(__file__).parent))  # lets the tests share `scripted_server.py`


class BlockingFace(BlockingClerk):
    """A BlockingClerk whose closing is called as the other face's is."""

    shut = BlockingClerk.close

    def scanned(self):
        return list(self.scan())

    def ran(self, batch):
        return batch.run()


class AsyncioFace:
    """Runs an asyncio Clerk's calls one by one on an event loop of its own."""

    def __init__(self, *arguments, **options):
        self.runner = asyncio.Runner(debug=True)
        self.clerk = Clerk(*arguments, **options)

    def pipeline(self):
        return self.clerk.pipeline()

    def transaction(self):
        return self.clerk.transaction()

    def scanned(self):
        async def scan():
            return [key async for key in self.clerk.scan()]

        return self.runner.run(scan())

    def ran(self, batch):
        async def run():
            return await batch.run()

        return self.runner.run(run())

    def __getattr__(self, name):
        return lambda *arguments: self.runner.run(getattr(self.clerk, name)(*arguments))

    def shut(self):
        self.runner.run(self.clerk.close())

    def close(self):
        self.shut()
        self.runner.close()


@pytest.fixture(params=["asyncio", "blocking"])
def make_clerk(request):
    """Make a Clerk of either kind. Its times are short, so that tests of time-outs are."""
    made = []

    def make(servers, *, timeout=5.0, **options):
        options.setdefault("answer_timeout", 1.5)
        face = (AsyncioFace if request.param == "asyncio" else BlockingFace)(
            servers, timeout=timeout, options=ClerkOptions(**options)
        )
        made.append(face)
        return face

    yield make
    for face in made:
        face.close()
