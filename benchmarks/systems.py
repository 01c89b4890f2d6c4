"""The systems that are compared: our cluster, an etcd cluster, and one Redis that syncs every write.

Each can be put to sleep, so that it costs the others nothing while they are measured, and waked again, which
returns only when it serves as before: a cluster that slept may first have to find a leader.
"""

from __future__ import annotations

import json
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from types import TracebackType
from typing import Self

import balsadb
from balsadb.testing import LocalCluster
from harness import Server, answers, free_ports, require_program, run_output, wait_for

START_SECONDS = 30.0
SETTLED_SECONDS = 0.5
"""A leader is believed to stay when it has led for this long after everybody waked."""


class System(ABC):
    """One system under test; a context manager that starts it and always ends it."""

    name: str
    version: str
    durability: str
    """What has happened to the disk when a write is acknowledged."""

    @abstractmethod
    def start(self) -> None:
        """Start the processes and wait until they serve."""

    @abstractmethod
    def close(self) -> None:
        """End every process, paused ones too."""

    @abstractmethod
    def sleep(self) -> None:
        """Stop every process in its tracks."""

    @abstractmethod
    def wake(self) -> None:
        """Let them go on, and wait until they serve."""

    @abstractmethod
    def pids(self) -> dict[str, list[int]]:
        """Return process ids by role: "leader", "follower"."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Ours(System):
    """Three nodes of BalsaDB, each a process with default settings unless others are given."""

    name = "BalsaDB"
    durability = "fdatasync has returned on a majority of 3 nodes"

    def __init__(self, directory: Path, nodes: int = 3, settings: Mapping[str, object] | None = None) -> None:
        self.version = balsadb.__version__
        self.cluster = LocalCluster(nodes=nodes, directory=directory, settings=settings)

    def start(self) -> None:
        self.cluster.start()
        self.cluster.wait_ready(START_SECONDS)
        self._settle()

    def close(self) -> None:
        self.cluster.close()

    def sleep(self) -> None:
        for node_id in self.cluster.nodes:
            self.cluster.pause(node_id)

    def wake(self) -> None:
        for node_id in self.cluster.nodes:
            self.cluster.resume(node_id)
        self._settle()

    def pids(self) -> dict[str, list[int]]:
        leader = self.leader()
        found: dict[str, list[int]] = {"leader": [], "follower": []}
        for node in self.cluster.nodes.values():
            if node.pid is not None:
                found["leader" if node.id == leader else "follower"].append(node.pid)
        return found

    def leader(self) -> int:
        """Return the id of the leader, waiting for one if need be."""
        return self.cluster.wait_leader(START_SECONDS)

    def leader_address(self) -> str:
        """Where the leader serves clients."""
        return self.cluster.nodes[self.leader()].client_address

    def _settle(self) -> None:
        def settled() -> bool:
            before = self.leader()
            time.sleep(SETTLED_SECONDS)
            serving = all(answers(a, "SET", "settled", "yes") for a in self.cluster.servers)
            return serving and self.leader() == before

        wait_for(settled, START_SECONDS, "our cluster to settle on a leader")


class Etcd(System):
    """Three members of etcd with default settings."""

    name = "etcd"
    durability = "fdatasync has returned on a majority of 3 members"

    def __init__(self, directory: Path, nodes: int = 3) -> None:
        program = require_program("etcd", "etcd-server")
        self.version = run_output([program, "--version"], 10.0).split()[2]
        ports = free_ports(2 * nodes)
        self.endpoints = [f"127.0.0.1:{port}" for port in ports[:nodes]]
        peers = [f"http://127.0.0.1:{port}" for port in ports[nodes:]]
        names = [f"member{i + 1}" for i in range(nodes)]
        cluster = ",".join(f"{name}={peer}" for name, peer in zip(names, peers, strict=True))
        self.servers = []
        for name, endpoint, peer in zip(names, self.endpoints, peers, strict=True):
            command = [program, "--name", name, "--data-dir", str(directory / name / "data")]
            command += ["--listen-client-urls", f"http://{endpoint}"]
            command += ["--advertise-client-urls", f"http://{endpoint}"]
            command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
            command += ["--initial-cluster", cluster, "--initial-cluster-state", "new"]
            self.servers.append(Server(f"etcd {name}", command, directory / name))

    def start(self) -> None:
        for server in self.servers:
            server.start()
        self.settle()

    def close(self) -> None:
        for server in self.servers:
            server.kill()

    def sleep(self) -> None:
        for server in self.servers:
            server.signal(SIGSTOP)

    def wake(self) -> None:
        for server in self.servers:
            server.signal(SIGCONT)
        self.settle()

    def pids(self) -> dict[str, list[int]]:
        leader = self.leader()
        pids = [server.pid for server in self.servers]
        return {
            "leader": [pid for i, pid in enumerate(pids) if i == leader],
            "follower": [pid for i, pid in enumerate(pids) if i != leader],
        }

    def leader(self) -> int | None:
        """Return which member leads, by its position, if all members that answer agree on it."""
        claims: set[str] = set()
        members: dict[str, int] = {}
        for position, endpoint in enumerate(self.endpoints):
            status = _status(endpoint)
            if status is None:
                continue
            members[status["member_id"]] = position
            claims.add(status["leader"])
        return members.get(claims.pop()) if len(claims) == 1 else None

    def settle(self, members: int | None = None) -> int:
        """Wait until that many members (default: all) know one leader, and still do half a second later."""
        found: list[int] = []

        def settled() -> bool:
            for server in self.servers:
                server.check()
            answering = sum(1 for endpoint in self.endpoints if _status(endpoint) is not None)
            before = self.leader()
            if before is None or answering < (members or len(self.servers)):
                return False
            time.sleep(SETTLED_SECONDS)
            found[:] = [before]
            return self.leader() == before

        wait_for(settled, START_SECONDS, "etcd to settle on a leader")
        return found[0]


def _status(endpoint: str) -> dict[str, str] | None:
    """Ask a member of etcd, through its JSON gateway, who it is and who leads ("0": nobody)."""
    request = urllib.request.Request(f"http://{endpoint}/v3/maintenance/status", b"{}")
    try:
        with urllib.request.urlopen(request, timeout=1.0) as response:
            answer = json.load(response)
    except (OSError, ValueError):
        return None
    return {"member_id": answer["header"]["member_id"], "leader": answer.get("leader", "0")}


class Redis(System):
    """One Redis that syncs its file before it acknowledges: no replication, the speed of one disk."""

    name = "Redis"
    durability = "fsync has returned on the one server (appendfsync always)"

    def __init__(self, directory: Path) -> None:
        program = require_program("redis-server", "redis-server")
        words = run_output([program, "--version"], 10.0).split()
        self.version = next((w.removeprefix("v=") for w in words if w.startswith("v=")), "unknown")
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        # A rewrite of the file in the middle of a cell would be measured as if writes cost it.
        command += ["--auto-aof-rewrite-percentage", "0"]
        self.server = Server("redis-server", command, directory)

    def start(self) -> None:
        self.server.start()
        self._serve()

    def close(self) -> None:
        self.server.kill()

    def sleep(self) -> None:
        self.server.signal(SIGSTOP)

    def wake(self) -> None:
        self.server.signal(SIGCONT)
        self._serve()

    def pids(self) -> dict[str, list[int]]:
        return {"leader": [self.server.pid], "follower": []}

    def _serve(self) -> None:
        def serving() -> bool:
            self.server.check()
            return answers(self.address, "SET", "settled", "yes")

        wait_for(serving, START_SECONDS, "redis-server to serve")
