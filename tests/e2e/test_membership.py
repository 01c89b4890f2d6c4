"""Members of a cluster of real processes come and go under load, and clients see one correct copy."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping

import pytest

from balsadb.address import parse_address
from balsadb.client.ask import ask, pairs
from balsadb.errors import ClientError
from balsadb.sim.checkers.ledger import check_ledger
from balsadb.sim.checkers.linearizability import Verdict, check
from balsadb.testing import LocalCluster
from e2e.load import Connection, start_appenders
from e2e.shared_load import SharedLoad

GAP_SECONDS_MAX = 1.0
"""Longest time in which no client may have a success while the members change."""
WAIT_SECONDS = 30.0


class Present(Mapping[int, str]):
    """The addresses that clients go to: those of the present members. A former one can still be looked up."""

    def __init__(self, addresses: Mapping[int, str]) -> None:
        self._known = dict(addresses)
        self._present = tuple(addresses)

    def become(self, addresses: Mapping[int, str]) -> None:
        self._known |= addresses
        self._present = tuple(addresses)

    def __getitem__(self, node: int) -> str:
        return self._known[node]

    def __iter__(self) -> Iterator[int]:
        return iter(self._present)

    def __len__(self) -> int:
        return len(self._present)


def balsadb(cluster: LocalCluster, *words: str) -> str:
    """Run a command line against the running servers and return what it prints."""
    servers = ",".join(node.client_address for node in cluster.running)
    command = [sys.executable, "-m", "balsadb", *words, "--servers", servers]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def status_of(cluster: LocalCluster, node: int) -> dict:
    return pairs(ask(parse_address(cluster.nodes[node].client_address), ["RAFT", "STATUS"], 5.0))


def voters(cluster: LocalCluster) -> list[int]:
    """Return the voters; nobody while a joint configuration is in force."""
    status = status_of(cluster, cluster.wait_leader())
    return [] if status["outgoing_voters"] else status["voters"]


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def longest_gap(load: SharedLoad, began: float, ended: float) -> float:
    """Return the longest time in which no client got an answer to an operation."""
    moments = sorted(o.returned for o in load.history if o.returned and began <= o.returned <= ended)
    return max(b - a for a, b in zip([began, *moments], [*moments, ended], strict=True))


class Life:
    """A cluster under load, and the steps of its life."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.present = Present({node.id: node.client_address for node in cluster.nodes.values()})
        self.load = SharedLoad(self.present, 6, "membership")
        self.gaps: dict[str, float] = {}

    def now(self) -> None:
        """Send clients to the members of now."""
        self.present.become({n.id: n.client_address for n in self.cluster.running})

    def step(self, name: str, action) -> None:
        began = time.monotonic()
        action()
        self.now()
        time.sleep(0.5)  # what comes right after the end belongs to the step
        self.gaps[name] = longest_gap(self.load, began, time.monotonic())


@pytest.mark.timeout(180)
def test_a_cluster_changes_all_its_members_under_load_and_clients_hardly_notice(tmp_path):
    with LocalCluster(nodes=3, directory=tmp_path) as cluster:
        life = Life(cluster)
        life.load.start()
        time.sleep(0.5)

        def add_4() -> None:
            node = cluster.join(4)
            balsadb(cluster, "member", "add", f"4={node.peer_address},{node.client_address}")
            cluster.wait_ready()

        life.step("add", add_4)
        assert voters(cluster) == [1, 2, 3, 4]

        leader = cluster.wait_leader()
        dead = max(node for node in (1, 2, 3) if node != leader)
        life.present.become({n: a for n, a in life.present.items() if n != dead})
        cluster.forget(dead)

        def replace_dead_by_5() -> None:
            node = cluster.join(5)
            balsadb(cluster, "member", "replace", str(dead), f"5={node.peer_address},{node.client_address}")
            cluster.wait_ready()

        life.step("replace", replace_dead_by_5)
        assert voters(cluster) == sorted({1, 2, 3, 4, 5} - {dead})

        leader = cluster.wait_leader()

        def remove_leader() -> None:
            life.present.become({n: a for n, a in life.present.items() if n != leader})
            balsadb(cluster, "member", "remove", str(leader))

        life.step("remove the leader", remove_leader)
        with pytest.raises(ClientError, match=f"CLUSTERDOWN node {leader} was removed from this cluster"):
            ask(parse_address(cluster.nodes[leader].client_address), ["GET", "k"], 5.0)
        cluster.forget(leader)
        life.now()

        target = next(node for node in voters(cluster) if node != cluster.wait_leader())
        life.step("transfer", lambda: balsadb(cluster, "transfer", str(target)))
        assert cluster.wait_leader() == target

        life.load.stop()
        print(life.gaps)
        assert not life.load.surprises
        _judge(cluster, life)
        assert max(life.gaps.values()) <= GAP_SECONDS_MAX, life.gaps

        for node in (4, 5):  # a later start finds its peers by itself, whoever it joined through
            cluster.stop(node)
            cluster.start(node)
        cluster.wait_ready()
        assert voters(cluster) == sorted(cluster.nodes)


