"""Linearizable reads without log entries (thesis 6.4; rules R1-R4).

A leader fixes the read index when a read arrives, and serves it once it knows that it still led after that:
a quorum has acknowledged a *round* that began later. A round begins only when reads wait, when the next
messages are made, so that the reads of a whole turn share it and ride on appends that leave anyway.
A follower asks the leader with a message, and that message is the follower's own acknowledgement: with
three nodes the leader answers at once.
"""

from __future__ import annotations

from balsadb.raft.core import Core
from balsadb.raft.messages import ReadIndexRequest, ReadIndexResponse
from balsadb.raft.quorum import agreed_number, is_quorum, is_quorum_of
from balsadb.raft.ready import ReadState
from balsadb.raft.roles import Follower, Leader, PendingRead
from balsadb.raft.types import NOBODY, NodeId, Round


def waiting_contexts(core: Core) -> list[int]:
    """Return the contexts of this node's own reads that are not confirmed."""
    state = core.state
    if isinstance(state, Follower):
        sent = [context for _, contexts in state.reads_sent.values() for context in contexts]
        return sent + state.reads_unsent
    if isinstance(state, Leader):
        pending = [read for _, reads in state.reads_pending for read in reads]
        return [read.counter for read in pending + state.reads_unsent if read.source == core.id]
    return []


def read_index(core: Core, context: int) -> bool:
    """Take a read of this node."""
    state = core.state
    if isinstance(state, Leader):
        return _arrive(core, state, PendingRead(core.id, core.boot, context, _fixed_index(core, state)))
    if not isinstance(state, Follower) or state.leader == NOBODY:
        return False
    if len(state.reads_unsent) + sum(len(c) for _, c in state.reads_sent.values()) >= core.options.reads_max:
        return False
    state.reads_unsent.append(context)
    return True


# ------------------------------------------------------------------------ leader


def _fixed_index(core: Core, leader: Leader) -> int:
    # rule R1: a new leader's commit index may lag behind what its predecessor acknowledged, but its own
    # first entry lies after all of that.
    return max(core.log.commit_index, leader.first_index)


def _arrive(core: Core, leader: Leader, read: PendingRead) -> bool:
    """Confirm a read at once when leader and asker are a quorum, else let it wait for the next round."""
    if is_quorum_of(core.halves, (core.id, read.source)):
        _answer(core, leader, read)
        return True
    if leader.reads_count >= core.options.reads_max:
        return False
    leader.reads_unsent.append(read)
    leader.reads_count += 1
    leader.dirty = True
    return True


def handle_request(core: Core, message: ReadIndexRequest) -> None:
    """Take a follower's read. Past the bound it is dropped, and the follower asks again."""
    leader = core.state
    if not isinstance(leader, Leader):
        return  # the asker will learn of the change and ask whoever leads then
    progress = leader.progress.get(message.source)
    if progress is None:
        return
    progress.heard = core.now
    index = _fixed_index(core, leader)
    _arrive(core, leader, PendingRead(message.source, message.boot, message.counter, index))


def begin_round(leader: Leader) -> None:
    """Give all waiting reads a round that no message made so far carries (rule R2)."""
    leader.round += 1
    leader.reads_pending.append((leader.round, leader.reads_unsent))
    leader.reads_unsent = []


def acknowledge_round(core: Core, leader: Leader, source: NodeId, number: Round) -> None:
    """Take a member's acknowledgement of a round and answer the reads that it confirms."""
    if number > leader.rounds.get(source, 0):
        leader.rounds[source] = number
        if leader.reads_pending:
            confirm_reads(core, leader)


def confirm_reads(core: Core, leader: Leader) -> None:
    """Answer all reads that the configuration in force confirms now (rule R2)."""
    pending = leader.reads_pending
    agreed = agreed_number(core.halves, leader.rounds)
    while pending and pending[0][0] <= agreed:
        for read in pending.popleft()[1]:
            leader.reads_count -= 1
            _answer(core, leader, read)
    for number, reads in pending:
        # A follower's read needs one acknowledgement less: its request was its own.
        askers = {read.source for read in reads} - {core.id}
        sure = {asker for asker in askers if _confirmed_with(core, leader, number, asker)}
        if sure:
            for read in reads:
                if read.source in sure:
                    leader.reads_count -= 1
                    _answer(core, leader, read)
            reads[:] = [read for read in reads if read.source not in sure]


def _confirmed_with(core: Core, leader: Leader, number: Round, asker: NodeId) -> bool:
    rounds = leader.rounds
    return is_quorum(core.halves, lambda voter: voter == asker or rounds.get(voter, 0) >= number)


def _answer(core: Core, leader: Leader, read: PendingRead) -> None:
    if read.source == core.id:
        core.reads_ready.append(ReadState(read.counter, read.index, core.wall_ms, core.term))
        return
    core.outbox.append(
        ReadIndexResponse(core.id, read.source, core.term, read.boot, read.counter, read.index, core.wall_ms)
    )
    progress = leader.progress.get(read.source)
    if progress is None or progress.commit_sent >= read.index:
        return
    # The asker waits until it has applied up to the read's index, so it must hear of that commit at once,
    # as if it had proposed the entry (rule P7).
    leader.dirty = True
    if read.index <= core.log.commit_index:
        leader.notify.add(read.source)
    else:
        leader.origins.appendleft((read.index, read.source))  # the no-op is the first entry of the term


# ---------------------------------------------------------------------- follower


def flush_requests(core: Core, follower: Follower) -> None:
    """Ask the leader for one read index for all reads that wait."""
    core.read_counter += 1
    follower.reads_sent[core.read_counter] = (core.now, follower.reads_unsent)
    follower.reads_unsent = []
    core.outbox.append(ReadIndexRequest(core.id, follower.leader, core.term, core.boot, core.read_counter))


def handle_response(core: Core, message: ReadIndexResponse) -> None:
    """Take a read index. An unknown name is a late answer to a request that was given up (rule R3)."""
    follower = core.state
    if not isinstance(follower, Follower) or message.boot != core.boot:
        return
    if message.source != follower.leader:
        return
    _, contexts = follower.reads_sent.pop(message.counter, (0, []))
    for context in contexts:
        core.reads_ready.append(ReadState(context, message.index, message.clock_ms, message.term))


def retry_requests(core: Core, follower: Follower) -> None:
    """Give up requests whose answer is overdue; their reads join the next one, under a new name (rule R3)."""
    overdue = core.now - core.options.read_retry_ticks
    lost = [counter for counter, (sent, _) in follower.reads_sent.items() if sent <= overdue]
    for counter in lost:
        follower.reads_unsent[:0] = follower.reads_sent.pop(counter)[1]
