"""What only the asyncio front has to do: many calls at a time, cancellation, one event loop."""

import asyncio

import pytest
from scripted_server import ScriptedServer, keep_silent

from balsadb.client import Clerk, ClerkOptions
from balsadb.errors import NotApplied, UsageError

ALONE = ClerkOptions(prefer_leader=False)


def test_concurrent_calls_share_one_connection_and_each_gets_its_own_answer():
    async def main(server):
        async with Clerk(server.server) as clerk:
            await asyncio.gather(*(clerk.put(f"k{i}", f"v{i}") for i in range(500)))
            values = await asyncio.gather(*(clerk.get(f"k{i}") for i in range(500)))
        assert values == [b"v%d" % i for i in range(500)]

    with ScriptedServer() as server:
        asyncio.run(main(server))
        assert server.accepted == 1


def test_a_cancelled_call_leaves_the_others_their_answers():
    async def main(server):
        async with Clerk(server.server, options=ALONE) as clerk:
            await clerk.put("a", "1")
            tasks = [asyncio.create_task(clerk.get("a")) for _ in range(3)]
            await asyncio.sleep(0)
            tasks[1].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert results[0] == results[2] == b"1"
            assert isinstance(results[1], asyncio.CancelledError)
            assert await clerk.get("a") == b"1"

    with ScriptedServer() as server:
        asyncio.run(main(server))


def test_closing_ends_what_is_under_way():
    async def main(server):
        clerk = Clerk(server.server)
        waiting = asyncio.create_task(clerk.get("a"))
        await asyncio.sleep(0)
        await clerk.close()
        await clerk.close()
        with pytest.raises(NotApplied, match="closed"):
            await waiting

    with ScriptedServer(keep_silent) as server:
        asyncio.run(main(server))


def test_a_clerk_belongs_to_one_event_loop():
    async def use(clerk):
        await clerk.put("a", "1")

    async def misuse(clerk):
        with pytest.raises(UsageError, match="event loop"):
            await clerk.put("a", "1")

    with ScriptedServer() as server:
        clerk = Clerk(server.server)
        with asyncio.Runner() as first:
            first.run(use(clerk))
            with asyncio.Runner() as second:
                second.run(misuse(clerk))
            first.run(clerk.close())


def test_both_fronts_have_the_same_methods():
    from balsadb.client import BlockingClerk

    def public(cls):
        return {name for name in vars(cls) if not name.startswith("_")}

    only_asyncio = {"connection_made", "data_received", "connection_lost"}
    assert public(Clerk) - only_asyncio == public(BlockingClerk)
