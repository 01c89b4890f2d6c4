"""Network addresses as people write them: `HOST:PORT`, `[::1]:7001`, `127.0.0.1:7001-7003`.

Both ends need them, the server for what it listens on and the client for what it connects to, and neither
may import the other; so they are here, beside the errors.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from balsadb.errors import UsageError

DEFAULT_SERVERS = "127.0.0.1:7001-7003"
"""Where a client looks when it is told nothing: the client ports of `balsadb demo`."""

RANGE_PORTS_MAX = 64
"""A range such as 7001-7003 may not name more ports than this; more is a typing error."""

NAME_BYTES_MAX = 253
NAME_PART_BYTES_MAX = 63
"""Of a host name, and of each part of it between two dots: what the name system can carry."""


def parse_address(text: str, what: str = "address") -> tuple[str, int]:
    """Split `HOST:PORT`. `what` names the flag or setting in the sentence of the `UsageError`."""
    host, ports = _split(text, what)
    return host, _port(ports, text, what)


def parse_addresses(text: str, what: str = "--servers") -> list[tuple[str, int]]:
    """Split a comma-separated list in which a port may be a range: `127.0.0.1:7001-7003,db4:7001`."""
    found: list[tuple[str, int]] = []
    for part in text.split(","):
        if not (part := part.strip()):
            continue
        host, ports = _split(part, what)
        first, dash, last = ports.partition("-")
        low = _port(first, part, what)
        high = _port(last, part, what) if dash else low
        if not low <= high < low + RANGE_PORTS_MAX:
            raise UsageError(f"{what}: {part!r} is not a range of at most {RANGE_PORTS_MAX} ports")
        found += [(host, port) for port in range(low, high + 1)]
    if not found:
        raise UsageError(f"{what}: no address given; write HOST:PORT,HOST:PORT,...")
    return list(dict.fromkeys(found))


def is_ip_address(host: str) -> bool:
    """Tell whether a host is an address already, so that nobody has to be asked for one."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def format_address(host: str, port: int) -> str:
    """Write an address so that `parse_address` reads it back."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def format_addresses(addresses: Iterable[tuple[str, int]]) -> str:
    """Write a list for a sentence; neighbouring ports of one host become a range."""
    groups: list[tuple[str, int, int]] = []
    for host, port in addresses:
        if groups and groups[-1][0] == host and groups[-1][2] == port - 1:
            groups[-1] = (host, groups[-1][1], port)
        else:
            groups.append((host, port, port))
    return ", ".join(
        format_address(host, low) + (f"-{high}" if high > low else "") for host, low, high in groups
    )


def is_loopback(addresses: Sequence[tuple[str, int]]) -> bool:
    """Say whether all of these are addresses of this machine only."""
    return all(
        host == "localhost" or (is_ip_address(host) and ipaddress.ip_address(host).is_loopback)
        for host, _ in addresses
    )


def _split(text: str, what: str) -> tuple[str, str]:
    host, colon, ports = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise UsageError(f"{what}: {text!r} is ambiguous; write an IPv6 address as [ADDRESS]:PORT")
    if not colon or any(c.isspace() or c in "/@," for c in host) or not _may_be_a_name(host):
        raise UsageError(f"{what}: {text!r} is not an address; write HOST:PORT")
    return host, ports


def _may_be_a_name(host: str) -> bool:
    """Tell whether a resolver can be asked for it at all; an IPv6 address has no dots and no long parts."""
    try:
        ascii_host = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        return False
    return len(ascii_host) <= NAME_BYTES_MAX and all(
        0 < len(part) <= NAME_PART_BYTES_MAX for part in ascii_host.removesuffix(".").split(".")
    )


def _port(text: str, whole: str, what: str) -> int:
    # int() alone would take "1_000", "+5" and digits of other scripts.
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise UsageError(f"{what}: {text!r} in {whole!r} is not a port from 1 to 65535")
    return int(text)
