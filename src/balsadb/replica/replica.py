"""The glue of one server: requests in, effects out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

from balsadb.errors import InvariantError, LocalFault
from balsadb.kv.machine import StateMachine
from balsadb.kv.reply import Refusal, Reply
from balsadb.raft.configuration import decode_configuration, encode_configuration
from balsadb.raft.entry import Entry
from balsadb.raft.messages import Message
from balsadb.raft.node import Node, Role
from balsadb.raft.ready import Fetch, WriteBatch
from balsadb.raft.types import Configuration, EntryKind, NodeId
from balsadb.replica.identity import bind_members, stranger
from balsadb.replica.limits import ReplicaOptions
from balsadb.replica.proposals import Proposals
from balsadb.replica.reads import Reads
from balsadb.replica.request import Lane, Request, RequestKind

LOADING = Refusal(b"LOADING BalsaDB is replaying its log")
NO_LEADER = Refusal(b"CLUSTERDOWN no leader was found within the deadline; nothing was done")
NOT_CONFIRMED = Refusal(b"TRYAGAIN the leader could not be confirmed within the deadline; nothing was done")
NOT_APPLIED = Refusal(b"TRYAGAIN the deadline passed and the command was certainly not applied")
BUSY = Refusal(b"TRYAGAIN this node holds too many requests; nothing was done")
UNHEARD = Refusal(b"CLUSTERDOWN this node has not heard a leader for too long to answer READONLY reads")
UNKNOWN = Refusal(b"UNKNOWN the deadline passed with the outcome open; the command may have been applied")

READY_ROUNDS_MAX = 16
"""Rounds of Raft work in one turn; after that the event loop gets its share and the turn goes on later."""


class Effects(msgspec.Struct, gc=False):
    """What a turn wants done: the `Ready` of a whole server."""

    messages: list[Message]
    """Send at once."""
    write: WriteBatch | None
    """Make durable, then call `Replica.persisted`."""
    fetches: list[Fetch]
    """Read back from the WAL, then call `Replica.fetched`."""
    finished: list[Request]
    """Answered requests, in the order answered."""
    again: bool
    """True when there is more to do at once: run another turn after the event loop had its share."""


class Replica:
    """One server: a Raft node, a state machine, and the requests that wait for either."""

    def __init__(
        self,
        node: Node,
        machine: StateMachine,
        boot: int,
        options: ReplicaOptions,
        *,
        store_id: bytes,
        client_address: str = "",
        fresh_cluster_id: bytes = b"",
    ) -> None:
        """Put a server together.

        `boot` counts the starts of a process on this data directory and was raised and synced before
        (rule P2). `store_id` and `client_address` are this node's own identity. `fresh_cluster_id` is 16
        random bytes: the name of the cluster, should this node become its first leader (rule W5).
        """
        self.node = node
        self.machine = machine
        self.boot = boot
        self.options = options
        self.now_ms = 0
        """Monotonic time of the current turn."""
        self.wall_ms = 0
        """Wall clock of the current turn; only ever a hint for log time (rule S6)."""
        self.held_bytes = 0
        """Bytes of all requests without an answer."""
        self.configuration: Configuration = node.configuration
        """The configuration as of the newest applied MEMBERSHIP entry."""
        self.identities: dict[NodeId, tuple[bytes, str]] = {node.id: (store_id, client_address)}
        """(store id, client address) as each node said in its hello; the driver adds the others."""
        self._fresh_cluster_id = fresh_cluster_id
        self._proposals = Proposals(node, boot, options)
        self._reads = Reads(node, options)
        self._finished: list[Request] = []
        self._ripe: deque[Lane] = deque()
        """Lanes whose backlog may move on."""
        self._loaded_index = node.commit_index
        """Commit index found at start: until it is applied again, clients are told -LOADING."""
        self._heard_ms = 0
        """When this node last knew a leader."""

    # ---------------------------------------------------------------- requests

    @property
    def loading(self) -> bool:
        """Tell whether what was known to be committed at start is still being replayed."""
        return self.machine.applied_index < self._loaded_index

    @property
    def idle(self) -> bool:
        """Tell whether no request waits for an answer."""
        return self._proposals.idle and self._reads.idle

    def submit(self, request: Request, now_ms: int = 0) -> None:
        """Take a request. It comes back, answered, in `Effects.finished` of this or a later turn.

        `now_ms` is when it came, if that is later than the last turn. After a pause of the process the last
        turn may be so long ago that the deadline of a request that has just come would be over.
        """
        lane = request.lane
        self.now_ms = max(self.now_ms, now_ms)
        request.deadline_ms = self.now_ms + self.options.request_timeout_ms
        # The bound of design section 4: refused before anything else knows it, so certainly not applied.
        refused = self.held_bytes > 0 and self.held_bytes + request.size > self.options.queued_bytes_max
        self.held_bytes += request.size
        lane.held_bytes += request.size
        if refused:
            lane.flying += 1
            self._refuse(request, BUSY)
        elif lane.admits(request.kind):
            self._dispatch(request)
        else:
            lane.backlog.append(request)

    def _dispatch(self, request: Request) -> None:
        lane = request.lane
        lane.kind = request.kind
        lane.flying += 1
        if self.loading:
            self._refuse(request, LOADING)
        elif request.deadline_ms <= self.now_ms:
            self._refuse(request, NOT_APPLIED)  # it waited behind others of its connection all the time
        elif request.kind is RequestKind.WRITE:
            self._proposals.add(request)
        elif request.kind is RequestKind.READ:
            self._reads.add(request)
        elif self.now_ms - self._heard_ms > self.options.stale_read_ms:
            self._refuse(request, UNHEARD)  # rule R4
        else:
            self._run(request)

    def _finish(self, request: Request, replies: list[Reply]) -> None:
        if request.replies is not None:
            raise InvariantError("a request was answered twice")
        request.replies = replies
        lane = request.lane
        lane.flying -= 1
        lane.held_bytes -= request.size
        self.held_bytes -= request.size
        self._finished.append(request)
        if lane.backlog and not lane.flying:
            self._ripe.append(lane)

    def _refuse(self, request: Request, refusal: Refusal) -> None:
        self._finish(request, [refusal] * request.answers)

    def _run(self, request: Request) -> None:
        machine = self.machine
        if request.transaction:
            self._finish(request, [machine.read_transaction(request.commands)])
        else:
            self._finish(request, [machine.read(command) for command in request.commands])

    def _move_backlogs(self) -> None:
        """Dispatch what waited for a change of kind; a loop and not a recursion, for long backlogs."""
        while self._ripe:
            lane = self._ripe.popleft()
            backlog = lane.backlog
            while backlog and (not lane.flying or lane.kind is backlog[0].kind):
                self._dispatch(backlog.popleft())

    # ------------------------------------------------------- input from outside

    def step(self, message: Message) -> None:
        """Take a message of another node."""
        self.node.step(message, self.wall_ms)

    def persisted(self, number: int) -> None:
        """Note that write `number` is on disk."""
        self.node.persisted(number)

    def fetched(self, fetch: Fetch, entries: tuple[Entry, ...]) -> None:
        """Take entries that were read back from the WAL."""
        self.node.fetched(fetch, entries)

    def peer_up(self, peer: NodeId) -> None:
        """Note that messages can reach `peer` again; what it may have missed is sent again (rule P3)."""
        self.node.peer_up(peer)
        if peer == self.node.leader:
            self._proposals.resend(self.now_ms)

    def peer_lost(self, peer: NodeId) -> None:
        """Note that the last connection from `peer` closed (rule M3)."""
        self.node.peer_lost(peer)

    def tick(self, now_ms: int, wall_ms: int) -> None:
        """Let one tick pass: elections and heartbeats, overdue requests, bindings of members."""
        self.now_ms, self.wall_ms = now_ms, wall_ms
        node = self.node
        node.tick(wall_ms)
        if node.leader:
            self._heard_ms = now_ms
        flying, waiting = self._proposals.tick(now_ms)
        for request in flying:
            self._refuse(request, UNKNOWN)
        for request in waiting:
            self._refuse(request, NOT_APPLIED if request.sent or node.leader else NO_LEADER)
        for request in list(self._reads.tick(now_ms)):
            self._refuse(request, NOT_CONFIRMED if node.leader else NO_LEADER)
        self._bind_members()

    def stop(self) -> list[Request]:
        """Answer everything that is open, because the node stops; returns the finished requests."""
        flying, waiting = self._proposals.everything()
        for request in flying:
            self._refuse(request, UNKNOWN)
        for request in [*waiting, *self._reads.everything()]:
            self._refuse(request, NOT_APPLIED)
        while self._ripe:
            lane = self._ripe.popleft()
            while lane.backlog:
                lane.flying += 1
                self._refuse(lane.backlog.popleft(), NOT_APPLIED)
        finished, self._finished = self._finished, []
        return finished

    def _bind_members(self) -> None:
        """As leader, write what hellos said of the members into the log (rule W5)."""
        node = self.node
        if node.role is not Role.LEADER or self.machine.applied_term != node.term:
            return
        if node.configuration != self.configuration:
            return  # a change is under way (rule M2: one at a time)
        bound = bind_members(self.configuration, self.identities, self._fresh_cluster_id)
        if bound is not None:
            node.propose_entry(EntryKind.MEMBERSHIP, encode_configuration(bound))

    # ----------------------------------------------------------------- the turn

    def turn(self, now_ms: int, wall_ms: int, disk_idle: bool) -> Effects:
        """Do all that can be done now.

        `disk_idle` is False while a write is in flight; then no new one is returned and work collects.
        Raises InvariantError or LocalFault when the node must stop.
        """
        self.now_ms, self.wall_ms = now_ms, wall_ms
        node, reads, proposals = self.node, self._reads, self._proposals
        effects = Effects([], None, [], self._finished, False)
        for _ in range(READY_ROUNDS_MAX):
            self._move_backlogs()
            reads.flush(now_ms)
            proposals.flush(now_ms, disk_idle)
            if not node.has_ready(disk_idle):
                if not self._ripe:
                    break
                continue
            ready = node.ready(disk_idle)
            if ready.write is not None:
                effects.write = ready.write
                disk_idle = False
            effects.messages += ready.messages
            effects.fetches += ready.fetches
            if ready.dropped_reads:
                reads.drop(ready.dropped_reads)
            if ready.reads:
                reads.confirm(ready.reads)
            if ready.committed:
                self._apply(ready.committed)
            for request in reads.runnable(self.machine.applied_index):
                self._run(request)
        else:
            effects.again = True
        self._finished = []
        return effects

    def _apply(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.kind is EntryKind.COMMANDS:
                self._apply_commands(entry)
            elif entry.kind is EntryKind.MEMBERSHIP:
                self._apply_membership(entry)
            else:
                self.machine.apply_empty(entry.index, entry.term, entry.time_ms)
            self._proposals.bury(entry.term)
        self.node.applied(self.machine.applied_index)

    def _apply_commands(self, entry: Entry) -> None:
        payload = entry.payload
        slots = self._proposals.local_slots(payload)
        outcome = self.machine.apply_commands(entry.index, entry.term, entry.time_ms, payload, slots)
        # Only the origin answers, and only from its own apply; nothing is keyed by index (scenario 33).
        if outcome.ran and outcome.node == self.node.id and outcome.boot == self.boot:
            for request, replies in self._proposals.ran(outcome.sequence, outcome.replies, self.now_ms):
                self._finish(request, replies)

    def _apply_membership(self, entry: Entry) -> None:
        payload = entry.payload
        configuration = decode_configuration(payload)
        self.machine.apply_membership(
            entry.index,
            entry.term,
            entry.time_ms,
            configuration.everyone(),
            configuration.removed,
            payload,
        )
        self.configuration = configuration
        reason = stranger(configuration, self.node.id, self.identities[self.node.id][0])
        if reason is not None:
            raise LocalFault(reason)
