"""The safest of the logs that are left, and what may be missing from it."""

import msgspec
import pytest
from state_kit import CLUSTER, RECORDS, NodeDirectory, bookkeeping, command, membership
from wal_kit import entries

from balsadb.errors import UsageError
from balsadb.raft.types import Configuration, HardState
from balsadb.storage.datadir import DataDirectory
from balsadb.storage.files import OsFiles
from balsadb.storage.inspect import inspect
from balsadb.storage.survivors import Survivor, judge, survivor

FIVE = msgspec.structs.replace(CLUSTER, voters=(1, 2, 3, 4, 5))
FOUR = msgspec.structs.replace(CLUSTER, voters=(1, 2, 3, 4))


def one(node, last, term, *, commit=0, configuration=CLUSTER, **changes):
    """A survivor whose log ends with entry `last` of term `term`."""
    return Survivor(
        f"node-{node}",
        node,
        configuration.cluster_id,
        term=changes.pop("knows", term),
        last_index=last,
        last_term=term,
        commit=commit,
        configuration=configuration,
        **changes,
    )


# ------------------------------------------------------------------------------------ which log is safe


def test_the_greater_last_term_wins_over_the_longer_log():
    """Entries 8 and 9 of node 1 are of term 3; whoever was elected in term 4 did not have them."""
    assert judge([one(1, 9, 3), one(2, 7, 4)]).chosen.node == 2


def test_of_logs_with_the_same_last_term_the_longer_one_wins_whatever_the_terms_that_were_voted_in():
    assert judge([one(1, 7, 4, knows=90), one(2, 8, 4)]).chosen.node == 2


def test_of_equal_logs_that_of_a_voter_is_taken():
    configuration = msgspec.structs.replace(CLUSTER, voters=(2, 3), learners=(1,))
    judgement = judge([one(1, 8, 4, configuration=configuration), one(2, 8, 4, configuration=configuration)])
    assert judgement.chosen.node == 2


def test_a_longer_log_that_can_not_be_used_is_told():
    judgement = judge([one(1, 7, 4), one(2, 9, 4, unfit="its state is lost")])
    assert judgement.chosen.node == 1
    assert [other.node for other in judgement.longer] == [2]


def test_what_a_longer_log_has_that_can_not_be_used_is_not_promised_to_be_kept():
    """Entries 8 and 9 may be acknowledged: nodes 2, 3 and 4 are a majority."""
    useless = one(2, 9, 4, configuration=FOUR, unfit="its state is lost")
    judgement = judge([one(1, 7, 4, configuration=FOUR), useless])
    assert not judgement.silent_majority
    assert not judgement.lossless
    damaged = msgspec.structs.replace(useless, whole=False)
    assert judge([one(1, 7, 4, configuration=FOUR), damaged]).silent_majority


def test_a_majority_of_which_nobody_can_be_elected_is_none():
    """Node 2 refuses its vote to node 1, and can't campaign without its state."""
    judgement = judge([one(1, 7, 4), one(2, 9, 4, unfit="its state is lost")])
    assert not judgement.majority
    assert judge([one(1, 9, 4), one(2, 9, 4, unfit="its state is lost")]).majority


def test_nobody_is_chosen_when_nobody_is_fit():
    judgement = judge([one(1, 7, 4, unfit="x"), Survivor("d", whole=False, unfit="y")])
    assert judgement.chosen is None
    assert judgement.longer == []
    assert not judgement.unconfirmed


# ---------------------------------------------------------------------------------- what may be missing


@pytest.mark.parametrize(
    ("configuration", "read", "majority", "lossless", "missing"),
    [
        (CLUSTER, [1], False, False, [2, 3]),
        (CLUSTER, [1, 2], True, True, [3]),
        (FOUR, [1, 2], False, True, [3, 4]),  # no three of four do without both of them
        (FOUR, [1], False, False, [2, 3, 4]),
        (FIVE, [1, 2], False, False, [3, 4, 5]),
        (FIVE, [1, 2, 3], True, True, [4, 5]),
    ],
)
def test_what_a_majority_may_have_acknowledged_elsewhere(configuration, read, majority, lossless, missing):
    judgement = judge([one(node, 9, 2, configuration=configuration) for node in read])
    found = (judgement.majority, judgement.lossless, judgement.missing)
    assert found == (majority, lossless, missing)


