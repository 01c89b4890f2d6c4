"""A report shows the events that have to do with the failure, and no others."""

from balsadb.raft.messages import Append, AppendResponse, Heartbeat, VoteRequest, VoteResponse
from balsadb.sim.failures import LivenessViolation, SafetyViolation
from balsadb.sim.history import Action, Operation
from balsadb.sim.trace import TOLD_MAX, Event, explaining, message_event


def applied(server: int, index: int) -> Event:
    return Event(index, f"{server} applies {index}", (server,), index, index, False)


def test_events_of_other_servers_and_entries_are_left_out():
    events = [applied(1, 5), applied(2, 5), applied(1, 6), Event(9, "2 ends", (2,), 0, 0, False)]
    about = SafetyViolation("checker", "what", servers=(2,), index=5)
    assert explaining(events, about) == ["5 2 applies 5", "9 2 ends"]
    about = SafetyViolation("checker", "what", index=6)
    assert explaining(events, about) == ["6 1 applies 6", "9 2 ends"]


def test_what_goes_on_all_the_time_is_left_out_unless_the_cluster_stands_still():
    events = [applied(1, 5), message_event(7, Heartbeat(1, 2, 3, 4, 5))]
    assert explaining(events, SafetyViolation("checker", "what")) == ["5 1 applies 5"]
    assert explaining(events, LivenessViolation("nobody leads")) == [str(event) for event in events]


def test_of_a_history_everything_before_the_wrong_answer_is_told():
    wrong = Operation(1, Action.GET, b"k", b"", None, 5e-6, 6e-6)
    events = [applied(1, 5), message_event(6, Heartbeat(1, 2, 3, 4, 5)), applied(1, 7)]
    about = SafetyViolation("linearizability", "what", history=(wrong,))
    assert explaining(events, about) == [str(event) for event in events[:2]]


def test_only_the_last_ones_are_shown():
    events = [applied(1, index) for index in range(1, 3 * TOLD_MAX)]
    told = explaining(events, SafetyViolation("checker", "what"))
    assert told == [str(event) for event in events[-TOLD_MAX:]]


def test_a_message_says_what_it_is_about():
    event = message_event(7, Append(1, 2, 3, 10, 2, 9, 0, (b"x", b"y")))
    assert event == (7, "1->2 Append term 3 entries 11..12 commit 9", (1, 2), 11, 12, False)
    assert message_event(7, AppendResponse(2, 1, 3, 12)).what.endswith("match 12")
    assert message_event(7, AppendResponse(2, 1, 3, 0, True, 10, 8)).what.endswith("rejected 10, hint 8")
    assert message_event(7, VoteRequest(1, 2, 3, 10, 2, True)).what.endswith("pre log ends at 10 of 2")
    assert message_event(7, VoteResponse(2, 1, 3, False)).what.endswith("refused")
