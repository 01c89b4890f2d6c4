"""recover in this process: what it reports, what it refuses, and that nothing happens by accident."""

import json
import re

import msgspec
import pytest
from fake_node import FakeNode
from state_kit import CLUSTER, NodeDirectory, command, fingerprint, membership

from balsadb.cli.failing import sentences
from balsadb.cli.main import app
from balsadb.raft.types import HardState
from balsadb.storage.files import OsFiles
from balsadb.storage.inspect import inspect

FIVE = msgspec.structs.replace(CLUSTER, voters=(1, 2, 3, 4, 5))
WORD_OF_3 = "node-3-entry-4-term-2-of-11111111"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    monkeypatch.delenv("BALSADB_SERVERS", raising=False)


@pytest.fixture
def run(capsysbinary):
    """Run a command line; return status, standard output and standard error."""

    def run(*arguments):
        status = 0
        try:
            with sentences():
                app([str(argument) for argument in arguments])
        except SystemExit as exit:
            status = exit.code or 0
        out, err = capsysbinary.readouterr()
        return status, out.decode(), err.decode()

    return run


def make_node(path, node, last, term, commit, *, configuration=FIVE, cluster_id=b""):
    """A stopped node whose log ends with entry `last`, the only one of its term."""
    if cluster_id:
        configuration = msgspec.structs.replace(configuration, cluster_id=cluster_id)
    made = NodeDirectory(path, node=node)
    entries = [command(i, 1, b"SET", b"k", b"%d" % i, sequence=i - 1) for i in range(2, last)]
    final = command(last, term, b"SET", b"k", b"%d" % last, sequence=last - 1)
    made.write(membership(1, 1, configuration), *entries, final, state=HardState(term, 2, commit))
    return made


@pytest.fixture
def two(tmp_path):
    """Nodes 1 and 3 of five. That of node 1 is longer, and that of node 3 is the safer one."""
    return (
        make_node(tmp_path / "one", 1, 6, 1, 3),
        make_node(tmp_path / "three", 3, 4, 2, 2),
    )


def all_of(nodes):
    return [fingerprint(node.path) for node in nodes]


def test_the_report_says_which_log_is_the_safest_and_what_may_be_lost_and_changes_nothing(run, two):
    before = all_of(two)
    status, out, err = run("recover", *[node.path for node in two])
    assert (status, err) == (0, "")
    assert all_of(two) == before
    assert re.search(rf"^1 +{two[0].path} +1 +2 +6 +1 +3 +0 +1 2 3 4 5$", out, re.MULTILINE)
    assert re.search(rf"^3 +{two[1].path} +2 +2 +4 +2 +2 +0 +1 2 3 4 5$", out, re.MULTILINE)
    for sentence in (
        f"The longest safe log is that of node 3 at {two[1].path}. It ends with entry 4 of term 2.",
        "ACKNOWLEDGED WRITES MAY BE LOST: nodes 2, 4 and 5 could be a majority",
        "No disk here says that entry 4 ever got committed. The recovery commits them all",
        "Nothing has been changed",
        f"  balsadb recover {two[0].path} {two[1].path} --confirm {WORD_OF_3}\n",
    ):
        assert sentence in out


def test_the_report_for_programs(run, two):
    facts = json.loads(run("recover", *[node.path for node in two], "--json")[1])
    assert (facts["chosen"], facts["majority"], facts["lossless"]) == (3, False, False)
    assert (facts["missing"], facts["unconfirmed"], facts["confirm"]) == ([2, 4, 5], [4, 4], WORD_OF_3)
    assert [row["last_index"] for row in facts["survivors"]] == [6, 4]
    assert facts["survivors"][0]["cluster_id"] == "11" * 16


