"""What of this node is on its disk, and which messages wait for it (rule W1).

One write is in flight at a time. A message that promises something about the disk - a granted vote, the
request for votes that stands on an own vote - is *held* until the write that covers the promise is done.
So no driver can send a promise early. Acknowledgements of entries are not held but made when due, from
the durable index of that moment: entries that were overwritten meanwhile are never acknowledged.
"""

from __future__ import annotations

from balsadb.errors import InvariantError
from balsadb.raft.log import Log
from balsadb.raft.messages import Message
from balsadb.raft.ready import LogStart, WriteBatch
from balsadb.raft.types import HardState, Index, NodeId, Term


class Durability:
    """Writes made, in flight and done."""

    __slots__ = (
        "_hard_state",
        "_held",
        "_inflight_held",
        "_inflight_last",
        "_inflight_state",
        "_log",
        "_number",
        "_start",
        "inflight",
        "restarting",
        "term",
        "vote",
    )

    def __init__(self, log: Log, hard_state: HardState) -> None:
        """Begin with everything recovered on disk."""
        self._log = log
        self._number = 0
        self.inflight = 0
        """Number of the write in flight; 0 for none."""
        self._inflight_last: Index = 0
        self._inflight_state = hard_state
        self._hard_state = hard_state
        """As of the last write handed out."""
        self.term: Term = hard_state.term
        """Durable term: nothing is acknowledged in a later one."""
        self.vote: NodeId = hard_state.vote
        self._held: list[Message] = []
        self._inflight_held: list[Message] = []
        self._start: LogStart | None = None
        """A new start of the log that no write has taken yet."""
        self.restarting = False
        """The log is to begin behind an installed state, and on disk it does not yet."""

    def start_at(self, start: LogStart) -> None:
        """Let the log begin anew with the next write."""
        if self._start is not None and not self._start.keep and start.keep:
            raise InvariantError(f"{start} is wished for before {self._start} is on disk")
        self._start = start
        if not start.keep:
            self.restarting = True
            self.truncated()

    def has_write(self, term: Term, vote: NodeId) -> bool:
        """Tell whether `next_write` would return a write once none is in flight."""
        return self._start is not None or self.dirty(term, vote)

    def dirty(self, term: Term, vote: NodeId) -> bool:
        """Tell whether there is anything that no write has taken yet. The commit index alone is nothing."""
        state = self._hard_state
        return self._log.last_index > self._log.written_index or state.term != term or state.vote != vote

    def hold(self, message: Message, term: Term, vote: NodeId) -> bool:
        """Keep a message until all that is true now is on disk; False when it is already."""
        if self.dirty(term, vote):
            self._held.append(message)
        elif self.inflight:
            self._inflight_held.append(message)
        else:
            return False
        return True

    def next_write(self, term: Term, vote: NodeId) -> WriteBatch | None:
        """Take everything dirty into a write. None when one is in flight or nothing is dirty."""
        if self.inflight or not self.has_write(term, vote):
            return None
        log = self._log
        if self._start is not None:
            return self._next_start(term, vote, self._start)
        first = log.written_index + 1
        entries = tuple(log.entries[first - log.cache_first :]) if first <= log.last_index else ()
        state: HardState | None = None
        before = self._hard_state
        # The commit index goes along with other changes and never causes a write itself (rule P7).
        if before.term != term or before.vote != vote or before.commit != log.commit_index:
            state = self._hard_state = HardState(term, vote, log.commit_index)
        self._number += 1
        self.inflight = self._number
        self._inflight_last = log.written_index = log.last_index
        self._inflight_state = self._hard_state
        self._inflight_held, self._held = self._held, []
        return WriteBatch(self._number, entries, state)

    def _next_start(self, term: Term, vote: NodeId, start: LogStart) -> WriteBatch:
        """Take a new start of the log into a write of its own: entries behind it come after it.

        What is held stays held while there are such entries: it may promise something about them.
        """
        if self._log.last_index == self._log.written_index:
            self._inflight_held, self._held = self._held, []
        # A commit index on disk says that everything up to it is there, too; the other entries come later.
        commit = min(self._log.commit_index, self._log.written_index)
        state = self._hard_state = HardState(term, vote, commit)
        self._start = None
        self._number += 1
        self.inflight = self._number
        self._inflight_last = self._log.written_index
        self._inflight_state = state
        return WriteBatch(self._number, (), state, start)

    def truncated(self) -> None:
        """Note that the log lost a suffix: the write in flight proves less than it did (rule W1)."""
        self._inflight_last = min(self._inflight_last, self._log.last_index)

    def persisted(self, number: int) -> list[Message]:
        """Note the end of a write and return the messages that waited for it."""
        if number != self.inflight:
            raise InvariantError(f"write {number} reported done while write {self.inflight} is in flight")
        self.inflight = 0
        # A write that was under way when the new start was wished for has not taken it.
        self.restarting = self.restarting and self._start is not None
        log = self._log
        # rule W1: `_inflight_last` shrank with every truncation since, so what was overwritten while the
        # write ran is not taken for durable, even if the same index and term came back after it.
        log.durable_index = max(log.durable_index, self._inflight_last)
        self.term = self._inflight_state.term
        self.vote = self._inflight_state.vote
        released, self._inflight_held = self._inflight_held, []
        return released
