"""The leader's side of log replication (Raft paper, 5.3 and 5.4).

Nothing is sent when something happens; `flush` sends once per `ready`, so that all proposals and all reads
of a turn share one append per follower. Followers are served independently: a slow one fills its own
window and slows nobody.
"""

from __future__ import annotations

from balsadb.errors import InvariantError, ProtocolError
from balsadb.raft import reads
from balsadb.raft.clock import median_offset, stamp
from balsadb.raft.configuration import change_fault, decode_configuration
from balsadb.raft.core import Core
from balsadb.raft.entry import PAYLOAD_BYTES_MAX, Entry, encode_entry
from balsadb.raft.log import NO_TERM, bounded
from balsadb.raft.messages import (
    Append,
    AppendResponse,
    CommitAdvance,
    Heartbeat,
    Propose,
    ProposeRejected,
    Removed,
    RoundAck,
    StateRequest,
)
from balsadb.raft.progress import Pace, Progress
from balsadb.raft.quorum import agreed_number, is_quorum
from balsadb.raft.ready import Fetch
from balsadb.raft.roles import Leader
from balsadb.raft.transitions import become_follower
from balsadb.raft.types import NOBODY, Configuration, EntryKind, Index, Millis, NodeId

# -------------------------------------------------------------------- proposals


def stamp_now(core: Core, leader: Leader) -> Millis:
    """Return the log time of an entry that is appended now (rule S6)."""
    return stamp(core.log.last_time_ms, core.steady_ms, leader.clock_offset)


def append_own(core: Core, leader: Leader, kind: EntryKind, payload: bytes) -> Entry:
    """Append an entry of this term to the leader's own log."""
    entry = encode_entry(core.term, core.log.last_index + 1, stamp_now(core, leader), kind, payload)
    core.append(entry)
    leader.dirty = True
    return entry


def admit(core: Core, leader: Leader, payload: bytes, source: NodeId) -> bool:
    """Append a proposal unless the bound on uncommitted bytes is reached (rule B1)."""
    if leader.transfer_to != NOBODY:
        return False  # the log must stand still until the next leader has all of it
    outstanding = leader.outstanding_bytes
    if outstanding and outstanding + len(payload) > core.options.uncommitted_bytes_max:
        return False
    entry = append_own(core, leader, EntryKind.COMMANDS, payload)
    size = len(entry.encoded)
    leader.outstanding.append((entry.index, size))
    leader.outstanding_bytes = outstanding + size
    if source != core.id:
        leader.origins.append((entry.index, source))
    return True


def propose_membership(core: Core, leader: Leader, payload: bytes) -> Index | None:
    """Append a configuration: one at a time, after the first own commit (rule M2, scenario 64)."""
    commit = core.log.commit_index
    if commit < leader.first_index or core.configurations.index > commit:
        return None
    new: Configuration = decode_configuration(payload)
    fault = change_fault(core.configuration, new)
    if fault is not None:
        raise InvariantError(fault)
    return append_own(core, leader, EntryKind.MEMBERSHIP, payload).index


def handle_propose(core: Core, message: Propose) -> None:
    """Append what a follower proposes, if this node leads exactly the term it is addressed to (rule P1)."""
    leader = core.state
    if not isinstance(leader, Leader):
        core.outbox.append(ProposeRejected(core.id, message.source, core.term, False))
        return
    for payload in message.payloads:
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise ProtocolError(f"node {message.source} proposes {len(payload)} bytes in one payload")
        if not admit(core, leader, payload, message.source):
            core.outbox.append(ProposeRejected(core.id, message.source, core.term, True))
            return


# --------------------------------------------------------------------------- time


