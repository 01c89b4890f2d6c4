"""The keys as a command sees them: reads, and writes that check limits and stamp revisions.

A write either happens as a whole or returns the refusal that the command answers, so a command that makes
its one write last has all its effects or none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from balsadb.kv.digests import Digests
from balsadb.kv.limits import CHANGE_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX
from balsadb.kv.refusals import KEY_TOO_LONG, OVER_BUDGET, VALUE_TOO_LONG
from balsadb.kv.reply import Refusal, Reply
from balsadb.kv.sessions import Sessions
from balsadb.kv.store import Record, Records


class Keyspace:
    """The keys while an entry is applied, or between entries for reads."""

    __slots__ = ("_put", "digests", "get", "index", "inside", "position", "records", "sessions", "spent")

    inside: Callable[[Keyspace, list[bytes], Refusal], Reply]
    """Runs a command within another one, or answers the refusal when it must not stand there. Given from
    outside, because whoever runs commands knows the table of all of them."""

    def __init__(self, records: Records, digests: Digests, sessions: Sessions) -> None:
        self.records = records
        """Where the keys are; commands go through the methods here."""
        self._put = records.put
        self.get: Callable[[bytes], Record | None] = records.get
        """Returns the record of a key, or None."""
        self.digests = digests
        self.sessions = sessions
        self.index = 0
        """Log index of the entry under way."""
        self.position = 0
        """Position of the command under way in its batch."""
        self.spent = 0
        """Bytes written by the entry under way (rule S5)."""

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self.records)

    def value(self, key: bytes) -> bytes | None:
        """Return a key's value, or None."""
        record = self.get(key)
        return None if record is None else record[0]

    def write(self, key: bytes, value: bytes) -> Refusal | None:
        """Set a key, or return why not."""
        if len(key) > KEY_BYTES_MAX:
            return KEY_TOO_LONG
        if len(value) > VALUE_BYTES_MAX:
            return VALUE_TOO_LONG
        spent = self.spent + len(key) + len(value)
        if spent > CHANGE_BYTES_MAX:
            return OVER_BUDGET
        self.spent = spent
        self._put(key, (value, self.index, self.position))
        return None

    def write_all(self, values: Mapping[bytes, bytes]) -> Refusal | None:
        """Set several keys, or none of them and return why."""
        spent = self.spent
        for key, value in values.items():
            if len(key) > KEY_BYTES_MAX:
                return KEY_TOO_LONG
            if len(value) > VALUE_BYTES_MAX:
                return VALUE_TOO_LONG
            spent += len(key) + len(value)
        if spent > CHANGE_BYTES_MAX:
            return OVER_BUDGET
        self.spent = spent
        for key, value in values.items():
            self._put(key, (value, self.index, self.position))
        return None

    def remove_all(self, keys: Sequence[bytes]) -> Refusal | None:
        """Remove distinct keys that are present, or none of them and return why."""
        spent = self.spent + sum(map(len, keys))
        if spent > CHANGE_BYTES_MAX:
            return OVER_BUDGET
        self.spent = spent
        for key in keys:
            self.records.remove(key)
        return None
