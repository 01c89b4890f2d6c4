"""Which servers there are, which one to try next, and when.

The servers that a caller gave are where a Clerk begins. Every server tells of all members, so the Clerk goes
on working when all of the first ones have been replaced. An address that was given is trusted more than one
that was told: it may lead round a proxy or through a translation of addresses, so it stays, unless the
cluster named it as a member before and no longer does.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from balsadb.client.call import Address, ClerkOptions, Random
from balsadb.errors import UsageError

MEMBERS_MAX = 64
"""Members that a server may tell of; a longer list is not believed."""


class Ring:
    """The servers in the order in which they are tried."""

    def __init__(self, given: Sequence[Address], options: ClerkOptions, random: Random) -> None:
        if not given:
            raise UsageError("a Clerk needs at least one server")
        self.given = list(dict.fromkeys(given))
        self.servers = list(self.given)
        """All servers; the given ones first."""
        self.candidate = self.servers[0]
        """The one to use next."""
        self.paused_until = -inf
        """Nothing is tried before this time."""
        self._options = options
        self._random = random
        self._failures = 0  # in a row, without a single answer in between
        self._members: set[Address] = set()  # all that were ever named

    def failed(self, address: Address, now: float, again: bool = False) -> None:
        """A server failed us: the next one is tried, or the same one `again`; after a while, with a pause."""
        servers = self.servers
        if again and address in servers:
            self.candidate = address
        elif address in servers:
            self.candidate = servers[(servers.index(address) + 1) % len(servers)]
        self._failures += 1
        rounds, rest = divmod(self._failures, len(servers))
        if rest == 0:
            options = self._options
            longest = min(options.backoff_max, options.backoff_min * 2 ** min(max(rounds, 1) - 1, 20))
            self.paused_until = now + longest * self._random.uniform(0.5, 1.0)

    def succeeded(self) -> None:
        """A server gave a real answer."""
        self._failures = 0

    def learn(self, members: Sequence[Address]) -> None:
        """Take what a server says of the members."""
        if not members or len(members) > MEMBERS_MAX:
            return
        self._members.update(members)
        now_members = set(members)
        stay = [a for a in self.given if a in now_members or a not in self._members]
        servers = stay + [a for a in dict.fromkeys(members) if a not in stay]
        self._members = now_members | (self._members & set(self.given))
        if servers != self.servers:
            self.servers = servers
            if self.candidate not in servers:
                self.candidate = servers[0]


def read_members(reply: object) -> list[Address]:
    """Read the nodes of the first range in an answer to CLUSTER SLOTS, the leader first.

    Whatever else was answered gives an empty list.
    """
    found: list[Address] = []
    match reply:
        case [[_, _, *nodes], *_]:
            for node in nodes:
                match node:
                    case [bytes(host), int(port), *_] if host and 0 < port < 65536:
                        found.append((host.decode(errors="replace"), port))
    return found
