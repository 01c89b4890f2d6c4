"""Reads of this node: one read-index question a turn (rules R1-R4), and how old its state may be.

    waiting (requests) -> asked (context) -> confirmed (index) -> applied >= index: run

A question is never asked twice: when its answer may be lost, its requests go back to `waiting` and join a
new question with a new context, so that a late answer to the old one confirms nothing (rule R3).

A question says more than its reads need: when its answer is applied, this node has everything that anybody
was told to be committed before it asked. That is the only proof of it. A message of the leader proves nothing
of the kind: it may have been under way for long, and its sender may have been deposed meanwhile. So a node
asks now and then although nobody reads, and knows at any time how old its own state is at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import msgspec

from balsadb.raft.node import Node
from balsadb.raft.ready import ReadState
from balsadb.raft.types import Index, Term
from balsadb.replica.limits import ReplicaOptions
from balsadb.replica.request import Request


class Question(msgspec.Struct, gc=False):
    """Requests that wait for one read index."""

    requests: list[Request]
    asked_ms: int


class Reads:
    """All reads of one node that have no answer yet."""

    def __init__(self, node: Node, options: ReplicaOptions) -> None:
        self._node = node
        self._options = options
        self._waiting: list[Request] = []
        self._asked: dict[int, Question] = {}
        """By context; in the order asked."""
        self._confirmed: deque[tuple[Index, Term, Question]] = deque()
        """Waiting for the applied index; in the order confirmed, with the term of the leader."""
        self._context = 0
        self._asked_last_ms: int | None = None
        """When the newest question was asked."""
        self.watched = False
        """Whether a READONLY read was answered since then: somebody sees how old the state is."""
        self._fresh_ms: int | None = None
        """Everything committed until then has been applied here; None before the first proof."""

    def add(self, request: Request) -> None:
        """Let a request join the next question; never one that has left already (rule R3)."""
        self._waiting.append(request)

    @property
    def idle(self) -> bool:
        """Tell whether no read waits for anything."""
        return next(self.everything(), None) is None

    def stale_ms(self, now_ms: int) -> int | None:
        """Return how old the applied state is at most: what was committed earlier than that is in it.

        None: that is not known, because nothing was confirmed since the start. Both ends are moments of this
        node's own monotonic clock, which counts whole milliseconds, and the one begun counts as well.
        """
        return None if self._fresh_ms is None else max(0, now_ms - self._fresh_ms) + 1

    def flush(self, now_ms: int) -> None:
        """Ask for a read index for all waiting requests together, or because nobody has asked for long."""
        if self._confirmed and self._confirmed[0][1] != self._node.term:
            self._confirm_anew()
        last = self._asked_last_ms
        pause_ms = self._options.probe_ms if self.watched else self._options.idle_probe_ms
        due = last is None or now_ms - last >= pause_ms
        if not (self._waiting or due):
            return
        if not self._node.leader or len(self._asked) >= self._options.read_questions_max:
            return
        requests = [request for request in self._waiting if request.replies is None]
        self._waiting.clear()
        if not (requests or due):
            return
        self._context += 1
        if self._node.read_index(self._context):
            self._asked[self._context] = Question(requests, now_ms)
            self._asked_last_ms, self.watched = now_ms, False
        else:
            self._waiting = requests

    def confirm(self, states: Iterable[ReadState]) -> None:
        """Take the answers of Raft; an unknown context belongs to a question that was given up.

        An answer serves every older question too: its index was taken after their reads began. So the
        reads of one connection never run in another order than asked (rule P6).
        """
        for state in states:
            if state.context not in self._asked:
                continue
            for context in [c for c in self._asked if c <= state.context]:
                question = self._asked.pop(context)
                for request in question.requests:
                    request.clock_ms = state.clock_ms
                self._confirmed.append((state.index, state.term, question))

    def drop(self, contexts: Iterable[int]) -> None:
        """Let the requests of lost questions, and of all asked after them, join the next one (rule P6)."""
        first = min((context for context in contexts if context in self._asked), default=None)
        if first is None:
            return
        back: list[Request] = []
        for context in [c for c in self._asked if c >= first]:
            back += self._asked.pop(context).requests
        self._waiting[:0] = back

    def _confirm_anew(self) -> None:
        """Let confirmed requests ask again, since the leader that confirmed them is gone.

        A new leader confirms at its own first entry (rule R1). If that entry is lost with its leader, the
        log may not get that far for as long as nobody writes, and all later reads would wait behind.
        """
        back = [request for _, _, question in self._confirmed for request in question.requests]
        back += [request for question in self._asked.values() for request in question.requests]
        self._confirmed.clear()
        self._asked.clear()
        self._waiting[:0] = back

    def runnable(self, applied: Index) -> Iterator[Request]:
        """Yield the open requests that the applied state may answer, in the order confirmed."""
        confirmed = self._confirmed
        while confirmed and confirmed[0][0] <= applied:
            question = confirmed.popleft()[2]
            self._fresh_ms = max(self._fresh_ms or 0, question.asked_ms)
            for request in question.requests:
                if request.replies is None:
                    yield request

    def tick(self, now_ms: int) -> Iterator[Request]:
        """Give up questions without an answer, and yield the open requests whose deadline has passed."""
        lost = [
            context
            for context, question in self._asked.items()
            if now_ms - question.asked_ms >= self._options.resend_ms
        ]
        if lost:
            self.drop(lost)
        # Without a leader nothing leaves `waiting` but by its deadline, and that may last for days.
        self._waiting = [request for request in self._waiting if request.replies is None]
        for request in self.everything():
            if request.deadline_ms <= now_ms:
                yield request

    def everything(self) -> Iterator[Request]:
        """Yield all open requests."""
        groups = [question.requests for _, _, question in self._confirmed]
        groups += [question.requests for question in self._asked.values()]
        groups.append(self._waiting)
        for group in groups:
            yield from [request for request in group if request.replies is None]