def tick(core: Core, leader: Leader) -> None:
    """Send heartbeats, and step down when no quorum was heard for an election timeout (check-quorum)."""
    leader.elapsed += 1
    if leader.elapsed < core.options.heartbeat_ticks:
        return
    leader.elapsed = 0
    recent = core.now - core.options.election_ticks
    progress = leader.progress

    def live(voter: NodeId) -> bool:
        return voter == core.id or (voter in progress and progress[voter].heard > recent)

    if not is_quorum(core.halves, live):
        # Somebody else may lead by now. A leader that can't know acknowledges nothing (scenario 11).
        become_follower(core, core.term, NOBODY)
        return
    refresh_clock(core, leader)
    for peer in leader.peers:
        _send_heartbeat(core, leader, peer)


def refresh_clock(core: Core, leader: Leader) -> None:
    """Find log time anew from the clocks of the live voters (rule S6).

    Done before the first entry of a term, from the clocks that came with the votes, and then by heartbeat.
    """
    recent = core.now - core.options.election_ticks
    offsets = [peer.clock_offset for peer in leader.peers if peer.votes and peer.heard > recent]
    leader.clock_offset = median_offset(
        core.configuration.is_voter(core.id), offsets, core.wall_ms - core.steady_ms
    )


def _send_heartbeat(core: Core, leader: Leader, peer: Progress) -> None:
    commit = core.log.commit_index
    core.outbox.append(Heartbeat(core.id, peer.id, core.term, commit, leader.round, peer.sent, peer.match))
    peer.round_sent = leader.round
    peer.commit_sent = commit


# ------------------------------------------------------------------------ sending


def flush(core: Core, leader: Leader) -> None:
    """Send everything that may be sent now: appends, rounds that reads wait for, commits for origins."""
    leader.dirty = False
    if leader.reads_unsent:
        reads.begin_round(leader)
    log = core.log
    last, commit, round_ = log.last_index, log.commit_index, leader.round
    # Followers that are equally far get the same tuple of entries.
    shared: dict[Index, tuple[tuple[bytes, ...], int]] = {}
    for peer in leader.peers:
        if peer.next <= last or (peer.pace is Pace.PROBE and not peer.probe_sent):
            _send_appends(core, leader, peer, shared)
        if peer.round_sent < round_ and peer.votes and leader.reads_pending:
            # rule R4: a round never waits for the append window.
            _send_heartbeat(core, leader, peer)
        if peer.commit_sent < commit and peer.id in leader.notify:
            core.outbox.append(CommitAdvance(core.id, peer.id, core.term, commit))
            peer.commit_sent = commit
    if leader.notify:
        leader.notify.clear()


def _send_appends(
    core: Core, leader: Leader, peer: Progress, shared: dict[Index, tuple[tuple[bytes, ...], int]]
) -> None:
    log, options = core.log, core.options
    if peer.pace is Pace.SNAPSHOT:
        return
    if peer.next <= log.base_index:
        # Compacted. Whether it needs them is known when it refuses what follows right behind.
        peer.become_probe(log.first_index)
    while peer.window_open(options) if peer.pace is Pace.REPLICATE else not peer.probe_sent:
        first = peer.next
        if first >= log.cache_first:
            chunk = shared.get(first)
            if chunk is None:
                entries = log.cached(first, log.last_index, options.append_bytes_max)
                encoded = tuple([entry.encoded for entry in entries])
                chunk = shared[first] = (encoded, sum(map(len, encoded)))
        else:
            found = _from_disk(core, peer, first)
            if found is None:
                return
            chunk = found
        _send_append(core, leader, peer, *chunk)
        if peer.next > log.last_index:
            return


def _send_append(core: Core, leader: Leader, peer: Progress, encoded: tuple[bytes, ...], size: int) -> None:
    log = core.log
    prev = peer.next - 1
    prev_term = log.term_at(prev)
    if prev_term == NO_TERM:
        raise InvariantError(f"term of entry {prev} is not known (log {log.first_index}..{log.last_index})")
    commit, round_ = log.commit_index, leader.round
    core.outbox.append(Append(core.id, peer.id, core.term, prev, prev_term, commit, round_, encoded))
    peer.round_sent = round_
    peer.commit_sent = commit
    peer.appended(prev + len(encoded), size)


