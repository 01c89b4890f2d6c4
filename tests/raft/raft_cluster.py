"""A whole Raft cluster in memory, for tests: network, disks and crashes under full control.

Every step of every node is checked by `balsadb.raft.invariants`, and an `Oracle` that sees all nodes at once
checks what no single node can: one leader per term, equal committed entries everywhere, leaders that have
all committed entries, no promise about a disk before the disk kept it, and reads that miss nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from random import Random

from balsadb.errors import InvariantError
from balsadb.raft import invariants
from balsadb.raft.entry import Entry, encode_entry
from balsadb.raft.messages import AppendResponse, ChangeResponse, Message, RoundAck, VoteResponse
from balsadb.raft.node import Node, Options, Recovered, Role
from balsadb.raft.ready import Fetch, ReadState, WriteBatch
from balsadb.raft.types import Configuration, EntryKind, HardState, Index, NodeId, Term

FAST = Options(
    election_ticks=10, heartbeat_ticks=2, lost_ticks_max=3, read_retry_ticks=4, change_ticks=1_000_000
)
"""Short times. Changes of the members go on by hand, unless a test says otherwise."""
WALL_MS = 1_700_000_000_000


def entries_of(terms: Iterable[Term], tag: str = "") -> list[Entry]:
    """Make a log whose entry at index i + 1 has terms[i], as the pictures of the Raft paper show logs."""
    return [
        encode_entry(term, index, WALL_MS, EntryKind.COMMANDS, f"{tag}{term}.{index}".encode())
        for index, term in enumerate(terms, start=1)
    ]


class Disk:
    """What survives a crash."""

    def __init__(self, entries: Sequence[Entry] = (), hard_state: HardState | None = None) -> None:
        self.entries = list(entries)
        self.hard_state = hard_state or HardState(term=self.entries[-1].term if self.entries else 0)
        self.boot = 0

    def write(self, batch: WriteBatch) -> None:
        if batch.entries:
            first = batch.entries[0].index
            assert first <= len(self.entries) + 1, "a gap in the log on disk"
            del self.entries[first - 1 :]
            self.entries += batch.entries
        if batch.hard_state is not None:
            self.hard_state = batch.hard_state

    @property
    def kept(self) -> Sequence[Entry]:
        """What a start would find."""
        return self.entries

    def recover(self, tail: int) -> Recovered:
        runs: list[tuple[Index, Term]] = []
        for entry in self.entries:
            if not runs or runs[-1][1] != entry.term:
                runs.append((entry.index, entry.term))
        return Recovered(
            hard_state=self.hard_state,
            last_index=len(self.entries),
            terms=tuple(runs),
            last_time_ms=self.entries[-1].time_ms if self.entries else 0,
            memberships=tuple(e for e in self.entries if e.kind is EntryKind.MEMBERSHIP),
            tail=tuple(self.entries[len(self.entries) - min(tail, len(self.entries)) :]),
        )


class Server:
    """One node with its disk and what it applied."""

    def __init__(self, node_id: NodeId, disk: Disk) -> None:
        self.id = node_id
        self.disk = disk
        self.node: Node | None = None
        self.writing: WriteBatch | None = None
        self.applied: list[Entry] = []
        self.fetches: deque[Fetch] = deque()
        self.reads: list[tuple[int, Index]] = []
        self.dropped: list[int] = []
        self.answers: list[ChangeResponse] = []
        self.before: invariants.Observation | None = None

    @property
    def up(self) -> Node:
        assert self.node is not None, f"node {self.id} is down"
        return self.node

    def log(self) -> list[Entry]:
        """The whole log: the cache over the disk."""
        log = self.up.log
        return self.disk.entries[: log.cache_first - 1] + log.entries

    def terms(self) -> list[Term]:
        return [entry.term for entry in self.log()]


class Oracle:
    """Sees everything and checks the five properties of Figure 3 of the Raft paper, and reads."""

    def __init__(self) -> None:
        self.leaders: dict[Term, NodeId] = {}
        self.committed: list[Entry] = []
        self.reads: dict[tuple[NodeId, int, int], Index] = {}

    def observe(self, server: Server) -> None:
        node = server.up
        if node.role is Role.LEADER:
            known = self.leaders.setdefault(node.term, node.id)
            assert known == node.id, f"nodes {known} and {node.id} both led term {node.term}"
            last = node.log.term_at(len(self.committed))
            if self.committed and node.term > self.committed[-1].term:
                assert last == self.committed[-1].term, (
                    f"leader {node.id} of term {node.term} lacks committed entry {len(self.committed)}"
                )
        if node.commit_index > len(self.committed):
            log = server.log()
            self.committed += log[len(self.committed) : node.commit_index]
        if node.commit_index:
            mine, theirs = node.log.term_at(node.commit_index), self.committed[node.commit_index - 1].term
            assert mine == theirs, f"node {node.id} committed another entry at {node.commit_index}"

    def applied(self, server: Server, entries: Sequence[Entry]) -> None:
        for entry in entries:
            assert entry.index == len(server.applied) + 1, "entries are applied in order, each once"
            assert entry.encoded == self.committed[entry.index - 1].encoded
            server.applied.append(entry)

    def promise(self, server: Server, message: Message) -> None:
        """Check that nothing is promised that this node's disk does not already keep."""
        disk = server.disk
        if isinstance(message, AppendResponse | RoundAck):
            match = message.match
            kept = disk.kept
            assert match <= len(kept), f"node {server.id} acknowledged {match} before its disk had it"
            if match and message.term == server.up.term:
                assert kept[match - 1].term == server.up.log.term_at(match)
                assert disk.hard_state.term >= message.term
        if isinstance(message, VoteResponse) and message.granted and not message.pre:
            state = disk.hard_state
            assert state.term > message.term or (state.term, state.vote) == (message.term, message.target)

    def log_matching(self, servers: Iterable[Server]) -> None:
        logs = [server.log() for server in servers if server.node is not None]
        for position, one in enumerate(logs):
            for other in logs[position + 1 :]:
                common = min(len(one), len(other))
                while common and one[common - 1].term != other[common - 1].term:
                    common -= 1
                for a, b in zip(one[:common], other[:common], strict=True):
                    assert a.encoded == b.encoded, f"logs agree at {common} and differ at {a.index}"


