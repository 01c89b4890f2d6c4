"""Writes of the log are reported when they are on disk, one way or the other, and never after a failure."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import threading
from types import SimpleNamespace

import pytest

from balsadb.server import disk
from balsadb.server.disk import LogDisk
from balsadb.server.kernel_sync import KernelSync

SECONDS_MAX = 10


class Stopped(BaseException):
    """Stands for the end of the process."""


class Log:
    """A log that notes who does what, and may have a file."""

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = descriptor
        self.did: list[tuple[str, int]] = []
        self.failure = ""
        self.error: Exception | None = None

    def begin(self, write):
        if self.error is not None:
            raise self.error
        if self.descriptor is not None:
            os.pwrite(self.descriptor, b"x" * write.length, 0)
            self.did.append(("begin", write.number))
        return self.descriptor

    def execute(self, write):
        assert threading.current_thread().name == "wal-sync"
        if self.error is not None:
            raise self.error
        self.did.append(("execute", write.number))

    def failed(self, reason):
        self.failure = reason


class Kernel:
    """A kernel that syncs when it is told to."""

    def __init__(self, done):
        self.done = done
        self.syncing: list[int] = []
        self.closed = False

    def sync(self, descriptor):
        self.syncing.append(descriptor)
        return True

    def close(self):
        self.closed = True


def write(number: int, length: int = 512) -> SimpleNamespace:
    return SimpleNamespace(number=number, length=length)


@pytest.fixture
def descriptor(tmp_path):
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def kernels(monkeypatch):
    """Kernels that the tests move on; the list holds those that were opened."""
    opened: list[Kernel] = []

    def open_one(loop, done):
        opened.append(Kernel(done))
        return opened[-1]

    monkeypatch.setattr(KernelSync, "open", open_one)
    return opened


def run(log, scene):
    """Play a scene with a disk, and stop the disk."""

    async def play():
        done: asyncio.Queue[int] = asyncio.Queue()
        disk = LogDisk(log, asyncio.get_running_loop(), lambda write: done.put_nowait(write.number))
        disk.start()
        await scene(disk, done)
        await disk.stop()

    asyncio.run(asyncio.wait_for(play(), SECONDS_MAX))


def test_the_kernel_syncs_what_the_loop_wrote(descriptor):
    log = Log(descriptor)

    async def scene(disk, done):
        if disk._kernel is None:
            pytest.skip("this system has no asynchronous sync")
        for number in range(1, 101):
            disk.submit(write(number))
            assert await done.get() == number

    run(log, scene)
    assert log.did == [("begin", number) for number in range(1, 101)]


def test_a_write_counts_only_when_the_kernel_has_synced_it(descriptor, kernels):
    async def scene(disk, done):
        disk.submit(write(1))
        await asyncio.sleep(0.01)
        assert (kernels[0].syncing, done.qsize()) == ([descriptor], 0)
        kernels[0].done(0)
        assert done.get_nowait() == 1

    run(Log(descriptor), scene)


@pytest.mark.parametrize(
    ("descriptor_given", "length"), [(False, 512), (True, disk.LOOP_BYTES_MAX + 1)], ids=["segment", "large"]
)
def test_a_thread_does_what_takes_long_before_the_sync(descriptor, kernels, descriptor_given, length):
    log = Log(descriptor if descriptor_given else None)

    async def scene(disk, done):
        disk.submit(write(1, length))
        assert await done.get() == 1

    run(log, scene)
    assert (log.did, kernels[0].syncing) == ([("execute", 1)], [])


def test_a_thread_does_all_of_it_where_the_system_has_no_such_call(descriptor, monkeypatch):
    monkeypatch.setattr(KernelSync, "open", lambda loop, done: None)
    log = Log(descriptor)

    async def scene(disk, done):
        disk.submit(write(1))
        assert await done.get() == 1

    run(log, scene)
    assert log.did == [("execute", 1)]


def test_a_thread_does_it_when_the_kernel_takes_nothing(descriptor, kernels):
    log = Log(descriptor)

    async def scene(disk, done):
        kernels[0].sync = lambda descriptor: False
        disk.submit(write(1))
        assert await done.get() == 1

    run(log, scene)
    assert log.did == [("begin", 1), ("execute", 1)]


def test_a_kernel_that_takes_no_sync_is_left_alone_for_a_while(descriptor, kernels, monkeypatch):
    """One that does not know it at all would have everything written twice."""
    log = Log(descriptor)
    now = [100.0]
    monkeypatch.setattr(disk, "time", SimpleNamespace(monotonic=lambda: now[0]))

    async def scene(disk_, done):
        kernels[0].sync = lambda descriptor: False
        for number, later in ((1, 0.0), (2, 0.1), (3, disk.SHY_SECONDS)):
            now[0] += later
            disk_.submit(write(number))
            assert await done.get() == number

    run(log, scene)
    assert log.did == [("begin", 1), ("execute", 1), ("execute", 2), ("begin", 3), ("execute", 3)]


@pytest.mark.parametrize("interruptions", [0, 2])
def test_a_sync_whose_end_can_not_be_learned_has_failed(descriptor, monkeypatch, interruptions):
    """Nobody would ever be told of it: the log would stand still for ever."""

    async def play():
        ended = asyncio.get_running_loop().create_future()
        kernel = KernelSync.open(asyncio.get_running_loop(), ended.set_result)
        if kernel is None:
            pytest.skip("this system has no asynchronous sync")
        calls = []

        def take():
            calls.append(1)
            ctypes.set_errno(errno.EINTR if len(calls) <= interruptions else errno.EPERM)
            return -1

        monkeypatch.setattr(kernel, "_take", take)
        assert kernel.sync(descriptor)
        assert await ended == errno.EPERM
        assert len(calls) == interruptions + 1
        kernel.close()

    asyncio.run(asyncio.wait_for(play(), SECONDS_MAX))


def test_a_program_of_32_bits_calls_nothing_by_the_numbers_of_64(monkeypatch):
    monkeypatch.setattr(ctypes, "sizeof", lambda kind: 4)

    async def play():
        assert KernelSync.open(asyncio.get_running_loop(), lambda error: None) is None

    asyncio.run(play())


def test_a_kernel_that_let_the_loop_wait_is_left_alone_a_hundred_times_as_long(
    descriptor, kernels, monkeypatch
):
    log = Log(descriptor)
    now = [100.0]
    monkeypatch.setattr(disk, "time", SimpleNamespace(monotonic=lambda: now[0]))
    quick = log.begin

    def slow(write):
        now[0] += 0.02
        return quick(write)

    async def scene(disk_, done):
        log.begin = slow
        for number, later in ((1, 0.0), (2, 1.9), (3, 0.2)):
            now[0] += later
            disk_.submit(write(number))
            if kernels[0].syncing:
                kernels[0].syncing.clear()
                kernels[0].done(0)
            assert await done.get() == number
            log.begin = quick

    run(log, scene)
    assert log.did == [("begin", 1), ("execute", 2), ("begin", 3)]


def test_nothing_counts_after_a_sync_that_failed(descriptor, kernels, monkeypatch):
    """Rule W4."""
    told = []

    def stop(sentence):
        told.append(sentence)
        raise Stopped

    monkeypatch.setattr(disk, "stop_process", stop)
    log = Log(descriptor)

    async def scene(disk, done):
        disk.submit(write(1))
        with pytest.raises(Stopped):
            kernels[0].done(5)
        assert done.qsize() == 0
        disk._idle.set()

    run(log, scene)
    assert log.failure == "could not sync: Input/output error"
    assert told == ["the write-ahead log can't be written: could not sync: Input/output error"]


@pytest.mark.parametrize("way", ["loop", "thread"])
def test_nothing_counts_after_a_write_that_failed(descriptor, kernels, monkeypatch, way):
    """Rule W4."""
    told = threading.Event()

    def stop(sentence):
        told.set()
        raise Stopped(sentence)

    monkeypatch.setattr(disk, "stop_process", stop)
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    log = Log(descriptor)
    log.error = OSError("the disk is full")

    async def scene(disk_, done):
        if way == "loop":
            with pytest.raises(Stopped, match="the disk is full"):
                disk_.submit(write(1))
        else:
            disk_.submit(write(1, disk.LOOP_BYTES_MAX + 1))
        await asyncio.to_thread(told.wait, SECONDS_MAX)
        assert told.is_set()
        assert done.qsize() == 0

    run(log, scene)


def test_a_stop_waits_for_the_sync_that_is_under_way(descriptor, kernels):
    async def scene(disk, done):
        disk.submit(write(1))
        stopping = asyncio.ensure_future(disk.stop())
        await asyncio.sleep(0.05)
        assert not stopping.done()
        assert not kernels[0].closed
        kernels[0].done(0)
        await stopping
        assert kernels[0].closed

    run(Log(descriptor), scene)
