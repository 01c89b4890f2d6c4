"""The last minutes of a node: how much it did and how fast, second by second."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from balsadb.raft.types import Millis
from balsadb.server.telemetry import Histogram, quantile

SAMPLES_MAX: Final = 300
"""Seconds that are remembered: five minutes."""
RECENT: Final = 60
"""Samples that count as "now" when a single figure is wanted."""


class Sample(msgspec.Struct, frozen=True):
    """One second."""

    number: int
    """1, 2, 3, ... since the start of the node."""
    time_ms: Millis
    """Wall clock at its end."""
    commands_per_second: float
    """Client commands that arrived."""
    commit_p50_ms: float | None
    """Half of the batches were committed within this time of coming into the log; None: there was none."""
    commit_p99_ms: float | None
    sync_p99_ms: float | None
    """99 of 100 writes to the log were on disk within this time; None: there was none."""


class History:
    """Keeps the samples, and what the histograms were a minute ago."""

    def __init__(self, commands: Callable[[], int], stages: Mapping[str, Histogram]) -> None:
        """`commands` counts client commands; `stages` has `commit` and `sync`, and maybe more."""
        self._commands = commands
        self._stages = stages
        self.samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)
        """The oldest first."""
        self._marks: deque[dict[str, list[int]]] = deque(maxlen=RECENT + 1)
        self._last_ms: Millis = 0
        self._last_commands = 0

    def take(self, now_ms: Millis, wall_ms: Millis) -> None:
        """Take a sample. `now_ms` is monotonic."""
        counts = {name: list(stage.counts) for name, stage in self._stages.items()}
        commands = self._commands()
        if self._marks:
            before = self._marks[-1]
            commit, sync = (_since(counts[name], before[name]) for name in ("commit", "sync"))
            seconds = max(1, now_ms - self._last_ms) / 1000
            self.samples.append(
                Sample(
                    self.samples[-1].number + 1 if self.samples else 1,
                    wall_ms,
                    round((commands - self._last_commands) / seconds, 1),
                    _ms(commit, 0.5),
                    _ms(commit, 0.99),
                    _ms(sync, 0.99),
                )
            )
        self._marks.append(counts)
        self._last_ms, self._last_commands = now_ms, commands

    def recent_us(self, stage: str, share: float) -> int:
        """Return a quantile of the last minute, in microseconds; 0: nothing happened."""
        counts = self._stages[stage].counts
        seconds = quantile(_since(counts, self._marks[0][stage]) if self._marks else counts, share)
        return 0 if seconds is None else round(seconds * 1_000_000)


def _since(counts: list[int], before: list[int]) -> list[int]:
    return [now - then for now, then in zip(counts, before, strict=True)]


def _ms(counts: list[int], share: float) -> float | None:
    seconds = quantile(counts, share)
    return None if seconds is None else round(seconds * 1000, 3)
