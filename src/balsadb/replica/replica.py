"""The glue of one server: requests in, effects out."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from balsadb.errors import DataError, InvariantError, LocalFault
from balsadb.kv.cut import Base, Bookkeeping, Cut
from balsadb.kv.deadlines import REFILL_HINTS
from balsadb.kv.machine import StateMachine
from balsadb.kv.places import cold_keys
from balsadb.kv.reply import Refusal, Reply
from balsadb.kv.sessions import Sessions
from balsadb.kv.store import Record
from balsadb.raft.configuration import decode_configuration, encode_configuration
from balsadb.raft.entry import Entry
from balsadb.raft.messages import Message
from balsadb.raft.node import Node, Role
from balsadb.raft.ready import Fetch, WriteBatch
from balsadb.raft.types import NOBODY, Configuration, EntryKind, Index, NodeId
from balsadb.replica.changes import Changes
from balsadb.replica.disk import DiskPace
from balsadb.replica.identity import bind_members, exchanged
from balsadb.replica.limits import WRITE_BYTES, ReplicaOptions
from balsadb.replica.proposals import Proposals
from balsadb.replica.reads import Reads
from balsadb.replica.request import Command, Lane, Request, RequestKind

LOADING = Refusal(b"LOADING BalsaDB is replaying its log")
NO_LEADER = Refusal(b"CLUSTERDOWN no leader was found within the deadline; nothing was done")
NOT_CONFIRMED = Refusal(b"TRYAGAIN the leader could not be confirmed within the deadline; nothing was done")
NOT_APPLIED = Refusal(b"TRYAGAIN the deadline passed and the command was certainly not applied")
TOO_MUCH = Refusal(b"TRYAGAIN what was asked before it fills this node's memory; nothing was done")
BUSY = Refusal(b"TRYAGAIN this node holds too many requests; nothing was done")
TOO_OLD = Refusal(b"CLUSTERDOWN this node's data may be too old for READONLY reads: no leader confirms it")
NOT_YET = Refusal(b"CLUSTERDOWN this node is not a member of the cluster yet; nothing was done")
UNKNOWN = Refusal(b"UNKNOWN the deadline passed with the outcome open; the command may have been applied")

REPLIES_BYTES_MAX = 256 * 1024 * 1024
"""Bytes of the replies to reads that came together; more than one connection may have unread anyway."""
LOG_KEPT_MAX = 4
"""While the state is sent, the log behind it may grow to so many times `--snapshot-log-bytes`, of which
`release_bytes` is half (rule C5)."""
OLD_META = (
    "Put the newest META of this node back; if it is lost, replace the node by a new one under a new id "
    "(balsadb member replace)"
)

READY_ROUNDS_MAX = 16
"""Rounds of Raft work in one turn; after that the event loop gets its share and the turn goes on later."""


def removed_refusal(node: NodeId) -> Refusal:
    """Say to a client of a removed node what is the matter (rule P5)."""
    return Refusal(b"CLUSTERDOWN node %d was removed from this cluster; connect to another one" % node)


def later_start(found: int, boot: int) -> str:
    """Say that data of a later start than ours was found: `META` is an old copy (rule P2)."""
    return f"an old copy was put back: this is start {boot} of the node, and data of start {found} is there"


class Warm(msgspec.Struct, frozen=True):
    """Keys that are needed in memory before something can run (rule R5)."""

    keys: list[bytes]
    base: Base
    """Where to read them."""
    forgotten: int
    """See `DeltaStore.warm`."""
    hints: bytes | None = None
    """From where on hints are needed; None for none."""
    slices: tuple[tuple[bytes, int], ...] = ()
    """From where on how many keys are looked at one after the other."""

    def read(self) -> list[Record | None]:
        """Return the records of the keys; what else is needed is only brought closer. In a worker thread.

        Hints and slices are read again where they are used, since there what was not written yet has to be
        merged in. The second time they are in RocksDB's memory.
        """
        if self.hints is not None:
            self.base.hints(self.hints, REFILL_HINTS)
        for start, count in self.slices:
            self.base.slice(start, count)
        return self.base.get_many(self.keys)


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
    cuts: list[Cut]
    """Write these to the state on disk, in order, then call `Replica.cut_written`."""
    snapshots: list[tuple[NodeId, Index]]
    """Send these followers the state on disk, not older than as of the index; then call
    `Replica.snapshot_ended`."""
    warm: Warm | None
    """Read these keys from the state on disk, then call `Replica.warmed`."""
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
        log_bytes: int = 0,
    ) -> None:
        """Put a server together.

        `boot` counts the starts of a process on this data directory and was raised and synced before
        (rule P2). `store_id` and `client_address` are this node's own identity. `fresh_cluster_id` is 16
        random bytes: the name of the cluster, should this node become its first leader (rule W5). `log_bytes`
        is how much log there is that a durable cut could let go.
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
        self.configuration: Configuration = node.settled_configuration
        """The configuration as of the newest applied MEMBERSHIP entry. At a start the newest committed one,
        which is applied soon; never one from the end of the log, which may yet be truncated."""
        self.identities: dict[NodeId, tuple[bytes, str]] = {node.id: (store_id, client_address)}
        """(store id, client address) as each node said in its hello; the driver adds the others."""
        self.removed = False
        """True once this node knows that it was removed. It serves nobody any more (rule P5)."""
        self._outside: Refusal | None = None
        """What clients are told while this node is not a member: not yet, or not any more (rule P5)."""
        self._fresh_cluster_id = fresh_cluster_id
        self._proposals = Proposals(node, boot, options)
        self._reads = Reads(node, options)
        self._changes = Changes(node, options.resend_ms)
        self._finished: list[Request] = []
        self._ripe: deque[Lane] = deque()
        """Lanes whose backlog may move on."""
        self._handed: deque[Entry] = deque()
        """Committed entries that are not applied yet, because a cut has to come first."""
        self.snapshot_index = machine.applied_index
        """Index of the newest durable cut: what a start begins with."""
        self._logged_bytes = log_bytes
        """Bytes of entries written to the log so far, that of the start included."""
        self._released_bytes = 0
        """The same when the newest cut was made that lets the log go."""
        self._spent_bytes = 0
        """Bytes that the entries applied in this turn have written."""
        self._due: deque[Request] = deque()
        """Reads that may be answered from the state as it is, in order, once their keys are in memory."""
        self._warming: Warm | None = None
        """Keys that are being read from the disk."""
        self._warming_reads = False
        """Whether that is for reads; otherwise it is for entries."""
        self._warm_index = 0
        """Entries up to here have had their keys read; what was forgotten again is read when it is needed."""
        self._hints_read = False
        """True when the hints that the next entry needs have been brought closer."""
        self._warm_reads = 0
        """The same for so many of the reads in `_due`."""
        self._disk = DiskPace(options)
        self._release = False
        """True when the next cut is to let the log go whatever its size."""
        self._installing = False
        """True while a state of another node takes the place of this one."""
        self._sending: dict[NodeId, tuple[Index, int, int]] = {}
        """Followers that are being sent the state: its index, how much was logged at that time, its size.
        The log behind it stays for a while (rule C5)."""
        self._loaded_index = node.commit_index
        """Commit index found at start: until it is applied again, clients are told -LOADING."""
        if node.id not in self.configuration.everyone():
            self._outside = NOT_YET

    # ---------------------------------------------------------------- requests

    @property
    def loading(self) -> bool:
        """Tell whether what was known to be committed at start is still being replayed."""
        return self.machine.applied_index < self._loaded_index

    @property
    def outside(self) -> bool:
        """Tell whether this node is no member: not yet, or not any more."""
        return self._outside is not None

    @property
    def idle(self) -> bool:
        """Tell whether no request waits for an answer."""
        idle = self._proposals.idle and self._reads.idle and self._changes.idle and not self._due
        return self.removed or idle

    @property
    def depths(self) -> dict[str, int]:
        """What waits at each stage: commands for a payload, payloads for the log, reads for a confirmation
        and for keys from the disk, entries to be applied. Counted when asked."""
        commands, payloads = self._proposals.depths
        return {
            "proposal_commands": commands,
            "proposals_in_flight": payloads,
            "reads_unconfirmed": sum(1 for _ in self._reads.everything()),
            "reads_due": len(self._due),
            "entries_to_apply": len(self._handed),
        }

    def stale_ms(self, now_ms: int) -> int | None:
        """Return how old what a READONLY read sees now may be, at most; None when that is not known.

        Whatever a client was told to be done before this node's clock said `now_ms` less the answer is in the
        applied state.
        """
        return self._reads.stale_ms(max(self.now_ms, now_ms))

    @property
    def _too_old(self) -> bool:
        stale_ms = self.stale_ms(self.now_ms)
        return stale_ms is None or stale_ms > self.options.stale_read_ms

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
        if self._outside is not None:
            self._refuse(request, self._outside)
        elif self.loading:
            self._refuse(request, LOADING)
        elif request.deadline_ms <= self.now_ms:
            self._refuse(request, NOT_APPLIED)  # it waited behind others of its connection all the time
        elif request.kind is RequestKind.WRITE:
            self._proposals.add(request)
        elif request.kind is RequestKind.READ:
            self._reads.add(request)
        elif request.kind is RequestKind.CHANGE:
            refusal = self._changes.add(request)
            if refusal is not None:
                self._refuse(request, refusal)
        elif self._too_old:
            self._refuse(request, TOO_OLD)  # rule R4
        else:
            self._reads.watched = True
            self._due.append(request)

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
        machine.tell_time(request.clock_ms)
        if request.transaction:
            self._finish(request, [machine.read_transaction(request.commands)])
        else:
            self._finish(request, self._read_all(request.commands))

    def _read_all(self, commands: Sequence[Command]) -> list[Reply]:
        """Answer reads, as long as what they answer together can be held in memory."""
        machine = self.machine
        replies: list[Reply] = []
        size = 0
        for command in commands:
            reply = machine.read(command) if size <= REPLIES_BYTES_MAX else TOO_MUCH
            if type(reply) is bytes:
                size += len(reply)
            elif type(reply) is list:
                size += sum(len(item) for item in reply if type(item) is bytes)
            replies.append(reply)
        return replies

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
        self.node.step(message, self.wall_ms, self.now_ms)

    def tell_time(self, now_ms: int, wall_ms: int) -> None:
        """Note both clocks before messages are taken.

        The clock of another node is compared with ours at receipt; after a pause of the process the time of
        the last turn would make it look fast.
        """
        self.now_ms, self.wall_ms = max(self.now_ms, now_ms), wall_ms

    def persisted(self, number: int) -> None:
        """Note that write `number` is on disk."""
        self._disk.finished(self.now_ms)
        self.node.persisted(number)

    def fetched(self, fetch: Fetch, entries: tuple[Entry, ...]) -> None:
        """Take entries that were read back from the WAL."""
        self.node.fetched(fetch, entries)

    def take_snapshot(self) -> None:
        """Make a durable cut soon, and let the log before it go."""
        self._release = True

    def cut_written(self, cut: Cut, tail_first: Index) -> None:
        """Note that the oldest cut is in the base; with `cut.release` it is durable.

        `tail_first` is the first entry of the part of the log that is kept for slow followers.
        """
        self.machine.store.written(cut)
        if cut.release:
            self.snapshot_index = cut.index
            bound = 2 * LOG_KEPT_MAX * self.options.release_bytes
            kept = [
                index
                for index, logged, size in self._sending.values()
                if self._logged_bytes - logged <= max(bound, size)  # rule C5: it is too slow otherwise
            ]
            self.node.compact(min([cut.index, tail_first - 1, *kept]))

    def sending(self, follower: NodeId, index: Index, size: int) -> None:
        """Note that a follower is being sent the state as of `index`, of `size` bytes."""
        self._sending[follower] = index, self._logged_bytes, size

    def snapshot_ended(self, follower: NodeId, index: Index) -> None:
        """Note that a follower has the state as of `index`, or, with 0, that it could not be sent."""
        self._sending.pop(follower, None)
        self.node.snapshot_ended(follower, index)

    def transfer(self, to: NodeId = NOBODY) -> NodeId:
        """As leader, hand over to `to` or to the best follower; returns to whom, or `NOBODY`."""
        return self.node.transfer_leadership(to)

    def begin_install(self, index: Index) -> bool:
        """Prepare for the state as of `index`: nothing is applied and no cut is made until `install`.

        False: not now, because this node is as far by itself, leads, or still writes cuts.
        """
        if self._installing or self.machine.store.cuts or not self.node.begin_restore(index):
            return False
        self._installing = True
        return True

    def install(self, base: Base, bookkeeping: Bookkeeping, sessions: Sessions | None = None) -> bool:
        """Go on from a state of another node, which is durably in place here (rule C4).

        `sessions` are those of the base, when they were read already (`kv.machine.load_sessions`).

        False: ignored, because this node has got as far by itself.
        """
        state = bookkeeping
        self._installing = False
        configuration = self.node.configuration
        if state.configuration:
            configuration = decode_configuration(state.configuration)
        if not self.node.restore(state.index, state.term, state.log_time_ms, configuration):
            return False
        self._handed.clear()
        self._warming, self._warm_reads = None, 0
        self.machine.restore(base, state, sessions)
        self.snapshot_index = state.index
        self._take_configuration(configuration)
        # rule P4: payloads that ran elsewhere meanwhile have no replies here.
        origin = self.machine.origins.get(self.node.id)
        if origin is not None and origin.boot == self.boot:
            for request in self._proposals.passed(origin.last):
                self._refuse(request, UNKNOWN)
        self._proposals.bury(state.term)
        return True

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
        node.tick(wall_ms, now_ms)
        if node.removed and not self.removed:
            self._fall_silent()
        flying, waiting = self._proposals.tick(now_ms)
        for request in flying:
            self._refuse(request, UNKNOWN)
        for request in waiting:
            self._refuse(request, NOT_APPLIED if request.sent or node.leader else NO_LEADER)
        for request in list(self._reads.tick(now_ms)):
            self._refuse(request, NOT_CONFIRMED if node.leader else NO_LEADER)
        self._bind_members()
        self._move_clock()
        if self._disk.slow(now_ms) and node.role is Role.LEADER:
            self._leave_slow_disk()

    def _fall_silent(self) -> None:
        """Serve nobody any more: a removed node hears of nothing that happens (rule P5)."""
        self.removed = True
        self._outside = refusal = removed_refusal(self.node.id)
        for request, reply in self._changes.everything(self.node.id):
            self._finish(request, [reply])
        flying, waiting = self._proposals.everything()
        for request in flying:
            self._refuse(request, UNKNOWN)
        due = [request for request in self._due if request.replies is None]
        for request in [*waiting, *self._reads.everything(), *due]:
            self._refuse(request, refusal)
        self._due.clear()
        self._warm_reads = 0

    def _leave_slow_disk(self) -> None:
        """Hand over, if somebody else's disk is ahead of this one."""
        ahead = {
            peer: match for peer, match in self.node.matches().items() if match > self.node.durable_index
        }
        if ahead:
            self.node.transfer_leadership(max(ahead, key=lambda peer: (ahead[peer], -peer)))

    def stop(self) -> list[Request]:
        """Answer everything that is open, because the node stops; returns the finished requests."""
        for request, reply in self._changes.everything():
            self._finish(request, [reply])
        flying, waiting = self._proposals.everything()
        for request in flying:
            self._refuse(request, UNKNOWN)
        due = [request for request in self._due if request.replies is None]
        for request in [*waiting, *self._reads.everything(), *due]:
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

    def _move_clock(self) -> None:
        """As leader, append a CLOCK entry when something is due and no entry comes that would remove it.

        An entry in flight carries log time, too, and what is in flight may be a CLOCK entry: so there is
        never more than one, and with a standstill of the quorum no further one (rule S6).
        """
        node, machine = self.node, self.machine
        if node.role is not Role.LEADER or node.last_index != machine.applied_index:
            return
        deadline = machine.next_deadline_ms
        if deadline is not None and node.stamp_ms >= deadline:
            node.propose_entry(EntryKind.CLOCK, b"")

    # ----------------------------------------------------------------- the turn

    def turn(self, now_ms: int, wall_ms: int, disk_idle: bool) -> Effects:
        """Do all that can be done now.

        `disk_idle` is False while a write is in flight; then no new one is returned and work collects.
        Raises InvariantError or LocalFault when the node must stop.
        """
        self.now_ms, self.wall_ms = now_ms, wall_ms
        node, reads, proposals = self.node, self._reads, self._proposals
        self._spent_bytes = 0
        effects = Effects([], None, [], self._finished, [], [], None, False)
        for _ in range(READY_ROUNDS_MAX):
            self._move_backlogs()
            if not self._changes.idle:
                for request, reply in self._changes.go_on(now_ms, self.configuration):
                    self._finish(request, [reply])
            reads.flush(now_ms)
            proposals.flush(now_ms, disk_idle)
            before = self.machine.applied_index
            if self._handed:
                self._apply(effects)
            elif self._release:
                self._freeze(effects.cuts)
            if self._due:
                self._answer_reads(effects)
            take_committed = not (self._handed or self._installing or node.stateless)
            if not node.has_ready(disk_idle, take_committed):
                # Commands that waited for a payload to run may have no later occasion to leave.
                may_leave = proposals.waiting and self.machine.applied_index > before
                if not (self._ripe or may_leave):
                    break
                continue
            ready = node.ready(disk_idle, take_committed)
            if ready.write is not None:
                effects.write = ready.write
                self._disk.began(now_ms)
                self._logged_bytes += WRITE_BYTES + sum([len(e.encoded) for e in ready.write.entries])
                disk_idle = False
            effects.messages += ready.messages
            effects.fetches += ready.fetches
            for follower, least in ready.snapshots:
                if self.snapshot_index >= least:
                    effects.snapshots.append((follower, least))
                else:
                    self._release = True  # it will ask again
            for response in ready.answers:
                outcome = self._changes.answered(response, now_ms)
                if outcome is not None:
                    self._finish(outcome[0], [outcome[1]])
            if ready.dropped_reads:
                reads.drop(ready.dropped_reads)
            if ready.reads:
                reads.confirm(ready.reads)
            if ready.committed:
                self._handed.extend(ready.committed)
                self._apply(effects)
            self._due.extend(reads.runnable(self.machine.applied_index))
            if self._due:
                self._answer_reads(effects)
        else:
            effects.again = True
        self._finished = []
        return effects

    def _apply(self, effects: Effects) -> None:
        """Apply what was handed out, as far as cuts and keys that must be read first allow."""
        handed, store, options = self._handed, self.machine.store, self.options
        while handed and not self._installing and (not self._cut_due or self._freeze(effects.cuts)):
            if self._spent_bytes >= options.apply_bytes_max:
                effects.again = (
                    True  # a few bytes of log can write megabytes (rule S5): others get their turn
                )
                break
            entry = handed[0]
            if not store.complete and not self._warm_entries(entry.index, effects):
                break
            handed.popleft()
            if entry.kind is EntryKind.COMMANDS:
                self._apply_commands(entry)
                self._spent_bytes += self.machine.spent
            elif entry.kind is EntryKind.MEMBERSHIP:
                self._apply_membership(entry)
            else:
                self.machine.apply_empty(entry.index, entry.term, entry.time_ms)
            self._proposals.bury(entry.term)
        self.node.applied(self.machine.applied_index)

    # ------------------------------------------------------------ keys on the disk

    def _warm_entries(self, index: Index, effects: Effects) -> bool:
        """Have the keys read that the entries from `index` on need; tell whether it may be applied."""
        if self._warming is not None and not self._warming_reads:
            return False
        if index <= self._warm_index:
            return True
        if self._warming is not None:
            return False
        first = self._handed[0]
        while (start := self.machine.cold_deadlines(first.time_ms)) is not None:
            self._hints_read = not self._hints_read
            if self._hints_read:
                self._warming_reads = False
                self._warming = effects.warm = Warm([], self.machine.store.base, 0, start)
                return False
            self.machine.store.deadlines.refill()
        keys: list[bytes] = []
        entries = 0
        time_ms = 0
        for entry in self._handed:
            entries, time_ms = entries + 1, entry.time_ms
            if entry.kind is EntryKind.COMMANDS:
                payload = entry.payload
                keys += self.machine.cold_keys(payload, self._proposals.local_slots(payload))
            if len(keys) > self.options.warm_keys_max:
                break
            self._warm_index = entry.index
        keys += self.machine.cold_due_keys(time_ms, entries)
        # The first one may need more keys than are read at a time; the rest is read when it runs.
        self._warm_index = max(self._warm_index, index)
        self._warming_reads = False
        return self._warm(keys, effects)

    def _answer_reads(self, effects: Effects) -> None:
        """Answer the reads that are due, in their order, as far as their keys are in memory (rule P6)."""
        due, store = self._due, self.machine.store
        while due:
            if not store.complete and not self._warm_due(effects):
                return
            self._warm_reads = max(0, self._warm_reads - 1)
            request = due.popleft()
            if request.replies is None:
                self._run(request)
                if request.costly and due:
                    effects.again = True  # others get their turn between two of these
                    return

    def _warm_due(self, effects: Effects) -> bool:
        """Have the keys read that the next reads need; tell whether the first may be answered."""
        if self._warming is not None and self._warming_reads:
            return False
        if self._warm_reads:
            return True
        if self._warming is not None:
            return False
        keys: list[bytes] = []
        slices: list[tuple[bytes, int]] = []
        count = 0
        for request in self._due:
            keys += cold_keys(self.machine.store, request.commands)
            slices += self.machine.places(request.commands)
            count += 1
            if len(keys) > self.options.warm_keys_max or slices:
                break
        self._warm_reads = count
        self._warming_reads = True
        return self._warm(keys, effects, tuple(slices[: self.options.warm_slices_max]))

    def _warm(self, keys: list[bytes], effects: Effects, slices: tuple[tuple[bytes, int], ...] = ()) -> bool:
        if not keys and not slices:
            return True
        store = self.machine.store
        wanted = list(dict.fromkeys(keys))[: self.options.warm_keys_max]
        self._warming = effects.warm = Warm(wanted, store.base, store.forgotten, None, slices)
        return False

    def awaits(self, warm: Warm) -> bool:
        """Tell whether the records of these keys are still of use."""
        return warm is self._warming

    def warmed(self, warm: Warm, records: Sequence[Record | None]) -> None:
        """Take the records of keys that were wanted."""
        if self.awaits(warm):
            self._warming = None
            self.machine.store.warm(warm.keys, records, warm.forgotten)

    @property
    def _cut_due(self) -> bool:
        """Tell whether the next entry must wait for a cut."""
        machine, options = self.machine, self.options
        return (
            self._release
            or machine.store.cleared  # nothing is forgotten from memory until that is written
            or machine.changed_keys >= options.cut_keys_max
            or machine.changed_bytes >= options.cut_bytes_max
            or self._logged_bytes - self._released_bytes >= options.release_bytes
        )

    def _freeze(self, cuts: list[Cut]) -> bool:
        """Make a cut of what is applied; False when it can't be made now.

        An entry may be applied before the own disk has it. A cut waits for that: after a power loss the state
        must not be ahead of the log (rule C3).
        """
        machine, options = self.machine, self.options
        applied = machine.applied_index
        if (
            self._installing
            or self.node.stateless
            or applied > self.node.durable_index
            or len(machine.store.cuts) >= options.cuts_max
        ):
            return False
        due = self._release or self._logged_bytes - self._released_bytes >= options.release_bytes
        if due and any(cut.release for cut in machine.store.cuts):
            return False  # the log must not grow faster than cuts become durable, so clients wait for that
        cut = machine.freeze()
        if due:
            cut.release, self._release, self._released_bytes = True, False, self._logged_bytes
        cuts.append(cut)
        return True

    def _apply_commands(self, entry: Entry) -> None:
        payload = entry.payload
        slots = self._proposals.local_slots(payload)
        outcome = self.machine.apply_commands(entry.index, entry.term, entry.time_ms, payload, slots)
        if outcome.ran and outcome.node == self.node.id and outcome.boot > self.boot:
            raise DataError("META", None, later_start(outcome.boot, self.boot), OLD_META)
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
        self._take_configuration(configuration)

    def _take_configuration(self, configuration: Configuration) -> None:
        self.configuration = configuration
        me = self.node.id
        if self.removed:
            return
        # A node that joins replays configurations from before its time. The removed are told so apart.
        self._outside = None if me in configuration.everyone() else NOT_YET
        reason = exchanged(configuration, me, self.identities[me][0])
        if reason is not None:
            raise LocalFault(reason)
