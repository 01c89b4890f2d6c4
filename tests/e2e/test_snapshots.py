"""Snapshots with real processes: followers that come back too late, and a log that stays small (C1-C5)."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from pathlib import Path

import pytest

from balsadb.testing import LocalCluster
from e2e.load import Connection, expected, read_everywhere, start_appenders, wait_until

MIB = 1024 * 1024
LOG_BYTES = 4 * MIB
SEGMENT_BYTES = LOG_BYTES // 4
SETTINGS = {"snapshot-log-bytes": "4MiB"}


@pytest.fixture
def cluster():
    """Three nodes that let their logs go early."""
    with LocalCluster(nodes=3, settings=SETTINGS) as own:
        own.wait_leader()
        yield own


def call(node, *argv: bytes):
    connection = Connection(node.client_address)
    try:
        return connection.call(*argv)
    finally:
        connection.close()


def facts(node) -> dict[str, int]:
    """The numbers of INFO raft."""
    lines = call(node, b"INFO", b"raft").decode().splitlines()
    pairs = dict(line.split(":", 1) for line in lines if ":" in line)
    return {key: int(value) for key, value in pairs.items() if value.lstrip("-").isdigit()}


def log_bytes(node) -> int:
    """What the log takes on disk, with a file that is prepared for later."""
    return size_of(node.data_dir / "group-0" / "wal")


def size_of(directory: Path) -> int:
    """Bytes of the files in a directory; those that go away meanwhile don't count."""
    total = 0
    for file in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