def test_with_the_word_the_chosen_directory_is_recovered_and_no_other_is_touched(run, two):
    before = fingerprint(two[0].path)
    status, out, err = run("recover", *[node.path for node in two], "--confirm", WORD_OF_3)
    assert (status, err) == (0, "")
    for part in (
        "node 3 is the only voter of its cluster from now on; this is recovery 1.",
        f"and was {'11' * 16}.",
        "Start node 3 with the command line that it always had",
        "Never start nodes 1, 2, 4 and 5 again",
    ):
        assert part in out
    assert fingerprint(two[0].path) == before
    start = inspect(str(two[1].path)).start
    assert (start.last_index, start.last_term) == (5, 3)
    configuration = start.configuration
    assert (configuration.voters, configuration.removed) == ((3,), (1, 2, 4, 5))
    assert configuration.former == (b"\x11" * 16,)
    assert configuration.cluster_id.hex() in out


def test_the_new_term_is_above_that_of_every_directory(run, tmp_path):
    nodes = [
        make_node(tmp_path / "one", 1, 4, 2, 2),
        make_node(tmp_path / "two", 2, 3, 2, 2),
    ]
    nodes[1].write(command(4, 2, b"SET", b"k", b"4", sequence=3), state=HardState(40, 0, 2))
    nodes[0].write(command(5, 2, b"SET", b"k", b"5", sequence=4))
    status, out, _ = run("recover", *[node.path for node in nodes], "--json", "--confirm", word(run, nodes))
    assert status == 0
    facts = json.loads(out)["recovered"]
    assert (facts["node"], facts["removed"]) == (1, [2, 3, 4, 5])
    assert inspect(str(nodes[0].path)).start.last_term == 41


def word(run, nodes):
    return json.loads(run("recover", *[node.path for node in nodes], "--json")[1])["confirm"]


@pytest.mark.parametrize(
    "wrong",
    ["yes", "", "node-3-entry-4-term-2-of-22222222", "node-1-entry-6-term-1-of-11111111", WORD_OF_3.upper()],
)
def test_any_other_word_does_nothing_and_the_right_one_stands_in_the_report_alone(run, two, wrong):
    before = all_of(two)
    status, out, err = run("recover", *[node.path for node in two], "--confirm", wrong)
    assert (status, out) == (2, "")
    assert f"nothing is recovered: {wrong!r} is not the word with which the report" in err
    assert WORD_OF_3 not in err
    assert all_of(two) == before


def test_the_same_line_does_nothing_a_second_time_nor_after_the_node_has_gone_on(run, two):
    line = ("recover", two[1].path, "--confirm", WORD_OF_3)
    assert run(*line)[0] == 0
    before = all_of(two)
    status, _, err = run(*line)
    assert status == 2
    assert "nothing is left to do: node 3 is the only voter since recovery 1; start it" in err
    status, out, _ = run("recover", two[1].path)
    assert status == 0
    assert "Node 3 is the only voter since recovery 1: start it." in out
    assert all_of(two) == before


@pytest.mark.parametrize("outgoing", [(1,), ()], ids=["on the way", "done"])
def test_a_recovered_cluster_whose_only_voter_another_node_became_can_be_recovered_again(
    run, tmp_path, outgoing
):
    """Node 1 was recovered, replaced by node 4, and node 4 was lost."""
    configuration = msgspec.structs.replace(
        FIVE, voters=(4,), outgoing=outgoing, learners=() if outgoing else (1,), former=(b"\x22" * 16,)
    )
    one = make_node(tmp_path / "one", 1, 6, 1, 3, configuration=configuration)
    status, out, err = run("recover", one.path)
    assert (status, err) == (0, "")
    assert "ACKNOWLEDGED WRITES MAY BE LOST: node 4 could be a majority" in out
    status, out, _ = run("recover", one.path, "--confirm", word(run, [one]))
    assert status == 0
    assert "node 1 is the only voter of its cluster from now on; this is recovery 2." in out


def test_a_word_for_other_directories_does_not_do_for_these(run, two):
    """With node 3's directory left out another log is the safest one."""
    before = all_of(two)
    status, _, err = run("recover", two[0].path, "--confirm", WORD_OF_3)
    assert status == 2
    assert "is not the word with which the report on these very data ends" in err
    assert all_of(two) == before


