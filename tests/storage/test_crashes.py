"""The process ends, or the power goes, at every operation: what was acknowledged is there afterwards."""

import random

import pytest
from memory_files import MemoryFiles, Stopped
from wal_kit import Log, entries, entry, recover

from balsadb.errors import StorageError
from balsadb.raft.types import HardState
from balsadb.storage.datadir import DataDirectory


def script(log, acknowledged):
    """Change segments, overwrite, write a big batch; note what was acknowledged after each."""

    def write(*new, state=None):
        acknowledged[1] = [*log.entries[: new[0].index - 1], *new] if new else list(log.entries)
        log.write(*new, state=state)
        acknowledged[0] = list(log.entries)

    write(*entries(1, 4), state=HardState(1, 1, 0))
    write(*entries(5, 30, size=200))
    log.wal.prepare()
    write(*entries(31, 50, size=200))
    write(*entries(20, 25, term=2, size=600), state=HardState(2, 2, 10))
    write(entry(26, term=2, size=20_000))
    write(*entries(27, 60, term=2, size=200), state=HardState(2, 2, 26))


def run_until(operation):
    """Run the script until that operation; returns the files, and (acknowledged, last attempt)."""
    files = MemoryFiles()
    files.stop_at = operation
    acknowledged = [[], []]
    try:
        script(Log(files), acknowledged)
    except Stopped:
        return files, acknowledged, False
    return files, acknowledged, True


def all_points():
    operation, finished = 0, False
    while not finished:
        files, acknowledged, finished = run_until(operation)
        yield operation, files, acknowledged
        operation += 1


def check(files, acknowledged):
    recovered, found = recover(files)
    assert found in acknowledged
    # What a start has returned counts as durable: a power loss right after it takes nothing back.
    after, found_after = recover(files.power_loss(lambda sector: False))
    assert (after, found_after) == (recovered, found)


def test_a_killed_process_finds_what_it_had_acknowledged():
    points = 0
    for _operation, files, acknowledged in all_points():
        files.stop_at = None
        check(files, acknowledged)
        points += 1
    assert points > 30


def test_what_is_acknowledged_after_a_restart_does_not_rest_on_what_was_never_synced():
    """A segment's name may be there, seen by the new process, and not yet be on the disk."""
    for _operation, files, _ in all_points():
        files.stop_at = None
        again = Log(files)
        last = again.recovered.last_index
        again.wal.complete(_executed(again, entry(last + 1, term=9)))
        left = files.power_loss(lambda sector: False)
        assert recover(left)[1][-1] == entry(last + 1, term=9)


def _executed(log, new):
    write = log.plan(new)
    log.wal.execute(write)
    return write


@pytest.mark.parametrize("keep_names", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1.0])
def test_a_power_loss_at_any_operation_takes_nothing_that_was_acknowledged(share, keep_names):
    rng = random.Random(share)
    for _operation, files, acknowledged in all_points():
        left = files.power_loss(lambda sector: rng.random() < share, keep_names=keep_names)
        check(left, acknowledged)


def test_a_start_can_be_stopped_at_any_operation_and_begun_again():
    """Also one that has a torn batch to cut."""
    rng = random.Random(5)
    for operation, files, acknowledged in all_points():
        if operation % 4:
            continue
        left = files.power_loss(lambda sector: rng.random() < 0.6)
        for stop in range(12):
            again = left.copy()
            again.stop_at = stop
            try:
                recover(again)
            except Stopped:
                check(again.power_loss(lambda sector: rng.random() < 0.5), acknowledged)
            else:
                break


def test_any_operation_of_a_start_may_fail():
    log = Log()
    script(log, [[], []])
    log.wal.close()
    for failing in range(100):
        left = log.memory.copy()
        left.put("/data/wal/spare.tmp", b"")
        seen = iter(range(1000))
        left.fail = lambda text, seen=seen, failing=failing: next(seen) == failing
        try:
            recover(left)
        except StorageError:
            left.fail = lambda text: False
            check(left, [log.entries])
            assert left.open_files == 0
        else:
            break
    assert 2 < failing < 90


@pytest.mark.parametrize("keep_names", [False, True])
def test_meta_is_the_old_or_the_new_one_after_a_stop_at_any_operation(keep_names):
    first = MemoryFiles()
    directory = DataDirectory.open("/d", first, 1, "1=a:1", new_store_id=lambda: bytes(16))
    directory.close()
    for stop in range(10):
        files = first.copy()
        files.stop_at = stop
        try:
            boot = DataDirectory.open("/d", files, 1, "1=a:1").meta.boot
        except Stopped:
            boot = None
        left = files.power_loss(lambda sector: False, keep_names=keep_names)
        again = DataDirectory.open("/d", left, 1, "1=a:1")
        assert again.meta.store_id == bytes(16)
        assert again.meta.boot in (2, 3) if boot is None else again.meta.boot == 3
        if boot is not None:
            return
    pytest.fail("the start never finished")
