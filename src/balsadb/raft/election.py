"""Leader election: pre-votes, votes, timeouts, and the fast fail-over.

A node that misses its leader first asks whether it *would* be elected (pre-vote, thesis 9.6); only with a
quorum of yes it raises its term. So a node that comes back from an isolation disturbs nobody (scenario 14).
Pre-votes are refused while a leader is heard and when the log is behind. Every refusal carries the voter's
own term and a refused candidate moves to it: otherwise a longer log in a lower term and a shorter log in a
higher term could refuse each other for ever (scenario 15).
"""

from __future__ import annotations

from balsadb.raft import replication
from balsadb.raft.core import Core
from balsadb.raft.messages import VoteRequest, VoteResponse
from balsadb.raft.quorum import is_quorum_of
from balsadb.raft.roles import Candidate, Follower, Leader, PreCandidate
from balsadb.raft.transitions import become_candidate, become_follower, become_leader, become_pre_candidate
from balsadb.raft.types import NOBODY, EntryKind, NodeId, Term

# ------------------------------------------------------------------------- time


def tick(core: Core, state: Follower | PreCandidate | Candidate) -> None:
    """Let a tick pass for a node that does not lead: campaign when nobody was heard for long enough."""
    state.elapsed += 1
    if state.elapsed < state.deadline:
        return
    if core.may_campaign():
        campaign(core, state.hurry_until)
    else:
        state.elapsed = 0
        if isinstance(state, Follower) and state.leader != NOBODY:
            become_follower(core, core.term, NOBODY)  # it only stops to claim that there is a leader


def leader_lost(core: Core, follower: Follower) -> None:
    """Drop the claim of a leader whose connection closed and campaign soon (rule M3).

    A node that still hears the leader refuses the pre-vote, so a single cut link disturbs nothing.
    """
    if core.may_campaign():
        hurried = become_follower(core, core.term, NOBODY, core.now + core.options.election_ticks)
        hurried.deadline = core.short_ticks()
    else:
        become_follower(core, core.term, NOBODY)


def hears_leader(core: Core) -> bool:
    """Tell whether a live leader was heard within an election timeout, or is this node itself."""
    state = core.state
    if isinstance(state, Follower):
        return state.leader != NOBODY and state.elapsed < core.options.election_ticks
    return isinstance(state, Leader)


def _hurry(core: Core, state: Follower | PreCandidate | Candidate, patience: int) -> None:
    """During a fast fail-over, try again after a short random delay (rule M3)."""
    if core.now < state.hurry_until:
        state.deadline = min(state.deadline, state.elapsed + patience + core.short_ticks())


def _hurry_of(core: Core) -> int:
    return 0 if isinstance(core.state, Leader) else core.state.hurry_until


# -------------------------------------------------------------------- campaigns


def campaign(core: Core, hurry_until: int) -> None:
    """Ask all voters whether they would vote for this node."""
    state = become_pre_candidate(core, hurry_until)
    state.votes[core.id] = True
    if is_quorum_of(core.halves, (core.id,)):
        _stand(core, hurry_until)
    else:
        # A pre-vote promises nothing about this disk: it goes at once.
        core.outbox += _requests(core, core.term + 1, pre=True)


def stand_by_order(core: Core) -> None:
    """Ask for votes at once, because the leader hands over (thesis 3.10, rule M3)."""
    become_pre_candidate(core, 0)
    _stand(core, 0, by_order=True)


def _stand(core: Core, hurry_until: int, *, by_order: bool = False) -> None:
    """Ask all voters for their votes in a new term."""
    become_candidate(core, hurry_until)
    # All of this waits for the disk. A candidate that crashed before its own vote was durable could come
    # back, be elected again in the same term by the same voters, and so lead it twice.
    core.hold(VoteResponse(core.id, core.id, core.term, True))
    for request in _requests(core, core.term, pre=False, by_order=by_order):
        core.hold(request)


def _requests(core: Core, term: Term, pre: bool, *, by_order: bool = False) -> list[VoteRequest]:
    log = core.log
    voters = sorted({voter for half in core.halves for voter in half} - {core.id})
    last = log.last_index, log.last_term
    return [VoteRequest(core.id, voter, term, *last, pre, by_order) for voter in voters]


