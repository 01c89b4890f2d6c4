"""A cluster loses its majority for ever, goes on from what is left, and keeps the dead out (rule M4)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from balsadb import BlockingClerk
from balsadb.address import parse_address
from balsadb.client.ask import ask, pairs
from balsadb.errors import ClientError
from e2e.load import Connection, wait_until

SECONDS = 30
WRITES = 40
OK = (b"OK", "OK")


def balsadb(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "balsadb", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


def status_of(node) -> dict:
    return pairs(ask(parse_address(node.client_address), ["RAFT", "STATUS"], 5.0))


def call(node, *argv: bytes):
    connection = Connection(node.client_address)
    try:
        return connection.call(*argv)
    finally:
        connection.close()


def refusal(node) -> str:
    """What a read is answered with; nothing while nobody listens."""
    try:
        return str(ask(parse_address(node.client_address), ["GET", "k"], 5.0))
    except ClientError as error:
        return str(error)


def write_much(cluster) -> tuple[bytes, dict[str, bytes]]:
    """Write with a Clerk until every node has all of it; returns the id of its session, and what there is."""
    expected = {"k": b"".join(b"%d," % n for n in range(WRITES))}
    with BlockingClerk(cluster.servers) as clerk:
        for number in range(WRITES):
            clerk.append("k", f"{number},")
            clerk.put(f"key-{number}", "v" * 1000)
            expected[f"key-{number}"] = b"v" * 1000
    node = cluster.nodes[1]
    session = call(node, b"SESSION", b"OPEN", b"a nonce", b"3600000")
    assert call(node, b"ONCE", session, b"1", b"1", b"APPEND", b"once", b"x") == 1
    expected["once"] = b"x"
    leader = cluster.nodes[cluster.wait_leader()]

    def same() -> bool:
        last = status_of(leader)["last_index"]
        return all(status_of(n)["durable_index"] == last for n in cluster.nodes.values())

    wait_until(same, SECONDS, "the nodes never have the same log")
    return session, expected


def check_served(servers, expected) -> None:
    with BlockingClerk(servers) as clerk:
        for key, value in expected.items():
            assert clerk.get(key) == value, key


@pytest.mark.timeout(180)
def test_the_last_node_carries_the_cluster_on_and_the_old_ones_are_kept_out(cluster):
    session, expected = write_much(cluster)
    survivor, *lost = cluster.nodes.values()
    old_id = status_of(survivor)["cluster_id"]
    for node in lost:
        cluster.forget(node.id)

    # Alive and alone it serves nobody. It can be looked at, and not recovered while it runs.
    seen = balsadb("recover", "--servers", ",".join(n.client_address for n in (survivor, *lost)))
    assert seen.returncode == 0, seen.stderr
    assert f"stop node 1 at {survivor.client_address}" in seen.stdout
    report = json.loads(balsadb("recover", survivor.data_dir, "--json").stdout)
    assert (report["chosen"], report["missing"], report["lossless"]) == (1, [2, 3], False)
    confirmed = ("recover", survivor.data_dir, "--confirm", report["confirm"])
    refused = balsadb(*confirmed)
    assert refused.returncode == 2
    assert "uses" in refused.stderr

    cluster.kill(1)
    done = balsadb(*confirmed)
    assert done.returncode == 0, done.stderr
    cluster.start(1)
    cluster.wait_ready()
    check_served([survivor.client_address], expected)
    # A retry of what was acknowledged before does not run again.
    assert call(survivor, b"ONCE", session, b"1", b"1", b"APPEND", b"once", b"x") == 1
    assert call(survivor, b"ONCE", session, b"2", b"2", b"APPEND", b"once", b"y") == 2
    expected["once"] = b"xy"

    for number in (4, 5):
        cluster.join(number, through=1)
        voters = [1, *range(4, number + 1)]
        wait_until(lambda voters=voters: status_of(survivor)["voters"] == voters, SECONDS, "no new voter")
    cluster.wait_ready()
    check_served(cluster.servers, expected)
    same = balsadb("digest", "--servers", ",".join(cluster.servers))
    assert same.returncode == 0, same.stdout
    new_id = status_of(survivor)["cluster_id"]
    assert new_id != old_id
    before = status_of(cluster.nodes[cluster.wait_leader()])

    # Two of the old three come back: a majority of the cluster that is no more.
    for node in lost:
        cluster.nodes[node.id] = node
        cluster.start(node.id)
    for node in lost:
        reason = f"node {node.id} belongs to the cluster as it was before recovery 1"
        wait_until(lambda node=node, reason=reason: reason in node.log_path.read_text(), SECONDS, "no reason")
        wait_until(lambda node=node: "was removed" in refusal(node), SECONDS, "it goes on serving")
    assert "event=peer-refused" in survivor.log_path.read_text()
    after = status_of(cluster.nodes[cluster.wait_leader()])
    assert (after["term"], after["leader"], after["voters"]) == (before["term"], before["leader"], [1, 4, 5])
    assert after["removed"] == [2, 3]
    assert call(survivor, b"SET", b"k", b"new") in OK
    for node in lost:
        cluster.forget(node.id)

    # Their machines come back with new ids.
    shutil.rmtree(lost[0].data_dir)
    cluster.join(6, through=4)
    wait_until(lambda: status_of(survivor)["voters"] == [1, 4, 5, 6], SECONDS, "no new voter")
    cluster.kill(1)
    expected["k"] = b"new"
    cluster.nodes.pop(1)
    check_served(cluster.servers, expected)


@pytest.mark.timeout(120)
def test_of_two_survivors_of_five_the_further_one_is_found_and_nothing_of_its_log_is_lost(tmp_path):
    from balsadb.testing import LocalCluster

    with LocalCluster(nodes=5, directory=tmp_path) as cluster:
        leader = cluster.wait_leader()
        behind = next(node for node in cluster.nodes.values() if node.id != leader)
        with BlockingClerk(cluster.servers) as clerk:
            clerk.put("k", "1")
        wait_until(lambda: status_of(behind)["cluster_id"], SECONDS, "it never hears of its cluster's id")
        cluster.kill(behind.id)
        further = cluster.nodes[leader]
        assert call(further, b"SET", b"k", b"2") in OK
        cluster.kill()

        places = (behind.data_dir, further.data_dir)
        report = json.loads(balsadb("recover", *places, "--json").stdout)
        assert report["chosen"] == leader
        done = balsadb("recover", *places, "--confirm", report["confirm"])
        assert done.returncode == 0, done.stderr
        cluster.start(leader)
        wait_until(lambda: str(refusal(further)) == "b'2'", SECONDS, "it does not serve")
        # The other survivor missed the recovery; it is told so, and a report finds it out, too.
        cluster.start(behind.id)
        reason = f"node {behind.id} belongs to the cluster as it was before recovery 1"
        wait_until(lambda: reason in behind.log_path.read_text(), SECONDS, "it is not refused")
        told = balsadb("recover", *places).stdout
        assert f"{behind.data_dir} can't be chosen: it belongs to the cluster as it was before" in told
        assert f"Node {leader} is the only voter since recovery 1: start it." in told
