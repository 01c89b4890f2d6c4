"""demo: a cluster of real server processes on this machine, and a line whenever something changes.

Nothing is simulated: the nodes are processes to be killed, paused and started again with the commands that
are printed.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from balsadb.address import format_addresses, parse_address
from balsadb.testing import LocalCluster, LocalNode

NODES = 3
BASE_PORT = 7001
POLL_SECONDS = 0.1


class _Stopped(Exception):
    """Ctrl-C, or SIGTERM."""


def demo(nodes: int | None, directory: str | None, base_port: int | None) -> None:
    """Run a cluster until Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    there = len(list(Path(directory).glob("node-*.toml"))) if directory is not None else 0
    # A directory that is used again knows its nodes and ports.
    cluster = LocalCluster(
        nodes or there or NODES, directory=directory, base_port=base_port or (None if there else BASE_PORT)
    )
    try:
        cluster.start()
        cluster.wait_ready()
        leader = cluster.wait_leader()
        _introduce(cluster, leader, temporary=directory is None)
        _follow(cluster, leader)
    except _Stopped:
        _ignore_signals()
        _say("stopping")
        cluster.stop()
    finally:
        _ignore_signals()
        cluster.close()


def _introduce(cluster: LocalCluster, leader: int, temporary: bool) -> None:
    print(f"{'node':<6}{'pid':<9}{'clients':<17}{'peers':<17}{'http':<17}log")
    for node in cluster.nodes.values():
        print(
            f"{node.id:<6}{node.pid:<9}{node.client_address:<17}{node.peer_address:<17}{node.http_address:<17}"
            f"{_short(node.log_path)}"
        )
    _, port = parse_address(cluster.servers[0])
    print()
    print(f"  redis-cli -p {port} set greeting hello")
    print(f"  {_python()} -c 'from balsadb import BlockingClerk; print({_clerk(cluster)}.get(\"greeting\"))'")
    print(f"  kill -9 {cluster.nodes[leader].pid}    # the leader; any other node takes over")
    print(f"  http://{cluster.nodes[1].http_address}/    # a live picture; every node has one")
    print()
    kept = "temporary, removed at the end" if temporary else "kept"
    print(f"Data in {_short(cluster.directory)} ({kept}). Ctrl-C stops the cluster.")
    _say(f"node {leader} leads")


def _follow(cluster: LocalCluster, leader: int | None) -> None:
    """Say who leads whenever it changes, and who died."""
    alive = {node.id for node in cluster.running}
    while True:
        time.sleep(POLL_SECONDS)
        for node in cluster.nodes.values():
            if node.id in alive and not node.running:
                alive.discard(node.id)
                _say(f"node {node.id} is gone ({node.exit_text}); start it again: {_start_again(node)}")
        # Nodes that the user started again are not our children any more, but they answer.
        now = cluster.leader()
        if now is not None and now != leader:
            _say(f"node {now} leads")
            leader = now
        elif now is None and leader is not None and leader not in alive:
            leader = None


def _start_again(node: LocalNode) -> str:
    return f"{_python()} -m balsadb serve --config {shlex.quote(_short(node.config_path))}"


def _clerk(cluster: LocalCluster) -> str:
    usual = [f"127.0.0.1:{port}" for port in range(BASE_PORT, BASE_PORT + 3)]
    servers = format_addresses([parse_address(server) for server in cluster.servers])
    return "BlockingClerk()" if cluster.servers == usual else f'BlockingClerk("{servers}")'


def _python() -> str:
    """Return how the user's shell gets at this very Python."""
    return "python" if os.environ.get("VIRTUAL_ENV") else _short(Path(sys.executable))


def _short(path: Path) -> str:
    """Write a path from here if that is shorter."""
    shown = os.path.relpath(path)
    return shown if len(shown) < len(str(path)) else str(path)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped


def _ignore_signals() -> None:
    # A second Ctrl-C must not leave processes behind.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
