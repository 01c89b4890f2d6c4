"""A disk that takes no more: the node stops with a sentence, the others go on, and nothing is lost (rule W4).

The kernel refuses a process's writes past a size that is set while it runs. That is a full disk as far as the
process can tell, and needs no disk of its own.
"""

from __future__ import annotations

import os
import resource
import threading

import pytest

from balsadb.testing import LocalCluster
from e2e.load import Connection, expected, read_everywhere, start_appenders, wait_until

KIB = 1024
FULL_BYTES = 256 * KIB
"""No byte of any file behind this can be written any more; the log gets there soon."""
VALUE = os.urandom(16 * KIB)

pytestmark = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="Linux only")


@pytest.fixture
def cluster():
    """Three nodes that make the state durable early, so that it meets the end of the disk, too."""
    with LocalCluster(nodes=3, settings={"snapshot-log-bytes": "4MiB"}) as own:
        own.wait_leader()
        yield own


def fill_until_it_stops(cluster, node) -> None:
    """Write through another node until `node` has stopped."""
    other = next(n for n in cluster.nodes.values() if n.id != node.id and n.running)
    connection = Connection(other.client_address)
    numbers = iter(range(10_000))

    def stopped() -> bool:
        if node.running:
            assert connection.call(b"SET", b"filler-%d" % next(numbers), VALUE) in (b"OK", "OK")
        return not node.running

    try:
        wait_until(stopped, 30, "the end of the node")
    finally:
        connection.close()


@pytest.mark.parametrize("victim", ["leader", "follower"])
def test_a_node_whose_disk_is_full_stops_and_comes_back_with_everything(cluster, victim):
    leader = cluster.wait_leader()
    node = cluster.nodes[leader if victim == "leader" else leader % 3 + 1]
    others = [n.client_address for n in cluster.nodes.values() if n.id != node.id]
    stop = threading.Event()
    appenders = start_appenders(others, 2, stop)
    wait_until(lambda: all(a.acknowledged > 20 for a in appenders), 20, "load")
    resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (FULL_BYTES, FULL_BYTES))
    fill_until_it_stops(cluster, node)
    assert "event=stopped status=3 " in node.log_tail()
    assert "could not " in node.log_tail() or "can't be " in node.log_tail()
    at_stop = [a.acknowledged for a in appenders]

    def going_on() -> bool:
        return all(a.acknowledged > n + 20 for a, n in zip(appenders, at_stop, strict=True))

    wait_until(going_on, 20, "more writes")
    cluster.start(node.id)  # the new process has its full space again
    cluster.wait_ready()
    stop.set()
    for appender in appenders:
        appender.join(20)
    assert [error for a in appenders for error in a.errors] == []
    for appender in appenders:
        (value,) = set(read_everywhere(cluster.servers, appender.key))
        assert value == expected(appender.acknowledged)


def test_a_cluster_whose_disks_are_all_full_acknowledges_nothing_and_comes_back_with_everything(cluster):
    stop = threading.Event()
    appenders = start_appenders(cluster.servers, 1, stop)
    wait_until(lambda: all(a.acknowledged > 20 for a in appenders), 20, "load")
    for node in cluster.nodes.values():
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (FULL_BYTES, FULL_BYTES))
    wait_until(
        lambda: (
            not any(n.running for n in cluster.nodes.values()) or not any(a.is_alive() for a in appenders)
        ),
        60,
        "the end",
    )
    stop.set()
    for appender in appenders:
        appender.join(20)
    cluster.kill()
    for node_id in cluster.nodes:
        cluster.start(node_id)
    cluster.wait_ready()
    for appender in appenders:
        (value,) = set(read_everywhere(cluster.servers, appender.key))
        assert (value or b"") in {expected(appender.acknowledged), expected(appender.acknowledged + 1)}
