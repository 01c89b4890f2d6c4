"""One Raft node: the public face of the core.

Inputs go in by method and change only memory. `ready` says what to do about them: what to write, what to
send, what to apply, which reads are confirmed. The driver calls it when `has_ready` says so, and reports
back with `persisted`, `applied` and `fetched`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from balsadb.errors import InvariantError, ProtocolError
from balsadb.raft import applying, election, following, handover, membership, reads, replication
from balsadb.raft.core import Core
from balsadb.raft.entry import Entry
from balsadb.raft.log import Log
from balsadb.raft.messages import (
    Append,
    AppendResponse,
    ChangeRequest,
    ChangeResponse,
    CommitAdvance,
    Heartbeat,
    Message,
    Propose,
    ProposeRejected,
    ReadIndexRequest,
    ReadIndexResponse,
    Removed,
    RoundAck,
    StateRequest,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from balsadb.raft.options import Options, Recovered
from balsadb.raft.ready import Fetch, Ready
from balsadb.raft.roles import Follower, Leader, Role
from balsadb.raft.transitions import become_follower
from balsadb.raft.types import NOBODY, Configuration, EntryKind, Index, Member, Millis, NodeId, Term

__all__ = ["Node", "Options", "Recovered", "Role"]


class Node:
    """A server's part in the consensus."""

    def __init__(
        self,
        node_id: NodeId,
        initial: Configuration,
        recovered: Recovered,
        options: Options,
        random: Random,
        wall_ms: Millis,
        applied: Index = 0,
        boot: int = 0,
    ) -> None:
        """Start as a follower from what storage recovered.

        `initial` is the configuration before the first MEMBERSHIP entry; `applied` the index that the
        state machine has already applied (before the log's start: its state is lost, rule W5); `boot` a
        number never used before by this node id (rule R3).
        """
        self._core = Core(node_id, initial, recovered, options, random, wall_ms, applied, boot)
        self._log = self._core.log

    # ------------------------------------------------------------------- facts

    @property
    def core(self) -> Core:
        """The inside, for `invariants.py`, tests and status pages; never to be changed."""
        return self._core

    @property
    def id(self) -> NodeId:
        """This node."""
        return self._core.id

    @property
    def term(self) -> Term:
        """Latest term seen."""
        return self._core.term

    @property
    def role(self) -> Role:
        """Its role now."""
        return self._core.state.role

    @property
    def leader(self) -> NodeId:
        """Who leads the term as far as this node knows; `NOBODY` when it does not."""
        return self._core.state.leader

    @property
    def log(self) -> Log:
        """The log; not to be changed."""
        return self._log

    @property
    def commit_index(self) -> Index:
        """Everything up to here is committed."""
        return self._log.commit_index

    @property
    def applied_index(self) -> Index:
        """Everything up to here is applied."""
        return self._log.applied_index

    @property
    def first_index(self) -> Index:
        """First index present in the log."""
        return self._log.first_index

    @property
    def last_index(self) -> Index:
        """Last index of the log, durable or not."""
        return self._log.last_index

    @property
    def durable_index(self) -> Index:
        """Everything up to here is on this node's disk."""
        return self._log.durable_index

    def matches(self) -> Mapping[NodeId, Index]:
        """As leader, how far each other member's log is known to be on its disk; empty otherwise."""
        state = self._core.state
        return {peer.id: peer.match for peer in state.peers} if isinstance(state, Leader) else {}

    @property
    def stamp_ms(self) -> Millis:
        """As leader, the log time that an entry appended now would carry; else that of the last entry."""
        core = self._core
        state = core.state
        return replication.stamp_now(core, state) if isinstance(state, Leader) else core.log.last_time_ms

    @property
    def configuration(self) -> Configuration:
        """The configuration in force: the newest in the log, committed or not."""
        return self._core.configuration

    @property
    def removed(self) -> bool:
        """True when this node's removal is committed: it neither votes nor campaigns (rule M1)."""
        return self._core.removed

    @property
    def gone(self) -> tuple[NodeId, ...]:
        """Ids whose removal is committed."""
        return self._core.configurations.gone

    def note_removed(self) -> None:
        """Note that another member has said that this node was removed."""
        self._core.told_removed = True

    @property
    def settled_configuration(self) -> Configuration:
        """The newest configuration that is known to be committed."""
        return self._core.configurations.settled

    @property
    def stateless(self) -> bool:
        """True while the node waits for another node's state because its own is lost (rule W5)."""
        return self._core.stateless

    @property
    def eligible(self) -> bool:
        """False: neither votes, campaigns nor acknowledges as a voter (rule W5)."""
        return self._core.eligible

    @eligible.setter
    def eligible(self, eligible: bool) -> None:
        self._core.eligible = eligible

    # ------------------------------------------------------------------ inputs

    def tick(self, wall_ms: Millis, steady_ms: Millis | None = None) -> None:
        """Let one tick pass. Deliver messages that have arrived before (rule B3).

        `steady_ms` is a clock that never jumps, whatever its zero: so a jump of the wall clock does not show
        in log time (rule S6).
        """
        core = self._core
        core.tell_time(wall_ms, steady_ms)
        core.now += 1
        state = core.state
        if isinstance(state, Leader):
            if state.transfer_to != NOBODY:
                handover.give_up(core, state)
            replication.tick(core, state)
            if core.state is state:
                membership.tick(core, state)
            return
        if isinstance(state, Follower):
            if state.reads_sent:
                reads.retry_requests(core, state)
            if core.stateless and state.leader != NOBODY and core.now % core.options.state_retry_ticks == 0:
                base = core.log.base_index
                core.outbox.append(StateRequest(core.id, state.leader, core.term, base))
        election.tick(core, state)

    def step(self, message: Message, wall_ms: Millis, steady_ms: Millis | None = None) -> None:
        """Take a message from another node. Raises ProtocolError when it is malformed."""
        core = self._core
        core.tell_time(wall_ms, steady_ms)
        handler = _HANDLERS[type(message)]
        if message.target != core.id:
            raise ProtocolError(f"node {core.id} got a message for node {message.target}")
        if message.source in core.configurations.gone:
            # rule M1: everybody is heard but who was removed. A removal that is not committed does not count:
            # the removed node may be the very leader whose log undoes it.
            if not isinstance(message, Removed):
                core.outbox.append(Removed(core.id, message.source, core.term))
            return
        if message.term == core.term or _reconcile_term(core, message):
            handler(core, message)

    def propose(self, payload: bytes, term: Term) -> bool:
        """Propose a COMMANDS payload in exactly `term` (rule P1).

        True: appended here, or handed on to the leader of `term`. False: certainly neither.
        """
        core = self._core
        state = core.state
        if term != core.term:
            return False
        if isinstance(state, Leader):
            return replication.admit(core, state, payload, core.id)
        if state.leader == NOBODY:
            return False
        core.outbox.append(Propose(core.id, state.leader, term, (payload,)))
        return True

    def propose_again(self, payloads: Sequence[bytes], term: Term) -> None:
        """Send payloads that were handed on to the leader of `term` once more, in their order (rule P3)."""
        core = self._core
        state = core.state
        if term == core.term and not isinstance(state, Leader) and state.leader != NOBODY:
            core.outbox.append(Propose(core.id, state.leader, term, tuple(payloads)))

    def propose_entry(self, kind: EntryKind, payload: bytes) -> Index | None:
        """As leader, append a CLOCK or MEMBERSHIP entry and return its index; None when refused.

        A MEMBERSHIP entry is refused while another is uncommitted, and before the first own commit
        (rule M2). Both kinds are exempt from the bound on uncommitted bytes (rule B1).
        """
        core = self._core
        leader = core.state
        if not isinstance(leader, Leader) or leader.transfer_to != NOBODY:
            return None
        if kind is EntryKind.MEMBERSHIP:
            return replication.propose_membership(core, leader, payload)
        if kind is not EntryKind.CLOCK:
            raise InvariantError(f"entries of kind {kind.name} are not proposed this way")
        return replication.append_own(core, leader, kind, payload).index

    def read_index(self, context: int) -> bool:
        """Ask for an index at which a linearizable read may be served.

        True: `context`, unique per call, will come back in `Ready.reads` or `Ready.dropped_reads`.
        """
        return reads.read_index(self._core, context)

    def transfer_leadership(self, to: NodeId = NOBODY) -> NodeId:
        """As leader, hand over to `to`, or to the follower that has most of the log (thesis 3.10).

        Returns to whom; `NOBODY` when nobody can take over, or when this node does not lead. The transfer may
        still fail: then this node goes on to lead after an election timeout.
        """
        core = self._core
        return handover.begin(core, core.state, to) if isinstance(core.state, Leader) else NOBODY

    def request_change(
        self,
        number: int,
        based_on: int,
        add: Sequence[Member] = (),
        remove: Sequence[NodeId] = (),
        *,
        transfer: bool = False,
        successor: NodeId = NOBODY,
    ) -> bool:
        """Ask the leader, wherever it is, for other members or for a handover; `number` names the request.

        True: an answer may come in `Ready.answers`. A lost one never comes, so ask again after a while;
        `based_on`, the `fingerprint` of the
        configuration it is made for, sees to it that a change is made once (rule M2). False:
        certainly nothing was asked.
        """
        core = self._core
        leader = core.state.leader
        if leader == NOBODY:
            return False
        message = ChangeRequest(
            core.id, leader, core.term, number, based_on, tuple(add), tuple(remove), transfer, successor
        )
        if leader == core.id:
            membership.handle_request(core, message)
        else:
            core.outbox.append(message)
        return True

    def peer_lost(self, peer: NodeId) -> None:
        """Note that the last connection with `peer` closed (rule M3)."""
        core = self._core
        state = core.state
        if isinstance(state, Leader):
            replication.peer_changed(state, peer)
        elif isinstance(state, Follower) and peer == state.leader != NOBODY:
            election.leader_lost(core, state)

    def peer_up(self, peer: NodeId) -> None:
        """Note that a connection to `peer` is newly open: a leader probes it at once."""
        state = self._core.state
        if isinstance(state, Leader):
            replication.peer_changed(state, peer)

    # ----------------------------------------------------- the driver's reports

    def persisted(self, number: int) -> None:
        """Note that write `number` is on disk."""
        core = self._core
        for message in core.disk.persisted(number):
            if message.target != core.id:
                core.outbox.append(message)
            elif isinstance(message, VoteResponse):
                election.handle_vote_response(core, message)  # the candidate's vote for itself
        state = core.state
        if isinstance(state, Leader):
            replication.durable_moved(core, state)
        elif isinstance(state, Follower):
            following.durable_moved(core, state)

    def applied(self, index: Index) -> None:
        """Note that the state machine has applied everything up to `index`."""
        applying.applied(self._core, index)

    def compact(self, index: Index) -> None:
        """Forget the log up to `index`, which a durable cut includes; nothing when it is gone already."""
        if index > self._log.base_index:
            self._core.compact(index)

    def begin_restore(self, index: Index) -> bool:
        """Prepare for `restore`: the node does not campaign until then. False: not now, or not needed."""
        core = self._core
        core.installing = isinstance(core.state, Follower) and core.wants(index)
        return core.installing

    def restore(self, index: Index, term: Term, time_ms: Millis, configuration: Configuration) -> bool:
        """Go on from a state that was installed durably (rule C4).

        `index`, `term`, `time_ms` and `configuration` are those inside the state (rule C2). False: ignored,
        because this node has applied as much by itself, or leads.
        """
        core = self._core
        if isinstance(core.state, Leader) or not core.wants(index):
            return False
        if term > core.term:
            # It was not on disk yet when the process ended that refused entries in that term. No log may hold
            # a later term than its node.
            become_follower(core, term, NOBODY)
        elif self._contradicts_leader(index, term):
            # The leader of this term wrote something else there, so the state was committed in a later one,
            # though nobody has said so yet. What that leader counts as durable here is about to go.
            become_follower(core, core.term + 1, NOBODY)
        core.restore(index, term, time_ms, configuration)
        if isinstance(core.state, Follower):
            following.restored(core, core.state)
        return True

    def _contradicts_leader(self, index: Index, term: Term) -> bool:
        """Tell whether this term's leader has another entry at `index` than a committed one of `term`."""
        core, state = self._core, self._core.state
        here = core.log.term_at(index)
        if index > core.log.last_index or here == term:
            return False
        return here == core.term or (isinstance(state, Follower) and state.verified >= index)

    def snapshot_ended(self, follower: NodeId, index: Index) -> None:
        """Note that a follower was sent the state as of `index`, or, with 0, that it could not be sent."""
        core = self._core
        if isinstance(core.state, Leader):
            replication.snapshot_ended(core, core.state, follower, index)

    def fetched(self, fetch: Fetch, entries: tuple[Entry, ...]) -> None:
        """Take entries that were read back from the WAL: from `fetch.first` on, at least one."""
        core = self._core
        if fetch.reader == core.id:
            applying.fetched(core, fetch, entries)
        elif isinstance(core.state, Leader):
            replication.fetched(core, core.state, fetch, entries)

    # ------------------------------------------------------------------ output

    def has_ready(self, disk_idle: bool, apply: bool = True) -> bool:
        """Tell cheaply whether `ready` would return anything to do."""
        core = self._core
        if core.outbox or core.reads_ready or core.reads_dropped or core.fetches or core.snapshots:
            return True
        if core.answers:
            return True
        state = core.state
        if isinstance(state, Leader):
            if state.dirty:
                return True
        elif isinstance(state, Follower) and following.owes(state) and core.may_acknowledge():
            return True
        if apply and applying.has_work(core):
            return True
        return disk_idle and not core.disk.inflight and core.disk.has_write(core.term, core.vote)

    def ready(self, disk_idle: bool, apply: bool = True) -> Ready:
        """Return everything there is to do now.

        With `disk_idle` False no write is returned, with `apply` False no entries to be applied.
        """
        core = self._core
        state = core.state
        if isinstance(state, Leader):
            if state.dirty:
                replication.flush(core, state)
                if state.transfer_to != NOBODY:
                    handover.go_on(core, state)
        elif isinstance(state, Follower) and following.owes(state) and core.may_acknowledge():
            following.flush(core, state)
        write = core.disk.next_write(core.term, core.vote) if disk_idle else None
        committed = applying.take(core) if apply and core.handed_index < core.log.commit_index else ()
        ready = Ready(
            write,
            tuple(core.outbox),
            committed,
            tuple(core.reads_ready),
            tuple(core.fetches),
            tuple(core.reads_dropped),
            tuple(core.snapshots),
            tuple(core.answers),
        )
        core.answers.clear()
        core.snapshots.clear()
        core.outbox.clear()
        core.reads_ready.clear()
        core.fetches.clear()
        core.reads_dropped.clear()
        return ready


