"""What scripts ask of a simulated cluster whose members change."""

from __future__ import annotations

from balsadb.kv.reply import Refusal, Reply
from balsadb.raft.types import Configuration
from balsadb.replica import Replica
from balsadb.replica.request import Lane, Request, RequestKind
from sim.lab.cluster import LabCluster

CHANGE_MS = 5_000
"""A change among servers that can talk is over within this."""


class Asked:
    """What an operator asked of a server, and was answered."""

    def __init__(self, cluster: LabCluster, node: int, *words: object) -> None:
        self.reply: Reply = None
        self.over = False
        argv = [b"RAFT", *(str(word).encode() for word in words)]
        request = Request(Lane(self), RequestKind.CHANGE, [argv], [], 1, sum(map(len, argv)))
        server = cluster.servers[node]
        assert server.replica is not None
        server.replica.submit(request, cluster.scheduler.now_ms)
        server.wake()

    def answered(self, request: Request) -> None:
        assert request.replies is not None
        (self.reply,), self.over = request.replies, True

    @property
    def refusal(self) -> bytes:
        assert isinstance(self.reply, Refusal), self.reply
        return self.reply.text


def replica(cluster: LabCluster, node: int) -> Replica:
    found = cluster.servers[node].replica
    assert found is not None
    return found


def known(cluster: LabCluster, node: int) -> Configuration:
    """Return the configuration at the end of a server's log."""
    return replica(cluster, node).node.configuration


def settled(cluster: LabCluster) -> int:
    """Return the leader of a cluster that knows the directories of its members."""
    leader = cluster.check_one_leader()
    cluster.one(len(cluster.servers))
    assert cluster.wait(
        lambda: all(replica(cluster, n).configuration.cluster_id for n in cluster.servers), 3_000
    )
    return leader


def words_for(*nodes: int) -> list[object]:
    return [word for node in nodes for word in (node, f"peer:{node}", f"client:{node}")]


def put_up(cluster: LabCluster, node: int, through: int, *, start: bool = True) -> None:
    """Put up another machine, and start its server unless it is to stay down."""
    cluster.build(node, replica(cluster, through).configuration)
    if start:
        cluster.servers[node].start()
        cluster.connected.add(node)


def ask(cluster: LabCluster, node: int, *words: object, milliseconds: int = CHANGE_MS) -> Asked:
    """Ask and wait for the answer."""
    asked = Asked(cluster, node, *words)
    assert cluster.wait(lambda: asked.over, milliseconds)
    return asked


def voters(cluster: LabCluster, node: int) -> tuple[int, ...]:
    """Return the voters when no change is under way, else nobody."""
    configuration = replica(cluster, node).configuration
    return () if configuration.changing else configuration.voters


def until_voters(cluster: LabCluster, node: int, expected: set[int], milliseconds: int = CHANGE_MS) -> None:
    assert cluster.wait(lambda: set(voters(cluster, node)) == expected, milliseconds), known(cluster, node)


def leave(cluster: LabCluster, *nodes: int) -> None:
    """Count servers no more that were removed."""
    cluster.connected -= set(nodes)