class Overwriter(threading.Thread):
    """Sets the same few keys over and over, and counts what was acknowledged."""

    def __init__(self, address: str, stop: threading.Event, value_bytes: int = 10_000) -> None:
        super().__init__(name="overwriter", daemon=True)
        self.address, self.stop_event, self.value_bytes = address, stop, value_bytes
        self.written = 0
        self.failures: list[str] = []

    def run(self) -> None:
        connection = Connection(self.address)
        try:
            while not self.stop_event.is_set():
                pairs = []
                for key in range(8):
                    pairs += [b"big-%d" % key, b"%012d" % self.written * (self.value_bytes // 12)]
                reply = connection.call(b"MSET", *pairs)
                if reply not in (b"OK", "OK"):
                    self.failures.append(str(reply))
                    return
                self.written += 1
        except OSError as error:
            self.failures.append(repr(error))
        finally:
            connection.close()


def overwrite(node, mebibytes: int) -> None:
    """Write so many MiB over a few keys."""
    stop = threading.Event()
    writer = Overwriter(node.client_address, stop)
    writer.start()
    goal = mebibytes * MIB // (8 * writer.value_bytes)
    wait_until(lambda: writer.written >= goal or writer.failures, 60, f"{mebibytes} MiB")
    stop.set()
    writer.join(10)
    assert writer.failures == []


def digests_are_equal(cluster) -> None:
    """Ask one node for a digest, and every other one for that of the same index (rule S8)."""
    first, *others = cluster.nodes.values()
    index, digest = call(first, b"RAFT", b"DIGEST")
    for node in others:
        wait_until(lambda node=node: facts(node)["raft_applied_index"] >= index, 20, f"entry {index} applied")
        assert call(node, b"RAFT", b"DIGEST", b"%d" % index) == [index, digest]


def follower_of(cluster):
    leader = cluster.wait_leader()
    return next(node for node in cluster.nodes.values() if node.id != leader)


def compacted_beyond(cluster, index: int, without) -> None:
    """Wait until no running node has the entry behind `index` any more."""
    others = [node for node in cluster.nodes.values() if node is not without]
    wait_until(lambda: all(facts(n)["raft_first_index"] > index + 1 for n in others), 30, "compaction")


def test_a_follower_that_was_away_too_long_comes_back_by_a_snapshot_while_writes_go_on(cluster):
    away = follower_of(cluster)
    others = [node for node in cluster.nodes.values() if node is not away]
    stop = threading.Event()
    appenders = start_appenders([node.client_address for node in others], 2, stop)
    wait_until(lambda: all(a.acknowledged > 20 for a in appenders), 20, "the load did not start")
    last = facts(away)["raft_last_index"]
    cluster.kill(away.id)
    for _ in range(10):
        overwrite(others[0], 3)
    compacted_beyond(cluster, last, away)
    at_start = [appender.acknowledged for appender in appenders]
    cluster.start(away.id)
    wait_until(lambda: "event=state-installed" in away.log_tail(), 30, "an installed state")
    cluster.wait_ready()
    assert facts(away)["raft_first_index"] > last + 1
    wait_until(
        lambda: all(a.acknowledged > n + 20 for a, n in zip(appenders, at_start, strict=True)),
        20,
        "writes did not go on",
    )
    stop.set()
    for appender in appenders:
        appender.join(20)
        assert appender.errors == []
        assert read_everywhere(cluster.servers, appender.key) == [expected(appender.acknowledged)] * 3
    digests_are_equal(cluster)
    # And it goes on as a member like any other: with it, one of the others may go.
    cluster.kill(others[0].id)
    wait_until(lambda: call(away, b"SET", b"k", b"v") in (b"OK", "OK"), 20, "a write with its help")


def test_everything_acknowledged_survives_the_death_of_all_and_the_log_stays_bounded(cluster):
    stop = threading.Event()
    appenders = start_appenders(cluster.servers, 1, stop)
    writer = Overwriter(cluster.servers[0], stop)
    writer.start()
    largest = 0
    deadline = time.monotonic() + 60
    while writer.written * 8 * writer.value_bytes < 10 * LOG_BYTES:
        assert time.monotonic() < deadline, "the load does not get on"
        assert writer.failures == []
        largest = max(largest, *map(log_bytes, cluster.nodes.values()))
        time.sleep(0.02)
    assert largest <= 2 * LOG_BYTES + SEGMENT_BYTES
    written = writer.written
    for node in cluster.nodes.values():
        node.process.kill()
    cluster.kill()
    stop.set()
    for thread in (*appenders, writer):
        thread.join(20)
    cluster.start()
    cluster.wait_ready()
    for appender in appenders:
        (value,) = set(read_everywhere(cluster.servers, appender.key))
        allowed = {expected(appender.acknowledged), expected(appender.acknowledged + 1)}
        assert (value or b"") in allowed, f"{appender.key!r}: {appender.acknowledged} were acknowledged"
    for key in range(8):
        (value,) = set(read_everywhere(cluster.servers, b"big-%d" % key))
        assert int(value[:12]) >= written - 1
    for node in cluster.nodes.values():
        assert facts(node)["raft_snapshot_index"] > 0
        assert facts(node)["raft_first_index"] > 1
    digests_are_equal(cluster)


KEPT = 800


def random_bytes(seed: int) -> bytes:
    """Nothing that compresses: all of them together take 48 MiB, and sending that takes a while."""
    return random.Random(seed).randbytes(60_000)


def receiving(node) -> bool:
    """Tell whether the beginning of a state has arrived at a node."""
    files = node.data_dir / "group-0" / "incoming" / "files"
    try:
        return size_of(files) > MIB
    except FileNotFoundError:
        return False


def away_too_long(cluster):
    """Kill a follower, fill the cluster and let the others compact; returns it."""
    away = follower_of(cluster)
    last = facts(away)["raft_last_index"]
    cluster.kill(away.id)
    alive = next(node for node in cluster.nodes.values() if node is not away)
    connection = Connection(alive.client_address)
    for start in range(0, KEPT, 8):
        pairs = []
        for key in range(start, start + 8):
            pairs += [b"kept-%d" % key, random_bytes(key)]
        assert connection.call(b"MSET", *pairs) in (b"OK", "OK")
    connection.close()
    overwrite(alive, 8)
    compacted_beyond(cluster, last, away)
    return away


def whole(cluster) -> None:
    """Check that everybody has everything."""
    cluster.wait_ready()
    digests_are_equal(cluster)
    for key in (0, 17, KEPT - 1):
        assert set(read_everywhere(cluster.servers, b"kept-%d" % key)) == {random_bytes(key)}


def test_a_follower_that_is_killed_while_it_receives_gets_the_rest_later(cluster):
    away = away_too_long(cluster)
    cluster.start(away.id)
    wait_until(lambda: receiving(away), 30, "the beginning of a transfer")
    cluster.kill(away.id)
    assert receiving(away), "the transfer was too quick to be interrupted"
    cluster.start(away.id)
    wait_until(lambda: "event=state-installed" in away.log_tail(), 60, "an installed state")
    whole(cluster)


def test_a_leader_that_is_killed_while_it_sends_is_replaced_by_one_that_sends(cluster):
    away = away_too_long(cluster)
    cluster.start(away.id)
    wait_until(lambda: receiving(away), 30, "the beginning of a transfer")
    leader = cluster.wait_leader()
    cluster.kill(leader)
    assert receiving(away), "the transfer was too quick to be interrupted"
    cluster.start(leader)
    wait_until(lambda: "event=state-installed" in away.log_tail(), 60, "an installed state")
    whole(cluster)
    # What the killed leader had set aside for sending does not stay.
    wait_until(
        lambda: not list((cluster.nodes[leader].data_dir / "group-0").glob("outgoing/*")),
        20,
        "the removal of the killed leader's copy",
    )
