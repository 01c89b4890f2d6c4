"""What real nodes tell of themselves: /status, /metrics and RAFT STATUS while something happens to them."""

from __future__ import annotations

import json
import os
import time
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from balsadb import BlockingClerk
from balsadb.testing import LocalCluster


def fetch(node, path: str) -> bytes:
    with urllib.request.urlopen(f"http://{node.http_address}{path}", timeout=5) as answer:
        return answer.read()


def status(node) -> dict:
    return json.loads(fetch(node, "/status"))


def samples(node) -> dict[str, float]:
    """Return the samples of a scrape that have no labels, and of those with labels the sums."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(fetch(node, "/metrics").decode()):
        for sample in family.samples:
            if not sample.name.endswith("_bucket"):
                sums[sample.name] = sums.get(sample.name, 0) + sample.value
    return sums


def until(condition, what: str, seconds: float = 20):
    """Wait until `condition` returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


def reasons(node) -> list[str]:
    return [change["reason"] for change in status(node)["leader_changes"]]


def test_a_handover_is_told_as_one_by_both_who_took_part(cluster):
    old = cluster.wait_leader()
    new = next(node for node in cluster.nodes if node != old)
    with BlockingClerk(cluster.servers) as clerk:
        clerk.execute("RAFT", "TRANSFER", str(new))
    until(lambda: status(cluster.nodes[old])["leader"] == new, "the old leader hears of the new one")
    assert f"this node handed over to node {new}" in reasons(cluster.nodes[old])
    told = reasons(cluster.nodes[new])
    assert f"node {old} told this node to take over" in told
    assert told[-1].startswith("this node was elected in term ")


def test_a_leader_that_is_alone_says_why_it_stepped_down(cluster):
    leader = cluster.wait_leader()
    for node in cluster.nodes:
        if node != leader:
            cluster.pause(node)
    try:
        alone = cluster.nodes[leader]
        until(lambda: status(alone)["leader"] == 0, "the leader steps down")
        assert reasons(alone)[-1] == (
            "this node had not heard a majority for an election timeout and stepped down"
        )
        assert status(alone)["unready"] == "no leader is known"
        assert samples(alone)["balsadb_ready"] == 0
    finally:
        for node in cluster.nodes:
            if node != leader:
                cluster.resume(node)


def test_what_is_written_shows_on_every_node(cluster):
    leader = cluster.wait_leader()
    with BlockingClerk(cluster.servers) as clerk:
        for number in range(200):
            clerk.put(f"key-{number}", "value")
    for node in cluster.nodes.values():
        found = until(lambda node=node: (s := samples(node))["balsadb_keys"] == 200 and s, "all is applied")
        assert found["balsadb_commit_duration_seconds_count"] > 0
        assert found["balsadb_wal_sync_duration_seconds_count"] > 0
        assert found["balsadb_sessions"] in (0, 1)  # a Clerk that ends closes its session
        assert found["balsadb_leader_id"] == leader
    commands = sum(samples(node)["balsadb_commands_total"] for node in cluster.nodes.values())
    assert commands >= 200
    leading = cluster.nodes[leader]
    until(lambda: samples(leading)["balsadb_member_lag_entries"] == 0, "the followers have everything")


def test_a_state_on_its_way_to_a_new_node_is_counted():
    with LocalCluster(nodes=3, settings={"snapshot-log-bytes": "4MiB"}) as cluster:
        leader = cluster.wait_leader()
        with BlockingClerk(cluster.servers) as clerk:
            for number in range(900):
                clerk.put(f"key-{number}", os.urandom(8192))
        until(lambda: status(cluster.nodes[leader])["first_index"] > 1, "the log gets shorter")
        newcomer = cluster.join(4)
        cluster.wait_ready()

        def settled() -> dict | None:
            told = status(newcomer)
            return told if 4 in told["voters"] and told["change"] is None else None

        told = until(settled, "the new node votes and the change is over")
        assert samples(cluster.nodes[leader])["balsadb_transfer_sent_bytes_total"] > 900 * 8192 / 2
        assert samples(cluster.nodes[leader])["balsadb_snapshots_total"] > 0
        assert told["receiving"] is None
        assert told["snapshot_index"] > 0
        assert {member["id"] for member in told["members"]} == {1, 2, 3, 4}
