"""Who led when, as one node saw it, which role it had itself, and why that changed.

Raft's core does not say why. The reasons are told from what can be seen of it before and after a turn: the
two roles with their data, the terms, the vote, the connections. What a turn began and ended is not seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Set
from typing import Final

import msgspec

from balsadb.raft.core import Core
from balsadb.raft.roles import Candidate, Follower, Leader, Role
from balsadb.raft.types import NOBODY, Millis, NodeId, Term
from balsadb.server.journal import journal

CHANGES_MAX: Final = 32
"""Changes of the leader that are remembered."""


class LeaderChange(msgspec.Struct, frozen=True):
    """One moment at which this node came to know another leader, or none."""

    time_ms: Millis
    """Wall clock of this node."""
    term: Term
    leader: NodeId
    """`NOBODY`: an election begins."""
    previous: NodeId
    reason: str
    """A sentence without its full stop: what this node saw. Other nodes may have seen something else."""


class Leadership:
    """Watches one node's role and leader. Asked once per turn, so what lasts for less is not seen."""

    def __init__(
        self,
        core: Core,
        connected: Callable[[], Set[NodeId]],
        wall_ms: Callable[[], Millis],
        why_handing_over: Callable[[], str] = str,
        say: Callable[..., None] = journal.say,
    ) -> None:
        """`connected` tells which other nodes this one has a connection to.

        `why_handing_over` ends the sentence that this node handed over; empty when somebody asked it to.
        """
        self._core = core
        self._connected = connected
        self._wall_ms = wall_ms
        self._why_handing_over = why_handing_over
        self._say = say
        self._state = core.state
        self._leader = core.state.leader
        self._term = core.term
        self.changes: deque[LeaderChange] = deque(maxlen=CHANGES_MAX)
        """The oldest first."""
        self.leader_changes = 0
        """How often another leader than before became known."""
        self.elections = 0
        """How often this node asked for votes, pre-votes not counted."""
        self.wins = 0
        """How often it was elected."""
        self._last = NOBODY
        """The leader known last."""

    def recent(self, since_ms: Millis) -> int:
        """Return how often another leader became known since then, as far as it is remembered."""
        return sum(change.leader != NOBODY and change.time_ms >= since_ms for change in self.changes)

    def look(self) -> None:
        """Note what has changed since the last look."""
        state = self._core.state
        if state is not self._state or state.leader != self._leader:
            self._changed()

    def _changed(self) -> None:
        state, before = self._core.state, self._state
        if state is not before:
            self.elections += state.role is Role.CANDIDATE
            self.wins += state.role is Role.LEADER
        previous, leader = self._leader, state.leader
        reason = self._why(previous, leader)
        if leader != previous:
            if leader not in (NOBODY, self._last):
                self.leader_changes += 1
            self.changes.append(LeaderChange(self._wall_ms(), self._core.term, leader, previous, reason))
            if leader != NOBODY:
                self._last = leader
        if state.role is not before.role:
            self._tell_role(reason)
        elif leader != previous:
            self._say("leader", leader=leader, previous=previous, term=self._core.term, reason=reason)
        self._state, self._leader, self._term = state, leader, self._core.term

    def _tell_role(self, reason: str) -> None:
        state, before = self._core.state, self._state
        votes = None
        if isinstance(before, Candidate) and isinstance(state, Leader):
            votes = sorted(node for node, granted in before.votes.items() if granted)
        self._say(
            "role",
            role=state.role.value,
            previous=before.role.value,
            term=self._core.term,
            leader=state.leader,
            votes=votes,
            reason=reason,
        )

    def _why(self, previous: NodeId, leader: NodeId) -> str:
        term, before, state = self._core.term, self._state, self._core.state
        if isinstance(before, Leader):
            return self._why_not_leading(before)
        if isinstance(state, Leader):
            return f"this node was elected in term {term}"
        if leader != NOBODY:
            if previous != NOBODY:
                return f"node {leader} was elected in term {term} instead of node {previous}"
            return f"node {leader} made itself known as the leader of term {term}"
        if previous != NOBODY:
            return self._why_without_leader(previous)
        if isinstance(state, Follower):
            return self._why_stepping_back()
        if state.role is Role.CANDIDATE and before.role is Role.PRE_CANDIDATE:
            return "a majority would vote for this node"
        if before.role is Role.CANDIDATE:
            return "no majority voted for this node in time"
        if isinstance(before, Follower) and before.hurry_until:
            return "the leader is gone, and no other node has taken over yet"
        return "no leader was heard for an election timeout"

    def _why_not_leading(self, before: Leader) -> str:
        term = self._core.term
        if before.transfer_to != NOBODY:
            why = "it leaves the cluster" if before.handovers else self._why_handing_over()
            return f"this node handed over to node {before.transfer_to}{why and f'; {why}'}"
        if term != self._term:
            return f"this node led and was told of term {term}"
        if not self._core.configuration.is_voter(self._core.id):
            return "this node led and is no voter any more"
        if not self._heard_majority(before):
            return "this node had not heard a majority for an election timeout and stepped down"
        return f"this node led and stepped down in term {term}"

    def _why_without_leader(self, previous: NodeId) -> str:
        term, before, state = self._core.term, self._state, self._core.state
        if self._core.told_removed:
            return "this node was removed from the cluster"
        if state.role is Role.CANDIDATE and before.role is Role.FOLLOWER:
            return f"node {previous} told this node to take over"  # else a pre-vote comes between the two
        if state.role is Role.FOLLOWER and term != self._term:
            return f"somebody asked for votes in term {term}"
        # A node that hurries was told of the loss; its own connection to the other may end a moment later.
        if (not isinstance(state, Leader) and state.hurry_until) or previous not in self._connected():
            return f"the connection to node {previous} is gone"
        return f"node {previous} was silent for an election timeout"

    def _why_stepping_back(self) -> str:
        """Say why a candidate follows again though it knows no leader."""
        core = self._core
        if core.told_removed:
            return "this node was removed from the cluster"
        if core.vote not in (NOBODY, core.id):
            return f"this node voted for node {core.vote} in term {core.term}"
        if core.term != self._term:
            return f"somebody was in a later term: {core.term}"
        return "another node has the better claim to lead"

    def _heard_majority(self, leader: Leader) -> bool:
        recent = self._core.now - self._core.options.election_ticks
        heard = {peer.id for peer in leader.peers if peer.heard > recent} | {self._core.id}
        configuration = self._core.configuration
        halves = [half for half in (configuration.voters, configuration.outgoing) if half]
        return all(2 * sum(node in heard for node in half) > len(half) for half in halves)
