"""Linearizable reads of this node: one read-index question a turn (rules R1-R4).

    waiting (requests) -> asked (context) -> confirmed (index) -> applied >= index: run

A question is never asked twice: when its answer may be lost, its requests go back to `waiting` and join a
new question with a new context, so that a late answer to the old one confirms nothing (rule R3).
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
        self._confirmed: deque[tuple[Index, Term, list[Request]]] = deque()
        """Waiting for the applied index; in the order confirmed, with the term of the leader."""
        self._context = 0

    def add(self, request: Request) -> None:
        """Let a request join the next question; never one that has left already (rule R3)."""
        self._waiting.append(request)

    @property
    def idle(self) -> bool:
        """Tell whether no read waits for anything."""
        return not self._waiting and not self._asked and not self._confirmed

    def flush(self, now_ms: int) -> None:
        """Ask for a read index for all waiting requests together."""
        if self._confirmed and self._confirmed[0][1] != self._node.term:
            self._confirm_anew()
        if not self._waiting or not self._node.leader or len(self._asked) >= self._options.read_questions_max:
            return
        requests = [request for request in self._waiting if request.replies is None]
        self._waiting.clear()
        if not requests:
            return
        self._context += 1
        if self._node.read_index(self._context):
            self._asked[self._context] = Question(requests, now_ms)
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
                requests = self._asked.pop(context).requests
                for request in requests:
                    request.clock_ms = state.clock_ms
                self._confirmed.append((state.index, state.term, requests))

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
        back = [request for _, _, requests in self._confirmed for request in requests]
        back += [request for question in self._asked.values() for request in question.requests]
        self._confirmed.clear()
        self._asked.clear()
        self._waiting[:0] = back

    def runnable(self, applied: Index) -> Iterator[Request]:
        """Yield the open requests that the applied state may answer, in the order confirmed."""
        confirmed = self._confirmed
        while confirmed and confirmed[0][0] <= applied:
            for request in confirmed.popleft()[2]:
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
        groups = [requests for _, _, requests in self._confirmed]
        groups += [question.requests for question in self._asked.values()]
        groups.append(self._waiting)
        for group in groups:
            yield from [request for request in group if request.replies is None]
