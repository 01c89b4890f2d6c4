"""The writes of this node on their way into the log (rules P1-P3).

A payload goes through these states:

    queue (requests) -> window (payload made, handed to Raft) -> applied: answered
                  ^                    |
                  +--- proved dead ----+

All payloads in the window are addressed to the same term: a payload for a newer term is made only once
the fate of the older ones is certain. So the numbers of a node's payloads stay without gaps, which the
state machine demands (rule P2).

Why a dead payload is certainly dead (rule P1): one addressed to term T can enter the log only as an entry
of term T, and terms never decrease along the log. When this node applies an entry of a later term, every
payload of T that it has not run by then will never run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import msgspec

from balsadb.errors import InvariantError
from balsadb.kv.batch import encode_batch
from balsadb.kv.reply import Reply
from balsadb.raft.node import Node
from balsadb.raft.types import Term
from balsadb.replica.limits import ReplicaOptions
from balsadb.replica.request import Command, Request


class Payload(msgspec.Struct, gc=False):
    """One batch that was handed to Raft."""

    sequence: int
    term: Term
    """The only term as whose entry it can enter the log."""
    data: bytes
    """The encoded batch; sent again byte for byte the same (rule P3)."""
    requests: list[Request]
    reads: list[tuple[int, Command]]
    """Local slots of all requests, by position in the whole batch (rule P6)."""


class Proposals:
    """The queue and the window of one origin."""

    def __init__(self, node: Node, boot: int, options: ReplicaOptions) -> None:
        self._node = node
        self._boot = boot
        self._options = options
        self._queue: deque[Request] = deque()
        self._queued_commands = 0
        self._window: deque[Payload] = deque()
        self._window_bytes = 0
        self._sequence = 0
        """Of the newest payload made; equal to the last applied one when the window is empty."""
        self._progress_ms = 0
        """When a payload was last handed on, sent again or applied."""
        self._refused_ms = -1
        """When Raft last refused a payload; the next attempt waits for a tick after it."""

    def add(self, request: Request) -> None:
        """Queue a request's writes for the next payload."""
        self._queue.append(request)
        self._queued_commands += len(request.commands)

    @property
    def waiting(self) -> bool:
        """Tell whether requests wait for a payload."""
        return bool(self._queue)

    @property
    def depths(self) -> tuple[int, int]:
        """Commands that wait for a payload, and payloads without a known fate."""
        return self._queued_commands, len(self._window)

    @property
    def idle(self) -> bool:
        """Tell whether nothing is queued or in flight."""
        return not self._queue and not self._window

    def flush(self, now_ms: int, disk_idle: bool) -> None:
        """Make payloads of the queue, as far as bounds and open fates allow, and hand them to Raft."""
        options, node = self._options, self._node
        while self._queue and node.leader:
            if self._window:
                # An older term's payloads may still run: a newer one must not overtake them (rule P2).
                if self._window[-1].term != node.term or self._window_bytes >= options.window_bytes_max:
                    return
                # The disk works anyway, or the leader on the payload before. Every payload costs all nodes a
                # turn, so larger ones make everybody faster (design section 10).
                busy = not disk_idle or node.leader != node.id
                if busy and self._queued_commands < options.collect_commands_min:
                    return
            if self._refused_ms == now_ms or not self._propose_next(now_ms):
                return

    def _propose_next(self, now_ms: int) -> bool:
        """Make one payload of the queue's head and hand it to Raft; False puts everything back."""
        requests, commands, reads = self._take()
        if not requests:
            return False
        data = encode_batch(self._node.id, self._boot, self._sequence + 1, commands)
        term = self._node.term
        if not self._node.propose(data, term):
            # Certainly not appended and not sent: the number is free again, the order is kept.
            self._requeue(requests)
            self._refused_ms = now_ms
            return False
        self._sequence += 1
        if not self._window:
            self._progress_ms = now_ms
        for request in requests:
            request.sent = True
        self._window.append(Payload(self._sequence, term, data, requests, reads))
        self._window_bytes += len(data)
        return True

    def _take(self) -> tuple[list[Request], list[Command], list[tuple[int, Command]]]:
        queue, options = self._queue, self._options
        requests: list[Request] = []
        commands: list[Command] = []
        reads: list[tuple[int, Command]] = []
        size = stale = 0
        while queue:
            request = queue[0]
            size += request.size
            if requests and (
                size > options.payload_bytes_max
                or len(commands) + len(request.commands) > options.payload_commands_max
            ):
                break
            queue.popleft()
            if request.replies is not None:  # its deadline passed while it waited
                stale += len(request.commands)
                continue
            if request.reads:
                base = len(commands)
                reads += [(base + position, command) for position, command in request.reads]
            commands += request.commands
            requests.append(request)
        self._queued_commands -= len(commands) + stale
        return requests, commands, reads

    def _requeue(self, requests: Iterable[Request]) -> None:
        """Put requests back before everything that waits, in their order; the answered ones are dropped."""
        alive = [request for request in requests if request.replies is None]
        self._queue.extendleft(reversed(alive))
        self._queued_commands += sum(len(request.commands) for request in alive)

    def local_slots(self, data: bytes) -> list[tuple[int, Command]]:
        """Return the reads that ride on an entry about to be applied, if it is our oldest payload."""
        if self._window and self._window[0].reads and self._window[0].data == data:
            return self._window[0].reads
        return []

    def ran(self, sequence: int, replies: list[Reply], now_ms: int) -> Iterator[tuple[Request, list[Reply]]]:
        """Take our payload `sequence` off the window, with the share of `replies` of each open request."""
        if not self._window or self._window[0].sequence != sequence:
            expected = self._window[0].sequence if self._window else None
            raise InvariantError(f"own payload {sequence} ran while {expected} is the oldest in flight")
        payload = self._window.popleft()
        self._window_bytes -= len(payload.data)
        self._progress_ms = now_ms
        start = 0
        for request in payload.requests:
            end = start + request.answers
            if request.replies is None:
                yield request, replies[start:end]
            start = end
        if start != len(replies):
            raise InvariantError(f"payload {sequence} has {start} answers due and {len(replies)} replies")

    def passed(self, last: int) -> Iterator[Request]:
        """Take the payloads up to `last` off the window: they ran, and their replies are lost (rule P4).

        Yields their open requests.
        """
        window = self._window
        while window and window[0].sequence <= last:
            payload = window.popleft()
            self._window_bytes -= len(payload.data)
            yield from [request for request in payload.requests if request.replies is None]

    def bury(self, term: Term) -> bool:
        """Note that an entry of `term` was applied: older payloads in the window are dead (rule P1).

        Their requests are queued again, first in line. Returns True when there were any.
        """
        window = self._window
        if not window or window[0].term >= term:
            return False
        self._requeue([request for payload in window for request in payload.requests])
        # The numbers of dead payloads are free: none of them has run and none of them can.
        self._sequence = window[0].sequence - 1
        window.clear()
        self._window_bytes = 0
        return True

    def resend(self, now_ms: int) -> None:
        """Hand the whole window to Raft again, in order (rule P3). The state machine skips what ran."""
        self._progress_ms = now_ms
        node = self._node
        if self._window and node.leader != node.id and self._window[0].term == node.term:
            # All in one message: they run only in their order, and several might lose it on the way.
            node.propose_again([payload.data for payload in self._window], node.term)

    def tick(self, now_ms: int) -> tuple[list[Request], list[Request]]:
        """Send again what made no progress, and return the requests whose deadline has passed.

        The first list has those whose fate is open (they are in flight), the second those which have
        certainly not been applied.
        """
        if self._window and now_ms - self._progress_ms >= self._options.resend_ms:
            self.resend(now_ms)
        while self._queue and self._queue[0].replies is not None:
            self._queued_commands -= len(self._queue.popleft().commands)
        flying: list[Request] = []
        for payload in self._window:
            flying += _overdue(payload.requests, now_ms)
            if payload.requests[-1].deadline_ms > now_ms:
                break
        return flying, _overdue(self._queue, now_ms)

    def everything(self) -> tuple[list[Request], list[Request]]:
        """Return all open requests: those in flight, and those that wait (used when the node stops)."""
        flying = [request for payload in self._window for request in payload.requests]
        return [r for r in flying if r.replies is None], [r for r in self._queue if r.replies is None]


def _overdue(requests: Iterable[Request], now_ms: int) -> list[Request]:
    late: list[Request] = []
    for request in requests:
        if request.deadline_ms > now_ms:
            break  # requests stand in the order of their deadlines, but for a few that were queued again
        if request.replies is None:
            late.append(request)
    return late
