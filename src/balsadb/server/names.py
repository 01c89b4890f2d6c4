"""From the host of an address to a connection: names are looked up anew for every attempt.

A machine that is started again may have another address, and all machines of a cluster at the same time. So
what the members are known by is a name, and nothing here remembers what a name meant.

The system's resolver blocks, for up to half a minute when no name server answers. Each lookup has a thread of
its own, so that it keeps neither the event loop nor the worker threads, which read the disk, from their work;
and there is at most one for each name, however often it is asked for meanwhile.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TypeVar

from balsadb.address import is_ip_address

LOOKUP_SECONDS_MAX = 2.0
"""An attempt waits for so long for the addresses of a name. The lookup goes on; the next attempt joins it."""
ADDRESSES_MAX = 8
"""Addresses of one name that are tried in one attempt."""
ADDRESS_SECONDS_MIN = 0.5
"""What each of them gets, at least, however many share the time of an attempt."""

Connected = TypeVar("Connected")

_under_way: dict[str, Future[list[str]]] = {}
_lock = threading.Lock()


async def connect(
    host: str, port: int, seconds: float, attempt: Callable[[str, int], Awaitable[Connected]]
) -> Connected:
    """Return what `attempt` makes of the first address of `host` that it can connect to.

    `seconds` are shared by the addresses, so that one that never answers does not keep the others from being
    tried. Raises OSError: `socket.gaierror` when the name has no address now, else why the last one failed.
    """
    addresses = await find(host)
    share = max(seconds / len(addresses), ADDRESS_SECONDS_MIN)
    failure: OSError = TimeoutError()
    for address in addresses:
        try:
            async with asyncio.timeout(share):
                return await attempt(address, port)
        except OSError as error:  # a TimeoutError is one
            failure = error
    raise failure


async def find(host: str) -> list[str]:
    """Return the addresses of a host as they are now. Raises `socket.gaierror` when there is none in time."""
    if is_ip_address(host):
        return [host]
    try:
        async with asyncio.timeout(LOOKUP_SECONDS_MAX):
            # Several attempts may share the lookup. It runs, so the end of one of them does not cancel it.
            return await asyncio.wrap_future(_look_up(host))
    except TimeoutError:
        raise socket.gaierror(socket.EAI_AGAIN, "no name server answers in time") from None


def _look_up(host: str) -> Future[list[str]]:
    """Begin a lookup, or join the one that is under way."""
    with _lock:
        lookup = _under_way.get(host)
        if lookup is None:
            lookup = _under_way[host] = Future()
            lookup.set_running_or_notify_cancel()
            # Not a worker thread of the loop: the end of the process must not wait for a name server.
            threading.Thread(target=_ask, args=(host, lookup), name=f"look-up-{host}", daemon=True).start()
    return lookup


def _ask(host: str, lookup: Future[list[str]]) -> None:
    failure: OSError | None
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(where[0]) for _, _, _, _, where in found))[:ADDRESSES_MAX]
        failure = None if addresses else socket.gaierror(socket.EAI_NONAME, "the name has no address")
    except OSError as error:
        failure = error
    except Exception as error:  # what no name can look like, such as a part of more than 63 characters
        failure = socket.gaierror(socket.EAI_NONAME, str(error))
    # Who asks from now on gets a lookup of their own: the answer may be as old as this one's beginning.
    with _lock:
        del _under_way[host]
    if failure is None:
        lookup.set_result(addresses)
    else:
        lookup.set_exception(failure)
