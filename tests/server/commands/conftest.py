"""A node and a connection as the commands see them, without any node or connection behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import pytest

from balsadb.kv.reply import Mapping, NullArray, Refusal, Reply, Status
from balsadb.raft.types import Configuration, Member
from balsadb.server.commands import ClientState, NodeStatus, run

CLUSTER_ID = "00112233445566778899aabbccddeeff"


class FakeNode:
    """A `NodeView` whose facts a test sets. Node 1 of three, led by node 2."""

    def __init__(self) -> None:
        members = tuple(Member(id, f"10.0.0.{id}:8001", f"10.0.0.{id}:7001") for id in (1, 2, 3))
        self.now = NodeStatus(
            id=1,
            role="follower",
            term=7,
            leader=2,
            last_leader=2,
            configuration=Configuration(voters=(1, 2, 3), members=members),
            client_address="10.0.0.1:7001",
            peer_address="10.0.0.1:8001",
            commit_index=50,
            applied_index=49,
            first_index=11,
            last_index=52,
            last_term=6,
            snapshot_index=10,
            cluster_id=CLUSTER_ID,
            uptime_ms=90_061_000,
        )
        self.connections: list[ClientState] = []
        self.data: dict[bytes, bytes] = {}
        self.snapshots = 0

    def becomes(self, **changes: Any) -> None:
        """Change facts of the node."""
        self.now = msgspec.structs.replace(self.now, **changes)

    def status(self) -> NodeStatus:
        return self.now

    def figures(self) -> dict[str, int | str]:
        return {"version": "1.2.3", "sync_p99_us": 1_500}

    def silent_ms(self) -> dict[int, int | None]:
        return {2: 40, 3: None}

    def clients(self) -> Sequence[ClientState]:
        return self.connections

    def keys(self) -> Iterable[bytes]:
        return iter(self.data)

    def take_snapshot(self) -> None:
        self.snapshots += 1

    def wall_ms(self) -> int:
        return 1_700_000_123_456

    def wall_us(self) -> int:
        return 1_700_000_123_456_789


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
def client(node: FakeNode) -> ClientState:
    state = ClientState(5, "10.9.9.9:1234", local_address="10.0.0.1:7001", created_ms=1_700_000_100_000)
    node.connections.append(state)
    return state


@pytest.fixture
def ask(client: ClientState, node: FakeNode) -> Callable[..., Any]:
    """Run one command, whose words are text or bytes. See `plain` for what comes back."""

    def ask(*words: str | bytes) -> Any:
        argv = [word.encode() if isinstance(word, str) else word for word in words]
        return plain(run(client, node, argv))

    return ask


def plain(reply: Reply) -> Any:
    """Turn a reply into something easy to compare: simple strings and errors become `+OK` and `-ERR ...`."""
    match reply:
        case Status():
            return "+" + reply.text.decode()
        case Refusal():
            return "-" + reply.text.decode()
        case NullArray():
            return "null array"
        case Mapping():
            return {plain(key): plain(value) for key, value in reply.pairs}
        case list():
            return [plain(item) for item in reply]
        case _:
            return reply