def test_while_members_change_both_halves_are_needed_and_either_could_have_acknowledged_alone():
    """The joint configuration may never have been committed."""
    joint = Configuration(voters=(4, 5, 6), outgoing=(1, 2, 3), cluster_id=b"x")
    new = judge([one(node, 9, 2, configuration=joint) for node in (4, 5)])
    assert (new.majority, new.lossless, new.missing) == (False, False, [1, 2, 3, 6])
    both = judge([one(node, 9, 2, configuration=joint) for node in (1, 2, 4, 5)])
    assert (both.majority, both.lossless) == (True, True)


def test_a_learner_decides_nothing():
    configuration = msgspec.structs.replace(CLUSTER, learners=(4,))
    judgement = judge([one(node, 9, 2, configuration=configuration) for node in (1, 4)])
    assert (judgement.majority, judgement.lossless, judgement.missing) == (False, False, [2, 3])


def test_a_log_that_may_have_lost_its_end_is_as_if_it_was_not_read():
    judgement = judge([one(1, 9, 2), one(2, 9, 2, whole=False, unfit="its end is lost")])
    assert (judgement.majority, judgement.lossless, judgement.missing) == (False, False, [2, 3])


def test_what_any_survivor_knows_to_be_committed_is():
    judgement = judge([one(1, 9, 2, commit=4), one(2, 7, 2, commit=6)])
    assert judgement.chosen.node == 1
    assert judgement.unconfirmed == range(7, 10)
    assert not judge([one(1, 9, 2, commit=9)]).unconfirmed


def test_a_survivor_that_knows_more_to_be_committed_than_the_chosen_log_has_is_a_contradiction():
    """No election could have had that outcome: some disk has lost what was acknowledged."""
    judgement = judge([one(1, 9, 2, commit=9), one(2, 7, 3), one(3, 7, 3)])
    assert judgement.chosen.node == 2
    assert [other.node for other in judgement.contradicting] == [1]
    assert not judgement.lossless
    assert not judge([one(1, 9, 2, commit=7), one(2, 7, 3)]).contradicting


def test_the_term_is_the_greatest_that_anybody_knows():
    assert judge([one(1, 9, 2), one(2, 1, 1, knows=70)]).term == 70


# ------------------------------------------------------------------------------------- of one cluster?


def test_nodes_of_two_clusters_are_not_compared():
    other = msgspec.structs.replace(CLUSTER, cluster_id=b"\x22" * 16)
    with pytest.raises(UsageError, match="node-1 and node-2 belong to different clusters"):
        judge([one(1, 9, 2), one(2, 9, 2, configuration=other)])


def test_a_node_that_never_heard_the_id_is_known_by_the_initial_members():
    unnamed = msgspec.structs.replace(CLUSTER, cluster_id=b"")
    named, late = one(1, 9, 2, beginning="1=a:1"), one(2, 3, 1, configuration=unnamed, beginning="1=a:1")
    assert judge([named, late]).chosen.node == 1
    with pytest.raises(UsageError, match="different clusters"):
        judge([named, msgspec.structs.replace(late, beginning="1=z:1")])


def test_a_node_that_never_heard_the_id_does_not_make_one_cluster_of_two():
    """All three began with the same words, as on a machine where somebody tries things out."""
    other = msgspec.structs.replace(CLUSTER, cluster_id=b"\x99" * 16)
    nameless = msgspec.structs.replace(one(1, 3, 1), cluster_id=b"", beginning="1=h:1")
    named = [one(2, 9, 2, beginning="1=h:1"), one(3, 9, 3, configuration=other, beginning="1=h:1")]
    with pytest.raises(UsageError, match="node-2 and node-3 belong to different clusters"):
        judge([nameless, *named])


