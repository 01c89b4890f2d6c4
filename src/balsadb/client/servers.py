"""Where a client finds its servers, and what to call it when it does not."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

from balsadb.address import DEFAULT_SERVERS, parse_addresses

SERVERS_VARIABLE = "BALSADB_SERVERS"

Found = TypeVar("Found")


class Turns:
    """In which order the addresses of a server's name are tried: each attempt begins with the next one.

    An attempt ends after a while, and then an address that never answers has kept those behind it from being
    tried.
    """

    def __init__(self) -> None:
        self._attempts: Counter[tuple[str, int]] = Counter()

    def order(self, server: tuple[str, int], found: Sequence[Found]) -> list[Found]:
        """Return what a name was found to mean just now, in the order of this attempt."""
        first = self._attempts[server] % max(1, len(found))
        self._attempts[server] += 1
        return [*found[first:], *found[:first]]


def server_addresses(servers: str | Iterable[str] | None) -> list[tuple[str, int]]:
    """Return the servers given, else those of BALSADB_SERVERS, else those of `balsadb demo`."""
    if servers is None:
        servers = os.environ.get(SERVERS_VARIABLE) or DEFAULT_SERVERS
        return parse_addresses(servers, SERVERS_VARIABLE)
    return parse_addresses(servers if isinstance(servers, str) else ",".join(servers), "servers")


def describe_failure(error: OSError) -> str:
    """Say in a few words why a connection could not be made or ended."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return "unknown host name"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"  # several addresses of one name give a text of their own
    if type(error).__module__ == "ssl":
        from balsadb.tls import describe  # whoever gets here has imported ssl

        return describe(error)
    return (error.strerror or str(error) or type(error).__name__).lower()
