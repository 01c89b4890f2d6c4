"""What doctor says of a cluster: one test for each thing that can be the matter."""

from __future__ import annotations

import pytest

from balsadb.cli.diagnosis import (
    LAG_MAX,
    LEADER_CHANGES_MAX,
    SILENT_MS_MAX,
    SYNC_SLOW_US,
    SYNC_UNFIT_US,
    TURN_SLOW_US,
    Answer,
    Finding,
    Severity,
    diagnose,
)

GIB = 2**30


def members(*ids: int) -> list[dict]:
    return [
        {"id": i, "client_address": f"db{i}:7001", "peer_address": f"db{i}:8001", "silent_ms": 10}
        for i in ids
    ]


def well(node: int, leader: int = 1, voters=(1, 2, 3), **facts) -> Answer:
    """Return the answer of a node with which nothing is wrong."""
    usual = {
        "id": node,
        "role": "leader" if node == leader else "follower",
        "term": 4,
        "leader": leader,
        "commit_index": 100_000,
        "applied_index": 100_000,
        "voters": list(voters),
        "outgoing_voters": [],
        "learners": [],
        "promote": [],
        "cluster_id": "aa" * 16,
        "ready": 1,
        "unready": "",
        "loading": 0,
        "alarms": 0,
        "version": "1.0",
        "sync_p99_us": 900,
        "turn_p99_us": 700,
        "recent_leader_changes": 1,
        "log_bytes": 10_000_000,
        "disk_bytes": 100 * GIB,
        "disk_free_bytes": 50 * GIB,
    }
    answer = Answer(f"db{node}:7001", usual | facts, members(*voters))
    answer.clock_ms = 0.0
    return answer


def silent(node: int, error: str = "connection refused") -> Answer:
    return Answer(f"db{node}:7001", error=error)


def only(findings: list[Finding], severity: Severity) -> Finding:
    """Return the only finding, of this severity."""
    (finding,) = findings
    assert finding.severity is severity
    assert finding.remedy.endswith(".")
    assert finding.problem[0].islower() or finding.problem[0].isdigit()
    return finding


def test_nothing_is_wrong_with_three_nodes_that_are_well():
    assert diagnose([well(1), well(2), well(3)]) == []


def test_nobody_answers():
    finding = only(diagnose([silent(1), silent(2, "timed out")]), Severity.BROKEN)
    assert finding.problem == "no server answers (db1:7001: connection refused; db2:7001: timed out)"


def test_a_lost_majority_says_how_many_are_needed_and_whom_to_start():
    findings = diagnose([well(1, leader=0), silent(2), silent(3)])
    assert findings[0].severity is Severity.BROKEN
    assert findings[0].problem == "nobody leads: 1 of 3 voters answers, and 2 are needed"
    assert findings[0].remedy.startswith("Start nodes 2, 3;")
    assert {f.problem for f in findings[1:]} == {
        "node 2 at db2:7001 does not answer (connection refused)",
        "node 3 at db3:7001 does not answer (connection refused)",
    }


def test_enough_voters_without_a_leader_point_to_the_network_between_them():
    finding = only(diagnose([well(n, leader=0) for n in (1, 2, 3)]), Severity.BROKEN)
    assert finding.problem == "nobody leads, though enough voters answer here"
    assert "peer ports" in finding.remedy


def test_a_leader_that_clients_do_not_reach():
    problems = [f.problem for f in diagnose([silent(1), well(2), well(3)])]
    assert "node 1 leads and does not answer here" in problems


def test_one_dead_node_of_three_leaves_nothing_to_spare():
    finding = only(diagnose([well(1), well(2), silent(3)]), Severity.WARNING)
    assert finding.problem == (
        "node 3 at db3:7001 does not answer (connection refused); with one more loss the cluster stops"
    )


def test_a_node_that_hangs_is_not_to_be_started():
    finding = only(diagnose([well(1), well(2), silent(3, "no answer in time")]), Severity.WARNING)
    assert finding.remedy.startswith("Its process hangs")


def test_one_dead_node_of_five_leaves_one_to_spare():
    five = (1, 2, 3, 4, 5)
    finding = only(diagnose([*(well(n, voters=five) for n in five[:4]), silent(5)]), Severity.WARNING)
    assert finding.problem == "node 5 at db5:7001 does not answer (connection refused)"


def test_an_address_that_is_no_members():
    finding = only(diagnose([well(1), well(2), well(3), silent(9)]), Severity.WARNING)
    assert finding.problem == "db9:7001 does not answer (connection refused)"
    assert finding.remedy == "No member that the others know is there; check the address."


def test_a_member_that_nobody_can_ask():
    findings = diagnose([well(1, voters=(1, 2, 4)), well(2, voters=(1, 2, 4))])
    assert only(findings, Severity.WARNING).problem.startswith("node 4 is a member and could not be asked")


@pytest.mark.parametrize(
    ("silent_ms", "since"), [(SILENT_MS_MAX + 1, "for 3.0 s"), (12_400, "for 12 s"), (None, "since it leads")]
)
def test_a_node_that_its_leader_does_not_hear(silent_ms, since):
    leader = well(1)
    leader.members[2]["silent_ms"] = silent_ms
    finding = only(diagnose([leader, well(2), well(3)]), Severity.WARNING)
    assert finding.problem == f"node 3 answers here, but its leader, node 1, has not heard it {since}"
    assert "db3:8001" in finding.remedy


