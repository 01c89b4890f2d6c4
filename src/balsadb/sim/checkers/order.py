"""Order within a connection: its operations take effect and are answered in the order sent (rule P6).

Linearizability does not promise this: operations of one pipeline overlap in time, and any order of them is
linearizable. Every client sends unique values, so a read tells which of its connection's appends it has seen.
"""

from __future__ import annotations

from balsadb.kv.reply import Reply
from balsadb.sim.failures import SafetyViolation
from balsadb.sim.history import Action


class ConnectionOrder:
    """Watches one connection."""

    def __init__(self, only_appends: bool) -> None:
        self._only_appends = only_appends
        """False: values are also replaced and removed by others, so that an own one may be gone."""
        self._appended: dict[bytes, set[bytes]] = {}
        """By key: values whose append was answered."""
        self._due: dict[bytes, set[bytes]] = {}
        """By key: values whose answer is still due."""

    def reconnected(self) -> None:
        """Begin anew: another connection promises nothing about this one."""
        self._appended.clear()
        self._due.clear()

    def sent(self, action: Action, key: bytes, argument: bytes) -> None:
        """Note an operation that leaves."""
        if action in (Action.APPEND, Action.PUT):
            self._due.setdefault(key, set()).add(argument)

    def answered(self, action: Action, key: bytes, argument: bytes, reply: Reply) -> None:
        """Note the answer of the oldest operation under way."""
        due, appended = self._due.get(key, set()), self._appended.setdefault(key, set())
        if action is Action.GET and isinstance(reply, bytes):
            early = next((value for value in due if value in reply), None)
            if early is not None:
                raise SafetyViolation("order", f"{key!r} shows {early!r}, which was sent after the question")
            lost = next((value for value in appended if value not in reply), None)
            if lost is not None and self._only_appends:
                raise SafetyViolation("order", f"{key!r} lacks {lost!r}, answered before on the connection")
        elif action is Action.APPEND and isinstance(reply, int):
            appended.add(argument)
        due.discard(argument)
