"""When each other member was last known to be there, as far as one node can tell.

A leader hears every member several times a second. Any other node hears the leader; of the rest it only
knows whether its connection to them stands.
"""

from __future__ import annotations

from collections.abc import Callable, Set

from balsadb.raft.core import Core
from balsadb.raft.roles import Follower, Leader
from balsadb.raft.types import Millis, NodeId


class Reach:
    """Remembers when the others were there. Asked once a second, and whenever somebody wants to know."""

    def __init__(self, core: Core, connected: Callable[[], Set[NodeId]], tick_ms: Millis) -> None:
        """`connected` tells which other nodes this one has a connection to."""
        self._core = core
        self._connected = connected
        self._tick_ms = tick_ms
        self._seen: dict[NodeId, Millis] = {}

    def look(self, now_ms: Millis) -> None:
        """Note who is there. `now_ms` is monotonic."""
        ages = self._ages()
        connected = self._connected()
        everyone = self._core.configuration.everyone()
        for node in everyone:
            if node in connected:
                seen = now_ms - ages.get(node, 0) * self._tick_ms
                self._seen[node] = max(seen, self._seen.get(node, seen))
        for node in set(self._seen) - set(everyone):
            del self._seen[node]

    def silent_ms(self, now_ms: Millis) -> dict[NodeId, Millis | None]:
        """Return for how long each other member was not known to be there; None: not since the start."""
        self.look(now_ms)
        return {
            node: max(0, now_ms - self._seen[node]) if node in self._seen else None
            for node in self._core.configuration.everyone()
            if node != self._core.id
        }

    def _ages(self) -> dict[NodeId, int]:
        """Return how many ticks ago those were heard whose messages this node counts on."""
        state = self._core.state
        if isinstance(state, Leader):
            return {peer.id: self._core.now - peer.heard for peer in state.peers}
        if isinstance(state, Follower) and state.leader:
            return {state.leader: state.elapsed}
        return {}
