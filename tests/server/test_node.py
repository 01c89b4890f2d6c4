"""A whole node: what it says when something happens to it that nobody waits for."""

from __future__ import annotations

import asyncio

import pytest

from balsadb.server import node as module
from server.lone_node import lone_node


@pytest.fixture
def told(monkeypatch) -> list[tuple[str, str, dict]]:
    lines: list[tuple[str, str, dict]] = []

    def say(event: str, level: str = "info", /, **fields) -> None:
        lines.append((event, level, fields))

    monkeypatch.setattr(module.journal, "say", say)
    return lines


def test_an_error_that_nobody_waited_for_is_one_line_with_its_trace(told):
    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(module._tell_unexpected)
        asyncio.get_running_loop().call_soon(lambda: [][0])
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(scenario())
    ((event, level, fields),) = told
    assert (event, level) == ("unexpected", "error")
    assert fields["trace"].rstrip().endswith("IndexError: list index out of range")


def test_a_start_says_where_it_serves_and_what_it_found(told, tmp_path):
    async def scenario() -> None:
        members = {1: "db1.test:8001"}
        async with lone_node(tmp_path / "data", cluster=members) as node:
            async with asyncio.timeout(10):
                while not node._directory.meta.cluster_id:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
        async with lone_node(tmp_path / "data", cluster=members) as node:
            fields = [fields for event, _, fields in told if event == "started"][-1]
            assert fields["listen"] == node.config.listen
            assert fields["boot"] == 2
            assert fields["last_index"] > 0
            assert len(fields["cluster_id"]) == 32

    asyncio.run(scenario())
