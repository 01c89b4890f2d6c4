"""A Clerk that was given one server goes on when all members have been replaced."""

from __future__ import annotations

import time

from balsadb import BlockingClerk
from balsadb.address import parse_address
from balsadb.client import ClerkOptions
from balsadb.client.ask import ask, pairs
from balsadb.errors import ClientError

WAIT_SECONDS = 40.0


def wait_until(condition):
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the time is over"
        time.sleep(0.05)


def voters(cluster):
    """Return the voters as the newest node knows them: one that was removed hears of nothing any more."""
    try:
        address = parse_address(cluster.running[-1].client_address)
        return sorted(pairs(ask(address, ["RAFT", "STATUS"], 5.0))["voters"])
    except ClientError:
        return []


def test_a_clerk_follows_the_members_until_none_is_left_that_it_was_given(cluster):
    options = ClerkOptions(leader_interval=0.2)
    written = 0
    with BlockingClerk(cluster.servers[:1], timeout=30, options=options) as clerk:

        def write():
            nonlocal written
            clerk.append("k", f"{written};")
            written += 1

        def write_until(condition):
            def written_and_true():
                write()
                return condition()

            wait_until(written_and_true)

        for old, new in ((1, 4), (2, 5), (3, 6)):
            cluster.join(new)
            write_until(lambda new=new: new in voters(cluster))
            with BlockingClerk(cluster.servers) as operator:
                operator.execute("RAFT", "REMOVE", old)
            write_until(lambda old=old: old not in voters(cluster))
            cluster.forget(old)
            for _ in range(10):
                write()
        write_until(lambda: voters(cluster) == [4, 5, 6])
        assert clerk.get("k") == b"".join(b"%d;" % number for number in range(written))
