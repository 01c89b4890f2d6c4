"""Where the other servers are: as configurations say, and the hellos of those that our log does not know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from balsadb.address import parse_address
from balsadb.errors import UsageError
from balsadb.raft.types import Configuration, NodeId

ADDRESSES_MAX = 256
"""Nodes whose calls are answered at the address that they say; members are known without a limit."""


class AddressBook:
    """Every address that was ever learned, but for those of removed nodes.

    A configuration that lacks a node says nothing against it: the state that a node installs may be older
    than the membership of the very leader that sent it. If the leader's address were forgotten then, nothing
    would be acknowledged any more, and the log that names the leader would never come.
    """

    def __init__(self, me: NodeId, dial: Mapping[NodeId, str]) -> None:
        """`dial` has addresses that take the place of the members' own."""
        self._me = me
        self._dial = dial
        self.known: dict[NodeId, tuple[str, int]] = {}
        """The transports look here at every moment."""

    def learn(self, configuration: Configuration) -> None:
        """Take the addresses of its members."""
        for member in configuration.members:
            if member.id != self._me:
                self.known[member.id] = parse_address(self._dial.get(member.id, member.peer_address))

    def called(self, node: NodeId, address: str) -> bool:
        """Take what a caller says of itself; tell whether it was not known."""
        if node == self._me or node in self.known or not address or len(self.known) >= ADDRESSES_MAX:
            return False
        try:
            self.known[node] = parse_address(self._dial.get(node, address))
        except UsageError:
            return False
        return True

    def forget(self, gone: Iterable[NodeId]) -> None:
        """Let go of nodes whose removal is committed."""
        for node in gone:
            self.known.pop(node, None)
