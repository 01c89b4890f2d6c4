"""Things made of files that may be replaced while the server runs: certificates, keys, secrets.

Whoever wants the thing gets it as the files are now. That they have changed is seen by their times and sizes,
which costs microseconds, so it is looked at whenever a connection is made. SIGHUP has it looked at once, for
the line in the log. When the new files are of no use the former thing stays, and the log says why: a server
with the certificate of yesterday is better than none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

from balsadb.errors import UsageError
from balsadb.server.journal import journal

T = TypeVar("T")

_Stamp: TypeAlias = tuple[tuple[int, int, int] | None, ...]


class Reloaded(Generic[T]):
    """A thing made of files, made anew when they have changed."""

    def __init__(self, files: Sequence[str], make: Callable[[], T], say: Callable[[T], str]) -> None:
        """`make` reads the files, and raises UsageError when they are of no use; `say` describes the result.

        Raises UsageError when they are of no use from the beginning.
        """
        self._files = tuple(files)
        self._make = make
        self._say = say
        self._stamp = self._look()
        self._thing = make()

    @property
    def now(self) -> T:
        """The thing as the files are now, if they are of any use."""
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp  # before they are read: what changes meanwhile is seen the next time
            self._take()
        return self._thing

    def reload(self) -> None:
        """Read the files again, changed or not."""
        self._stamp = self._look()
        self._take()

    def _take(self) -> None:
        try:
            self._thing = self._make()
        except UsageError as error:
            journal.say("not-reloaded", "warning", message=f"{error}; the former one stays in use")
        else:
            journal.say("reloaded", message=f"took up {self._say(self._thing)}")

    def _look(self) -> _Stamp:
        return tuple(map(_stamp_of, self._files))


def _stamp_of(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
