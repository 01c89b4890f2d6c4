"""What the journal is told at the end of a turn: other members, connections that came and went.

Looked at once per turn, so what lasts for less is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set

from balsadb.raft.core import Core
from balsadb.raft.types import NodeId
from balsadb.server.journal import journal


class Chronicle:
    """Watches one node's members and its connections to them."""

    def __init__(
        self,
        core: Core,
        connected: Callable[[], Set[NodeId]],
        addresses: Mapping[NodeId, tuple[str, int]],
        say: Callable[..., None] = journal.say,
    ) -> None:
        """`connected` tells which other nodes this one has a connection to, `addresses` where all are."""
        self._core = core
        self._connected = connected
        self._addresses = addresses
        self._say = say
        self._configuration = core.configuration
        self._links: Set[NodeId] = frozenset()

    def look(self) -> None:
        """Tell what has changed since the last look."""
        if self._core.configuration is not self._configuration:
            self._members()
        if (links := self._connected()) != self._links:
            for node in sorted(links - self._links):
                host, port = self._addresses.get(node, ("", 0))
                self._say("peer-connected", peer=node, host=host or None, port=port or None)
            for node in sorted(self._links - links):
                self._say("peer-lost", "warning", peer=node)
            self._links = links

    def _members(self) -> None:
        old, self._configuration = self._configuration, self._core.configuration
        new = self._configuration

        def groups(of: object) -> list[object]:
            return [getattr(of, name) for name in ("voters", "outgoing", "learners", "removed", "cluster_id")]

        if groups(old) == groups(new):
            return  # an address, or a step on the way
        self._say(
            "members",
            voters=new.voters,
            outgoing_voters=new.outgoing or None,
            learners=new.learners or None,
            removed=new.removed or None,
            cluster_id=new.cluster_id.hex() or None,
            index=self._core.configurations.index,
        )