def _count(core: Core, state: PreCandidate | Candidate) -> None:
    if not is_quorum_of(core.halves, [voter for voter, granted in state.votes.items() if granted]):
        return
    if isinstance(state, PreCandidate):
        _stand(core, state.hurry_until)
    else:
        leader = become_leader(core)
        replication.refresh_clock(core, leader)
        # Entries of earlier terms are never committed by counting (Raft paper, Figure 8); this one is,
        # and all before it with it. It is exempt from the bound of rule B1.
        replication.append_own(core, leader, EntryKind.NOOP, b"")


# --------------------------------------------------------------------- messages


def handle_vote_request(core: Core, message: VoteRequest) -> None:
    """Answer a request for a vote or pre-vote. It counts by the candidate's configuration (rule M1)."""
    if message.pre:
        _handle_pre_vote_request(core, message)
        return
    if message.term > core.term:
        if hears_leader(core) and not message.transfer:
            _refuse(core, message)  # a live leader is not deposed by somebody who does not hear it
            return
        become_follower(core, message.term, NOBODY, _hurry_of(core))
    state = core.state
    if (
        message.term < core.term
        or not core.may_grant()
        or core.vote not in (NOBODY, message.source)  # a candidate or leader voted for itself
        or state.leader not in (NOBODY, message.source)
        or not core.log.up_to_date(message.last_index, message.last_term)
    ):
        _refuse(core, message)
        return
    core.vote = message.source
    # The election timer starts anew; what was planned for a fast fail-over stays possible.
    become_follower(core, core.term, state.leader, _hurry_of(core))
    # One vote per term, also across a crash: the vote is durable before it is given (scenario 6).
    core.hold(VoteResponse(core.id, message.source, core.term, True, False, core.wall_ms))


def _handle_pre_vote_request(core: Core, message: VoteRequest) -> None:
    log = core.log
    if (
        message.term <= core.term
        or not core.may_grant()
        or hears_leader(core)
        or not log.up_to_date(message.last_index, message.last_term)
    ):
        _refuse(core, message)
        return
    core.outbox.append(VoteResponse(core.id, message.source, message.term, True, True, core.wall_ms))
    state = core.state
    if isinstance(state, PreCandidate):
        # Two survivors that ask at the same moment would both be encouraged and split the vote. The one
        # with the lesser claim steps back; if the other fails, it tries again later.
        theirs = (message.last_term, message.last_index, message.source)
        if theirs > (log.last_term, log.last_index, core.id):
            follower = become_follower(core, core.term, NOBODY, state.hurry_until)
            _hurry(core, follower, 2 * core.options.lost_ticks_max)


def _refuse(core: Core, message: VoteRequest) -> None:
    core.outbox.append(VoteResponse(core.id, message.source, core.term, False, message.pre, core.wall_ms))


def handle_vote_response(core: Core, message: VoteResponse) -> None:
    """Count an answer. A refusal from a later term moves this node to that term (scenario 15)."""
    if message.pre and message.granted:
        state = core.state
        if isinstance(state, PreCandidate) and message.term == core.term + 1:
            state.votes[message.source] = True
            _count(core, state)
    elif message.term > core.term:
        follower = become_follower(core, message.term, NOBODY, _hurry_of(core))
        _hurry(core, follower, 0)
    elif message.pre:
        _handle_refusal(core, message.source)
    elif message.term == core.term and isinstance(core.state, Candidate):
        state = core.state
        if not message.granted:
            # In a fast fail-over this may be a split vote; votes on the way still get a moment.
            state.votes.setdefault(message.source, False)
            _hurry(core, state, core.options.lost_ticks_max)
            return
        state.votes[message.source] = True
        if message.source != core.id:
            state.offsets[message.source] = message.clock_ms - core.steady_ms
        _count(core, state)


def _handle_refusal(core: Core, source: NodeId) -> None:
    state = core.state
    if isinstance(state, PreCandidate):
        state.votes.setdefault(source, False)
        _hurry(core, state, 0)
