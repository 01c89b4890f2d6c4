"""Servers that are known by host names go on when all of them come back under other addresses."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path

import pytest

from balsadb import BlockingClerk, Clerk
from balsadb.address import parse_address
from balsadb.client.ask import ask, pairs
from balsadb.testing import LocalCluster
from e2e import named_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there is all of 127.0.0.0/8 at hand")


class Machines:
    """A cluster of three whose members know each other, and tell clients of themselves, by name."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "names.json"
        command = [sys.executable, named_server.__file__, str(self.file), "serve"]
        self.cluster = LocalCluster(3, directory=directory / "data", command=command)
        self.ports = {
            n.id: (parse_address(n.client_address)[1], parse_address(n.peer_address)[1])
            for n in self.cluster.nodes.values()
        }
        self.cluster.advertise = {n: f"db{n}.test:{client}" for n, (client, _) in self.ports.items()}
        # Listens at an address and is known by a name, as a container is.
        self.cluster._cluster_text = ",".join(f"{n}=db{n}.test:{peer}" for n, (_, peer) in self.ports.items())
        self.servers = list(self.cluster.advertise.values())

    def settle(self, net: int, known: bool = True) -> None:
        """Give every machine an address in another net, and let the names say so."""
        for node in self.cluster.nodes.values():
            for what in ("client_address", "peer_address", "http_address"):
                port = parse_address(getattr(node, what))[1]
                setattr(node, what, f"127.0.{net}.{node.id}:{port}")
        if known:
            self.tell(net)

    def tell(self, net: int) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps({f"db{node}.test": f"127.0.{net}.{node}" for node in self.ports}))
        os.replace(fresh, self.file)


@pytest.fixture
def machines(tmp_path, monkeypatch):
    machines = Machines(tmp_path)
    machines.file.write_text("{}")
    monkeypatch.setattr(socket, "getaddrinfo", named_server.answer_from(machines.file))
    yield machines
    machines.cluster.close()


def test_all_nodes_restart_with_new_addresses_and_find_one_another(machines):
    cluster = machines.cluster
    machines.settle(1)
    cluster.start()
    cluster.wait_ready()
    with BlockingClerk(machines.servers, timeout=30) as clerk:
        for net in (2, 3):
            clerk.append("k", f"{net};")
            cluster.stop()
            machines.settle(net)
            cluster.start()
            cluster.wait_ready()
            assert clerk.get("k") == b"".join(b"%d;" % past for past in range(2, net + 1))
    members = ask(parse_address(cluster.nodes[1].client_address), ["RAFT", "MEMBERS"], 5.0)
    assert [pairs(member)["peer_address"].decode() for member in members] == [
        f"db{node}.test:{peer}" for node, (_, peer) in machines.ports.items()
    ]


def test_a_clerk_goes_on_while_one_node_after_the_other_moves(machines):
    cluster = machines.cluster
    machines.settle(1)
    cluster.start()
    cluster.wait_ready()

    async def scenario() -> None:
        async with Clerk(machines.servers, timeout=30) as clerk:
            names = json.loads(machines.file.read_text())
            for node in cluster.nodes.values():
                await clerk.append("k", f"{node.id};")
                await asyncio.to_thread(cluster.stop, node.id)
                for what in ("client_address", "peer_address", "http_address"):
                    port = parse_address(getattr(node, what))[1]
                    setattr(node, what, f"127.0.9.{node.id}:{port}")
                names[f"db{node.id}.test"] = f"127.0.9.{node.id}"
                machines.file.write_text(json.dumps(names))
                cluster.start(node.id)
                await asyncio.to_thread(cluster.wait_ready)
            assert await clerk.get("k") == b"1;2;3;"

    asyncio.run(scenario())


def test_names_that_have_no_address_yet_keep_nobody_from_starting(machines):
    cluster = machines.cluster
    machines.settle(1, known=False)
    cluster.start()
    for node in cluster.nodes.values():
        assert said_within(node, "event=peer-unusable peer=", 20)
    machines.tell(1)
    cluster.wait_ready()
    for node in cluster.nodes.values():
        lines = [line for line in node.log_path.read_text().splitlines() if "the name in" in line]
        assert len(lines) == 2, "one line for each of the others, however often it was tried"


def said_within(node, words: str, seconds: float) -> bool:
    import time

    deadline = time.monotonic() + seconds
    while node.log_path.read_text().count(words) < 2:
        if time.monotonic() > deadline or not node.running:
            return False
        time.sleep(0.05)
    return True
