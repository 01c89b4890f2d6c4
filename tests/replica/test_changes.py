"""What operators ask of the cluster is carried out once and answered with what is certain (rule M2)."""

from __future__ import annotations

import pytest

from balsadb.kv.reply import OK, Refusal
from balsadb.raft.configuration import encode_configuration, fingerprint
from balsadb.raft.entry import encode_entry
from balsadb.raft.membership import Verdict, final, joint, planned
from balsadb.raft.messages import ChangeRequest, ChangeResponse, Heartbeat, Removed
from balsadb.raft.types import EntryKind, Member
from balsadb.replica.changes import ACCEPTED, GIVEN_UP, NO_LEADER, OPEN, SYNTAX, Wish, parse
from balsadb.replica.request import Lane, Request, RequestKind
from replica.rig import Rig

NEW = Member(4, "h:8", "h:7")


def ask(rig: Rig, text: str) -> Request:
    request = Request(Lane(), RequestKind.CHANGE, [text.encode().split()], [], 1, len(text))
    rig.replica.submit(request, rig.now_ms)
    rig.turn()
    return request


def asked(rig: Rig) -> list[ChangeRequest]:
    return [message for message in rig.sent if isinstance(message, ChangeRequest)]


def follower() -> Rig:
    rig = Rig(2, (1, 2, 3))
    rig.follow()
    return rig


def answer(rig: Rig, verdict: Verdict, reason: str = "") -> None:
    rig.replica.step(ChangeResponse(1, 2, 1, asked(rig)[-1].number, verdict, reason))
    rig.turn()


def bring(rig: Rig, configuration, index: int) -> None:
    """Let the leader's log bring a configuration."""
    payload = encode_configuration(configuration)
    rig.append(encode_entry(1, index, 1_000, EntryKind.MEMBERSHIP, payload), commit=index)


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("RAFT ADD 4 h:8 h:7", Wish(add=(NEW,))),
        ("raft add 5 i:8 i:7 4 h:8 h:7", Wish(add=(NEW, Member(5, "i:8", "i:7")))),
        ("RAFT REMOVE 3", Wish(remove=(3,))),
        ("RAFT REMOVE 3 2", Wish(remove=(2, 3))),
        ("RAFT REPLACE 3 4 h:8 h:7", Wish(add=(NEW,), remove=(3,))),
        ("RAFT TRANSFER", Wish(transfer=True)),
        ("RAFT TRANSFER 2", Wish(transfer=True, successor=2)),
    ],
)
def test_a_wish_is_read_from_its_words(text, wish):
    assert parse(text.encode().split()) == wish


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("RAFT ADD 0 h:8 h:7", "'0' is no node id"),
        ("RAFT ADD 4 h h:7", "an address: 'h' is not an address"),
        ("RAFT ADD 4 h:8", "syntax"),
        ("RAFT ADD 4 h:8 h:7 4 h:8 h:7", "a node is named twice"),
        ("RAFT REMOVE", "syntax"),
        ("RAFT REMOVE 3 3", "a node is named twice"),
        ("RAFT REMOVE three", "'three' is no node id"),
        ("RAFT TRANSFER 1 2", "syntax"),
        ("RAFT REMOVE " + " ".join(map(str, range(1, 40))), "syntax"),
    ],
)
def test_nonsense_is_refused_at_once(text, words):
    refusal = parse(text.encode().split())
    assert isinstance(refusal, Refusal)
    assert words in refusal.text.decode()
    rig = follower()
    assert ask(rig, text).replies == [refusal]
    assert asked(rig) == []


def test_a_follower_puts_the_wish_to_the_leader_and_answers_from_the_configurations_it_applies():
    rig = follower()
    request = ask(rig, "RAFT ADD 4 h:8 h:7")
    [message] = asked(rig)
    assert (message.target, message.add, message.remove) == (1, (NEW,), ())
    assert message.based_on == fingerprint(rig.replica.configuration)
    answer(rig, Verdict.BEGUN)
    adding = planned(rig.replica.configuration, [NEW], [])
    bring(rig, adding, 1)
    assert request.replies is None, "a learner is no voter yet"
    bring(rig, joint(adding), 2)
    assert request.replies is None
    bring(rig, final(joint(adding)), 3)
    assert request.replies == [OK]
    assert len(asked(rig)) == 1


def test_what_is_so_already_is_answered_at_once():
    rig = follower()
    request = ask(rig, "RAFT ADD 3 h:3 c:3")
    assert request.replies == [OK]
    assert asked(rig) == []


def test_a_lost_answer_is_asked_for_again_under_another_number_so_that_late_answers_are_told_apart():
    rig = follower()
    ask(rig, "RAFT REMOVE 3")
    for _ in range(60):
        rig.tick()
        rig.follow()
    assert len(asked(rig)) > 1
    numbers = [message.number for message in asked(rig)]
    assert len(set(numbers)) == len(numbers)


