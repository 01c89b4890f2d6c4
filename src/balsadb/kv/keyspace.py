"""The keys as a command sees them: reads, and writes that check limits and stamp revisions.

A write either happens as a whole or returns the refusal that the command answers, so a command that makes
its one write last has all its effects or none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from balsadb.errors import InvariantError
from balsadb.kv.cursors import Cursors
from balsadb.kv.deadlines import make_hint
from balsadb.kv.delta import DeltaStore
from balsadb.kv.digests import Digests
from balsadb.kv.limits import CHANGE_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX
from balsadb.kv.refusals import KEY_TOO_LONG, OVER_BUDGET, VALUE_TOO_LONG
from balsadb.kv.reply import Refusal, Reply
from balsadb.kv.sessions import Sessions
from balsadb.kv.store import Record, Records, deadline_of


class Keyspace:
    """The keys while an entry is applied, or between entries for reads."""

    __slots__ = (
        "_overdue",
        "_put",
        "cursors",
        "digests",
        "get",
        "index",
        "inside",
        "log_time_ms",
        "now_ms",
        "position",
        "records",
        "sessions",
        "spent",
    )

    inside: Callable[[Keyspace, list[bytes], Refusal], Reply]
    """Runs a command within another one, or answers the refusal when it must not stand there. Given from
    outside, because whoever runs commands knows the table of all of them."""

    def __init__(
        self, records: Records, digests: Digests, sessions: Sessions, cursors: Cursors | None = None
    ) -> None:
        self.records = records
        """Where the keys are; commands go through the methods here."""
        self._put = records.put
        self.get: Callable[[bytes], Record | None] = records.get
        """Returns the record of a key, or None."""
        self._overdue = False
        self.log_time_ms = 0
        """Log time: what is due by it is absent, removed or not (rule S6)."""
        self.now_ms = 0
        """What TTL subtracts: log time, or the leader's clock where a read has brought it (rule S6)."""
        self.cursors = cursors or Cursors()
        """Where the scans that this node answers have got to."""
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

    def within(self, records: Records) -> Keyspace:
        """Return a keyspace like this one for the changes of a transaction."""
        inner = Keyspace(records, self.digests, self.sessions, self.cursors)
        inner.index = self.index
        inner.pass_time(self.log_time_ms, self._overdue)
        return inner

    def pass_time(self, log_time_ms: int, overdue: bool) -> None:
        """Let log time be what it is now. `overdue`: there may be keys that are due and not removed yet.

        Only then every single look has to mind deadlines: at most so many keys become due at a time that the
        entry removes all of them, nearly always.
        """
        self.log_time_ms = self.now_ms = log_time_ms
        if overdue is not self._overdue:
            self._overdue = overdue
            self.get = self._get_unless_due if overdue else self.records.get

    def is_due(self, deadline_ms: int) -> bool:
        """Tell whether a deadline has passed by log time; 0 stands for none."""
        return 0 < deadline_ms <= self.log_time_ms

    def _get_unless_due(self, key: bytes) -> Record | None:
        record = self.records.get(key)
        return record if record is None or not self.is_due(deadline_of(record)) else None

    def value(self, key: bytes) -> bytes | None:
        """Return a key's value, or None."""
        record = self.get(key)
        return None if record is None else record[0]

    def version(self, key: bytes) -> bytes:
        """Return what WATCH compares: the revision of a key's last change, or 0 when there is no key."""
        record = self.get(key)
        return b"0" if record is None else b"%d:%d" % (record[1], record[2])

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

    def replace(self, key: bytes, value: bytes, deadline_ms: int, former: Record | None) -> Refusal | None:
        """Set a key that expires at a deadline, or never with 0; or return why not.

        `former` is the record that `get` has found. With a deadline that has passed the key is gone at once.
        """
        if self.is_due(deadline_ms):
            return None if former is None else self.remove_all({key: former})
        former_ms = 0 if former is None else deadline_of(former)
        if not deadline_ms:
            refusal = self.write(key, value)
            if refusal is None and former_ms:
                self.records.hint(make_hint(former_ms, key), False)
            return refusal
        if len(key) > KEY_BYTES_MAX:
            return KEY_TOO_LONG
        if len(value) > VALUE_BYTES_MAX:
            return VALUE_TOO_LONG
        spent = self.spent + 2 * len(key) + len(value)
        if spent > CHANGE_BYTES_MAX:
            return OVER_BUDGET
        self.spent = spent
        self._put(key, (value, self.index, self.position, deadline_ms))
        if former_ms != deadline_ms:
            if former_ms:
                self.records.hint(make_hint(former_ms, key), False)
            self.records.hint(make_hint(deadline_ms, key), True)
        return None

    def update(self, key: bytes, value: bytes, former: Record | None) -> Refusal | None:
        """Set a key whose deadline, if it has one, stays; or return why not."""
        if former is None or len(former) == 3:
            return self.write(key, value)
        return self.replace(key, value, former[3], former)

    def remove_all(self, former: Mapping[bytes, Record]) -> Refusal | None:
        """Remove keys with the records that `get` has found, or none of them and return why."""
        spent = self.spent + sum(map(len, former))
        if spent > CHANGE_BYTES_MAX:
            return OVER_BUDGET
        self.spent = spent
        for key, record in former.items():
            self.records.remove(key)
            if len(record) == 4:
                self.records.hint(make_hint(record[3], key), False)
        return None

    def clear(self) -> None:
        """Take all keys away."""
        self.records.clear()

    # -------------------------------------------------------------------- scans

    def slice(self, start: bytes, count: int) -> tuple[list[bytes], bytes | None, int]:
        """Return keys from `start` on, out of the next `count`, where to go on, and how many were looked at.

        For reads alone.
        """
        found, then = self._store.slice(start, count)
        return [key for key, deadline in found if not self.is_due(deadline)], then, max(len(found), 1)

    def last_key(self) -> bytes | None:
        """Return the greatest key, or None; a removed one may stand in. For reads alone."""
        return self._store.last_key()

    @property
    def _store(self) -> DeltaStore:
        store = self.records
        if not isinstance(store, DeltaStore):
            raise InvariantError("a transaction must not look at what its node alone knows (rule S4)")
        return store
