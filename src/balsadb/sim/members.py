"""How many changes of the members, and of the leader, a run has seen.

A run that passes says little about members when hardly any changes happened in it. So they are counted where
they show for certain: in the configurations that servers have applied, which are committed, and in the terms
that began by order of a leader. A step that no server is seen at, because it applied the next one in the same
turn, is not counted.
"""

from __future__ import annotations

import msgspec

from balsadb.raft.messages import Message, TimeoutNow
from balsadb.raft.node import Role
from balsadb.raft.types import Configuration, NodeId, Term
from balsadb.replica import Replica


class MemberCounts(msgspec.Struct, frozen=True):
    """Operations on the members of a cluster. One that several nodes enter or leave by counts once."""

    asked: int = 0
    """Wishes that were put to a server, in vain or not. Leaders that leave also hand over unasked."""
    begun: int = 0
    """Additions, removals and replacements of which a committed configuration shows the beginning."""
    added: int = 0
    """Additions that have ended: the newcomers are voters."""
    removed: int = 0
    """Removals that have ended, of voters and of newcomers that were given up."""
    replaced: int = 0
    """Replacements that have ended: some came and others left, in one step."""
    handed_over: int = 0
    """Leaders that have taken over by order of the one before."""

    @property
    def completed(self) -> int:
        """All that have ended."""
        return self.added + self.removed + self.replaced + self.handed_over

    def __add__(self, other: MemberCounts) -> MemberCounts:
        mine, theirs = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        return MemberCounts(*(a + b for a, b in zip(mine, theirs, strict=True)))

    def __str__(self) -> str:
        return (
            f"{self.asked} changes of the members and the leader asked for, {self.begun} of the members "
            f"begun; completed {self.completed}: {self.added} additions, {self.removed} removals, "
            f"{self.replaced} replacements, {self.handed_over} hand-overs"
        )


class MemberWatch:
    """Looks at all servers of a run, and counts."""

    def __init__(self, configuration: Configuration) -> None:
        self.asked = 0
        self._newest: dict[NodeId, Configuration] = {}
        """What each server has applied, as last seen."""
        self._seen: set[Configuration] = {configuration}
        """All committed configurations. None comes back, because removed ids stay in it."""
        self._ordered: set[tuple[Term, NodeId]] = set()
        """Terms that were to begin by order, and who was to lead them."""
        self._led: set[Term] = set()
        self._begun = self._added = self._removed = self._replaced = self._handed_over = 0

    @property
    def counts(self) -> MemberCounts:
        """What was counted so far."""
        return MemberCounts(
            self.asked, self._begun, self._added, self._removed, self._replaced, self._handed_over
        )

    def delivered(self, message: Message) -> None:
        """Note an order to campaign."""
        if isinstance(message, TimeoutNow):
            self._ordered.add((message.term + 1, message.target))

    def look(self, replica: Replica) -> None:
        """Look at a server after a turn; cheap when nothing has changed."""
        node, configuration = replica.node, replica.configuration
        if node.role is Role.LEADER and node.term not in self._led:
            self._led.add(node.term)
            self._handed_over += (node.term, node.id) in self._ordered
        before = self._newest.get(node.id)
        if configuration is not before:
            self._newest[node.id] = configuration
            if configuration not in self._seen:
                self._seen.add(configuration)
                self._count(before, configuration)

    def _count(self, before: Configuration | None, now: Configuration) -> None:
        """Count what a new configuration shows. Its joint step names everything that comes and goes."""
        if before is None:
            return
        if now.changing and not before.changing:
            self._begun += 1
        if before.outgoing and not now.outgoing:
            came, left = set(before.voters) - set(before.outgoing), set(before.outgoing) - set(before.voters)
            self._replaced += bool(came and left)
            self._added += bool(came and not left)
            self._removed += bool(left and not came)
        elif not now.changing and set(now.removed) > set(before.removed):
            self._removed += 1  # a newcomer was given up
