"""Second by second, and the last minute in one figure."""

from __future__ import annotations

from balsadb.server.history import RECENT, SAMPLES_MAX, History
from balsadb.server.telemetry import Histogram


class Recorded:
    def __init__(self) -> None:
        self.commands = 0
        self.commit, self.sync = Histogram(), Histogram()
        self.history = History(lambda: self.commands, {"commit": self.commit, "sync": self.sync})
        self.now_ms = 0
        self.second()

    def second(self, commands: int = 0, commit_s: float | None = None, length_ms: int = 1000):
        self.commands += commands
        if commit_s is not None:
            self.commit.add(commit_s)
        self.now_ms += length_ms
        self.history.take(self.now_ms, 1_700_000_000_000 + self.now_ms)
        return self.history.samples[-1] if self.history.samples else None


def test_a_sample_says_what_happened_since_the_one_before():
    recorded = Recorded()
    assert recorded.second(500, commit_s=0.002).commands_per_second == 500
    quiet = recorded.second()
    assert (quiet.commands_per_second, quiet.commit_p50_ms, quiet.commit_p99_ms) == (0, None, None)


def test_a_second_that_took_longer_is_counted_as_such():
    assert Recorded().second(500, length_ms=2000).commands_per_second == 250


def test_a_time_is_that_of_its_own_second():
    recorded = Recorded()
    assert 1 < recorded.second(commit_s=0.002).commit_p99_ms <= 2.5
    assert 100 < recorded.second(commit_s=0.2).commit_p99_ms <= 250


def test_the_last_minute_forgets_what_is_older():
    recorded = Recorded()
    recorded.second(commit_s=2.0)
    assert recorded.history.recent_us("commit", 0.99) > 1_000_000
    for _ in range(RECENT + 1):
        recorded.second(commit_s=0.002)
    assert 0 < recorded.history.recent_us("commit", 0.99) <= 2_500
    assert recorded.history.recent_us("sync", 0.99) == 0


def test_samples_are_numbered_because_clocks_go_back():
    recorded = Recorded()
    assert [recorded.second().number for _ in range(3)] == [1, 2, 3]


def test_only_so_many_samples_are_kept():
    recorded = Recorded()
    for _ in range(SAMPLES_MAX + 10):
        recorded.second()
    assert len(recorded.history.samples) == SAMPLES_MAX
