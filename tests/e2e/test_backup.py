"""A backup of a cluster under load, and the new clusters that come of it (rule M4)."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

from e2e.load import Connection, expected, read_everywhere, start_appenders, wait_until

OK = (b"OK", "OK")
LEADERLESS = {"CLUSTERDOWN", "TRYAGAIN", "LOADING"}


def balsadb(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "balsadb", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


def succeed(*arguments: object) -> str:
    done = balsadb(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def backup(node, path) -> dict:
    return json.loads(succeed("backup", path, "--from", node.http_address, "--json"))


def call(node, *argv: bytes):
    connection = Connection(node.client_address)
    try:
        return connection.call(*argv)
    finally:
        connection.close()


def put_away(node) -> None:
    """Move a node's data aside."""
    node.data_dir.rename(node.data_dir.with_name(f"old-{node.data_dir.name}"))


def cluster_id(node) -> str:
    return json.loads(succeed("inspect", node.data_dir, "--json"))["meta"]["cluster_id"]


def test_everything_acknowledged_before_a_backup_is_in_the_cluster_restored_from_it(cluster, tmp_path):
    leader = cluster.wait_leader()
    nodes = list(cluster.nodes.values())
    follower = next(node for node in nodes if node.id != leader)
    stop = threading.Event()
    appenders = start_appenders(cluster.servers, 2, stop)
    wait_until(lambda: all(a.acknowledged > 50 for a in appenders), 20, "the load did not start")

    # From a follower: what the leader and the third node acknowledged must be in it, too.
    before = {appender.key: appender.acknowledged for appender in appenders}
    facts = backup(follower, tmp_path / "file")
    after = {appender.key: appender.acknowledged for appender in appenders}
    assert facts["keys"] == len(appenders)
    assert balsadb("backup", "--verify", tmp_path / "file").returncode == 0

    wait_until(lambda: all(a.acknowledged > after[a.key] for a in appenders), 20, "the load did not go on")
    stop.set()
    for appender in appenders:
        appender.join(20)
    assert [error for appender in appenders for error in appender.errors] == []
    old_id = cluster_id(nodes[0])
    assert facts["cluster_id"] == old_id

    cluster.kill()
    for node in nodes:
        put_away(node)
        succeed("restore", tmp_path / "file", "--config", node.config_path)
    cluster.start()
    cluster.wait_ready()
    for appender in appenders:
        (value,) = set(read_everywhere(cluster.servers, appender.key))
        count = value.count(b",")
        assert value == expected(count)
        # One append of each client may have been on its way when the backup ended.
        assert before[appender.key] <= count <= after[appender.key] + 1
    for number, node in enumerate(nodes):
        assert call(node, b"SET", b"new", b"%d" % number) in OK
    assert set(read_everywhere(cluster.servers, b"new")) == {b"2"}
    succeed("digest", "--servers", ",".join(cluster.servers))
    assert len({cluster_id(node) for node in nodes} | {old_id}) == 2

    # And once more, by the log: what the restored cluster wrote survives its restart.
    cluster.kill()
    cluster.start()
    cluster.wait_ready()
    assert set(read_everywhere(cluster.servers, b"new")) == {b"2"}


def test_neither_an_empty_node_nor_one_of_the_old_cluster_gets_among_restored_ones(cluster, tmp_path):
    cluster.wait_leader()
    first, *others = cluster.nodes.values()
    assert call(first, b"SET", b"k", b"v") in OK
    backup(first, tmp_path / "file")
    cluster.kill()
    for node in others:
        put_away(node)
        succeed("restore", tmp_path / "file", "--config", node.config_path)
        cluster.start(node.id)

    reason = "the backups that they were restored from"
    cluster.start(first.id)  # on its old data
    for node in (first, *others):
        wait_until(lambda node=node: reason in node.log_tail(), 15, "a refusal")
    assert all(str(call(node, b"GET", b"k")).split()[0] in LEADERLESS for node in (first, *others))
    cluster.kill(first.id)
    put_away(first)
    first.log_path.unlink()
    cluster.start(first.id)  # on no data
    wait_until(lambda: reason in first.log_tail(), 15, "a refusal of the empty node")
    assert all(str(call(node, b"GET", b"k")).split()[0] in LEADERLESS for node in (first, *others))

    # Meeting them must not keep the right node out.
    cluster.kill(first.id)
    first.data_dir.rename(first.data_dir.with_name("empty"))
    succeed("restore", tmp_path / "file", "--config", first.config_path)
    cluster.start(first.id)
    cluster.wait_ready()
    assert set(read_everywhere(cluster.servers, b"k")) == {b"v"}


def test_a_backup_is_one_state_and_not_a_blend_of_several(cluster, tmp_path):
    """Every transaction writes the same number to many keys; a backup shows one number."""
    cluster.wait_leader()
    node, *_ = cluster.nodes.values()
    stop = threading.Event()
    counted = []

    def write() -> None:
        connection = Connection(node.client_address)
        while not stop.is_set():
            argv = [b"MSET"]
            for key in range(500):
                argv += [b"key-%d" % key, b"%d" % len(counted)]
            assert connection.call(*argv) in OK
            counted.append(None)
        connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_until(lambda: len(counted) > 20, 20, "the load did not start")
        facts = backup(node, tmp_path / "file")
    finally:
        stop.set()
        writer.join(20)
    assert facts["keys"] == 500
    succeed("restore", tmp_path / "file", "--id", 1, "--data-dir", tmp_path / "d", "--cluster", "1=a:1")
    values = {succeed("inspect", tmp_path / "d", "--get", f"key-{key}") for key in (0, 123, 499)}
    assert len(values) == 1


def test_a_node_without_a_majority_gives_no_backup(cluster, tmp_path):
    cluster.wait_leader()
    first, *others = cluster.nodes.values()
    for node in others:
        cluster.kill(node.id)
    done = balsadb("backup", tmp_path / "file", "--from", first.http_address)
    assert done.returncode == 1
    assert "no server gave a backup" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_is_looked_at_does_not_notice(cluster):
    cluster.wait_leader()
    node, *_ = cluster.nodes.values()
    stop = threading.Event()
    appenders = start_appenders([node.client_address], 4, stop)
    wait_until(lambda: all(a.acknowledged > 20 for a in appenders), 20, "the load did not start")
    last = 0
    for _ in range(5):
        facts = json.loads(succeed("inspect", node.data_dir, "--json"))
        assert facts["process"] == node.pid
        assert facts["log"]["last_index"] > last
        last = facts["log"]["last_index"]
        assert len(succeed("inspect", node.data_dir, "--keys").splitlines()) == 4
    stop.set()
    for appender in appenders:
        appender.join(20)
    assert [error for appender in appenders for error in appender.errors] == []
    cluster.restart(node.id)
    cluster.wait_ready()
