"""The simulated network between the nodes.

Worse than TCP on purpose: messages are lost, repeated, delayed and reordered one by one, because the core
promises to survive that, and because dropping and reconnecting does the same to a stream in the end.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from balsadb.raft.messages import Message
from balsadb.raft.types import NodeId
from balsadb.sim.faults import FaultPlan
from balsadb.sim.scheduler import Scheduler

HEALTHY_US_MAX = 1_000
"""Longest delay on a healthy link."""
STRAGGLE_US_MAX = 1_000_000
"""How long a straggling message is held back at most."""


class Network:
    """Carries messages between nodes, as badly as the plan says."""

    def __init__(
        self,
        scheduler: Scheduler,
        rng: random.Random,
        plan: FaultPlan,
        deliver: Callable[[Message], None],
    ) -> None:
        self._scheduler = scheduler
        self._rng = rng
        self._plan = plan
        self._deliver = deliver
        self._cut: set[tuple[NodeId, NodeId]] = set()
        self._clogged: dict[tuple[NodeId, NodeId], list[Message]] = {}
        self.healthy = False
        """True in the liveness phase: nothing is lost, repeated or held back any more."""
        self._arrivals: dict[tuple[NodeId, NodeId], int] = {}
        """When the newest message on each healthy link arrives."""
        self.sent = 0
        self.lost = 0

    # ------------------------------------------------------------------ faults

    def cut(self, links: Iterable[tuple[NodeId, NodeId]]) -> None:
        """Drop everything on these one-way links from now on."""
        self._cut.update(links)

    def mend(self, links: Iterable[tuple[NodeId, NodeId]]) -> None:
        """Repair these links."""
        self._cut.difference_update(links)

    def heal(self) -> None:
        """Repair all links, and let clogged ones flow."""
        self._cut.clear()
        for link in sorted(self._clogged):
            self.unclog(link)

    def clog(self, link: tuple[NodeId, NodeId]) -> None:
        """Hold everything on this link back until it is unclogged."""
        self._clogged.setdefault(link, [])

    def unclog(self, link: tuple[NodeId, NodeId]) -> None:
        """Let what was held back through, all at once."""
        for message in self._clogged.pop(link, []):
            self._scheduler.after(self._delay(), self._arrive, message)

    def forget(self, node: NodeId) -> None:
        """Drop what is held back to and from a node whose process died."""
        for link, messages in self._clogged.items():
            if node in link:
                messages.clear()

    def passes(self, source: NodeId, target: NodeId) -> bool:
        """Tell whether a stream from `source` to `target` gets through now, by chance too."""
        link = (source, target)
        if link in self._cut or link in self._clogged:
            return False
        return self.healthy or not self._plan.loss or self._rng.random() >= self._plan.loss

    # ----------------------------------------------------------------- sending

    def send(self, message: Message) -> None:
        """Send a message; it may arrive never, once, or more often."""
        self.sent += 1
        link = (message.source, message.target)
        rng, plan = self._rng, self._plan
        if link in self._cut:
            self.lost += 1
            return
        if link in self._clogged:
            self._clogged[link].append(message)
            return
        if self.healthy:
            # A healthy connection also keeps the order, and is fast.
            now, delay = self._scheduler.now_us, min(self._delay(), HEALTHY_US_MAX)
            arrival = self._arrivals[link] = max(now + delay, self._arrivals.get(link, 0))
            self._scheduler.after(arrival - now, self._arrive, message)
            return
        if plan.loss and rng.random() < plan.loss:
            self.lost += 1
            return
        copies = 2 if plan.duplication and rng.random() < plan.duplication else 1
        for _ in range(copies):
            delay = self._delay()
            if plan.straggling and rng.random() < plan.straggling:
                delay += rng.randrange(STRAGGLE_US_MAX)
            self._scheduler.after(delay, self._arrive, message)

    def _delay(self) -> int:
        return self._rng.randint(self._plan.delay_us_min, self._plan.delay_us_max)

    def _arrive(self, message: Message) -> None:
        # A cut also swallows what is under way, as a pulled cable does.
        if (message.source, message.target) in self._cut:
            self.lost += 1
            return
        self._deliver(message)