def test_a_refusal_ends_it_and_a_later_chance_does_not():
    rig = follower()
    request = ask(rig, "RAFT REMOVE 3")
    answer(rig, Verdict.LATER, "another change is being committed")
    assert request.replies is None
    rig.tick(10)
    assert len(asked(rig)) == 2
    answer(rig, Verdict.REFUSED, "that would lose the quorum")
    assert request.replies == [Refusal(b"ERR that would lose the quorum")]


def wait_for_the_deadline(rig: Rig) -> None:
    for _ in range(300):
        rig.tick()
        rig.follow()


def test_at_the_deadline_the_answer_says_what_is_certain():
    rig = follower()
    unanswered = ask(rig, "RAFT REMOVE 3")
    wait_for_the_deadline(rig)
    assert unanswered.replies == [OPEN]

    rig = follower()
    refused = ask(rig, "RAFT REMOVE 3")
    for _ in range(300):
        if asked(rig):
            answer(rig, Verdict.LATER, "leadership is being handed over")
        rig.sent.clear()
        rig.tick()
        rig.follow()
    assert refused.replies == [Refusal(b"TRYAGAIN leadership is being handed over; nothing was done")]

    rig = Rig(2, (1, 2, 3))
    alone = ask(rig, "RAFT REMOVE 3")
    rig.tick(300)
    assert alone.replies == [NO_LEADER]

    rig = follower()
    begun = ask(rig, "RAFT ADD 4 h:8 h:7")
    bring(rig, planned(rig.replica.configuration, [NEW], []), 1)
    wait_for_the_deadline(rig)
    assert begun.replies == [ACCEPTED]


@pytest.mark.parametrize("first", [None, Verdict.BEGUN])
@pytest.mark.parametrize("later", [Verdict.LATER, Verdict.REFUSED])
def test_rule_p1_what_is_said_to_a_repetition_does_not_settle_the_first_time(first, later):
    rig = follower()
    request = ask(rig, "RAFT REMOVE 3")
    if first is not None:
        answer(rig, first)
    rig.sent.clear()
    for _ in range(300):
        if asked(rig):
            answer(rig, later, "another change is being committed; one change at a time")
        rig.sent.clear()
        rig.tick()
        rig.follow()
    assert request.replies == [OPEN]


def test_a_newcomer_that_somebody_else_gives_up_is_told():
    rig = follower()
    request = ask(rig, "RAFT ADD 4 h:8 h:7")
    adding = planned(rig.replica.configuration, [NEW], [])
    bring(rig, adding, 1)
    bring(rig, planned(adding, [], [4]), 2)
    assert request.replies == [GIVEN_UP]


def test_a_handover_is_over_when_another_node_leads():
    rig = follower()
    request = ask(rig, "RAFT TRANSFER")
    assert asked(rig)[0].transfer
    answer(rig, Verdict.BEGUN)
    assert request.replies is None
    rig.replica.step(Heartbeat(3, 2, 2, 0, 0, 0))
    rig.turn()
    assert request.replies == [OK]


def test_rule_p5_a_removed_node_serves_nobody_and_says_so():
    rig = follower()
    waiting = ask(rig, "RAFT REMOVE 3")
    own = ask(rig, "RAFT REMOVE 2")
    [sent] = rig.submit("a")
    rig.replica.step(Removed(1, 2, 1))
    rig.tick()
    assert own.replies == [OK]
    assert waiting.replies == [OPEN]
    assert sent.replies[0].text.startswith(b"UNKNOWN")
    [late] = rig.submit("b")
    assert late.replies[0].text.startswith(b"CLUSTERDOWN node 2 was removed from this cluster")
    stale = Request(Lane(), RequestKind.STALE_READ, [[b"GET", b"a"]], [], 1, 1)
    rig.replica.submit(stale)
    assert stale.replies[0].text.startswith(b"CLUSTERDOWN node 2 was removed")
    assert rig.replica.idle


def test_rule_p5_a_node_that_joins_proposes_nothing_until_it_is_a_member():
    rig = Rig(4, (1, 2, 3))
    rig.follow()
    [early] = rig.submit("a")
    assert early.replies[0].text.startswith(b"CLUSTERDOWN this node is not a member of the cluster yet")
    adding = planned(rig.replica.configuration, [Member(4, "h:8", "h:7")], [])
    bring(rig, adding, 1)
    rig.submit("b")
    assert len(rig.proposed()) == 1


def test_the_syntax_names_all_forms():
    assert all(word in SYNTAX.text for word in (b"ADD", b"REMOVE", b"REPLACE", b"TRANSFER"))
