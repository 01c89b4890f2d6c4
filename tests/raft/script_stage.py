"""The cluster on which a script plays: it does one thing at a time and notes everything that follows from it.

Messages wait until the script delivers or drops them. Disks and state machines are prompt unless the script
makes them slow. Timeouts are not random: node n times out after `election_ticks` + n ticks, and waits
n ticks where a short random delay belongs. So a script can foresee who moves when.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from raft_cluster import Cluster, Disk, Server, entries_of
from script_text import (
    configuration_text,
    entries_text,
    message_text,
    position,
    progress_texts,
    role_text,
    status_lines,
    verdict_text,
    write_text,
)

from balsadb.raft.entry import Entry
from balsadb.raft.messages import ChangeResponse, Message, VoteRequest
from balsadb.raft.node import Node, Options
from balsadb.raft.ready import ReadState, WriteBatch
from balsadb.raft.types import Configuration, HardState, Index, NodeId, Term


class Steady(Random):
    """Luck that a script can foresee: every draw is the node's own id, or as near as the range allows."""

    def __init__(self, node_id: NodeId) -> None:
        super().__init__(0)
        self._id = node_id

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return self._id % start

    def randint(self, a: int, b: int) -> int:
        return min(a + self._id - 1, b)


class Snapshot:
    """What of a node is compared before and after a step, to write down what changed."""

    def __init__(self, server: Server) -> None:
        node = server.up
        self.role = role_text(server)
        self.log = [(entry.term, entry) for entry in server.log()]
        self.commit = node.commit_index
        self.configuration = node.configuration
        self.progress = progress_texts(server)


