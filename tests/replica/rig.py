"""A replica whose disk, state and peers are the test's own."""

from __future__ import annotations

from random import Random

from balsadb.kv.machine import StateMachine
from balsadb.kv.memory import MemoryBase
from balsadb.raft.entry import Entry
from balsadb.raft.messages import Append, Heartbeat, Propose
from balsadb.raft.node import Node, Options, Recovered, Role
from balsadb.raft.ready import WriteBatch
from balsadb.raft.types import Configuration, Member
from balsadb.replica.limits import ReplicaOptions
from balsadb.replica.replica import Replica, Warm
from balsadb.replica.request import Lane, Request, RequestKind
from kv.delta_model import write as write_cut

WALL_MS = 1_700_000_000_000
BOOT = 4
STORE = b"store"


def write_of(key: str, value: str = "v") -> Request:
    return Request(
        Lane(), RequestKind.WRITE, [[b"APPEND", key.encode(), value.encode()]], [], 1, len(key) + len(value)
    )


class Rig:
    """A replica whose disk, state and peers are the test's own."""

    def __init__(self, node_id: int, voters: tuple[int, ...], **options) -> None:
        members = tuple(Member(node, f"h:{node}", f"c:{node}", STORE) for node in voters)
        configuration = Configuration(voters=voters, members=members, cluster_id=b"c")
        raft = Options(election_ticks=10, heartbeat_ticks=2)
        self.node = Node(node_id, configuration, Recovered(), raft, Random(1), WALL_MS, boot=BOOT)
        self.base = MemoryBase()
        self.machine = StateMachine(voters, self.base)
        self.replica = Replica(
            self.node,
            self.machine,
            BOOT,
            # Payloads leave at once unless a test says otherwise.
            ReplicaOptions(**{"collect_commands_min": 1, **options}),
            store_id=STORE,
            client_address=f"c:{node_id}",
        )
        self.now_ms = 0
        self.wall_ms = WALL_MS
        self.writing: WriteBatch | None = None
        self.prompt = True
        """Whether the disk is done at once."""
        self.prompt_reads = True
        """Whether keys are read from it at once."""
        self.cuts: list = []
        self.snapshots: list[tuple[int, int]] = []
        self.sent: list = []
        self.finished: list[Request] = []
        self.warm: list[Warm] = []
        """Keys that the replica wants read."""

    def turn(self) -> None:
        """Run turns until there is nothing to do."""
        for _ in range(1_000):
            effects = self.replica.turn(self.now_ms, self.wall_ms, self.writing is None)
            self.cuts += effects.cuts
            self.snapshots += effects.snapshots
            self.sent += effects.messages
            self.finished += effects.finished
            if effects.warm is not None:
                self.warm.append(effects.warm)
                if self.prompt_reads:
                    self.read()
                    continue
            if effects.write is not None:
                self.writing = effects.write
                if self.prompt:
                    self.persist()
            elif not effects.again:
                return
        raise AssertionError("the replica never comes to rest")

    def read(self) -> list[bytes]:
        """Read what is wanted first from the disk; returns the keys."""
        warm = self.warm.pop(0)
        self.replica.warmed(warm, warm.read())
        return warm.keys

    def persist(self) -> None:
        assert self.writing is not None
        number, self.writing = self.writing.number, None
        self.replica.persisted(number)

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            self.now_ms += 10
            self.replica.tick(self.now_ms, self.wall_ms)
            self.turn()

    def lead(self) -> None:
        """Let a lone voter become leader."""
        for _ in range(100):
            if self.node.role is Role.LEADER and self.node.applied_index:
                return
            self.tick()
        raise AssertionError("not elected")

    def submit(self, *keys: str) -> list[Request]:
        """One payload, and so one entry, for each key."""
        requests = []
        for key in keys:
            requests.append(write_of(key))
            self.replica.submit(requests[-1])
            self.turn()
        return requests

    def submit_blindly(self, key: str) -> Request:
        """Set a key without a look at it."""
        request = Request(Lane(), RequestKind.WRITE, [[b"SET", key.encode(), b"v"]], [], 1, 1)
        self.replica.submit(request)
        self.turn()
        return request

    def write(self, tail_first: int = 1 << 40, *, count: int = 1_000) -> int:
        """Bring cuts to the base, as the cut writer does; returns how many."""
        written = 0
        while self.cuts and written < count:
            cut = self.cuts.pop(0)
            while self.machine.store.count(cut):
                pass
            write_cut(self.base, cut)
            self.replica.cut_written(cut, tail_first)
            written += 1
        return written

    # As a follower of node 1:

    def follow(self, term: int = 1, commit: int = 0) -> None:
        self.replica.step(Heartbeat(1, self.node.id, term, commit, 0, 0))
        self.turn()

    def append(self, *entries: Entry, commit: int = 0, term: int = 0) -> None:
        """Take entries from node 1."""
        first, term = entries[0], term or entries[-1].term
        previous = first.index - 1
        previous_term = self.node.log.term_at(previous)
        encoded = tuple(entry.encoded for entry in entries)
        self.replica.step(Append(1, self.node.id, term, previous, previous_term, commit, 0, encoded))
        self.turn()

    def proposed(self) -> list[tuple[int, bytes]]:
        """Term and payload of everything that was proposed to the leader."""
        return [(m.term, payload) for m in self.sent if isinstance(m, Propose) for payload in m.payloads]