def _from_disk(core: Core, peer: Progress, first: Index) -> tuple[tuple[bytes, ...], int] | None:
    """Return entries for a follower that is behind the cache; None while they are asked back (rule B2)."""
    fetched = peer.fetched
    if fetched and fetched[0].index <= first <= fetched[-1].index:
        entries = bounded(fetched[first - fetched[0].index :], core.options.append_bytes_max)
        peer.fetched = fetched[entries[-1].index + 1 - fetched[0].index :]
        encoded = tuple([entry.encoded for entry in entries])
        return encoded, sum(map(len, encoded))
    peer.fetched = ()
    if peer.fetching is None:
        peer.fetching = Fetch(peer.id, first, core.log.cache_first - 1)
        core.fetches.append(peer.fetching)
    return None


def fetched(core: Core, leader: Leader, fetch: Fetch, entries: tuple[Entry, ...]) -> None:
    """Take entries for a follower. What was truncated and replaced meanwhile is of no use."""
    peer = leader.progress.get(fetch.reader)
    if peer is None or peer.fetching != fetch:
        return
    peer.fetching = None
    leader.dirty = True
    if all(core.log.term_at(entry.index) == entry.term for entry in entries):
        peer.fetched = entries


# ----------------------------------------------------------------- acknowledgements


def handle_append_response(core: Core, message: AppendResponse) -> None:
    """Take what a follower has verified and made durable, or where its log disagrees."""
    leader = core.state
    if not isinstance(leader, Leader):
        return
    peer = leader.progress.get(message.source)
    if peer is None:
        return
    peer.heard = core.now
    peer.clock_offset = message.clock_ms - core.steady_ms
    if message.rejected:
        _handle_rejection(core, leader, peer, message)
    else:
        _note_match(core, leader, peer, message.match)


def _note_match(core: Core, leader: Leader, peer: Progress, match: Index) -> None:
    last = core.log.last_index
    if match > last:
        raise ProtocolError(f"node {peer.id} acknowledges entry {match} and the log ends at {last}")
    if peer.acknowledged(match):
        leader.matches[peer.id] = match
        maybe_commit(core, leader)
    if peer.next <= last or leader.transfer_to == peer.id:
        leader.dirty = True


def _handle_rejection(core: Core, leader: Leader, peer: Progress, message: AppendResponse) -> None:
    """Back up to where the logs may agree, by whole terms (Raft paper, end of 5.3)."""
    refused = message.prev_index
    if refused <= peer.match:
        # An old message: it is known by now that the logs agree there. Or the follower's disk lost what it
        # had acknowledged; then no probe helps, and the next heartbeat makes the follower find out.
        return
    if peer.pace is Pace.SNAPSHOT or (peer.pace is Pace.PROBE and refused != peer.next - 1):
        return  # answers an earlier probe
    if refused == core.log.base_index:
        # It has nothing that could be continued: only a newer state helps (Raft paper, 7).
        peer.become_snapshot()
        core.snapshots.append((peer.id, core.log.base_index))
        return
    agreement = core.log.agreement_at_most(message.hint_index, message.hint_term)
    peer.become_probe(max(min(refused - 1, agreement), core.log.base_index) + 1)
    leader.dirty = True


def handle_state_request(core: Core, message: StateRequest) -> None:
    """Have the state sent to a follower that lost its own. Its log is whole, so appends go on meanwhile."""
    if isinstance(core.state, Leader) and message.source in core.state.progress:
        core.snapshots.append((message.source, message.index))


def snapshot_ended(core: Core, leader: Leader, peer_id: NodeId, index: Index) -> None:
    """Go on with a follower that was sent the state as of `index`; 0 when that failed."""
    peer = leader.progress.get(peer_id)
    if peer is None or peer.pace is not Pace.SNAPSHOT:
        return
    # A leader that was deposed and does not know it yet may hear of an index that its log has not got.
    peer.become_probe(max(min(index, core.log.last_index), core.log.base_index) + 1)
    leader.dirty = True