class Stage(Cluster):
    """A cluster that writes down what happens in it."""

    def __init__(self, size: int, configuration: Configuration, options: Options, tail: int) -> None:
        self.trace: list[str] = []
        self.told: dict[NodeId, Snapshot] = {}
        self.slow_appliers: set[NodeId] = set()
        self.applying: dict[NodeId, list[Sequence[Entry]]] = {}
        self.settling = False
        """While everything is delivered, a message is written down when it arrives and not when it leaves."""
        super().__init__(size, options=options, configuration=configuration, tail=tail)
        self.random = Steady(1_000)  # fetches return all that was asked for

    def luck(self, node_id: NodeId) -> Random:
        return Steady(node_id)

    def note(self, text: str) -> None:
        self.trace.append(text)

    # ------------------------------------------------------------------ processes

    def given(self, node_id: NodeId, terms: Sequence[Term], state: HardState) -> None:
        """Let a node have this on its disk to begin with."""
        self.crash(node_id)
        self.servers[node_id].disk = Disk(entries_of(terms), state)
        self.start(node_id)

    def start(self, node_id: NodeId, applied: Index = 0) -> Node:
        node = super().start(node_id, applied)
        self.told[node_id] = Snapshot(self.servers[node_id])
        self.applying[node_id] = []
        return node

    # ---------------------------------------------------------------------- steps

    def check(self, server: Server) -> None:
        super().check(server)
        self.tell(server)

    def tell(self, server: Server) -> None:
        """Write down what changed in a node since this was last done."""
        before, after = self.told[server.id], Snapshot(server)
        self.told[server.id] = after
        me = server.id
        if after.role != before.role:
            self.note(f"  {after.role}")
        self._tell_log(me, before.log, after.log)
        if after.configuration != before.configuration:
            self.note(f"  {me} acts by {configuration_text(after.configuration)}")
        if after.commit != before.commit:
            self.note(f"  {me} commits up to {position(after.commit, server.up.log.term_at(after.commit))}")
        for peer, text in after.progress.items():
            if before.progress and before.progress.get(peer) != text:
                self.note(f"  {me} sees {peer}: {text}")

    def _tell_log(
        self, me: NodeId, before: list[tuple[Term, Entry]], after: list[tuple[Term, Entry]]
    ) -> None:
        same = 0
        while same < min(len(before), len(after)) and before[same][0] == after[same][0]:
            same += 1
        if len(before) > same:
            lost = ", ".join(position(entry.index, term) for term, entry in before[same:])
            self.note(f"  {me} removes {lost}")
        if len(after) > same:
            self.note(f"  {me} appends {entries_text(entry for _, entry in after[same:])}")

    def pump(self, server: Server) -> None:
        super().pump(server)
        self.oracle.log_matching(self.servers.values())

    def begin_write(self, server: Server, batch: WriteBatch) -> None:
        slow = "begins to write" if server.id in self.slow_disks else "writes"
        self.note(f"  {server.id} {slow} {write_text(batch)}")
        super().begin_write(server, batch)

    def send(self, server: Server, message: Message) -> None:
        super().send(server, message)
        if not self.settling:
            self.note(f"  + {message_text(message)}")

    def apply(self, server: Server, entries: Sequence[Entry]) -> None:
        if server.id in self.slow_appliers:
            self.note(f"  {server.id} begins to apply {entries_text(entries)}")
            self.oracle.applied(server, entries)
            self.applying[server.id].append(entries)
            return
        self.note(f"  {server.id} applies {entries_text(entries)}")
        super().apply(server, entries)

    def read_confirmed(self, server: Server, read: ReadState) -> None:
        super().read_confirmed(server, read)
        self.note(f"  {server.id} may serve read {read.context} at index {read.index}")

    def read_dropped(self, server: Server, context: int) -> None:
        super().read_dropped(server, context)
        self.note(f"  {server.id} drops read {context}")

    def change_answered(self, server: Server, answer: ChangeResponse) -> None:
        super().change_answered(server, answer)
        self.note(f"  {server.id} is answered {verdict_text(answer)}")

    def complete_fetch(self, server: Server) -> None:
        fetch = server.fetches[0]
        reader = "to apply" if fetch.reader == server.id else f"for {fetch.reader}"
        self.note(f"  {server.id} reads entries {fetch.first}..{fetch.last} back {reader}")
        super().complete_fetch(server)

    def end_write(self, node_id: NodeId) -> None:
        """Let the write of a slow disk be done."""
        server = self.servers[node_id]
        assert server.writing is not None
        self.note(f"  {node_id} has written {write_text(server.writing)}")
        self.complete_write(server)
        self.pump(server)

    def end_apply(self, node_id: NodeId) -> None:
        """Let a slow state machine be done with the oldest of what it was handed."""
        entries = self.applying[node_id].pop(0)
        self.note(f"  {node_id} has applied {entries_text(entries)}")
        server = self.servers[node_id]
        server.up.applied(entries[-1].index)
        self.check(server)
        self.pump(server)

    # -------------------------------------------------------------------- network

    def arrive(self, message: Message) -> None:
        """Deliver one message and do all that follows on the receiver."""
        text = message_text(message)
        server = self.servers[message.target]
        if (message.source, message.target) in self.cuts:
            self.note(f"{text} (lost: the link is cut)")
            return
        if server.node is None:
            self.note(f"{text} (lost: {message.target} is down)")
            return
        self.note(text)
        self.deliver(message)
        self.pump(server)

    def settle(self) -> None:
        self.settling = True
        for server in self.running():
            self.pump(server)
        for _ in range(10_000):
            if not self.network:
                self.settling = False
                return
            self.arrive(self.network.popleft())
        raise AssertionError("the cluster never comes to rest")

    # ----------------------------------------------------------------------- time

    def tick_one(self, node_id: NodeId) -> None:
        """Let a tick pass for one node; nothing is delivered."""
        server = self.servers[node_id]
        server.up.tick(self.wall(node_id), self.steady(node_id))
        self.check(server)
        self.pump(server)

    def campaign(self, node_id: NodeId) -> bool:
        """Let this node's time pass until it asks for votes or leads; tell whether it ever does."""
        for _ in range(4 * self.options.election_ticks):
            term, asked = self.node(node_id).term, len(self.sent)
            self.tick_one(node_id)
            if self.node(node_id).term > term or any(isinstance(m, VoteRequest) for m in self.sent[asked:]):
                return True
        return False

    def states(self, only: Sequence[NodeId] = ()) -> list[str]:
        return [
            line
            for server in self.servers.values()
            if not only or server.id in only
            for line in status_lines(server)
        ]
