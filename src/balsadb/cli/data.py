"""get, put, append, del: one call each.

Keys and values are taken as the bytes that the shell passed, whatever the locale makes of them, and values
are written out unchanged.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TypeVar

from balsadb.address import is_loopback
from balsadb.client.blocking import BlockingClerk
from balsadb.client.call import ClerkOptions
from balsadb.client.servers import server_addresses
from balsadb.errors import NoServer

T = TypeVar("T")

# One call does not pay for a look around, and a person does not want to wait where nobody listens.
ONE_CALL = ClerkOptions(prefer_leader=False, discover=False, fail_fast=True)


def get(servers: str | None, seconds: float, key: str) -> bool:
    """Print a key's value. False: there is no such key."""
    value = _once(servers, seconds, lambda clerk: clerk.get(os.fsencode(key)))
    if value is None:
        return False
    sys.stdout.buffer.write(value + b"\n")
    return True


def put(servers: str | None, seconds: float, key: str, value: str) -> None:
    """Set a key to a value."""
    _once(servers, seconds, lambda clerk: clerk.put(os.fsencode(key), os.fsencode(value)))
    print("OK")


def append(servers: str | None, seconds: float, key: str, value: str) -> None:
    """Append to a value and print its new length."""
    print(_once(servers, seconds, lambda clerk: clerk.append(os.fsencode(key), os.fsencode(value))))


def delete(servers: str | None, seconds: float, keys: list[str]) -> None:
    """Delete keys and print how many there were."""
    print(_once(servers, seconds, lambda clerk: clerk.delete(*map(os.fsencode, keys))))


def _once(servers: str | None, seconds: float, operation: Callable[[BlockingClerk], T]) -> T:
    with BlockingClerk(servers, timeout=seconds, options=ONE_CALL) as clerk:
        try:
            return operation(clerk)
        except NoServer as error:
            raise NoServer(f"{error}{advice(servers)}") from None


def advice(servers: str | None) -> str:
    """Say what to do when nobody answers on this very machine."""
    return "; start one: balsadb demo" if is_loopback(server_addresses(servers)) else ""
