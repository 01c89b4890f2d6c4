"""What happened in a run, and the part of it that explains a failure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from balsadb.raft.messages import (
    Append,
    AppendResponse,
    CommitAdvance,
    Heartbeat,
    Message,
    Propose,
    ProposeRejected,
    ReadIndexRequest,
    ReadIndexResponse,
    RoundAck,
    VoteRequest,
    VoteResponse,
)
from balsadb.raft.types import Index, NodeId
from balsadb.sim.failures import SafetyViolation

TOLD_MAX = 40
"""Events that a report shows at most: the last ones."""


class Event(NamedTuple):
    """Something that happened."""

    at_us: int
    """Simulated microseconds."""
    what: str
    servers: tuple[NodeId, ...]
    """Whom it concerns; empty for all."""
    first: Index
    """The log entries that it is about, up to `last`; 0 when it is about none."""
    last: Index
    routine: bool
    """True for what goes on all the time and rarely explains anything."""

    def __str__(self) -> str:
        return f"{self.at_us} {self.what}"


def explaining(events: Sequence[Event], failure: Exception) -> list[str]:
    """Return the lines of the last events that have to do with a failure."""
    if not isinstance(failure, SafetyViolation):
        return [str(event) for event in events[-TOLD_MAX:]]  # of a standstill, everything may be the reason
    concerned = (event for event in reversed(events) if _concerns(event, failure))
    return [str(event) for event in islice(concerned, TOLD_MAX)][::-1]


def _concerns(event: Event, failure: SafetyViolation) -> bool:
    if failure.history:
        return event.at_us <= max(operation.returned or 0 for operation in failure.history) * 1e6
    if event.routine or (failure.servers and event.servers and not {*failure.servers} & {*event.servers}):
        return False
    return not (failure.index and event.first) or event.first <= failure.index <= event.last


def message_event(now_us: int, message: Message) -> Event:
    """Describe the arrival of a message."""
    kind = type(message)
    about = _ABOUT.get(kind)
    words, first, last = about(message) if about is not None else ("", 0, 0)
    what = f"{message.source}->{message.target} {kind.__name__} term {message.term}{words}"
    return Event(now_us, what, (message.source, message.target), first, last, kind in _ROUTINE)


_ROUTINE = frozenset(
    {Heartbeat, RoundAck, ReadIndexRequest, ReadIndexResponse, CommitAdvance, Propose, ProposeRejected}
)

_About = tuple[str, Index, Index]


def _append(message: Append) -> _About:
    first, last = message.prev_index + 1, message.prev_index + len(message.entries)
    return f" entries {first}..{last} commit {message.commit}", first, last


def _append_response(message: AppendResponse) -> _About:
    if message.rejected:
        return (
            f" rejected {message.prev_index}, hint {message.hint_index}",
            message.prev_index,
            message.prev_index,
        )
    return f" match {message.match}", message.match, message.match


def _vote_request(message: VoteRequest) -> _About:
    return f"{' pre' if message.pre else ''} log ends at {message.last_index} of {message.last_term}", 0, 0


def _vote_response(message: VoteResponse) -> _About:
    return f"{' pre' if message.pre else ''} {'granted' if message.granted else 'refused'}", 0, 0


_ABOUT: Mapping[type, Callable[[Any], _About]] = {
    Append: _append,
    AppendResponse: _append_response,
    VoteRequest: _vote_request,
    VoteResponse: _vote_response,
}
"""What is said of a message besides its kind and term, and which entries it is about."""
