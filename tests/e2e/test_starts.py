"""Who may start, on what data, and what it says when it may not (rule W5)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

from e2e.load import Connection, wait_until

OK = (b"OK", "OK")


def call(node, *argv: bytes):
    connection = Connection(node.client_address)
    try:
        return connection.call(*argv)
    finally:
        connection.close()


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "balsadb", "serve", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)


def test_an_emptied_directory_is_refused_and_the_others_go_on(cluster):
    leader = cluster.wait_leader()
    wiped = next(node for node in cluster.nodes.values() if node.id != leader)
    # The log must have bound the member to its directory.
    assert call(wiped, b"SET", b"k", b"v") in OK
    cluster.kill(wiped.id)
    shutil.rmtree(wiped.data_dir)
    cluster.start(wiped.id)
    wait_until(lambda: "directory was emptied" in wiped.log_tail(), 15, "a word of refusal")
    for node in cluster.nodes.values():
        if node is not wiped:
            assert call(node, b"APPEND", b"k", b"w") in (2, 3)


def test_a_node_that_forgot_does_not_complete_a_majority(cluster):
    cluster.wait_leader()
    a, b, c = cluster.nodes.values()
    assert call(a, b"SET", b"k", b"old") in OK
    cluster.kill(a.id)
    cluster.wait_leader(other_than=a.id)
    assert call(b, b"SET", b"k", b"new") in OK  # on the disks of b and c only
    cluster.kill(b.id)
    cluster.kill(c.id)
    shutil.rmtree(b.data_dir)
    cluster.start(a.id)
    cluster.start(b.id)
    # a is behind and b remembers nothing: together they must not answer, whatever they are asked.
    until = time.monotonic() + 4
    while time.monotonic() < until:
        for node in (a, b):
            try:
                answer = call(node, b"GET", b"k")
            except OSError:
                continue  # not up yet, or gone again
            assert str(answer).split()[0] in {"CLUSTERDOWN", "TRYAGAIN", "LOADING"}, answer
    cluster.start(c.id)
    wait_until(
        lambda: call(a, b"GET", b"k") == b"new", 20, "the node that remembers did not bring the cluster back"
    )


def test_a_lone_node_says_that_nothing_was_done(cluster):
    first, *others = cluster.nodes.values()
    cluster.wait_leader()
    for node in others:
        cluster.kill(node.id)
    began = time.monotonic()
    answers = {str(call(first, b"GET", b"k")).split()[0], str(call(first, b"APPEND", b"k", b"v")).split()[0]}
    assert time.monotonic() - began < 8
    assert answers <= {"CLUSTERDOWN", "TRYAGAIN", "UNKNOWN"}
    wait_until(lambda: str(call(first, b"SET", b"k", b"v")).startswith("CLUSTERDOWN"), 10, "CLUSTERDOWN")


def test_a_second_process_on_a_directory_is_refused(cluster):
    node = cluster.nodes[1]
    done = serve("--config", str(node.config_path))
    assert done.returncode == 2
    assert "another process uses" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_nodes_directory_is_refused(cluster):
    node, other = cluster.nodes[1], cluster.nodes[2]
    cluster.kill(1)
    done = serve("--config", str(other.config_path), "--data-dir", str(node.data_dir))
    assert done.returncode == 2
    assert "this is the data of node 1, not of node 2" in done.stderr


def test_another_clusters_directory_is_refused(cluster):
    node = cluster.nodes[1]
    cluster.kill(1)
    done = serve("--config", str(node.config_path), "--cluster", f"1={node.peer_address}")
    assert done.returncode == 2
    assert "--cluster" in done.stderr


def test_a_damaged_log_is_refused_with_the_place_and_the_remedy(cluster):
    node = cluster.nodes[1]
    for number in range(20):
        assert call(node, b"SET", b"k%d" % number, b"v" * 600) in OK
    cluster.kill(1)
    segment = next(iter(sorted((node.data_dir / "group-0" / "wal").glob("*.wal"))))
    data = bytearray(segment.read_bytes())
    data[1500] ^= 4
    segment.write_bytes(data)
    done = serve("--config", str(node.config_path))
    assert done.returncode == 3
    assert f"{segment} at offset" in done.stderr
    assert "balsadb member replace" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_old_copy_of_meta_is_refused(cluster):
    """Rule P2: the node would number its writes as in an earlier start, and they would not run."""
    node = cluster.nodes[1]
    meta = node.data_dir / "META"
    old = meta.read_bytes()
    cluster.restart(1)
    cluster.wait_ready()
    assert call(node, b"SET", b"k", b"v") in OK
    call(node, b"RAFT", b"SNAPSHOT")
    wait_until(lambda: b"snapshot_index:0\r" not in call(node, b"INFO", b"raft"), 10, "a durable state")
    cluster.kill(1)
    meta.write_bytes(old)
    done = serve("--config", str(node.config_path))
    assert done.returncode == 3
    assert f"{meta}: an old copy was put back" in done.stderr
    assert "Traceback" not in done.stderr
