"""Rule 1 of docs/compatibility.md: what every version has written is read by this one, nothing is missing."""

from __future__ import annotations

import asyncio
import json
import shutil
import tarfile
from pathlib import Path

import pytest

from balsadb.address import parse_address
from balsadb.client.ask import ask
from balsadb.storage.backup import verify_backup
from balsadb.storage.files import OsFiles
from balsadb.storage.inspect import inspect
from balsadb.storage.restore import restore
from server.lone_node import lone_node

HERE = Path(__file__).parent
LOG_BYTES = 4 * 1024 * 1024
FIXTURES = sorted(path for path in HERE.iterdir() if (path / "expected.json").exists())
FIXTURE_BYTES_MAX = 48 * 1024


@pytest.fixture(params=FIXTURES, ids=lambda path: path.name)
def fixture(request) -> Path:
    return request.param


def expected_of(fixture: Path) -> dict:
    return json.loads((fixture / "expected.json").read_text())


def unpack(fixture: Path, target: Path) -> Path:
    with tarfile.open(fixture / "node.tar.xz") as archive:
        archive.extractall(target, filter="data")
    return target / "data"


def serving(data: Path, expected: dict, **settings):
    member = expected["member"]
    return lone_node(data, cluster={1: member}, snapshot_log_bytes=LOG_BYTES, **settings)


class Client:
    """Asks a node inside this event loop."""

    def __init__(self, node) -> None:
        self._address = parse_address(node.config.listen)

    async def __call__(self, *words):
        return await asyncio.to_thread(ask, self._address, words, 10.0)


async def check_keys(do: Client, expected: dict) -> None:
    for key, value in expected["keys"].items():
        assert await do("GET", key) == value.encode(), key
    assert await do("DBSIZE") == len(expected["keys"])
    for key, deadline_ms in expected["deadlines"].items():
        assert await do("PEXPIRETIME", key) == deadline_ms


def test_there_is_a_fixture_and_each_is_small():
    assert FIXTURES
    for fixture in FIXTURES:
        assert sum(path.stat().st_size for path in fixture.iterdir()) < FIXTURE_BYTES_MAX
        assert {path.name for path in fixture.iterdir()} == {
            "backup.balsa",
            "expected.json",
            "greetings.json",
            "node.tar.xz",
        }


def test_a_data_directory_is_served_with_everything_that_was_in_it(fixture, tmp_path):
    expected = expected_of(fixture)
    data = unpack(fixture, tmp_path)

    async def scenario() -> None:
        async with serving(data, expected) as node:
            assert node.status().alarms == 0
            do = Client(node)
            await check_keys(do, expected)
            index, digest = expected["digest"]
            assert await do("RAFT", "DIGEST", index) == [index, digest.encode()]

    asyncio.run(scenario())


def test_what_a_clerk_sends_again_is_not_done_twice_by_another_version(fixture, tmp_path):
    expected = expected_of(fixture)
    data = unpack(fixture, tmp_path)

    async def scenario() -> None:
        async with serving(data, expected) as node:
            do = Client(node)
            for sequence, command, reply in expected["replies"]:
                assert await do("ONCE", expected["session"], sequence, 1, *command) == reply
            await check_keys(do, expected)

    asyncio.run(scenario())


def test_what_this_version_adds_to_it_is_there_after_the_next_start(fixture, tmp_path):
    expected = expected_of(fixture)
    data = unpack(fixture, tmp_path)

    async def scenario() -> None:
        async with serving(data, expected) as node:
            do = Client(node)
            await do("SET", "new", "value")
            await do("RAFT", "SNAPSHOT")
        async with serving(data, expected) as node:
            await check_keys(Client(node), {**expected, "keys": expected["keys"] | {"new": "value"}})

    asyncio.run(scenario())


def test_inspect_finds_nothing_wrong_with_it(fixture, tmp_path):
    report = inspect(str(unpack(fixture, tmp_path)))
    assert report.sound


def test_a_backup_is_verified_and_restored(fixture, tmp_path):
    expected = expected_of(fixture)
    file = tmp_path / "backup"
    shutil.copy(fixture / "backup.balsa", file)
    assert verify_backup(str(file)).info.keys == len(expected["keys"])
    restore(OsFiles(), str(file), str(tmp_path / "data"), 1, f"1={expected['member']}", [1])

    async def scenario() -> None:
        async with serving(tmp_path / "data", expected) as node:
            await check_keys(Client(node), expected)

    asyncio.run(scenario())
