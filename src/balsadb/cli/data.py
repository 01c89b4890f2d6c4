"""get, put, append, del: one call each.

Keys and values are taken as the bytes that the shell passed, whatever the locale makes of them, and values
are written out unchanged.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TypeVar

from balsadb.cli.contact import Contact
from balsadb.client.blocking import BlockingClerk
from balsadb.client.call import ClerkOptions
from balsadb.errors import NoServer

T = TypeVar("T")

# One call does not pay for a look around, and a person does not want to wait where nobody listens.
ONE_CALL = ClerkOptions(prefer_leader=False, discover=False, fail_fast=True)


def get(contact: Contact, seconds: float, key: str) -> bool:
    """Print a key's value. False: there is no such key."""
    value = _once(contact, seconds, lambda clerk: clerk.get(os.fsencode(key)))
    if value is None:
        return False
    sys.stdout.buffer.write(value + b"\n")
    return True


def put(contact: Contact, seconds: float, key: str, value: str) -> None:
    """Set a key to a value."""
    _once(contact, seconds, lambda clerk: clerk.put(os.fsencode(key), os.fsencode(value)))
    print("OK")


def append(contact: Contact, seconds: float, key: str, value: str) -> None:
    """Append to a value and print its new length."""
    print(_once(contact, seconds, lambda clerk: clerk.append(os.fsencode(key), os.fsencode(value))))


def delete(contact: Contact, seconds: float, keys: list[str]) -> None:
    """Delete keys and print how many there were."""
    print(_once(contact, seconds, lambda clerk: clerk.delete(*map(os.fsencode, keys))))


def _once(contact: Contact, seconds: float, operation: Callable[[BlockingClerk], T]) -> T:
    who = contact.credentials
    with BlockingClerk(
        contact.servers,
        timeout=seconds,
        options=ONE_CALL,
        username=None if who is None else who.username,
        password=None if who is None else who.password,
    ) as clerk:
        try:
            return operation(clerk)
        except NoServer as error:
            raise NoServer(f"{error}{contact.advice}") from None
