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

    def step(self, message: object) -> None:
        self.seen.append("message")

    def tick(self, now_ms: int, wall_ms: int) -> None:
        self.seen.append("tick")

    def turn(self, now_ms: int, wall_ms: int, disk_idle: bool) -> Effects:
        return Effects([], None, [], [], False)


class Wal:
    """Has nothing to do."""

    prepare_due = False


@pytest.mark.parametrize("new_loop", LOOPS)
def test_after_a_pause_of_the_process_buffered_messages_come_before_a_single_tick(new_loop):
    replica = Replica()

    async def pause() -> None:
        loop = asyncio.get_running_loop()
        driver = Driver(replica, Wal(), Clock(), loop)
        here, there = socket.socketpair()
        arrived = asyncio.Event()

        def read() -> None:
            there.recv(1)
            driver.receive([Heartbeat(1, 2, 1, 0, 0)])
            arrived.set()

        with here, there:
            loop.add_reader(there, read)
            driver.start()
            await asyncio.sleep(0)
            replica.seen.clear()
            here.send(b"x")
            time.sleep(10 * TICK_SECONDS)  # noqa: ASYNC251 - the whole process stands still
            async with asyncio.timeout(10):
                await arrived.wait()
                while "tick" not in replica.seen:  # noqa: ASYNC110 - ticks come by themselves
                    await asyncio.sleep(0)
            loop.remove_reader(there)
            await driver.stop()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(pause())
    assert replica.seen == ["message", "tick"]
