"""The only ways from one role to another (Raft paper, Figure 4, with the pre-candidate of thesis 9.6)."""

from __future__ import annotations

from collections.abc import Mapping

from balsadb.errors import InvariantError
from balsadb.raft.core import Core
from balsadb.raft.reads import waiting_contexts
from balsadb.raft.roles import Candidate, Follower, Leader, PreCandidate, Role
from balsadb.raft.types import NOBODY, NodeId, Term

LEGAL: Mapping[Role, frozenset[Role]] = {
    Role.FOLLOWER: frozenset({Role.FOLLOWER, Role.PRE_CANDIDATE}),
    Role.PRE_CANDIDATE: frozenset({Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE}),
    Role.CANDIDATE: frozenset({Role.FOLLOWER, Role.PRE_CANDIDATE, Role.LEADER}),
    Role.LEADER: frozenset({Role.FOLLOWER}),
}
"""From each role, the roles that one step may lead to."""


def _leave(core: Core, role: Role) -> None:
    """Check a transition and drop what must not outlive the old role."""
    old = core.state.role
    if role not in LEGAL[old]:
        raise InvariantError(f"a {old.value} can't become a {role.value} (term {core.term})")
    # rule R3: reads never survive a change of leader, term or role; their callers ask again.
    core.reads_dropped += waiting_contexts(core)


def _enter_term(core: Core, term: Term) -> None:
    if term < core.term:
        raise InvariantError(f"term can't go back from {core.term} to {term}")
    if term > core.term:
        core.term = term
        core.vote = NOBODY


def become_follower(core: Core, term: Term, leader: NodeId, hurry_until: int = 0) -> Follower:
    """Follow `leader` (`NOBODY` when it is not known yet) in `term`."""
    _leave(core, Role.FOLLOWER)
    _enter_term(core, term)
    deadline = core.options.election_ticks + core.random_ticks()
    core.state = Follower(leader, core.log.commit_index, deadline, hurry_until)
    return core.state


def become_pre_candidate(core: Core, hurry_until: int) -> PreCandidate:
    """Prepare to ask for pre-votes; the term stays."""
    _leave(core, Role.PRE_CANDIDATE)
    # Nobody's term changes by a pre-vote, so a lost one may be repeated sooner than an election.
    half = core.options.election_ticks // 2
    core.state = PreCandidate(half + core.random.randint(1, max(half, 1)), hurry_until)
    return core.state


def become_candidate(core: Core, hurry_until: int) -> Candidate:
    """Begin an election in the next term with a vote for itself."""
    _leave(core, Role.CANDIDATE)
    _enter_term(core, core.term + 1)
    core.vote = core.id
    core.state = Candidate(core.options.election_ticks + core.random_ticks(), hurry_until)
    return core.state


def become_leader(core: Core) -> Leader:
    """Lead the current term. The caller appends the no-op."""
    _leave(core, Role.LEADER)
    if core.vote != core.id or core.disk.term != core.term:
        raise InvariantError(
            f"node {core.id} can't lead term {core.term}: vote {core.vote}, durable term {core.disk.term}"
        )
    candidate = core.state
    log = core.log
    leader = Leader(core.id, log.last_index + 1, core.options.origins_max)
    core.state = leader
    leader.adopt(core.configuration, log.last_index + 1, core.now)
    leader.matches[core.id] = log.durable_index
    if isinstance(candidate, Candidate):
        for node, offset in candidate.offsets.items():
            if node in leader.progress:
                leader.progress[node].clock_offset = offset
    # rule B1: what earlier leaders left uncommitted takes its part of the bound.
    for entry in log.entries[max(log.commit_index + 1 - log.cache_first, 0) :]:
        leader.outstanding.append((entry.index, len(entry.encoded)))
        leader.outstanding_bytes += len(entry.encoded)
    return leader