def test_a_majority_needs_no_recovery_and_is_refused_one_unless_forced(run, tmp_path):
    nodes = [
        make_node(tmp_path / "one", 1, 4, 2, 4, configuration=CLUSTER),
        make_node(tmp_path / "two", 2, 3, 2, 2, configuration=CLUSTER),
    ]
    line = ("recover", *[node.path for node in nodes])
    status, out, _ = run(*line)
    assert status == 0
    assert "A recovery is not needed: the voters are nodes 1, 2 and 3, and the logs of a majority" in out
    assert "Nothing that was acknowledged is lost" in out
    assert "--confirm" not in out
    before = all_of(nodes)
    confirmed = (*line, "--confirm", "node-1-entry-4-term-2-of-11111111")
    status, _, err = run(*confirmed)
    assert status == 2
    assert "nothing is recovered: the voters are nodes 1, 2 and 3" in err
    assert all_of(nodes) == before
    assert "--force --confirm node-1-entry-4-term-2-of-11111111" in run(*line, "--force")[1]
    assert run(*confirmed, "--force")[0] == 0


def test_half_of_four_needs_a_recovery_that_loses_nothing(run, tmp_path):
    four = msgspec.structs.replace(CLUSTER, voters=(1, 2, 3, 4))
    nodes = [make_node(tmp_path / f"{n}", n, 4, 2, 4, configuration=four) for n in (1, 2)]
    status, out, _ = run("recover", *[node.path for node in nodes])
    assert status == 0
    assert "Nothing that was acknowledged is lost" in out
    assert "No disk here says" not in out
    assert "--confirm node-1-entry-4-term-2-of-11111111" in out


@pytest.mark.parametrize("used", [0, 1])
def test_a_directory_that_a_process_uses_is_refused_chosen_or_not(run, two, used):
    lock = OsFiles().lock(str(two[used].path / "LOCK"))
    before = all_of(two)
    try:
        status, _, err = run("recover", *[node.path for node in two], "--confirm", WORD_OF_3)
        assert status == 2
        assert f"uses {two[used].path}; stop" in err
        assert all_of(two) == before
    finally:
        lock.close()


def test_a_damaged_directory_is_not_chosen_and_the_reason_is_told(run, two):
    (two[1].path / "META").unlink()
    status, out, _ = run("recover", *[node.path for node in two])
    assert status == 0
    assert f"{two[1].path} can't be chosen: a node would not start on it: the file is missing" in out
    assert "The longest safe log is that of node 1" in out
    status, out, _ = run("recover", two[1].path)
    assert status == 1
    assert "None of these directories can carry the cluster on. Restore the newest backup." in out
    status, _, err = run("recover", two[1].path, "--confirm", WORD_OF_3)
    assert status == 2
    assert "nothing is recovered" in err
    assert "can't be chosen" in err


def test_a_log_that_is_longer_but_useless_is_told_to_be_lost(run, two):
    two[1].write(command(5, 2, b"SET", b"k", b"5", sequence=4), state=HardState(2, 2, 5))
    two[1].compact(5, 2)  # and the state is not there
    status, out, _ = run("recover", *[node.path for node in two])
    assert status == 0
    assert f"{two[1].path} can't be chosen: the state that its log continues is lost" in out
    assert f"What {two[1].path} has behind that end, up to entry 5, is lost, acknowledged or not." in out


def test_directories_of_two_clusters_are_refused(run, tmp_path):
    one = make_node(tmp_path / "one", 1, 4, 2, 4)
    other = make_node(tmp_path / "two", 2, 4, 2, 4, cluster_id=b"\x22" * 16)
    status, _, err = run("recover", one.path, other.path)
    assert status == 2
    assert f"{one.path} and {other.path} belong to different clusters" in err


def test_two_copies_of_a_node_are_refused_and_one_named_twice_is_one(run, tmp_path):
    one, copy = (make_node(tmp_path / name, 1, 4, 2, 4) for name in ("one", "copy"))
    status, _, err = run("recover", one.path, copy.path)
    assert status == 2
    assert "are both of node 1; name one" in err
    assert len(json.loads(run("recover", one.path, f"{one.path}/", "--json")[1])["survivors"]) == 1


