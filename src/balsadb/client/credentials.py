"""As whom a client makes itself known."""

from __future__ import annotations

from dataclasses import dataclass, field

from balsadb.client.words import encode
from balsadb.errors import UsageError


@dataclass(frozen=True)
class Credentials:
    """A user's name and password. Without a name it is the user `default`."""

    password: str | bytes = field(repr=False)
    username: str | None = None

    def encoded(self) -> bytes:
        """Return the command that logs in."""
        if self.username is None:
            return encode("AUTH", self.password)
        return encode("AUTH", self.username, self.password)


def make_credentials(username: str | None, password: str | bytes | None) -> Credentials | None:
    """Return what a caller gave, or None when that is nothing. Raises UsageError for half of it."""
    if password is None:
        if username is not None:
            raise UsageError(f"a password is missing for the user {username!r}")
        return None
    if not password:
        raise UsageError("the password is empty; leave it out where none is needed")
    return Credentials(password, username)
