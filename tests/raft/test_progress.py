"""A follower as its leader sees it."""

import msgspec
from raft_cluster import FAST

from balsadb.raft.progress import Pace, Progress

OPTIONS = msgspec.structs.replace(FAST, inflight_messages_max=2, inflight_bytes_max=100)


def test_a_probe_is_sent_once_and_its_answer_opens_the_pipeline():
    progress = Progress(2, 5, 0, True)
    progress.appended(6, 10)
    assert progress.probe_sent
    assert progress.next == 5
    assert progress.acknowledged(6)
    assert (progress.pace, progress.next, progress.match) == (Pace.REPLICATE, 7, 6)


def test_an_old_acknowledgement_does_not_end_a_probe():
    progress = Progress(2, 9, 0, True)
    progress.appended(9, 10)
    assert progress.acknowledged(3)
    assert (progress.pace, progress.next) == (Pace.PROBE, 9)


def test_the_window_is_bounded_by_messages_and_by_bytes_and_admits_one():
    progress = Progress(2, 1, 0, True)
    progress.become_replicate(1)
    assert progress.window_open(OPTIONS)
    progress.appended(1, 1000)
    assert not progress.window_open(OPTIONS)
    progress.acknowledged(1)
    progress.appended(2, 10)
    assert progress.window_open(OPTIONS)
    progress.appended(3, 10)
    assert not progress.window_open(OPTIONS)
    progress.acknowledged(3)
    assert progress.inflight_bytes == 0


def test_going_back_to_probe_forgets_what_was_in_flight():
    progress = Progress(2, 1, 0, True)
    progress.become_replicate(1)
    progress.appended(4, 10)
    progress.acknowledged(2)
    progress.become_probe(1)
    assert (progress.next, progress.inflight_bytes, progress.probe_sent) == (3, 0, False)


def test_a_follower_that_waits_for_a_state_goes_on_by_the_end_of_the_sending_or_by_itself():
    progress = Progress(2, 9, 0, True)
    progress.appended(9, 10)
    progress.become_snapshot()
    assert (progress.pace, progress.next, progress.probe_sent, progress.inflight_bytes) == (
        Pace.SNAPSHOT,
        9,
        False,
        0,
    )
    progress.acknowledged(7)
    assert progress.pace is Pace.SNAPSHOT
    progress.acknowledged(8)
    assert (progress.pace, progress.next) == (Pace.REPLICATE, 9)
    progress.become_snapshot()
    progress.become_probe(20)
    assert (progress.pace, progress.next) == (Pace.PROBE, 20)
