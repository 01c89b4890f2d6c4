"""Leadership transfer (thesis 3.10): a leader that wants to leave makes room for a follower of its choice.

It takes no proposals meanwhile, waits until the follower has its whole log, and tells it to campaign at once.
The campaign is marked, so that voters don't refuse it because they hear a leader (rule M3). When the follower
does not lead within an election timeout, the transfer is given up and the leader goes on.
"""

from __future__ import annotations

from balsadb.raft import election
from balsadb.raft.core import Core
from balsadb.raft.messages import TimeoutNow
from balsadb.raft.progress import Pace, Progress
from balsadb.raft.roles import Follower, Leader
from balsadb.raft.types import NOBODY, NodeId


def begin(core: Core, leader: Leader, target: NodeId) -> NodeId:
    """Begin to hand over to `target`, or with `NOBODY` to the best follower; returns to whom, or `NOBODY`."""
    peer = leader.progress.get(target) if target != NOBODY else _best(core, leader)
    if peer is None or peer.id not in core.configuration.voters or leader.transfer_to != NOBODY:
        return NOBODY
    leader.transfer_to = peer.id
    leader.transfer_until = core.now + core.options.election_ticks
    leader.dirty = True
    return peer.id


def _best(core: Core, leader: Leader) -> Progress | None:
    """Return the voter that was heard lately and has most of the log; nobody who is about to leave."""
    recent = core.now - core.options.election_ticks
    able = [
        peer
        for peer in leader.peers
        if peer.id in core.configuration.voters and peer.heard > recent and peer.pace is Pace.REPLICATE
    ]
    return max(able, key=lambda peer: (peer.match, -peer.id), default=None)


def go_on(core: Core, leader: Leader) -> None:
    """Send the order as soon as the follower has the whole log. Called once per `ready` of a transfer."""
    peer = leader.progress.get(leader.transfer_to)
    if peer is None:
        leader.transfer_to = NOBODY
    elif peer.match == core.log.last_index:
        core.outbox.append(TimeoutNow(core.id, peer.id, core.term))


def give_up(core: Core, leader: Leader) -> None:
    """Take proposals again when the follower does not lead in time."""
    if core.now >= leader.transfer_until:
        leader.transfer_to = NOBODY


def handle_timeout_now(core: Core, message: TimeoutNow) -> None:
    """Campaign at once, by order of the leader."""
    state = core.state
    if isinstance(state, Follower) and state.leader == message.source and core.may_campaign():
        election.stand_by_order(core)
