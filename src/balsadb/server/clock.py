"""The two clocks of a node, as one object that tests can replace."""

from __future__ import annotations

import time


class Clock:
    """The machine's clocks."""

    def monotonic_ms(self) -> int:
        """Return milliseconds that never go back; for time-outs and elections."""
        return time.monotonic_ns() // 1_000_000

    def wall_ms(self) -> int:
        """Return milliseconds since the Unix epoch; a hint for log time and never more (rule S6)."""
        return time.time_ns() // 1_000_000

    def wall_us(self) -> int:
        """Return microseconds since the Unix epoch, for the TIME command."""
        return time.time_ns() // 1_000
