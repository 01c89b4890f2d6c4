"""The network of the course's testers: reliable, unreliable, or with answers that come in any order."""

from __future__ import annotations

from collections.abc import Callable

from balsadb.raft.messages import (
    AppendResponse,
    Message,
    ProposeRejected,
    ReadIndexResponse,
    RoundAck,
    VoteResponse,
)
from balsadb.sim.faults import FaultPlan
from balsadb.sim.network import Network
from balsadb.wire.frame import encode_messages

LOSS = 0.1
"""Of requests and of answers, on the unreliable network."""
DELAY_US_MAX = 26_000
"""Of a message on the unreliable network."""
REORDERED = 2 / 3
"""Answers that are held back when the network reorders for long."""
HELD_US = (200_000, 2_200_000)

UNRELIABLE = FaultPlan(loss=LOSS, delay_us_min=0, delay_us_max=DELAY_US_MAX)
RELIABLE = FaultPlan()

ANSWERS = frozenset((AppendResponse, ProposeRejected, ReadIndexResponse, RoundAck, VoteResponse))
"""Messages that a remote procedure call would bring back; all others count as calls."""


class LabNetwork(Network):
    """Carries messages as the script says, and counts them."""

    unreliable = False
    drops: Callable[[Message], bool] | None = None
    """Which messages get lost right before they arrive, for scripts that need one certain loss."""
    reordering = False
    """Hold most answers back for 200 to 2,200 ms."""
    calls = 0
    """Messages that are not answers: what the testers count as remote procedure calls."""
    bytes_sent = 0
    """Of all messages, each in a frame of its own."""

    def set_unreliable(self, unreliable: bool) -> None:
        """Lose, delay and reorder messages from now on; or let them keep their order, as on connections."""
        self.unreliable = unreliable
        self.healthy = not unreliable
        self._plan = UNRELIABLE if unreliable else RELIABLE

    def send(self, message: Message) -> None:
        is_answer = type(message) in ANSWERS
        self.calls += not is_answer
        self.bytes_sent += len(encode_messages([message]))
        if self.reordering and is_answer and not self.healthy and self._rng.random() < REORDERED:
            self.sent += 1
            self._scheduler.after(self._rng.randint(*HELD_US), self._arrive, message)
        else:
            super().send(message)

    def _arrive(self, message: Message) -> None:
        if self.drops is not None and self.drops(message):
            self.lost += 1
        else:
            super()._arrive(message)