def _ignore(core: Core, message: Message) -> None:
    """Take a message that only ever carries its term, or a hint for which Raft has no use."""


def _reconcile_term(core: Core, message: Message) -> bool:
    """Move to the message's term, or answer that this node is past it; tell whether to go on with it.

    Requests and answers about votes have their own rules for terms and always go on.
    """
    kind = type(message)
    if kind is VoteRequest or kind is VoteResponse or kind is Removed:
        return True
    if message.term > core.term:
        # Only a leader sends these; its quorum entered the term long ago.
        leads = kind is Append or kind is Heartbeat or kind is CommitAdvance
        become_follower(core, message.term, message.source if leads else NOBODY)
        return True
    if kind is Append or kind is Heartbeat:
        # A leader of the past learns here that its time is over and steps down. Without this answer a node
        # in a later term, which refuses the leader, could be refused by everybody else for ever.
        core.outbox.append(AppendResponse(core.id, message.source, core.term, 0, True))
    elif kind is Propose:
        core.outbox.append(ProposeRejected(core.id, message.source, core.term, False))
    return False


_HANDLERS: Mapping[type[Message], Callable[[Core, Any], None]] = {
    VoteRequest: election.handle_vote_request,
    VoteResponse: election.handle_vote_response,
    Append: following.handle_append,
    AppendResponse: replication.handle_append_response,
    Heartbeat: following.handle_heartbeat,
    RoundAck: replication.handle_round_ack,
    Propose: replication.handle_propose,
    ProposeRejected: _ignore,
    ReadIndexRequest: reads.handle_request,
    ReadIndexResponse: reads.handle_response,
    CommitAdvance: following.handle_commit_advance,
    StateRequest: replication.handle_state_request,
    TimeoutNow: handover.handle_timeout_now,
    Removed: membership.handle_removed,
    ChangeRequest: membership.handle_request,
    ChangeResponse: membership.handle_response,
}
"""Who handles what."""
