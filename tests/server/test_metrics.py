"""/metrics of a real node, read by Prometheus' own parser."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from balsadb.kv.table import COMMANDS
from balsadb.server import metrics
from balsadb.server.telemetry import OUTCOMES
from server.lone_node import get, lone_node, redis

ROLES = {"leader", "follower", "candidate", "pre-candidate", "learner"}


OPERATIONS = (Path(__file__).parents[2] / "docs/operations.md").read_text()


async def scrape(node) -> dict:
    status, headers, body = await get(node, "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    return {family.name: family for family in text_string_to_metric_families(body.decode())}


def value(families: dict, name: str, **labels: str) -> float:
    family = families.get(name) or families[re.sub("_(total|count|sum|bucket|info)$", "", name)]
    return next(s.value for s in family.samples if s.name in (name, f"{name}_total") and s.labels == labels)


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """What a node says after a few commands of several kinds."""

    async def run() -> dict:
        async with lone_node(tmp_path_factory.mktemp("metrics") / "data") as node:
            await redis(
                node,
                *(b"set k 1", b"SET k 2", b"get k", b"incr k", b"incrby k x", b"nonsense", b"get", b"MULTI"),
                *(b"set a 1", b"nonsense", b"EXEC", b"EXEC", b"watch a b"),
            )
            return await scrape(node)

    return asyncio.run(run())


def test_names_follow_the_conventions_and_every_metric_explains_itself(families):
    for name, family in families.items():
        if name.startswith("process_"):
            continue
        assert re.fullmatch(r"balsadb(_[a-z0-9]+)*", name)
        assert family.documentation[0].isupper() or family.documentation[0].isdigit()
        assert family.documentation.endswith(".")
        if family.type == "histogram":
            assert name.endswith("_seconds")
        for unit in ("ms", "us", "kb", "mb", "seconds_total_seconds"):
            assert not name.endswith(f"_{unit}")


def test_commands_are_counted_by_name_whatever_their_letters(families):
    assert value(families, "balsadb_commands_total", command="SET") == 3
    assert value(families, "balsadb_commands_total", command="GET") == 2
    assert value(families, "balsadb_commands_total", command="EXEC") == 2
    assert value(families, "balsadb_commands_total", command="unknown") == 2


def test_errors_are_counted_by_command_and_code(families):
    assert value(families, "balsadb_command_errors_total", command="INCRBY", code="ERR") == 1
    assert value(families, "balsadb_command_errors_total", command="GET", code="ERR") == 1
    assert value(families, "balsadb_command_errors_total", command="unknown", code="ERR") == 2
    assert value(families, "balsadb_command_errors_total", command="EXEC", code="EXECABORT") == 1
    assert value(families, "balsadb_command_errors_total", command="EXEC", code="ERR") == 1


def test_labels_are_bounded(families):
    known = {name.decode() for name in COMMANDS} | {"unknown"}
    codes = {code.decode() for code in OUTCOMES} | {"other"}
    allowed = {"command": known, "code": codes, "role": ROLES, "member": {"1"}}
    for family in families.values():
        for sample in family.samples:
            for label, text in sample.labels.items():
                if label in allowed:
                    assert text in allowed[label]


def test_every_write_is_timed_through_its_stages(families):
    for stage in ("turn_duration", "wal_sync_duration", "commit_duration", "apply_wait"):
        assert value(families, f"balsadb_{stage}_seconds_count") > 0
        assert value(families, f"balsadb_{stage}_seconds_bucket", le="+Inf") == value(
            families, f"balsadb_{stage}_seconds_count"
        )


def test_the_role_is_one_of_all(families):
    roles = {sample.labels["role"]: sample.value for sample in families["balsadb_role"].samples}
    assert set(roles) == ROLES
    assert [role for role, on in roles.items() if on] == ["leader"]
    assert value(families, "balsadb_leader_id") == 1
    assert value(families, "balsadb_ready") == 1


def test_memory_and_rocksdb_are_there(families):
    assert value(families, "process_resident_memory_bytes") > 2**20
    assert value(families, "balsadb_rocksdb_memtables_bytes") >= 0


def test_cuts_are_counted_with_their_bytes_and_times(tmp_path):
    async def run() -> dict:
        async with lone_node(tmp_path / "data") as node:
            await redis(node, b"set k 1", b"raft snapshot")
            async with asyncio.timeout(10):
                while node.status().snapshot_index == 0:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            return await scrape(node)

    families = asyncio.run(run())
    assert value(families, "balsadb_cuts_total") == 1
    assert value(families, "balsadb_snapshots_total") == 1
    assert value(families, "balsadb_cut_bytes_total") == value(families, "balsadb_newest_cut_bytes") > 0
    assert value(families, "balsadb_cut_duration_seconds_count") == 1


def test_whoever_asks_without_pause_does_not_keep_the_node_busy(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(metrics, "generate_latest", lambda registry: made.append(registry) or b"")
    monkeypatch.setattr(metrics, "FRESH_SECONDS", 60.0)

    async def run() -> None:
        async with lone_node(tmp_path / "data") as node:
            for _ in range(20):
                assert (await get(node, "/metrics"))[0] == 200

    asyncio.run(run())
    assert len(made) == 1


def test_two_nodes_in_one_process_have_figures_of_their_own(tmp_path):
    async def run() -> None:
        async with lone_node(tmp_path / "a") as first, lone_node(tmp_path / "b") as second:
            await redis(first, b"set k 1")
            assert value(await scrape(first), "balsadb_commands_total", command="SET") == 1
            commands = (await scrape(second))["balsadb_commands"]
            assert not [s for s in commands.samples if s.labels.get("command") == "SET"]

    asyncio.run(run())


def test_status_uses_the_names_of_raft_status_and_more(tmp_path):
    async def run() -> None:
        async with lone_node(tmp_path / "data") as node:
            await redis(node, b"set k 1")
            status, headers, body = await get(node, "/status")
            assert (status, headers["content-type"]) == (200, "application/json")
            facts = msgspec.json.decode(body)
            assert (facts["id"], facts["role"], facts["leader"], facts["ready"]) == (1, "leader", 1, True)
            assert facts["unready"] == ""
            assert 0 < facts["commit_p99_us"] < 10_000_000
            assert facts["disk_bytes"] > facts["disk_free_bytes"] > 0
            (member,) = facts["members"]
            assert (member["matched_index"], member["lag"], member["silent_ms"]) == (
                facts["last_index"],
                0,
                0,
            )
            assert [change["leader"] for change in facts["leader_changes"]] == [1]
            assert facts["leader_changes"][0]["reason"] == "this node was elected in term 1"
            assert facts["change"] is None
            assert facts["log_bytes"] > 0

    asyncio.run(run())


def test_the_documentation_tells_every_metric_and_no_other(families):
    told = set(re.findall(r"`(balsadb_\w+)", OPERATIONS))
    there = {f"{name}_total" if family.type == "counter" else name for name, family in families.items()}
    there = {
        f"{name}_info" if name == "balsadb" else name for name in there if not name.startswith("process_")
    }
    assert told - {"balsadb_info"} == there - {"balsadb_info"}


def test_the_documentation_tells_every_name_of_status(tmp_path):
    async def run() -> dict:
        async with lone_node(tmp_path / "data") as node:
            return msgspec.json.decode((await get(node, "/status"))[2])

    facts = asyncio.run(run())
    names = {*facts, *facts["members"][0], *facts["leader_changes"][0], *facts["queues"]}
    assert {name for name in names if f"`{name}`" not in OPERATIONS} == set()
