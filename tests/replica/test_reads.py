"""Reads that wait for a confirmation, and for the state to get there."""

from balsadb.raft.ready import ReadState
from balsadb.replica.limits import ReplicaOptions
from balsadb.replica.reads import Reads
from balsadb.replica.request import Lane, Request, RequestKind


class Asked:
    """A Raft node that notes the contexts it is asked for."""

    id = 1
    leader = 2

    def __init__(self) -> None:
        self.term = 1
        self.contexts: list[int] = []

    def read_index(self, context: int) -> bool:
        self.contexts.append(context)
        return True


def read() -> Request:
    request = Request(Lane(), RequestKind.READ, [[b"GET", b"k"]], [], 1, 1)
    request.deadline_ms = 1_000
    return request


def test_a_confirmed_read_runs_when_the_state_has_its_index():
    node = Asked()
    reads = Reads(node, ReplicaOptions())
    request = read()
    reads.add(request)
    reads.flush(0)
    reads.confirm([ReadState(1, 5, 0, 1)])
    assert not list(reads.runnable(4))
    assert list(reads.runnable(5)) == [request]


def test_a_read_never_joins_a_question_that_has_left():
    node = Asked()
    reads = Reads(node, ReplicaOptions())
    first, second = read(), read()
    reads.add(first)
    reads.flush(0)
    reads.add(second)
    reads.confirm([ReadState(1, 5, 0, 1)])
    assert list(reads.runnable(5)) == [first]


def test_a_read_confirmed_at_an_entry_that_a_later_term_lost_asks_again():
    """Else it, and all reads behind it, would wait until somebody writes enough."""
    node = Asked()
    reads = Reads(node, ReplicaOptions())
    first, second = read(), read()
    reads.add(first)
    reads.flush(0)
    reads.confirm([ReadState(1, 181, 0, 1)])
    node.term = 2
    reads.add(second)
    reads.flush(1)
    assert node.contexts == [1, 2]
    reads.confirm([ReadState(2, 169, 0, 2)])
    assert list(reads.runnable(169)) == [first, second]


def test_a_late_answer_to_a_question_of_the_former_term_confirms_nothing():
    node = Asked()
    reads = Reads(node, ReplicaOptions())
    first, second = read(), read()
    reads.add(first)
    reads.flush(0)
    reads.add(second)
    reads.flush(0)
    reads.confirm([ReadState(1, 181, 0, 1)])
    node.term = 2
    reads.flush(1)
    reads.confirm([ReadState(2, 5, 0, 1)])
    assert not list(reads.runnable(1_000))


def test_reads_that_were_refused_for_want_of_a_leader_are_not_kept():
    """Clients ask again and again during an outage, so they would fill the memory."""
    node = Asked()
    node.leader = 0
    reads = Reads(node, ReplicaOptions())
    reads.add(read())
    reads.flush(0)
    for request in list(reads.tick(1_000)):
        request.replies = [None]
    assert not list(reads.tick(1_010))
    assert reads.idle


def test_the_state_is_as_old_as_the_newest_question_whose_answer_is_applied():
    node = Asked()
    reads = Reads(node, ReplicaOptions())
    assert reads.stale_ms(1_000) is None
    reads.flush(1_000)
    reads.confirm([ReadState(1, 5, 0, 1)])
    list(reads.runnable(4))
    assert reads.stale_ms(1_030) is None, "confirmed, and not applied"
    list(reads.runnable(5))
    assert reads.stale_ms(1_030) == 31
    reads.add(read())
    reads.flush(1_050)
    list(reads.runnable(5))
    assert reads.stale_ms(1_060) == 61, "asked, and not confirmed"
    reads.add(read())
    reads.flush(1_055)
    reads.confirm([ReadState(2, 6, 0, 1)])
    list(reads.runnable(6))
    assert reads.stale_ms(1_060) == 11, "the third question has no answer yet"


def test_a_node_on_which_nobody_reads_asks_now_and_then():
    node = Asked()
    reads = Reads(node, ReplicaOptions(idle_probe_ms=100))
    reads.flush(0)
    reads.flush(99)
    assert node.contexts == [1]
    reads.flush(100)
    assert node.contexts == [1, 2]
    reads.add(read())
    reads.flush(150)
    reads.flush(200)
    assert node.contexts == [1, 2, 3], "a read is a question like any other"


def test_a_node_that_answers_readonly_reads_asks_more_often():
    node = Asked()
    reads = Reads(node, ReplicaOptions(idle_probe_ms=1_000, probe_ms=100))
    reads.flush(0)
    reads.flush(100)
    assert node.contexts == [1]
    reads.watched = True
    reads.flush(100)
    reads.flush(200)
    assert node.contexts == [1, 2], "once for each time that it was looked at"


def test_a_question_without_reads_keeps_no_node_from_stopping():
    reads = Reads(Asked(), ReplicaOptions())
    reads.flush(0)
    assert reads.idle
    reads.add(read())
    assert not reads.idle


def test_a_node_without_a_leader_asks_nobody():
    node = Asked()
    node.leader = 0
    reads = Reads(node, ReplicaOptions())
    reads.flush(10_000)
    assert not node.contexts
