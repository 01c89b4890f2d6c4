"""Changes of the members in the core: what they mean, and when the next step is due (rule M2)."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from raft_cluster import FAST, Cluster

from balsadb.errors import InvariantError
from balsadb.raft.configuration import change_fault, fingerprint
from balsadb.raft.membership import Denial, Verdict, _append, final, joint, planned
from balsadb.raft.messages import Removed, VoteRequest
from balsadb.raft.node import Role
from balsadb.raft.types import Configuration, Member

GOING_ON = msgspec.structs.replace(FAST, change_ticks=1)


def member(node: int) -> Member:
    return Member(node, f"peer:{node}", f"client:{node}")


THREE = Configuration(voters=(1, 2, 3), members=tuple(map(member, (1, 2, 3))))
ADDING = planned(THREE, [member(4)], [])


def cluster_of(size: int, configuration: Configuration = THREE) -> Cluster:
    return Cluster(size, options=GOING_ON, configuration=configuration)


def ask(cluster: Cluster, node: int, add=(), remove=(), based_on: int | None = None) -> tuple[Verdict, str]:
    """Ask for a change and return the answer."""
    asked = cluster.node(node)
    number = fingerprint(asked.configuration) if based_on is None else based_on
    assert asked.request_change(7, number, [member(new) for new in add], list(remove))
    cluster.pump(cluster.servers[node])
    cluster.settle()
    answer = cluster.servers[node].answers.pop()
    return Verdict(answer.verdict), answer.reason


def go_on(cluster: Cluster, leader: int, ticks: int = 10) -> None:
    for _ in range(ticks):
        cluster.tick(1, only=[leader])
        cluster.settle()


# ------------------------------------------------------------------ what a change means


@pytest.mark.parametrize(
    ("add", "remove", "voters", "removed"),
    [
        ([4], [], (1, 2, 3, 4), ()),
        ([4, 5], [], (1, 2, 3, 4, 5), ()),
        ([], [3], (1, 2), (3,)),
        ([], [2, 3], (1,), (2, 3)),
        ([4], [3], (1, 2, 4), (3,)),
        ([4, 5], [2, 3], (1, 4, 5), (2, 3)),
        ([4, 5, 6], [1, 2, 3], (4, 5, 6), (1, 2, 3)),
    ],
)
def test_a_change_goes_from_step_to_step_and_each_step_is_legal(add, remove, voters, removed):
    steps = [THREE, planned(THREE, [member(node) for node in add], remove)]
    if steps[-1].promote:
        assert steps[-1].voters == THREE.voters, (
            "nothing changes for the voters until newcomers have caught up"
        )
        assert steps[-1].learners == tuple(add)
        steps.append(joint(steps[-1]))
    assert steps[-1].outgoing == THREE.voters
    steps.append(final(steps[-1]))
    for old, new in pairwise(steps):
        assert change_fault(old, new) is None
    assert (steps[-1].voters, steps[-1].outgoing, steps[-1].learners) == (voters, (), ())
    assert steps[-1].removed == removed
    assert [m.id for m in steps[-1].members] == list(voters)
    assert not steps[-1].changing


def test_what_is_so_already_is_no_change():
    assert planned(THREE, [member(3)], []) is THREE
    assert planned(ADDING, [member(4)], []) is ADDING
    gone = final(planned(THREE, [], [3]))
    assert planned(gone, [], [3]) is gone


@pytest.mark.parametrize(
    ("old", "add", "remove", "verdict", "reason"),
    [
        (THREE, [], [9], Verdict.REFUSED, "node 9 is not a member of this cluster"),
        (THREE, [], [1, 2, 3], Verdict.REFUSED, "the last voter can't be removed"),
        (THREE, [3], [3], Verdict.REFUSED, "node 3 can't be added and removed at once"),
        (final(planned(THREE, [], [3])), [3], [], Verdict.REFUSED, "an id never comes back"),
        (ADDING, [5], [], Verdict.LATER, "node 4 is still catching up"),
        (ADDING, [], [3], Verdict.LATER, "node 4 is still catching up"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused_with_the_reason(old, add, remove, verdict, reason):
    with pytest.raises(Denial) as denial:
        planned(old, [member(node) for node in add], remove)
    assert denial.value.verdict is verdict
    assert reason in denial.value.reason


def test_an_id_and_an_address_belong_together():
    with pytest.raises(Denial, match="with the peer address peer:3"):
        planned(THREE, [Member(3, "elsewhere:1")], [])
    with pytest.raises(Denial, match="peer:3 is the peer address of node 3"):
        planned(THREE, [Member(4, "peer:3")], [])


def test_a_newcomer_may_be_given_up_and_those_it_was_to_replace_stay():
    replacing = planned(THREE, [member(4)], [3])
    assert replacing.retire == (3,)
    given_up = planned(replacing, [], [4])
    assert (given_up.voters, given_up.learners, given_up.retire) == ((1, 2, 3), (), ())
    assert given_up.removed == (4,)
    assert change_fault(replacing, given_up) is None


def test_a_newcomer_that_asked_for_itself_may_still_be_given_a_place():
    """`serve --join` asks to be added; `member replace` may come later."""
    replacing = planned(ADDING, [member(4)], [3])
    assert (replacing.promote, replacing.retire) == ((4,), (3,))


# --------------------------------------------------------------------------- going on


def test_rule_m2_a_change_that_was_made_for_another_configuration_does_nothing():
    cluster = cluster_of(4)
    cluster.elect(1)
    before = fingerprint(THREE)
    assert ask(cluster, 2, add=[4])[0] is Verdict.BEGUN
    last = cluster.node(1).last_index
    verdict, reason = ask(cluster, 2, remove=[3], based_on=before)
    assert (verdict, reason) == (Verdict.LATER, "the members have changed meanwhile")
    assert cluster.node(1).last_index == last


def test_a_node_that_knows_no_leader_asks_nobody():
    cluster = cluster_of(3)
    assert not cluster.node(2).request_change(1, fingerprint(THREE), [member(4)])


def test_a_learner_that_can_not_keep_up_is_not_promoted():
    cluster = cluster_of(4)
    cluster.elect(1)
    cluster.cut(1, 4)
    ask(cluster, 1, add=[4])
    go_on(cluster, 1, 8)
    assert cluster.node(1).configuration.promote == (4,)
    cluster.heal()
    go_on(cluster, 1, 12)
    assert cluster.node(1).configuration.voters == (1, 2, 3, 4)
    assert not cluster.node(1).configuration.changing


def test_rule_w5_a_learner_is_promoted_only_when_the_log_knows_its_directory():
    named = msgspec.structs.replace(THREE, cluster_id=b"c")
    cluster = cluster_of(4, named)
    cluster.elect(1)
    ask(cluster, 1, add=[4])
    go_on(cluster, 1, 12)
    assert cluster.node(1).configuration.promote == (4,)


def test_a_voter_that_a_new_leader_has_not_heard_yet_does_not_count_as_alive():
    cluster = cluster_of(3)
    cluster.elect(1)
    cluster.settle()
    cluster.crash(1)
    cluster.elect(2)
    verdict, reason = ask(cluster, 2, remove=[3])
    assert verdict is Verdict.REFUSED
    assert "node 1 can't be heard" in reason


def test_a_leader_that_leaves_hands_over_to_one_who_stays():
    five = Configuration(voters=(1, 2, 3, 4, 5), members=tuple(map(member, range(1, 6))))
    cluster = cluster_of(5, five)
    cluster.elect(1)
    assert ask(cluster, 1, remove=[1, 2])[0] is Verdict.BEGUN
    go_on(cluster, 1, 1)
    leaders = [node for node in (2, 3, 4, 5) if cluster.node(node).role is Role.LEADER]
    assert leaders
    assert leaders[0] in (3, 4, 5)
    go_on(cluster, leaders[0])
    assert cluster.node(leaders[0]).configuration.removed == (1, 2)


def test_a_leader_whose_successors_are_silent_ends_the_change_itself_and_steps_down():
    """The handover is tried; when nobody takes it, the change must not stand still."""
    cluster = cluster_of(3)
    cluster.elect(1)
    ask(cluster, 1, remove=[1])
    leader = cluster.node(1)
    for other in (2, 3):
        cluster.node(other).core.installing = True  # no time to lead
    for _ in range(60):
        go_on(cluster, 1, 1)
        if leader.role is not Role.LEADER:
            break
    assert leader.role is Role.FOLLOWER
    assert leader.configuration.removed == (1,)
    assert leader.removed


def test_a_node_that_was_told_of_its_removal_neither_votes_nor_campaigns():
    cluster = cluster_of(3)
    cluster.elect(1)
    node = cluster.node(3)
    node.step(Removed(1, 3, 1), 0)
    assert node.removed
    node.step(VoteRequest(2, 3, 9, 99, 9, False, True), 0)
    cluster.pump(cluster.servers[3])
    answers = [
        m for m in cluster.sent if m.source == 3 and type(m).__name__ == "VoteResponse" and m.term == 9
    ]
    assert [answer.granted for answer in answers] == [False]
    for _ in range(4 * FAST.election_ticks):
        cluster.tick(1, only=[3])
    assert node.role is Role.FOLLOWER


def test_a_step_that_is_not_legal_stops_the_leader():
    cluster = cluster_of(3)
    cluster.elect(1)
    broken = Configuration(voters=(1, 2, 3, 4), members=THREE.members)
    assert change_fault(THREE, broken) is not None
    assert change_fault(THREE, msgspec.structs.replace(THREE, promote=(9,))) is not None
    assert change_fault(THREE, msgspec.structs.replace(THREE, retire=(9,))) is not None
    core = cluster.node(1).core
    with pytest.raises(InvariantError):
        _append(core, core.state, broken)


def test_two_newcomers_with_one_address_are_refused():
    old = Configuration((1, 2, 3))
    twins = [Member(4, "h:1", "c:1"), Member(5, "h:1", "c:2")]
    with pytest.raises(Denial, match="h:1 is the peer address of node 4"):
        planned(old, twins, [])