def handle_round_ack(core: Core, message: RoundAck) -> None:
    """Take the confirmation of a round, and notice by what it repeats whether something was lost."""
    leader = core.state
    if not isinstance(leader, Leader):
        return
    peer = leader.progress.get(message.source)
    if peer is None:
        return
    peer.heard = core.now
    peer.clock_offset = message.clock_ms - core.steady_ms
    if message.round > leader.round or message.verified > core.log.last_index:
        raise ProtocolError(
            f"node {peer.id} acknowledges round {message.round} and entry {message.verified}; "
            f"the newest are {leader.round} and {core.log.last_index}"
        )
    if message.match > peer.match:
        _note_match(core, leader, peer, message.match)
        if core.state is not leader:
            return  # the commit of a configuration without this node ended its office
    if message.sent:
        _notice_loss(leader, peer, message.verified, message.sent)
    if message.round:
        reads.acknowledge_round(core, leader, message.source, message.round)


def _notice_loss(leader: Leader, peer: Progress, verified: Index, sent: Index) -> None:
    """Compare what was sent before a heartbeat with what the follower had when it got it (scenario 22).

    With reordering this may see a loss that is none; then some entries go twice, which is harmless.
    """
    if peer.pace is Pace.SNAPSHOT:
        return
    if peer.pace is Pace.PROBE:
        if not peer.probe_sent:
            return
        if verified >= peer.next - 1:
            peer.become_replicate(verified + 1)  # the probe arrived; only its durable answer is open
        elif sent == peer.sent:
            peer.become_probe(peer.next)  # the probe or its rejection was lost
        leader.dirty = True
    elif verified < sent <= peer.sent:
        # Entries were lost; or all are there, and the follower forgot in a restart that they are verified,
        # without which it takes no commit index. A probe right after `match` settles both.
        peer.become_probe(verified + 1)
        leader.dirty = True


# ------------------------------------------------------------------------- commit


def maybe_commit(core: Core, leader: Leader) -> None:
    """Commit what a quorum has on disk, but count only entries of this term (Raft paper, 5.4.2)."""
    log = core.log
    agreed = agreed_number(core.halves, leader.matches)
    if agreed <= log.commit_index or log.term_at(agreed) != core.term:
        return
    gone = core.configurations.gone
    core.commit_to(agreed)
    if core.configurations.gone != gone:
        # rule M1: those who have left hear it at once; nobody speaks to them any more.
        for node in sorted(set(core.configurations.gone) - {*gone, core.id}):
            core.outbox.append(Removed(core.id, node, core.term))
    leader.release(min(agreed, log.durable_index, log.applied_index))
    origins = leader.origins
    while origins and origins[0][0] <= agreed:
        # rule P7: the origin answers its clients from its own apply, so it must not wait for a heartbeat.
        leader.notify.add(origins.popleft()[1])
        leader.dirty = True
    if core.configurations.index <= agreed and not core.configuration.is_voter(core.id):
        _leave_office(core, leader)


def _leave_office(core: Core, leader: Leader) -> None:
    """Step down after the commit of a configuration in which this node does not vote (thesis 4.2.2)."""
    for peer in leader.peers:
        _send_heartbeat(core, leader, peer)
    become_follower(core, core.term, NOBODY)


def durable_moved(core: Core, leader: Leader) -> None:
    """Count the leader itself up to what is on its own disk, and not further."""
    durable = core.log.durable_index
    if durable > leader.matches[core.id]:
        leader.matches[core.id] = durable
        maybe_commit(core, leader)
        leader.release(min(core.log.commit_index, durable, core.log.applied_index))


def peer_changed(leader: Leader, peer_id: NodeId) -> None:
    """Probe a follower whose connection broke or came back: what was in flight may be lost."""
    peer = leader.progress.get(peer_id)
    # A state is sent over a connection of its own, whose end is told by `snapshot_ended`.
    if peer is not None and peer.pace is not Pace.SNAPSHOT:
        peer.become_probe(peer.match + 1)
        leader.dirty = True
