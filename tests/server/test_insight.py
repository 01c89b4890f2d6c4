"""What a node can tell of itself beyond what its parts say."""

from __future__ import annotations

import asyncio

from server.lone_node import lone_node


def test_the_cause_of_a_handover_is_a_stop_a_slow_disk_or_unknown(tmp_path):
    async def scenario() -> None:
        async with lone_node(tmp_path / "data") as node:
            insight, driver = node._insight, node._driver
            driver._write_took = 0.001
            assert insight._why_handing_over() == ""
            driver._write_took = 1.25
            assert insight._why_handing_over() == "its disk is slow, a write to the log takes 1.2 s"
            insight.stopping = True
            assert insight._why_handing_over() == "it stops"

    asyncio.run(scenario())


def test_a_write_that_does_not_end_counts_as_long_as_it_lasts(tmp_path):
    async def scenario() -> None:
        async with lone_node(tmp_path / "data") as node:
            driver = node._driver
            driver._write_took, driver._disk_idle, driver._write_began = 0.001, False, 0.0
            assert driver.write_seconds > 1
            driver._disk_idle = True
            assert driver.write_seconds == 0.001

    asyncio.run(scenario())