class Cluster:
    """Servers 1..n, a network that a test can cut, and disks that a test can hold back."""

    def __init__(
        self,
        size: int = 3,
        *,
        seed: int = 1,
        options: Options = FAST,
        logs: dict[NodeId, Sequence[Term]] | None = None,
        hard_states: dict[NodeId, HardState] | None = None,
        learners: tuple[NodeId, ...] = (),
        configuration: Configuration | None = None,
        tail: int = 1_000_000,
    ) -> None:
        self.random = Random(seed)
        self.options = options
        self.tail = tail
        voters = tuple(node for node in range(1, size + 1) if node not in learners)
        self.configuration = configuration or Configuration(voters=voters, learners=learners)
        self.oracle = Oracle()
        self.network: deque[Message] = deque()
        self.sent: list[Message] = []
        self.cuts: set[tuple[NodeId, NodeId]] = set()
        self.lose: Callable[[Message], bool] = lambda message: False
        """Says which messages the network loses, besides those of cut links."""
        self.slow_disks: set[NodeId] = set()
        self.wall_ms = WALL_MS
        self.steady_ms = 0
        self.skew_ms: dict[NodeId, int] = {}
        self.context = 0
        self.servers: dict[NodeId, Server] = {}
        for node in range(1, size + 1):
            disk = Disk(entries_of((logs or {}).get(node, ())), (hard_states or {}).get(node))
            self.servers[node] = Server(node, disk)
            self.start(node)

    # --------------------------------------------------------------- processes

    def start(self, node_id: NodeId, applied: Index = 0) -> Node:
        server = self.servers[node_id]
        assert server.node is None
        server.disk.boot += 1
        server.node = Node(
            node_id,
            self.configuration,
            server.disk.recover(self.tail),
            self.options,
            self.luck(node_id),
            self.wall(node_id),
            applied,
            server.disk.boot,
        )
        server.applied.clear()
        server.before = invariants.observe(server.node)
        return server.node

    def luck(self, node_id: NodeId) -> Random:
        """What a process draws its timeouts from."""
        return Random(self.random.randrange(2**32))

    def crash(self, node_id: NodeId, write_survives: bool = False) -> None:
        """Kill a process. Its write in flight is lost, or done without anybody having heard of it."""
        server = self.servers[node_id]
        if write_survives and server.writing is not None:
            server.disk.write(server.writing)
        server.node = None
        server.writing = None
        server.fetches.clear()
        server.reads.clear()
        server.dropped.clear()

    def restart(self, node_id: NodeId) -> Node:
        self.crash(node_id)
        return self.start(node_id)

    def node(self, node_id: NodeId) -> Node:
        return self.servers[node_id].up

    def running(self) -> list[Server]:
        return [server for server in self.servers.values() if server.node is not None]

    # ------------------------------------------------------------------- steps

    def wall(self, node_id: NodeId) -> int:
        return self.wall_ms + self.skew_ms.get(node_id, 0)

    def steady(self, node_id: NodeId) -> int:
        return self.steady_ms + 1_000 * node_id

    def check(self, server: Server) -> None:
        assert server.before is not None
        server.before = invariants.check_step(server.before, server.up)
        self.oracle.observe(server)

    def pump(self, server: Server) -> None:
        """Do what a driver does until a node has nothing more to do."""
        node = server.up
        for _ in range(1000):
            idle = server.writing is None
            if not node.has_ready(idle):
                return
            ready = node.ready(idle)
            self.check(server)
            if ready.write is not None:
                assert idle
                self.begin_write(server, ready.write)
            for message in ready.messages:
                self.send(server, message)
            if ready.committed:
                self.apply(server, ready.committed)
            for read in ready.reads:
                self.read_confirmed(server, read)
            for context in ready.dropped_reads:
                self.read_dropped(server, context)
            for answer in ready.answers:
                self.change_answered(server, answer)
            for follower, least in ready.snapshots:
                self.snapshot_wanted(server, follower, least)
            server.fetches.extend(ready.fetches)
            if server.id not in self.slow_disks:
                while server.fetches:
                    self.complete_fetch(server)
        raise AssertionError(f"node {server.id} never comes to rest")

    def change_answered(self, server: Server, answer: ChangeResponse) -> None:
        """Take what became of a request for other members."""
        server.answers.append(answer)

    def snapshot_wanted(self, server: Server, follower: NodeId, least: Index) -> None:
        """Take the wish for a state. Nothing is compacted here, so there is none; see `raft_snapshots.py`."""
        raise AssertionError(f"node {server.id} wants the state sent to {follower}")

    def begin_write(self, server: Server, batch: WriteBatch) -> None:
        server.writing = batch
        if server.id not in self.slow_disks:
            self.complete_write(server)

    def send(self, server: Server, message: Message) -> None:
        self.oracle.promise(server, message)
        self.sent.append(message)
        self.network.append(message)

    def apply(self, server: Server, entries: Sequence[Entry]) -> None:
        self.oracle.applied(server, entries)
        server.up.applied(entries[-1].index)

    def read_confirmed(self, server: Server, read: ReadState) -> None:
        server.reads.append((read.context, read.index))
        began = self.oracle.reads.pop((server.id, server.disk.boot, read.context))
        assert read.index >= began, f"read at {read.index} misses entry {began}"

    def read_dropped(self, server: Server, context: int) -> None:
        del self.oracle.reads[server.id, server.disk.boot, context]
        server.dropped.append(context)

    def complete_write(self, server: Server) -> None:
        assert server.writing is not None
        batch, server.writing = server.writing, None
        server.disk.write(batch)
        server.up.persisted(batch.number)
        self.check(server)

    def complete_fetch(self, server: Server) -> None:
        fetch = server.fetches.popleft()
        entries = server.disk.entries[fetch.first - 1 : fetch.last]
        some = entries[: self.random.randint(1, len(entries))] if entries else []
        server.up.fetched(fetch, tuple(some))
        self.check(server)

    def deliver(self, message: Message) -> None:
        if (message.source, message.target) in self.cuts or self.lose(message):
            return
        server = self.servers[message.target]
        if server.node is None:
            return
        server.node.step(message, self.wall(message.target), self.steady(message.target))
        self.check(server)

    def settle(self) -> None:
        """Deliver everything, in order, until all is quiet."""
        for server in self.running():
            self.pump(server)
        for _ in range(100_000):
            if not self.network:
                return
            message = self.network.popleft()
            self.deliver(message)
            server = self.servers[message.target]
            if server.node is not None:
                self.pump(server)
        raise AssertionError("the cluster never comes to rest")

    def tick(self, ticks: int = 1, only: Iterable[NodeId] | None = None) -> None:
        """Let ticks pass, settling after each."""
        chosen = None if only is None else set(only)
        for _ in range(ticks):
            self.wall_ms += 10
            self.steady_ms += 10
            for server in self.running():
                if chosen is None or server.id in chosen:
                    server.up.tick(self.wall(server.id), self.steady(server.id))
                    self.check(server)
            self.settle()

    # ------------------------------------------------------------------ faults

    def cut(self, one: NodeId, other: NodeId, both: bool = True) -> None:
        """Lose everything from `one` to `other`, and back."""
        self.cuts.add((one, other))
        if both:
            self.cuts.add((other, one))

    def isolate(self, node_id: NodeId) -> None:
        for other in self.servers:
            if other != node_id:
                self.cut(node_id, other)

    def partition(self, *sides: Iterable[NodeId]) -> None:
        groups = [set(side) for side in sides]
        for one in self.servers:
            for other in self.servers:
                if one != other and not any({one, other} <= group for group in groups):
                    self.cut(one, other)

    def heal(self) -> None:
        self.cuts.clear()

    def peers_lost(self, node_id: NodeId) -> None:
        """Tell everybody else that the connections of a crashed node closed."""
        for server in self.running():
            if server.id != node_id:
                server.up.peer_lost(node_id)
                self.check(server)

    def finish_disks(self) -> None:
        """Let all slow disks be fast again and finish what they were doing."""
        self.slow_disks.clear()
        for server in self.running():
            if server.writing is not None:
                self.complete_write(server)
            while server.fetches:
                self.complete_fetch(server)
        self.settle()

    # ----------------------------------------------------------------- actions

    def elect(self, node_id: NodeId) -> Node:
        """Let only this node's time pass until it leads; all connections to a leader before are closed."""
        for server in self.running():
            if server.up.leader not in (0, server.id, node_id):
                server.up.peer_lost(server.up.leader)
        for _ in range(10 * self.options.election_ticks):
            if self.node(node_id).role is Role.LEADER:
                return self.node(node_id)
            self.tick(only=[node_id])
        raise AssertionError(f"node {node_id} is not elected")

    def leaders(self) -> list[Node]:
        return [server.up for server in self.running() if server.up.role is Role.LEADER]

    def leader(self) -> Node:
        """The leader of the latest term."""
        return max(self.leaders(), key=lambda node: node.term)

    def await_leader(self, ticks: int = 0) -> Node:
        """Let time pass until a leader of the latest term has committed its no-op."""
        for _ in range(ticks or 20 * self.options.election_ticks):
            self.tick()
            leaders = self.leaders()
            if leaders:
                leader = self.leader()
                if leader.log.term_at(leader.commit_index) == leader.term:
                    return leader
        raise AssertionError("no leader")

    def propose(self, node_id: NodeId, payload: bytes = b"x") -> bool:
        node = self.node(node_id)
        done = node.propose(payload, node.term)
        self.check(self.servers[node_id])
        return done

    def read(self, node_id: NodeId) -> int | None:
        """Begin a read; return its context, or None when it was refused."""
        self.context += 1
        if not self.node(node_id).read_index(self.context):
            return None
        key = (node_id, self.servers[node_id].disk.boot, self.context)
        self.oracle.reads[key] = len(self.oracle.committed)
        self.check(self.servers[node_id])
        return self.context

    def read_result(self, node_id: NodeId, context: int) -> Index | None:
        return dict(self.servers[node_id].reads).get(context)

    def commits(self) -> dict[NodeId, Index]:
        return {server.id: server.up.commit_index for server in self.running()}

    def fails(self, node_id: NodeId, message: Message) -> InvariantError:
        """Deliver a message that must stop the node; return the sentence."""
        try:
            self.node(node_id).step(message, self.wall(node_id), self.steady(node_id))
        except InvariantError as error:
            return error
        raise AssertionError("the node went on")