def test_two_copies_of_one_node_are_refused():
    with pytest.raises(UsageError, match="node-1 and copy are both of node 1; name one"):
        judge([one(1, 9, 2), msgspec.structs.replace(one(1, 9, 2), place="copy")])


def test_a_node_that_missed_a_recovery_counts_no_more_however_long_its_log_is():
    recovered = Configuration(voters=(1,), cluster_id=b"new", former=(CLUSTER.cluster_id,))
    judgement = judge([one(2, 99, 9), one(1, 9, 3, configuration=recovered)])
    assert judgement.chosen.node == 1
    assert "before a recovery" in judgement.survivors[0].unfit
    assert judgement.majority  # of the one voter that there is


# -------------------------------------------------------------------------------- what a directory is worth


@pytest.fixture
def node(tmp_path):
    """Node 1: its cluster's name and five commands, four entries known to be committed."""
    node = NodeDirectory(tmp_path / "node-1")
    node.write(
        membership(1, 1), *[command(i, 1, b"SET", b"k", b"%d" % i, sequence=i - 1) for i in range(2, 6)]
    )
    node.write(command(6, 3, b"SET", b"k", b"6", sequence=5), state=HardState(5, 2, 4))
    return node


def worth(node):
    return survivor(inspect(str(node.path)))


def test_a_directory_says_how_far_its_node_was(node):
    assert worth(node) == Survivor(
        place=str(node.path),
        node=1,
        cluster_id=CLUSTER.cluster_id,
        beginning="1=a:1,2=b:2,3=c:3",
        term=5,
        vote=2,
        last_index=6,
        last_term=3,
        commit=4,
        configuration=CLUSTER,
    )


def test_an_applied_entry_is_committed_and_its_configuration_may_be_in_the_state_alone(node):
    node.compact(5, 1)
    node.state(RECORDS, bookkeeping(len(RECORDS), index=5, term=1))
    found = worth(node)
    assert (found.commit, found.applied, found.configuration, found.unfit) == (5, 5, CLUSTER, "")


def test_a_directory_in_which_nobody_has_started_is_worth_nothing(tmp_path):
    (tmp_path / "d").mkdir()
    found = survivor(inspect(str(tmp_path / "d")))
    assert (found.node, found.whole, found.unfit) == (0, False, "no node has started here")


def test_a_damaged_log_is_worth_nothing(node):
    segment = node.segments()[0]
    data = bytearray(segment.read_bytes())
    data[600] ^= 1
    segment.write_bytes(data)
    found = worth(node)
    assert (found.node, found.whole) == (1, False)
    assert "a node would not start on it" in found.unfit


def test_a_log_that_ends_before_its_noted_end_is_worth_nothing(node):
    """The disk lost what the node had acknowledged (rule W5)."""
    node.note(lost=9)
    found = worth(node)
    assert not found.whole
    assert "entry 9 was acknowledged by this node, and it has lost it" in found.unfit


def test_a_directory_that_was_never_admitted_to_vote_is_worth_nothing(node):
    directory = DataDirectory.open(str(node.path), OsFiles(), 1, "1=a:1,2=b:2,3=c:3")
    directory.update_meta(msgspec.structs.replace(directory.meta, admitted=False))
    directory.close()
    found = worth(node)
    assert not found.whole
    assert "never admitted to vote" in found.unfit


def test_a_node_without_the_state_of_its_log_still_tells_what_was_acknowledged_but_can_not_go_on(node):
    node.compact(5, 1)
    found = worth(node)
    assert found.whole
    assert "the state that its log continues is lost" in found.unfit


def test_a_node_of_a_cluster_without_an_id_can_not_go_on(tmp_path):
    node = NodeDirectory(tmp_path / "d")
    node.write(*entries(1, 3), state=HardState(1, 1, 3))
    assert "had no id yet" in worth(node).unfit


def test_a_node_that_is_no_member_by_its_own_log_can_not_go_on(tmp_path):
    node = NodeDirectory(tmp_path / "d", node=4, cluster="")
    node.write(membership(1, 1), state=HardState(1, 0, 1))
    assert "not a member" in worth(node).unfit
