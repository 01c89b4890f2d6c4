"""The Clerk's sessions on real nodes: what the scripted servers of its own tests only play."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

from balsadb import BlockingClerk, Clerk, CommandError, OutcomeUnknown
from balsadb.address import parse_address
from balsadb.client import ClerkOptions
from balsadb.client.ask import ask, pairs


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the time is over"
        time.sleep(0.05)


def session_id(clerk):
    return clerk._core.desk.session.id


def left_ms(cluster, id):
    """What a node says of a session; None when there is none."""
    with suppress(CommandError):
        return pairs(ask(parse_address(cluster.servers[0]), ["SESSION", "INFO", id], 5.0))["left-ms"]
    return None


def test_all_that_a_clerk_can_do(shared_cluster):
    with BlockingClerk(shared_cluster.servers) as clerk:
        clerk.delete("a", "b", "n", "c")
        clerk.mput({"a": "1", "b": "2"})
        assert clerk.mget("a", "none", "b") == [b"1", None, b"2"]
        assert clerk.append("a", "23") == 3
        assert clerk.increment("n", 41) == 41
        assert clerk.increment("n") == 42
        assert clerk.exists("a", "none") == 1
        assert clerk.pipeline().put("a", "x").append("a", "y").get("a").run() == [None, 2, b"xy"]
        batch = clerk.transaction().append("a", "z").increment("n").get("a").increment("a")
        length, number, value, error = batch.run()
        assert (length, number, value) == (3, 43, b"xyz")
        assert isinstance(error, CommandError)
        with pytest.raises(CommandError, match="not an integer"):
            clerk.increment("a")
        with pytest.raises(CommandError, match="FOO"):
            clerk.transaction().put("a", "lost").execute("FOO").run()
        assert clerk.get("a") == b"xyz"
        assert clerk.delete("a", "b", "none") == 2


def test_compare_and_set_and_scan(shared_cluster):
    with BlockingClerk(shared_cluster.servers) as clerk:
        clerk.delete("cas")
        changes = [(None, "1"), (None, "2"), ("1", "2"), ("1", "3")]
        done = [clerk.compare_and_set("cas", old, new) for old, new in changes]
        assert done == [True, False, True, False]
        assert clerk.get("cas") == b"2"
        clerk.mput({f"scan:{number}": number for number in range(300)})
        assert set(clerk.scan("scan:*", 20)) == {b"scan:%d" % number for number in range(300)}


def test_a_session_ends_with_its_clerk(shared_cluster):
    with BlockingClerk(shared_cluster.servers) as clerk:
        clerk.put("k", "v")
        id = session_id(clerk)
        assert left_ms(shared_cluster, id) > 0
    assert left_ms(shared_cluster, id) is None


def test_an_idle_asyncio_clerk_keeps_its_session_and_a_forgotten_one_loses_it(shared_cluster):
    options = ClerkOptions(session_ttl=1.5)
    forgotten = BlockingClerk(shared_cluster.servers, options=options)
    forgotten.put("k", "v")
    lost = session_id(forgotten)

    async def idle():
        async with Clerk(shared_cluster.servers, options=options) as clerk:
            await clerk.put("k", "v")
            kept = session_id(clerk)
            await asyncio.to_thread(wait_until, lambda: left_ms(shared_cluster, lost) is None)
            assert left_ms(shared_cluster, kept) is not None
            await clerk.append("k", "w")
            assert session_id(clerk) == kept

    asyncio.run(idle())
    forgotten.append("k", "x")  # in a new session, without a word
    assert session_id(forgotten) != lost
    assert forgotten.get("k") == b"vwx"
    forgotten.close()


def test_a_killed_leader_costs_a_clerk_nothing_but_time(cluster):
    with BlockingClerk(cluster.servers, timeout=30) as clerk:
        for number in range(30):
            if number % 10 == 5:
                leader = cluster.wait_leader()
                cluster.kill(leader)
                assert clerk.append("k", f"{number};") > 0
                cluster.start(leader)
                cluster.wait_ready()
            else:
                clerk.append("k", f"{number};")
        assert clerk.get("k") == b"".join(b"%d;" % number for number in range(30))


def test_without_a_majority_the_error_says_that_the_outcome_is_open(cluster):
    with BlockingClerk(cluster.servers, timeout=4.0) as clerk:
        clerk.put("k", "v")
        leader = cluster.wait_leader()
        for node in list(cluster.nodes):
            if node != leader:
                cluster.kill(node)
        with pytest.raises(OutcomeUnknown):
            clerk.append("k", "w")
        cluster.start()
        cluster.wait_ready()
        clerk.append("k", "x")
        assert clerk.get("k") in (b"vx", b"vwx")
