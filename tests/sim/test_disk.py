"""What the simulated disk keeps, loses and refuses."""

import random

import pytest

from balsadb.errors import StorageError, UsageError
from balsadb.sim.disk import SECTOR_BYTES, Disk, Interrupted

A, B = b"a" * SECTOR_BYTES, b"b" * SECTOR_BYTES


def disk_with(content: bytes, seed: int = 0) -> Disk:
    disk = Disk(random.Random(seed))
    file = disk.open("d/f", create=True)
    file.write([content], 0)
    file.sync()
    disk.sync_directory("d")
    return disk


def content(disk: Disk) -> bytes:
    file = disk.open("d/f")
    return file.read(file.size, 0)


def test_what_was_synced_survives_a_power_loss():
    disk = disk_with(A)
    disk.power_loss()
    assert content(disk) == A


def test_unsynced_sectors_survive_or_not_each_by_itself():
    seen = set()
    for seed in range(60):
        disk = disk_with(A * 2, seed)
        disk.open("d/f").write([B * 2], 0)
        assert content(disk) == B * 2, "a running process sees what it wrote"
        disk.power_loss()
        seen.add(content(disk))
    assert seen == {A + A, A + B, B + A, B + B}


def test_the_end_of_a_process_loses_nothing():
    disk = disk_with(A)
    disk.open("d/f").write([B], 0)
    disk.process_ended()
    assert content(disk) == B


def test_a_name_without_a_directory_sync_may_be_gone():
    gone = set()
    for seed in range(20):
        disk = Disk(random.Random(seed))
        file = disk.open("d/f", create=True)
        file.write([A], 0)
        file.sync()
        disk.power_loss()
        gone.add(disk.exists("d/f"))
    assert gone == {True, False}


def test_a_rename_replaces_in_one_step():
    for seed in range(20):
        disk = disk_with(A, seed)
        file = disk.open("d/g", create=True)
        file.write([B], 0)
        file.sync()
        disk.rename("d/g", "d/f")
        disk.power_loss()
        assert content(disk) in (A, B)


def test_after_a_failed_sync_a_later_one_does_not_bring_the_bytes_to_the_disk():
    lost = 0
    for seed in range(20):
        disk = disk_with(A, seed)
        file = disk.open("d/f")
        file.write([B], 0)
        disk.failing = 1.0
        with pytest.raises(StorageError, match="sync"):
            file.sync()
        disk.failing = 0.0
        file.sync()
        disk.power_loss()
        lost += content(disk) == A
    assert 0 < lost < 20


def test_a_full_disk_refuses_what_grows_and_takes_what_does_not():
    disk = disk_with(A)
    disk.full = True
    file = disk.open("d/f")
    file.write([B], 0)
    with pytest.raises(StorageError, match="No space left"):
        file.write([A], SECTOR_BYTES)
    with pytest.raises(StorageError, match="No space left"):
        disk.open("d/new", create=True)


def test_a_process_can_end_before_any_operation():
    for operations in range(3):
        disk = disk_with(A)
        disk.interrupt_after(operations)
        file = disk.open("d/f")
        for _ in range(operations):
            file.sync()
        with pytest.raises(Interrupted):
            file.sync()


def test_a_flipped_bit_is_one_bit():
    disk = disk_with(A)
    assert "d/f" in (disk.flip_bit() or "")
    different = int.from_bytes(content(disk)) ^ int.from_bytes(A)
    assert different.bit_count() == 1


def test_a_lock_is_held_until_the_process_ends():
    disk = disk_with(A)
    disk.lock("d/LOCK")
    with pytest.raises(UsageError):
        disk.lock("d/LOCK")
    disk.process_ended()
    disk.lock("d/LOCK").close()
