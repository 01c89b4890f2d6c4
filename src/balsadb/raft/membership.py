"""Changes of the members: how they begin, go on and end (thesis 4.1-4.3, rule M2).

    begun       newcomers are learners, and the configuration says who is to be promoted and who retires
    joint       old and new voters decide together, each by majority
    finished    the new voters decide; who left is noted as removed, for ever

What is to come stands in the configuration itself, so that whoever leads brings it to its end. A leader takes
at most one step for each tick, and only when the step before is committed.

A leader that is to leave goes on until the joint configuration is committed, and then hands over to one of
those who stay. Only when nobody takes over does it finish the change itself and step down.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import IntEnum

from msgspec.structs import replace

from balsadb.errors import InvariantError
from balsadb.raft import handover
from balsadb.raft.configuration import change_fault, encode_configuration, fingerprint
from balsadb.raft.core import Core
from balsadb.raft.messages import ChangeRequest, ChangeResponse, Removed
from balsadb.raft.replication import append_own
from balsadb.raft.roles import Follower, Leader
from balsadb.raft.transitions import become_follower
from balsadb.raft.types import NOBODY, Configuration, EntryKind, Member, NodeId

HANDOVERS_MAX = 2
"""Attempts of a leader that is to leave to hand over before it finishes the change itself."""


class Verdict(IntEnum):
    """What became of a request."""

    BEGUN = 1
    """It is under way, or there was nothing left to do."""
    LATER = 2
    """Nothing was done; the same request may succeed in a moment."""
    REFUSED = 3
    """Nothing was done, and as things are nothing would be."""


class Denial(Exception):
    """Why a change does not begin."""

    def __init__(self, verdict: Verdict, reason: str) -> None:
        super().__init__(reason)
        self.verdict = verdict
        self.reason = reason


# ------------------------------------------------------------------ what a change means


def planned(old: Configuration, add: Sequence[Member], remove: Collection[NodeId]) -> Configuration:
    """Return the configuration that begins a change, or `old` itself when nothing is left to do.

    Raises Denial. A change that only takes voters away begins with the joint configuration at once. While
    newcomers are catching up they may be given up again, and voters may be named that they replace.
    """
    _check_names(old, add, remove)
    named = {member.id for member in add}
    entering = named - set(old.voters) - set(old.promote)
    leaving = set(remove) - set(old.removed)
    retiring = {node for node in leaving if node in old.voters} - set(old.retire)
    learners = {node for node in leaving if node in old.learners}
    if not (entering or retiring or learners):
        return old
    amends = bool(old.promote) and not old.retire and set(old.promote) <= named
    if old.promote and (entering or (retiring and not amends)):
        raise Denial(Verdict.LATER, f"{_shown(old.promote)} is still catching up; one change at a time")
    stay = replace(
        old,
        learners=_sorted({*old.learners, *entering} - learners),
        removed=_sorted({*old.removed, *learners}),
        members=_members([m for m in old.members if m.id not in learners], add),
        promote=_sorted({*old.promote, *entering} - learners),
        retire=_sorted({*old.retire, *retiring}),
    )
    if set(stay.retire) == set(stay.voters) and not stay.promote:
        raise Denial(Verdict.REFUSED, "the last voter can't be removed")
    if stay.promote:
        return stay
    # Nobody has to catch up. When the newcomers were given up, those they were to replace stay.
    return joint(stay) if retiring else replace(stay, retire=())


def _check_names(old: Configuration, add: Sequence[Member], remove: Collection[NodeId]) -> None:
    addresses = {member.peer_address: member.id for member in old.members}
    for member in add:
        there = old.member(member.id)
        if member.id in old.removed:
            reason = f"node {member.id} was removed once, and an id never comes back; choose a new one"
        elif there is not None and there.peer_address != member.peer_address:
            reason = f"node {member.id} is a member already, with the peer address {there.peer_address}"
        elif addresses.get(member.peer_address, member.id) != member.id:
            reason = f"{member.peer_address} is the peer address of node {addresses[member.peer_address]}"
        elif member.id in remove:
            reason = f"node {member.id} can't be added and removed at once"
        else:
            addresses[member.peer_address] = member.id
            continue
        raise Denial(Verdict.REFUSED, reason)
    for node in remove:
        if node not in old.everyone() and node not in old.removed:
            raise Denial(Verdict.REFUSED, f"node {node} is not a member of this cluster")


def _members(old: Sequence[Member], add: Sequence[Member]) -> tuple[Member, ...]:
    known = {member.id for member in old}
    return tuple(sorted([*old, *(m for m in add if m.id not in known)], key=lambda member: member.id))


def joint(old: Configuration) -> Configuration:
    """Return the joint configuration for what is planned (thesis 4.3)."""
    return replace(
        old,
        voters=_sorted({*old.voters, *old.promote} - set(old.retire)),
        outgoing=old.voters,
        learners=_sorted(set(old.learners) - set(old.promote)),
        promote=(),
        retire=(),
    )


def final(old: Configuration) -> Configuration:
    """Return what follows a joint configuration: who only voted in its old half is gone for ever."""
    gone = set(old.outgoing) - set(old.voters)
    return replace(
        old,
        outgoing=(),
        removed=_sorted({*old.removed, *gone}),
        members=tuple(member for member in old.members if member.id not in gone),
    )


def _sorted(nodes: Collection[NodeId]) -> tuple[NodeId, ...]:
    return tuple(sorted(nodes))


def _shown(nodes: Collection[NodeId]) -> str:
    return f"node {', '.join(map(str, sorted(nodes)))}"


# ----------------------------------------------------------------------------- requests


def handle_request(core: Core, message: ChangeRequest) -> None:
    """Begin what an operator wants, and answer."""
    try:
        _begin(core, message)
        verdict, reason = Verdict.BEGUN, ""
    except Denial as denial:
        verdict, reason = denial.verdict, denial.reason
    response = ChangeResponse(core.id, message.source, core.term, message.number, verdict, reason)
    if message.source == core.id:
        core.answers.append(response)
    else:
        core.outbox.append(response)


def handle_response(core: Core, message: ChangeResponse) -> None:
    """Hand an answer to whoever asked."""
    core.answers.append(message)


def _begin(core: Core, message: ChangeRequest) -> None:
    leader = core.state
    if not isinstance(leader, Leader):
        raise Denial(Verdict.LATER, "there is no leader at the moment")
    if leader.transfer_to != NOBODY:
        raise Denial(Verdict.LATER, f"leadership is being handed over to node {leader.transfer_to}")
    if message.transfer:
        _hand_over(core, leader, message.successor)
        return
    _check_settled(core, leader)
    if message.based_on != fingerprint(core.configuration):
        # rule M2: a repeated request, or one that was made in ignorance of another change, does nothing.
        raise Denial(Verdict.LATER, "the members have changed meanwhile")
    old = core.configuration
    if old.outgoing:
        raise Denial(Verdict.LATER, "another change is being finished; one change at a time")
    new = planned(old, message.add, message.remove)
    if new is old:
        return
    future = new if new.outgoing or not new.promote else joint(new)
    reason = lacking(core, leader, future.voters, new.promote)
    if reason is not None:
        raise Denial(Verdict.REFUSED, reason)
    _append(core, leader, new)


def _check_settled(core: Core, leader: Leader) -> None:
    """Refuse a change before the first own commit, and while another one is not committed (scenario 64)."""
    if core.log.commit_index < leader.first_index:
        raise Denial(Verdict.LATER, "the leader has not committed an entry of its own term yet")
    if core.configurations.index > core.log.commit_index:
        raise Denial(Verdict.LATER, "another change is being committed; one change at a time")


def _hand_over(core: Core, leader: Leader, to: NodeId) -> None:
    if to == core.id:
        return
    if to != NOBODY:
        peer = leader.progress.get(to)
        if peer is None or to not in core.configuration.voters:
            raise Denial(Verdict.REFUSED, f"node {to} is no voter")
        if not _alive(core, leader, to):
            raise Denial(Verdict.REFUSED, f"node {to} has not been heard lately")
    elif not leader.peers:
        raise Denial(Verdict.REFUSED, "there is no other voter")
    if handover.begin(core, leader, to) == NOBODY:
        raise Denial(Verdict.LATER, "no voter can take over at the moment")


def _alive(core: Core, leader: Leader, node: NodeId) -> bool:
    if node == core.id:
        return True
    peer = leader.progress.get(node)
    # Its clock is known only from an answer; that it counts as heard at first says nothing.
    recent = core.now - core.options.election_ticks
    return peer is not None and peer.clock_offset is not None and peer.heard > recent


def lacking(core: Core, leader: Leader, voters: Sequence[NodeId], expected: Collection[NodeId]) -> str | None:
    """Say why `voters` could decide nothing; None when a quorum of them is alive or `expected` to be."""
    silent = [node for node in voters if node not in expected and not _alive(core, leader, node)]
    quorum = len(voters) // 2 + 1
    if len(voters) - len(silent) >= quorum:
        return None
    return (
        f"of the voters {', '.join(map(str, voters))} that would be left {quorum} are needed, "
        f"and {_shown(silent)} can't be heard"
    )


# ------------------------------------------------------------------------ going on


def tick(core: Core, leader: Leader) -> None:
    """Take the next step of a change, whoever has begun it (rule M2)."""
    configuration = core.configuration
    if not configuration.changing or leader.transfer_to != NOBODY or core.now % core.options.change_ticks:
        return
    log = core.log
    if log.commit_index < leader.first_index or core.configurations.index > log.commit_index:
        return
    if configuration.outgoing:
        _finish(core, leader)
        return
    ready = [_caught_up(core, leader, node) for node in configuration.promote]
    if all(ready):
        new = joint(configuration)
        if lacking(core, leader, new.voters, ()) is None:
            _append(core, leader, new)


def _caught_up(core: Core, leader: Leader, node: NodeId) -> bool:
    """Tell whether a learner may become a voter: it has caught up, and its directory is bound (rule W5).

    It votes only once its own log shows that. If it counted before, and could learn it from nobody but the
    leader, the death of the leader would leave a voter that can't help to elect another one.
    """
    peer, member = leader.progress[node], core.configuration.member(node)
    if peer.match < core.configurations.index:
        return False
    caught_up = peer.catching_up(core.log.last_index, core.now, core.options.election_ticks)
    bound = not core.configuration.cluster_id or (member is not None and bool(member.store_id))
    return caught_up and bound and _alive(core, leader, node)


def _finish(core: Core, leader: Leader) -> None:
    if core.id not in core.configuration.voters and leader.handovers < HANDOVERS_MAX:
        leader.handovers += 1
        if handover.begin(core, leader, NOBODY) != NOBODY:
            return
    _append(core, leader, final(core.configuration))


def _append(core: Core, leader: Leader, new: Configuration) -> None:
    fault = change_fault(core.configuration, new)
    if fault is not None:
        raise InvariantError(fault)
    append_own(core, leader, EntryKind.MEMBERSHIP, encode_configuration(new))


# -------------------------------------------------------------------------- the removed


def handle_removed(core: Core, message: Removed) -> None:
    """Fall silent: no campaign, no vote, no service (rules M1, P5)."""
    core.told_removed = True
    if not isinstance(core.state, Follower) or core.state.leader != NOBODY:
        become_follower(core, core.term, NOBODY)
