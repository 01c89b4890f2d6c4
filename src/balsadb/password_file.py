"""Passwords come from files and variables, never from arguments: everybody may read those of a process.

The server and the client commands read the same kind of file, so this stands beside `address.py`.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from balsadb.errors import UsageError

PASSWORD_BYTES_MAX: Final = 1024
"""A longer one is a file that was named by mistake, and would not fit into the header of an HTTP request."""


def read_password_file(path: str, what: str = "--password-file") -> bytes:
    """Return the password that a file holds: its one line, without the line end.

    Raises UsageError, without a word of what it holds, when it can't be read, when others than its owner may
    read it, or when it does not look like a password.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            # Of the open file and not of the path, under which there may be another one by now.
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise UsageError(
                    f"{what} {path}: others than its owner may use this file (mode {mode:04o}); "
                    f"run chmod 600 {path}"
                )
            text = b""
            while len(text) <= PASSWORD_BYTES_MAX + 2 and (piece := file.read(PASSWORD_BYTES_MAX + 3)):
                text += piece
    except OSError as error:
        raise UsageError(f"{what} {path}: {error.strerror or error}") from None
    return check_password(text.removesuffix(b"\n").removesuffix(b"\r"), f"{what} {path}")


def check_password(password: bytes, what: str) -> bytes:
    """Return a password that can be one; `what` says where it comes from. Raises UsageError."""
    if not password:
        raise UsageError(f"{what} is empty; a password has at least one character")
    if len(password) > PASSWORD_BYTES_MAX:
        raise UsageError(f"{what}: a password has at most {PASSWORD_BYTES_MAX} bytes")
    if b"\n" in password or b"\0" in password:
        raise UsageError(f"{what}: a password is one line of text")
    return password
