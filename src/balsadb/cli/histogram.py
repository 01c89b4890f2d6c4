"""How long things took: many durations in little memory, with percentiles that are right to half a percent.

The buckets are those of an HDR histogram: up to 255 ns every nanosecond has its own, and from there on each
power of two is divided into 128 equal ones. A percentile is the middle of its bucket, so it is off by half a
bucket at most, which is 1/256 of the value. All durations up to 18 minutes need 4,480 buckets, however many
there are of them.

By hand, because it is forty lines, and the libraries that do it bring a second format, a compiler or a
dependency that the servers would have to carry too.
"""

from __future__ import annotations

from math import ceil

RELATIVE_ERROR = 1 / 256
"""How far a percentile may be from the true one, as a share of it."""
DURATION_NS_MAX = (1 << 40) - 1
"""About 18 minutes. What took longer counts as this long in percentiles; `max_ns` tells the truth."""

_FINE_BITS = 7
_BUCKETS = ((40 - _FINE_BITS - 1) << _FINE_BITS) + (2 << _FINE_BITS)


class Histogram:
    """Counts durations in nanoseconds."""

    __slots__ = ("_buckets", "count", "max_ns", "total_ns")

    def __init__(self) -> None:
        self._buckets = [0] * _BUCKETS
        self.count = 0
        self.total_ns = 0
        self.max_ns = 0

    def record(self, duration_ns: int, times: int = 1) -> None:
        """Count a duration; a negative one, which only a clock that was set back could give, as none."""
        duration_ns = max(0, duration_ns)
        if duration_ns > self.max_ns:
            self.max_ns = duration_ns
        self.count += times
        self.total_ns += duration_ns * times
        duration_ns = min(duration_ns, DURATION_NS_MAX)
        shift = max(0, duration_ns.bit_length() - _FINE_BITS - 1)
        self._buckets[(shift << _FINE_BITS) + (duration_ns >> shift)] += times

    def add(self, other: Histogram) -> None:
        """Count everything that another one has counted."""
        self._buckets = [mine + its for mine, its in zip(self._buckets, other._buckets, strict=True)]
        self.count += other.count
        self.total_ns += other.total_ns
        self.max_ns = max(self.max_ns, other.max_ns)

    def percentile_ns(self, percent: float) -> float:
        """Return the duration that `percent` of all did not exceed; 0 when there are none."""
        assert 0 <= percent <= 100, percent
        rank = max(1, ceil(self.count * percent / 100))
        seen = 0
        for index, times in enumerate(self._buckets):
            seen += times
            if seen >= rank:
                return min(_middle(index), self.max_ns)
        return 0

    @property
    def mean_ns(self) -> float:
        """The mean, which is exact; 0 when there are none."""
        return self.total_ns / self.count if self.count else 0.0


def _middle(index: int) -> float:
    """Return the duration in the middle of a bucket."""
    shift = max(0, (index >> _FINE_BITS) - 1)
    lowest = (index - (shift << _FINE_BITS)) << shift
    return lowest + ((1 << shift) - 1) / 2
