"""The drive loop's order of things: what has arrived is delivered before time passes (rule B3)."""

from __future__ import annotations

import asyncio
import socket
import sys
import time

import pytest

from balsadb.raft.messages import Heartbeat
from balsadb.replica.replica import Effects
from balsadb.server.clock import Clock
from balsadb.server.driver import TICK_SECONDS, Driver

LOOPS = [asyncio.new_event_loop]
if sys.platform != "win32":
    uvloop = pytest.importorskip("uvloop")
    LOOPS.append(uvloop.new_event_loop)  # it runs timers before it reads sockets; asyncio does not


class Replica:
    """Notes the order of its inputs."""

    configuration = None

    def __init__(self) -> None:
        self.seen: list[str] = []

    def tell_time(self, now_ms: int, wall_ms: int) -> None:
        pass

    def step(self, message: object) -> None:
        self.seen.append("message")

    def tick(self, now_ms: int, wall_ms: int) -> None:
        self.seen.append("tick")

    def turn(self, now_ms: int, wall_ms: int, disk_idle: bool) -> Effects:
        return Effects([], None, [], [], [], [], None, False)


class Wal:
    """Has nothing to do."""

    prepare_due = False
    end_due = False


@pytest.mark.parametrize("new_loop", LOOPS)
def test_after_a_pause_of_the_process_buffered_messages_come_before_a_single_tick(new_loop):
    replica = Replica()

    async def pause() -> None:
        loop = asyncio.get_running_loop()
        driver = Driver(replica, Wal(), Clock(), loop)
        here, there = socket.socketpair()
        wake, woken = socket.socketpair()

        def stand_still() -> None:
            """Pause the process after the loop has looked at its sockets; a message arrives meanwhile."""
            woken.recv(1)
            replica.seen.clear()
            here.send(b"x")
            time.sleep(10 * TICK_SECONDS)

        def read() -> None:
            there.recv(1)
            driver.receive([Heartbeat(1, 2, 1, 0, 0)])

        with here, there, wake, woken:
            loop.add_reader(there, read)
            loop.add_reader(woken, stand_still)
            driver.start()
            wake.send(b"x")
            async with asyncio.timeout(10):
                while not {"message", "tick"} <= {*replica.seen}:  # noqa: ASYNC110 - both come by themselves
                    await asyncio.sleep(TICK_SECONDS / 10)
            loop.remove_reader(there)
            loop.remove_reader(woken)
            await driver.stop()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(pause())
    assert replica.seen[:2] == ["message", "tick"]
    assert len(replica.seen) == 2, "however long the pause was, it is one tick"
