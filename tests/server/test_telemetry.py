"""What is counted and timed on the way of requests."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from balsadb.kv.reply import Refusal
from balsadb.kv.table import COMMANDS, lookup
from balsadb.server.telemetry import (
    PENDING_MAX,
    SECONDS,
    CommandCounts,
    Histogram,
    Stages,
    quantile,
)


def test_a_duration_counts_in_the_first_bucket_whose_bound_it_does_not_pass():
    histogram = Histogram()
    for bound in SECONDS:
        histogram.add(bound)
    histogram.add(SECONDS[-1] + 1)
    assert histogram.counts == [1] * (len(SECONDS) + 1)
    assert histogram.total == len(SECONDS) + 1
    assert histogram.sum == pytest.approx(sum(SECONDS) + SECONDS[-1] + 1)


def test_a_quantile_lies_in_the_bucket_that_holds_it():
    histogram = Histogram()
    for _ in range(99):
        histogram.add(0.0007)
    histogram.add(0.3)
    assert 0.0005 < quantile(histogram.counts, 0.5) <= 0.001
    assert 0.0005 < quantile(histogram.counts, 0.99) <= 0.001
    assert 0.25 < quantile(histogram.counts, 1.0) <= 0.5


def test_nothing_counted_has_no_quantile():
    assert quantile(Histogram().counts, 0.5) is None


def test_a_duration_past_all_bounds_shows_as_the_last_bound():
    histogram = Histogram()
    histogram.add(1000.0)
    assert quantile(histogram.counts, 0.5) == SECONDS[-1]


def test_clients_can_make_up_neither_commands_nor_codes():
    counts = CommandCounts()
    counts.add(None, 3)
    counts.refused(None, Refusal(b"ERR unknown command"))
    counts.refused(lookup(b"get"), Refusal(b"MADEUP by somebody"))
    assert counts.received[b"unknown"] == 3
    assert set(counts.received) == {*COMMANDS, b"unknown"}
    assert counts.failed == {(b"unknown", b"ERR"): 1, (b"GET", b"other"): 1}


def test_an_internal_command_counts_under_the_name_that_the_client_sent():
    counts = CommandCounts()
    counts.refused(lookup(b"RAFT.VERSIONS"), Refusal(b"TRYAGAIN later"))
    assert counts.failed == {(b"WATCH", b"TRYAGAIN"): 1}


class Log(SimpleNamespace):
    def __init__(self) -> None:
        super().__init__(last_index=0, commit_index=0, applied_index=0)


def test_each_batch_is_timed_once_to_its_commit_and_once_to_its_apply():
    stages, log = Stages(), Log()
    log.last_index = 5
    stages.turn_ended(0.0, log)
    log.last_index = 9
    stages.turn_ended(0.0, log)
    assert stages.commit.total == 0
    log.commit_index = 8  # all of the first batch, a part of the second
    stages.turn_ended(0.0, log)
    assert (stages.commit.total, stages.apply.total) == (1, 0)
    log.commit_index = log.applied_index = 9
    stages.turn_ended(0.0, log)
    stages.turn_ended(0.0, log)
    assert (stages.commit.total, stages.apply.total, stages.turn.total) == (2, 2, 5)


def test_entries_that_were_replaced_are_not_timed_to_the_commit_of_others():
    stages, log = Stages(), Log()
    log.last_index = 9
    stages.turn_ended(0.0, log)
    log.last_index = 4  # a new leader undid the rest
    stages.turn_ended(0.0, log)
    log.commit_index = 9
    stages.turn_ended(0.0, log)
    assert stages.commit.total == 1


def test_what_the_log_held_at_the_start_is_not_timed():
    log = Log()
    log.last_index = 70
    stages = Stages(log.last_index)
    stages.turn_ended(0.0, log)
    log.commit_index = log.applied_index = 70
    stages.turn_ended(0.0, log)
    assert (stages.commit.total, stages.apply.total) == (0, 0)


def test_what_is_never_committed_takes_bounded_memory():
    stages, log = Stages(), Log()
    for _ in range(PENDING_MAX + 100):
        log.last_index += 1
        stages.turn_ended(0.0, log)
    log.commit_index = log.last_index
    stages.turn_ended(0.0, log)
    assert stages.commit.total == PENDING_MAX