def _judge(cluster: LocalCluster, life: Life) -> None:
    history = life.load.history
    keys = {operation.key for operation in history}
    connection = Connection(next(iter(cluster.nodes.values())).client_address)
    final = {key: connection.call(b"GET", key) for key in keys}
    connection.close()
    finding = check(history)
    assert finding.verdict is Verdict.LINEARIZABLE, str(finding)
    appended = life.load.appended_only
    check_ledger(history, {k: v for k, v in final.items() if k in appended}, overwritten=False)
    check_ledger(history, {k: v for k, v in final.items() if k not in appended}, overwritten=True)
    told = balsadb(cluster, "digest")
    assert "DIFFERENT" not in told, told


@pytest.mark.timeout(120)
def test_a_node_that_was_dead_when_it_was_removed_learns_of_it_and_serves_nobody(cluster):
    leader = cluster.wait_leader()
    dead = next(node for node in cluster.nodes if node != leader)
    # Before that it can't tell its own cluster from another one that answers at the same addresses.
    wait_until(lambda: status_of(cluster, dead)["cluster_id"], "it never hears of its cluster's id")
    cluster.kill(dead)
    balsadb(cluster, "member", "remove", str(dead))
    cluster.start(dead)
    address = parse_address(cluster.nodes[dead].client_address)

    def told() -> bool:
        try:
            ask(address, ["GET", "k"], 5.0)
        except ClientError as error:
            return "was removed from this cluster" in str(error)
        raise AssertionError("a removed node has served a read")

    wait_until(told, "it never learns that it was removed")
    term = status_of(cluster, cluster.wait_leader())["term"]
    assert voters(cluster) == sorted(set(cluster.nodes) - {dead})
    assert status_of(cluster, cluster.wait_leader())["term"] == term


@pytest.mark.timeout(120)
def test_a_wiped_directory_under_a_known_id_is_refused_and_does_no_harm(cluster):
    import shutil

    node = cluster.join(4)
    wait_until(lambda: voters(cluster) == [1, 2, 3, 4], "node 4 is never a voter")
    cluster.kill(4)
    shutil.rmtree(node.data_dir)
    cluster.start(4)
    wait_until(lambda: "is not what this cluster knows" in node.log_path.read_text(), "nobody refuses it")
    with pytest.raises(ClientError, match="CLUSTERDOWN"):
        ask(parse_address(node.client_address), ["GET", "k"], 5.0)
    fifth = cluster.join(5, through=1)
    balsadb(cluster, "member", "replace", "4", f"5={fifth.peer_address},{fifth.client_address}")
    assert voters(cluster) == [1, 2, 3, 5]


@pytest.mark.timeout(120)
def test_the_remedy_that_a_damaged_node_names_repairs_the_cluster(cluster):
    leader = cluster.wait_leader()
    damaged = next(node for node in cluster.nodes if node != leader)
    old = cluster.nodes[damaged]
    cluster.kill(damaged)
    meta = old.data_dir / "META"
    content = bytearray(meta.read_bytes())
    content[-3] ^= 1
    meta.write_bytes(content)
    cluster.start(damaged)
    wait_until(lambda: not old.running, "it runs on a damaged META")
    assert "balsadb member replace" in old.log_tail()
    cluster.forget(damaged)
    new = cluster.join(4)
    balsadb(cluster, "member", "replace", str(damaged), f"4={new.peer_address},{new.client_address}")
    cluster.wait_ready()
    assert voters(cluster) == sorted(cluster.nodes)
    assert "DIFFERENT" not in balsadb(cluster, "digest")


@pytest.mark.timeout(120)
def test_a_rolling_restart_under_load_costs_no_client_an_error(cluster):
    import threading

    stop = threading.Event()
    addresses = {node.id: node.client_address for node in cluster.nodes.values()}
    errors: list[str] = []
    for node in cluster.nodes:
        others = [address for other, address in addresses.items() if other != node]
        stop = threading.Event()
        appenders = start_appenders(others, 2, stop)
        for appender in appenders:
            appender.key += b"-%d" % node
        cluster.stop(node)
        cluster.start(node)
        cluster.wait_ready()
        stop.set()
        for appender in appenders:
            appender.join(15)
            errors += appender.errors
        assert all(appender.acknowledged for appender in appenders)
    assert errors == []
