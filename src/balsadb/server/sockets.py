"""What the kernel is told about connections, so that those which a broken network left behind end in time."""

from __future__ import annotations

import socket
from typing import Final, Protocol

from balsadb.address import format_address

KEEPALIVE_IDLE_S: Final = 60
"""A silent connection is probed after this."""
KEEPALIVE_INTERVAL_S: Final = 15
KEEPALIVE_PROBES: Final = 4
"""It is closed when so many probes, this far apart, had no answer."""


class Transport(Protocol):
    """What knows its socket."""

    def get_extra_info(self, name: str, /) -> object:
        """Return a fact about the connection, or None."""
        ...


def remote(transport: Transport | None) -> str | None:
    """Return who is at the other end, for a line of the journal."""
    name = transport.get_extra_info("peername") if transport is not None else None
    return format_address(str(name[0]), int(name[1])) if isinstance(name, tuple) and len(name) > 1 else None


class Socket(Protocol):
    """A socket, or what the event loops give out for one."""

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        """Set an option."""
        ...


def keep_alive(connection: Socket) -> None:
    """Let the kernel notice that the other end vanished. Accepted connections inherit this."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    ):
        if hasattr(socket, name):  # else the system's own times hold
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def give_up_after(connection: Socket, milliseconds: int) -> None:
    """Close the connection when what was sent is not acknowledged for so long, where the system can do that.

    Left alone, a kernel sends again after ever longer pauses, up to two minutes apart, and gives up after a
    quarter of an hour. So a connection stays silent for about as long again as the network was broken.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
