"""The follower's side of log replication (Raft paper, 5.3).

What a follower *verified* is the prefix of its log that is known to equal the leader's, because an append
of this leader fitted there. Only that is committed (scenario 9), and only what is durable of it is
acknowledged (rule W1, scenario 45). Old, doubled and reordered appends fit or are refused, and never
remove anything that does not conflict (scenario 8).
"""

from __future__ import annotations

from balsadb.errors import EntriesLost, InvariantError, ProtocolError
from balsadb.raft import reads
from balsadb.raft.configuration import decode_configuration
from balsadb.raft.core import Core
from balsadb.raft.entry import Entry, decode_entry
from balsadb.raft.messages import Append, AppendResponse, CommitAdvance, Heartbeat, RoundAck
from balsadb.raft.roles import Follower, Leader
from balsadb.raft.transitions import become_follower
from balsadb.raft.types import NOBODY, EntryKind, Index, NodeId, Round


def follow(core: Core, source: NodeId) -> Follower:
    """Acknowledge that `source` leads this term, and that it was heard just now."""
    state = core.state
    if isinstance(state, Follower) and state.leader == source:
        state.elapsed = 0
        return state
    if isinstance(state, Leader) or state.leader:
        raise InvariantError(f"nodes {state.leader} and {source} both lead term {core.term}")
    return become_follower(core, core.term, source)


def handle_append(core: Core, message: Append) -> None:
    """Take entries if they fit to this log; say where the logs may agree if they don't."""
    state = core.state
    # The usual case of `follow`, without a call.
    if isinstance(state, Follower) and state.leader == message.source:
        state.elapsed = 0
        follower = state
    else:
        follower = follow(core, message.source)
    log = core.log
    prev = message.prev_index
    # Everything is checked before anything is changed: a malformed message leaves no trace.
    entries = _checked(message) if message.entries else ()
    _see_round(follower, message.round)
    if prev >= log.base_index and log.term_at(prev) != message.prev_term:
        _reject(core, follower, message)
        return
    if prev == log.last_index:
        for entry in entries:
            core.append(entry)
    elif entries:
        _merge(core, entries)
    end = prev + len(entries)
    if end > follower.verified:
        follower.verified = end
    if end <= log.durable_index:
        follower.ack_due = True  # otherwise the end of the write will be the answer
    if message.commit > follower.leader_commit:
        follower.leader_commit = message.commit
    _take_commit(core, follower)


def _checked(message: Append) -> list[Entry]:
    """Decode the entries and check that they are what the message claims (rule W4)."""
    entries: list[Entry] = []
    index, term = message.prev_index, message.prev_term
    for encoded in message.entries:
        entry = decode_entry(encoded)
        index += 1
        if entry.index != index or not term <= entry.term <= message.term:
            raise ProtocolError(
                f"node {message.source} sent entry ({entry.term}, {entry.index}) "
                f"where index {index} and a term in {term}..{message.term} belong"
            )
        if entry.kind is EntryKind.MEMBERSHIP:
            decode_configuration(entry.payload)
        term = entry.term
        entries.append(entry)
    return entries


def _merge(core: Core, entries: list[Entry]) -> None:
    """Append what is missing. Only an entry of another term at the same index is a conflict."""
    log = core.log
    for entry in entries:
        if entry.index <= log.base_index:
            continue
        if entry.index <= log.last_index:
            here = log.term_at(entry.index)
            if here == entry.term:
                continue
            if entry.index <= log.commit_index:
                # Never happens; if it does, losing the entry silently would be worse (scenario 10).
                raise InvariantError(
                    f"the leader's entry ({entry.term}, {entry.index}) conflicts with the committed one of "
                    f"term {here} (commit index {log.commit_index})"
                )
            core.truncate(entry.index)
        core.append(entry)


def _reject(core: Core, follower: Follower, message: Append) -> None:
    log = core.log
    prev = message.prev_index
    if prev <= follower.verified:
        raise InvariantError(
            f"the leader's entry {prev} has term {message.prev_term} and this log has {log.term_at(prev)}, "
            f"but they agreed up to {follower.verified} (commit index {log.commit_index})"
        )
    # The verified prefix certainly agrees, so the hint never lies below it.
    hint = max(log.agreement_at_most(prev, message.prev_term), follower.verified)
    core.outbox.append(
        AppendResponse(
            core.id,
            message.source,
            core.term,
            0,
            True,
            prev,
            hint,
            max(log.term_at(hint), 0),
            core.wall_ms,
        )
    )


def handle_heartbeat(core: Core, message: Heartbeat) -> None:
    """Note that the leader lives, and owe it a round acknowledgement.

    Raises EntriesLost when this node had acknowledged to the leader what it has not got (rule W5). An old or
    doubled heartbeat proves it, too: what was acknowledged in a term stays until the term ends.
    """
    if message.match > core.log.last_index:
        raise EntriesLost(message.match, core.log.last_index, message.source)
    follower = follow(core, message.source)
    _see_round(follower, message.round)
    follower.round_due = True
    follower.round_echo = max(follower.round_echo, message.sent)
    if message.commit > follower.leader_commit:
        follower.leader_commit = message.commit
        _take_commit(core, follower)


def handle_commit_advance(core: Core, message: CommitAdvance) -> None:
    """Take a commit index that an origin is told at once (rule P7)."""
    follower = follow(core, message.source)
    if message.commit > follower.leader_commit:
        follower.leader_commit = message.commit
        _take_commit(core, follower)


def _take_commit(core: Core, follower: Follower) -> None:
    # What lies past the verified prefix may still be another leader's (scenario 9).
    commit = min(follower.leader_commit, follower.verified)
    if commit > core.log.commit_index:
        core.commit_to(commit)


def _see_round(follower: Follower, number: Round) -> None:
    if number > follower.round_seen:
        follower.round_seen = number
        follower.round_due = True


def durable_moved(core: Core, follower: Follower) -> None:
    """Owe an acknowledgement when more of the verified prefix is on disk."""
    if follower.leader and _match(core, follower) > follower.acked:
        follower.ack_due = True


def restored(core: Core, follower: Follower) -> None:
    """Tell the leader of an installed state: it is committed, so it equals the leader's, and durable."""
    follower.verified = min(max(follower.verified, core.log.commit_index), core.log.last_index)
    follower.ack_due = follower.leader != NOBODY


def _match(core: Core, follower: Follower) -> Index:
    # rule W1: only what is both equal to the leader's and on this disk is acknowledged.
    return min(follower.verified, core.log.durable_index)


def flush(core: Core, follower: Follower) -> None:
    """Send what is owed to the leader, once per `ready`. Call only when `Core.may_acknowledge`.

    A round is acknowledged on receipt and not after the disk (rule R4): it says that this node has not
    left the leader, and nothing about entries.
    """
    leader = follower.leader
    if follower.ack_due:
        follower.ack_due = False
        follower.acked = match = _match(core, follower)
        core.outbox.append(AppendResponse(core.id, leader, core.term, match, False, 0, 0, 0, core.wall_ms))
    if follower.round_due:
        follower.round_due = False
        follower.round_acked = number = follower.round_seen
        match = _match(core, follower)
        core.outbox.append(
            RoundAck(
                core.id,
                leader,
                core.term,
                number,
                follower.verified,
                match,
                follower.round_echo,
                core.wall_ms,
            )
        )
        follower.round_echo = 0
    if follower.reads_unsent:
        reads.flush_requests(core, follower)


def owes(follower: Follower) -> bool:
    """Tell whether `flush` would send something."""
    return bool(follower.ack_due or follower.round_due or follower.reads_unsent)
