"""A cluster in memory whose nodes make cuts, compact their logs and send each other their states."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from raft_cluster import Cluster, Disk, Server

from balsadb.raft.configuration import decode_configuration
from balsadb.raft.entry import Entry
from balsadb.raft.node import Node, Recovered
from balsadb.raft.ready import WriteBatch
from balsadb.raft.types import Configuration, EntryKind, HardState, Index, NodeId, Term


class SnapshotDisk(Disk):
    """A log that begins behind `base`, and the state beside it.

    The entries that a state includes stand for it. They are kept in `entries` too, so that an entry is
    always found at its index; but nobody is given one at or below `base`.
    """

    def __init__(self, entries: Sequence[Entry] = (), hard_state: HardState | None = None) -> None:
        super().__init__(entries, hard_state)
        self.base: Index = 0
        self.state: list[Entry] = []
        """Every entry that the durable state includes."""

    def write(self, batch: WriteBatch) -> None:
        start = batch.start
        if start is not None:
            assert not batch.entries
            assert self.base <= start.index <= len(self.state), "the log is let go before the state has it"
            if start.keep:
                assert self.entries[start.index - 1].term == start.term, "the log does not have its new base"
            else:
                self.entries = self.state[: start.index]
            self.base = start.index
        if batch.entries:
            assert batch.entries[0].index > self.base
        super().write(batch)
        assert self.hard_state.commit <= len(self.entries), "the disk claims a commit that it does not have"

    @property
    def kept(self) -> Sequence[Entry]:
        """A log that does not lead to the state would be dropped (rule C4)."""
        index = len(self.state)
        if index and (len(self.entries) < index or self.entries[index - 1].term != self.state[-1].term):
            return self.state
        return self.entries

    def recover(self, tail: int) -> Recovered:
        """Return what a start finds."""
        if self.kept is self.state:
            index, term, state = len(self.state), self.state[-1].term, self.hard_state
            assert self.base < index
            self.entries, self.base = list(self.state), index
            vote = state.vote if term <= state.term else 0
            self.hard_state = HardState(max(term, state.term), vote, index)
        runs: list[tuple[Index, Term]] = []
        for entry in self.entries[max(self.base - 1, 0) :]:
            if not runs or runs[-1][1] != entry.term:
                runs.append((entry.index, entry.term))
        present = self.entries[self.base :]
        return Recovered(
            hard_state=self.hard_state,
            first_index=self.base + 1,
            last_index=len(self.entries),
            terms=tuple(runs),
            last_time_ms=self.entries[-1].time_ms if self.entries else 0,
            memberships=tuple(entry for entry in present if entry.kind is EntryKind.MEMBERSHIP),
            tail=tuple(present[len(present) - min(tail, len(present)) :]),
        )


class SnapshotServer(Server):
    """A server with a state beside its log."""

    disk: SnapshotDisk

    def __init__(self, node_id: NodeId, disk: SnapshotDisk) -> None:
        super().__init__(node_id, disk)
        self.wanted: list[NodeId] = []
        """Followers that this node wants the state sent to, in the order of the wishes."""

    def log(self) -> list[Entry]:
        """The log, with what was compacted before it."""
        state, disk, log = self.disk.state, self.disk.entries, self.up.log
        return [*state, *disk[len(state) :]][: log.cache_first - 1] + log.entries


class SnapshotCluster(Cluster):
    """Servers that compact."""

    servers: dict[NodeId, SnapshotServer]  # type: ignore[assignment]
    prompt = False
    """Whether a state that is wanted is sent and installed at the next tick."""
    installs = 0
    """States that were installed."""

    def tick(self, ticks: int = 1, only: Iterable[NodeId] | None = None) -> None:
        chosen = None if only is None else set(only)
        for _ in range(ticks):
            super().tick(1, chosen)
            for server in self.running() if self.prompt else ():
                if self.servers[server.id].wanted:
                    self.send_states(server.id)

    def start(self, node_id: NodeId, applied: Index = 0) -> Node:
        server = self.servers[node_id]
        if not isinstance(server, SnapshotServer):
            disk = SnapshotDisk(server.disk.entries, server.disk.hard_state)
            server = self.servers[node_id] = SnapshotServer(node_id, disk)
        state = server.disk.state
        whole, self.configuration = self.configuration, self.configuration_of(state)
        node = super().start(node_id, applied or len(state))
        self.configuration = whole
        server.applied = list(state)
        server.wanted.clear()
        return node

    def configuration_of(self, state: Sequence[Entry]) -> Configuration:
        """The configuration inside a state (rule C2)."""
        for entry in reversed(state):
            if entry.kind is EntryKind.MEMBERSHIP:
                return decode_configuration(entry.payload)
        return self.configuration

    def snapshot_wanted(self, server: Server, follower: NodeId, least: Index) -> None:
        assert isinstance(server, SnapshotServer)
        if len(server.disk.state) >= least:
            server.wanted.append(follower)

    def cut_state(self, node_id: NodeId, index: Index | None = None) -> Index:
        """Make a durable cut as of `index`, or of what is applied and on the own disk (rule C3)."""
        server = self.servers[node_id]
        node = server.up
        index = min(node.applied_index, node.durable_index) if index is None else index
        assert index <= node.durable_index
        if index > len(server.disk.state):
            server.disk.state = server.applied[:index]
        return index

    def compact(self, node_id: NodeId, index: Index | None = None) -> None:
        """Make a durable cut and let the log before it go."""
        server = self.servers[node_id]
        server.up.compact(self.cut_state(node_id, index))
        self.check(server)
        self.pump(server)

    def install(self, node_id: NodeId, state: Sequence[Entry]) -> bool:
        """Let a node go on from a copy of another one's state; False when it wants none, or not now."""
        server = self.servers[node_id]
        if not server.up.begin_restore(state[-1].index):
            return False
        self.switch_and_restore(server, state)
        return True

    def switch_and_restore(self, server: SnapshotServer, state: Sequence[Entry]) -> None:
        """Do the second half of an install: the pointer is switched, then the node goes on from there."""
        last = state[-1]
        server.disk.state = list(state)
        configuration = self.configuration_of(state)
        assert server.up.restore(last.index, last.term, last.time_ms, configuration)
        server.applied = list(state)
        self.installs += 1
        self.check(server)

    def send_states(self, node_id: NodeId) -> list[NodeId]:
        """Do what a node wants: send its state to followers, which install it; returns them."""
        server = self.servers[node_id]
        wanted, server.wanted = server.wanted, []
        for follower in wanted:
            target = self.servers[follower]
            index = len(server.disk.state)
            if target.node is None:
                index = 0
            elif not self.install(follower, server.disk.state):
                index = max(index, target.node.applied_index) if target.node.applied_index >= index else 0
            server.up.snapshot_ended(follower, index)
            self.check(server)
        self.settle()
        return wanted

    def complete_fetch(self, server: Server) -> None:
        """As the WAL does it: nothing comes of entries that are gone."""
        assert isinstance(server.disk, SnapshotDisk)
        fetch = server.fetches[0]
        if fetch.first > server.disk.base:
            super().complete_fetch(server)
            return
        server.fetches.popleft()
        server.up.fetched(fetch, ())
        self.check(server)