def test_a_node_that_runs_and_can_not_serve():
    finding = only(
        diagnose([well(1), well(2), well(3, ready=0, unready="the log is being replayed")]), Severity.WARNING
    )
    assert finding.problem == "node 3 runs and can't serve: the log is being replayed"


def test_several_leaders():
    finding = only(
        diagnose([well(1), well(2, leader=2, term=5), well(3, leader=2, term=5)]), Severity.WARNING
    )
    assert finding.problem == "nodes 1, 2 all say that they lead"


def test_malformed_entries():
    finding = only(diagnose([well(1), well(2, alarms=3), well(3)]), Severity.BROKEN)
    assert finding.problem == "node 2 skipped 3 entries of the log that it could not read"


def test_nodes_of_different_clusters_even_under_one_id():
    finding = only(diagnose([well(1), well(1, cluster_id="bb" * 16)]), Severity.BROKEN)
    assert (
        finding.problem
        == "the servers belong to different clusters: db1:7001 to aaaaaaaa, db1:7001 to bbbbbbbb"
    )


def test_a_disk_on_which_nobody_can_lead():
    finding = only(diagnose([well(1), well(2), well(3, sync_p99_us=900_000)]), Severity.WARNING)
    assert finding.problem == "node 3's disk takes 900 ms for a sync; it can't lead"


@pytest.mark.parametrize(
    ("sync_us", "found"), [(SYNC_SLOW_US - 1, 0), (SYNC_SLOW_US, 1), (SYNC_UNFIT_US - 1, 1)]
)
def test_a_slow_disk(sync_us, found):
    findings = diagnose([well(1), well(2), well(3, sync_p99_us=sync_us)])
    assert [f.problem.endswith("every write that needs it waits") for f in findings] == [True] * found


@pytest.mark.parametrize(
    ("free", "whole", "found"),
    [(4 * GIB, 100 * GIB, 1), (6 * GIB, 100 * GIB, 0), (2**28, GIB, 1), (50 * GIB, 0, 0)],
)
def test_a_full_disk(free, whole, found):
    findings = diagnose([well(1, disk_free_bytes=free, disk_bytes=whole), well(2), well(3)])
    assert ["is nearly full" in f.problem for f in findings] == [True] * found


def test_a_log_that_does_not_get_shorter():
    finding = only(diagnose([well(1), well(2, log_bytes=3 * GIB), well(3)]), Severity.WARNING)
    assert finding.problem == "node 2's log takes 3.0 GiB"


def test_a_node_that_is_held_up():
    finding = only(diagnose([well(1), well(2, turn_p99_us=TURN_SLOW_US), well(3)]), Severity.WARNING)
    assert finding.problem == "node 2 is held up: turns of its loop take 100 ms"


def test_a_node_that_does_not_keep_up():
    behind = well(3, applied_index=100_000 - LAG_MAX - 1)
    finding = only(diagnose([well(1), well(2), behind]), Severity.WARNING)
    assert finding.problem == "node 3 is 20,001 entries behind"
    assert diagnose([well(1), well(2), well(3, applied_index=100_000 - LAG_MAX)]) == []


def test_a_leader_that_changes_often():
    often = well(1, recent_leader_changes=LEADER_CHANGES_MAX + 1)
    finding = only(diagnose([often, well(2), well(3)]), Severity.WARNING)
    assert finding.problem == "the leader changed 5 times in the last ten minutes"


def test_clocks_that_disagree_but_not_when_the_answer_was_slow():
    late = well(3)
    late.clock_ms = 12_000.0
    finding = only(diagnose([well(1), well(2), late]), Severity.WARNING)
    assert finding.problem == "the clocks of nodes 1 and 3 are 12 s apart"
    late.clock_doubt_ms = 11_500.0
    assert diagnose([well(1), well(2), late]) == []


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ([well(1, voters=(1,))], "there is one voter: the loss of its disk is the loss of everything"),
        ([well(1, voters=(1, 2)), well(2, voters=(1, 2))], "2 voters survive no more losses than 1"),
        ([well(1, version="1.1"), well(2), well(3)], "the nodes run different versions: 1.0, 1.1"),
        (
            [well(1, learners=[2], voters=(1, 3, 4)), *(well(n) for n in (2, 3, 4))],
            "node 2 listens and does not vote",
        ),
        (
            [well(1, learners=[4], promote=[4], voters=(1, 2, 3)), *(well(n) for n in (2, 3, 4))],
            "a change of the members is under way",
        ),
    ],
)
def test_what_is_worth_knowing_is_no_fault(answers, problem):
    assert only(diagnose(answers), Severity.NOTE).problem == problem


def test_the_worst_comes_first():
    findings = diagnose([well(1, version="2"), well(2, alarms=1), silent(3)])
    assert [finding.severity.name for finding in findings] == ["BROKEN", "WARNING", "NOTE"]


def test_a_server_that_tells_less_is_not_judged_by_what_it_does_not_tell():
    bare = Answer("db1:7001", {"id": 1, "role": "leader", "leader": 1, "term": 1, "voters": [1, 2, 3]})
    assert diagnose([bare, well(2), well(3)]) == []
