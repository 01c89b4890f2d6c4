"""Both fronts with many calls under way while connections are cut all the time: every write happens once."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from model_database import Database
from scripted_server import ScriptedServer, cut_now_and_then

from balsadb.client import BlockingClerk, Clerk, ClerkOptions

QUICK = ClerkOptions(answer_timeout=2.0, backoff_min=0.001, backoff_max=0.01)
CALLERS = 12
CALLS = 60


@pytest.fixture
def servers():
    """Three servers of one database, each of which cuts one of five answers off."""
    database = Database()
    with ExitStack() as stack:
        yield [
            stack.enter_context(ScriptedServer(cut_now_and_then(seed, 0.2), database=database))
            for seed in range(3)
        ]


def check(servers, answers, retries):
    data = servers[0].database.data
    for caller in range(CALLERS):
        assert data[b"k%d" % caller] == b"".join(b"%d;" % number for number in range(CALLS))
    assert data[b"n"] == b"%d" % (CALLERS * CALLS)
    assert sorted(answers) == list(range(1, CALLERS * CALLS + 1))
    assert retries > 50
    assert len(servers[0].database.ever_opened) == 1


def test_blocking_clerk(servers):
    answers = []
    with (
        BlockingClerk([server.server for server in servers], timeout=60, options=QUICK) as clerk,
        ThreadPoolExecutor(CALLERS) as threads,
    ):

        def work(caller):
            for number in range(CALLS):
                clerk.append(f"k{caller}", f"{number};")
                answers.append(clerk.increment("n"))

        list(threads.map(work, range(CALLERS)))
        check(servers, answers, clerk.retries)


def test_asyncio_clerk(servers):
    answers = []

    async def main():
        async with Clerk([server.server for server in servers], timeout=60, options=QUICK) as clerk:

            async def work(caller):
                for number in range(CALLS):
                    await clerk.append(f"k{caller}", f"{number};")
                    answers.append(await clerk.increment("n"))

            await asyncio.gather(*(work(caller) for caller in range(CALLERS)))
            check(servers, answers, clerk.retries)

    asyncio.run(main())


def test_pipelines_and_transactions(servers):
    with BlockingClerk([server.server for server in servers], timeout=60, options=QUICK) as clerk:
        for round_ in range(40):
            done = round_ * 14
            pipeline = clerk.pipeline()
            for _ in range(10):
                pipeline.increment("n")
            assert sorted(pipeline.run()) == list(range(done + 1, done + 11))
            transaction = clerk.transaction().increment("n", 3).increment("n").append("log", "x")
            assert transaction.run() == [done + 13, done + 14, round_ + 1]
        assert clerk.retries > 5
