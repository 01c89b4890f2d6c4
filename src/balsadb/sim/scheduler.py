"""Simulated time: a queue of events, and nothing else that could make two runs differ."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Scheduler:
    """Runs callbacks in the order of simulated time; equal times in the order of their scheduling."""

    def __init__(self) -> None:
        self.now_us = 0
        """Simulated microseconds since the start of the run."""
        self.steps = 0
        """Events run so far."""
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._scheduled = 0

    @property
    def now_ms(self) -> int:
        """Simulated milliseconds since the start of the run."""
        return self.now_us // 1000

    def after(self, delay_us: int, callback: Callable[..., None], *arguments: Any) -> None:
        """Run `callback` in `delay_us` microseconds. Nothing is cancelled: callbacks check."""
        self._scheduled += 1
        heapq.heappush(self._queue, (self.now_us + max(0, delay_us), self._scheduled, callback, arguments))

    def run(self, until_us: int, enough: Callable[[], bool] | None = None) -> bool:
        """Run all events up to `until_us`, or until `enough` says so; returns whether it did."""
        queue = self._queue
        while queue and queue[0][0] <= until_us:
            when, _, callback, arguments = heapq.heappop(queue)
            self.now_us = when
            self.steps += 1
            callback(*arguments)
            if enough is not None and enough():
                return True
        self.now_us = until_us
        return False