def test_what_is_no_directory_is_a_sentence(run, tmp_path):
    assert run("recover", tmp_path / "none") == (2, "", f"balsadb: {tmp_path}/none is not a directory\n")


def test_logs_that_contradict_each_other_are_told(run, tmp_path):
    nodes = [make_node(tmp_path / "one", 1, 6, 1, 6), make_node(tmp_path / "three", 3, 4, 2, 2)]
    status, out, _ = run("recover", *[node.path for node in nodes])
    assert status == 0
    assert f"{nodes[0].path} knows that entries up to 6 are committed, and that log lacks them" in out
    assert "Nothing that was acknowledged is lost" not in out


def test_inspect_tells_of_the_recovery_and_of_a_node_that_joined_later(run, two, tmp_path):
    run("recover", two[1].path, "--confirm", WORD_OF_3)
    assert (
        f"removed 1 2 4 5; recovered 1 time, last from cluster {'11' * 16}" in run("inspect", two[1].path)[1]
    )
    NodeDirectory(tmp_path / "late", node=9, cluster="")
    assert "joined   its cluster later" in run("inspect", tmp_path / "late")[1]


# ------------------------------------------------------------------------------------------ live servers


def server(id, last, term, **facts):
    node = FakeNode(id, commit=last - 1, applied=last - 1)
    node.facts |= {b"last_index": last, b"last_term": term, b"cluster_id": b"11" * 16}
    node.facts |= {name.encode(): value for name, value in facts.items()}
    return node


def test_servers_that_answer_are_compared_and_the_one_to_stop_is_named(run):
    with server(2, 9, 3) as two:
        status, out, err = run("recover", "--servers", f"{two.server},127.0.0.1:1")
    assert (status, err) == (0, "")
    assert re.search(rf"^2 +{two.server} +3 +- +9 +3 +8 +8 +1 2 3$", out, re.MULTILINE)
    assert "127.0.0.1:1 can't be chosen: connection refused\n" in out
    assert "ACKNOWLEDGED WRITES MAY BE LOST: nodes 1 and 3 could be a majority" in out
    assert f"stop node 2 at {two.server} and every other server of this cluster" in out
    assert "  balsadb recover DIR\n" in out
    assert "--confirm" not in out


def test_a_majority_that_answers_needs_no_recovery(run):
    with server(2, 9, 3) as two, server(3, 9, 4) as three:
        status, out, _ = run("recover", "--servers", f"{two.server},{three.server}")
    assert status == 0
    assert "The longest safe log is that of node 3" in out
    assert "A recovery is not needed: a majority of the voters answers." in out


def test_an_empty_directory_under_an_old_id_is_no_survivor_however_long_its_log_is_by_now(run):
    """What nodes 1 and 3 had acknowledged before that of node 3 was lost may be gone."""
    with server(2, 9, 3) as two, server(3, 9, 3, admitted=0) as three:
        status, out, _ = run("recover", "--servers", f"{two.server},{three.server}")
    assert status == 0
    assert f"{three.server} can't be chosen: this directory was never admitted to vote" in out
    assert "ACKNOWLEDGED WRITES MAY BE LOST: nodes 1 and 3 could be a majority" in out
    assert "A recovery is not needed" not in out


def test_nothing_is_recovered_over_the_network(run):
    with server(2, 9, 3) as two:
        status, _, err = run(
            "recover", "--servers", two.server, "--confirm", "node-2-entry-9-term-3-of-11111111"
        )
        asked = two.accepted
    assert status == 2
    assert "--confirm needs the data directory: stop the node, and name its directory" in err
    assert asked == 0


def test_no_server_at_all_is_a_failure(run):
    status, out, err = run("recover", "--servers", "127.0.0.1:1")
    assert (status, out) == (1, "")
    assert "no server answers at 127.0.0.1:1" in err
