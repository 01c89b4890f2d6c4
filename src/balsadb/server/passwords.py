"""Passwords as they are kept, and who may do what as the edge of a node sees it.

A password is kept as `scrypt:<salt>:<hash>`, both in hexadecimal. scrypt is slow on purpose, 58 ms and 16 MiB
for one look, so that a stolen hash is of little use; what keeps a flood of log-ins from costing a node its
time is in `logins.py`.

Everything that depends on users goes through an `Accounts`. Today's knows one user, `default`, whose password
comes from a file; one over the replicated users has the same four methods.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence
from typing import Final, Protocol

from balsadb.kv.reply import Refusal

DEFAULT: Final = b"default"
"""The user of a client that gives a password and no name, and of everybody where no password is needed."""
NOBODY: Final = b""
"""The user of a connection that has not logged in."""

SCRYPT_N: Final = 1 << 14
SCRYPT_R: Final = 8
SCRYPT_P: Final = 1
"""Measured on one core of a small server: 58 ms, 16 MiB. Twice the work is 138 ms, which clients would feel
when a whole fleet of them comes back to a node that has just started."""
SALT_BYTES: Final = 16
HASH_BYTES: Final = 32
_MEMORY_MAX: Final = 64 * 1024 * 1024
"""More than the work takes, less than would hurt; OpenSSL's own bound is close to what it takes."""
_PREFIX: Final = b"scrypt"


class Accounts(Protocol):
    """Who there is, and what each of them may do. All of it is quick, and is asked in the event loop."""

    @property
    def open(self) -> bool:
        """Tell whether a new connection is `default` without a password."""
        ...

    def hashes(self, user: bytes) -> Sequence[bytes]:
        """Return the passwords that let a user in, as they are kept; none for one that may not or is not."""
        ...

    def unrestricted(self, user: bytes) -> bool:
        """Tell whether a user may do everything, so that `refuse` need not be asked."""
        ...

    def refuse(self, user: bytes, argv: Sequence[bytes]) -> Refusal | None:
        """Return why a user may not run a command, or None."""
        ...


class OnePassword:
    """The accounts of a node that was given a password: `default` has it and may do everything."""

    open = False

    def __init__(self, password: bytes) -> None:
        # The password itself is not kept.
        self._hashes = (hash_password(password),)

    def hashes(self, user: bytes) -> Sequence[bytes]:
        """Return the hash of the one password."""
        return self._hashes if user == DEFAULT else ()

    def unrestricted(self, user: bytes) -> bool:
        """Return whether it is the one user."""
        return user == DEFAULT

    def refuse(self, user: bytes, argv: Sequence[bytes]) -> Refusal | None:
        """Return None: there is nobody else."""
        return None


def hash_password(password: bytes) -> bytes:
    """Return a password in the form in which it is kept. Slow."""
    salt = os.urandom(SALT_BYTES)
    return b"%b:%b:%b" % (_PREFIX, salt.hex().encode(), _scrypt(password, salt).hex().encode())


def matching(password: bytes, hashes: Sequence[bytes]) -> bytes | None:
    """Return the hash that a password belongs to, or None. Slow; made for a thread of its own.

    Without a hash to compare with it does the work of one, and all are compared whatever comes of the first:
    how long it takes tells how many passwords a user has, and nothing of whether there is such a user.
    """
    found: bytes | None = None
    for kept in hashes or (_NOBODY_S,):
        _, salt, digest = kept.split(b":")
        right = hmac.compare_digest(_scrypt(password, bytes.fromhex(salt.decode())).hex().encode(), digest)
        if right and hashes:
            found = kept
    return found


def _scrypt(password: bytes, salt: bytes) -> bytes:
    return hashlib.scrypt(
        password, salt=salt, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P, maxmem=_MEMORY_MAX, dklen=HASH_BYTES
    )


_NOBODY_S: Final = b"%b:%b:%b" % (_PREFIX, b"00" * SALT_BYTES, b"00" * HASH_BYTES)
"""Compared with where there is no user or no password, so that this takes as long."""
