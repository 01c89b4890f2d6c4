"""Each checker fails when, and only when, it should."""

import random
from contextlib import nullcontext

import pytest

from balsadb.raft.node import Node, Options, Recovered, Role
from balsadb.raft.types import Configuration, HardState
from balsadb.sim.checkers.agreement import StateMachineSafety
from balsadb.sim.checkers.bounds import check_bounds
from balsadb.sim.checkers.completeness import check_new_leader
from balsadb.sim.checkers.digests import EqualDigests
from balsadb.sim.checkers.durability import Durability
from balsadb.sim.checkers.elections import ElectionSafety
from balsadb.sim.checkers.ledger import check_ledger
from balsadb.sim.checkers.log import LogChecker
from balsadb.sim.checkers.matching import LogMatching
from balsadb.sim.checkers.order import ConnectionOrder
from balsadb.sim.checkers.promises import check_restart
from balsadb.sim.failures import SafetyViolation
from balsadb.sim.history import Action, Operation

THREE = Configuration(voters=(1, 2, 3))


def appended(value: bytes, answered: bool = True) -> Operation:
    return Operation(1, Action.APPEND, b"k", value, 1 if answered else None, 0.0, 1.0 if answered else None)


class TestLedger:
    def test_every_acknowledged_append_once(self):
        check_ledger([appended(b"1,"), appended(b"2,")], {b"k": b"2,1,"}, overwritten=False)

    def test_one_without_an_answer_may_be_there_or_not(self):
        for final in (b"1,", b"1,2,"):
            check_ledger([appended(b"1,"), appended(b"2,", False)], {b"k": final}, overwritten=False)

    @pytest.mark.parametrize(("final", "words"), [(b"", "lost"), (b"1,1,", "twice"), (b"1,9,", "by nobody")])
    def test_lost_doubled_and_foreign_values_are_found(self, final, words):
        with pytest.raises(SafetyViolation, match=words):
            check_ledger([appended(b"1,")], {b"k": final}, overwritten=False)

    def test_with_overwrites_a_value_may_be_gone_but_never_doubled(self):
        check_ledger([appended(b"1,")], {b"k": b""}, overwritten=True)
        with pytest.raises(SafetyViolation, match="twice"):
            check_ledger([appended(b"1,")], {b"k": b"1,1,"}, overwritten=True)


class TestOrder:
    def order(self, only_appends: bool = True) -> ConnectionOrder:
        order = ConnectionOrder(only_appends)
        order.sent(Action.APPEND, b"k", b"1,")
        order.answered(Action.APPEND, b"k", b"1,", 2)
        order.sent(Action.APPEND, b"k", b"2,")
        return order

    def test_a_read_shows_what_was_answered_before_it(self):
        self.order().answered(Action.GET, b"k", b"", b"9,1,")
        with pytest.raises(SafetyViolation, match="lacks"):
            self.order().answered(Action.GET, b"k", b"", b"9,")

    def test_where_values_are_replaced_an_answered_one_may_be_gone(self):
        self.order(only_appends=False).answered(Action.GET, b"k", b"", b"9,")

    def test_a_read_does_not_show_what_was_sent_after_it(self):
        with pytest.raises(SafetyViolation, match="after the question"):
            self.order().answered(Action.GET, b"k", b"", b"1,2,")

    def test_another_connection_promises_nothing_about_this_one(self):
        order = self.order()
        order.reconnected()
        order.answered(Action.GET, b"k", b"", b"2,")


class TestElections:
    def test_a_term_has_one_leader(self):
        elections = ElectionSafety()
        assert elections.began(1, 5)
        assert not elections.began(1, 5), "it is no news"
        assert elections.began(2, 6)
        with pytest.raises(SafetyViolation, match="both lead term 5"):
            elections.began(2, 5)

    def test_nobody_leads_a_term_twice(self):
        elections = ElectionSafety()
        assert elections.began(1, 5)
        elections.ended(1)
        with pytest.raises(SafetyViolation, match="1 leads for the second time term 5"):
            elections.began(1, 5)


class TestCompleteness:
    def leader(self, terms: list[int], term: int) -> Node:
        log = Recovered(
            hard_state=HardState(term=term),
            last_index=len(terms),
            terms=tuple((index, of) for index, of in enumerate(terms, 1) if of not in terms[: index - 1]),
        )
        return Node(1, THREE, log, Options(), random.Random(0), 0)

    def test_a_leader_has_everything_that_was_applied_in_earlier_terms(self):
        applied = {1: (1, 7), 2: (2, 8), 3: (4, 9)}
        known = {1: 1, 2: 2, 3: 4}
        check_new_leader(self.leader([1, 2], 4), applied, known, 3)
        check_new_leader(self.leader([1, 2, 4], 5), applied, known, 3)
        check_new_leader(self.leader([1], 5), {}, {}, 0)

    def test_what_a_later_leader_committed_may_be_lacking(self):
        """An old entry on a minority; a candidate without it leads late; a newer leader has committed it."""
        check_new_leader(self.leader([1], 3), {1: (1, 7), 2: (1, 8)}, {1: 1, 2: 4}, 2)

    @pytest.mark.parametrize("terms", [[1], [1, 1], [1, 2, 3]], ids=["short", "old", "another"])
    def test_one_that_lacks_something_is_found(self, terms):
        applied, known = {1: (1, 7), 2: (2, 8), 3: (4, 9)}, {1: 1, 2: 2, 3: 4}
        with pytest.raises(SafetyViolation, match="leader completeness: leader 1 of term 5 lacks"):
            check_new_leader(self.leader(terms, 5), applied, known, 3)


class TestAgreement:
    def test_two_entries_at_an_index(self):
        checker = StateMachineSafety()
        checker.applied(1, 1, 1, b"x", 1)
        checker.applied(2, 1, 1, b"x", 1)
        with pytest.raises(SafetyViolation, match="state machine safety: server 3"):
            checker.applied(3, 1, 1, b"y", 1)
        with pytest.raises(SafetyViolation, match="state machine safety: server 3"):
            checker.applied(3, 1, 2, b"x", 2)


class TestMatching:
    def test_two_contents_of_an_index_and_term(self):
        checker = LogMatching()
        checker.written(1, [(1, 1, 7)])
        checker.written(2, [(1, 1, 7), (2, 1, 8)])
        checker.written(2, [(2, 2, 9)])
        with pytest.raises(SafetyViolation, match="log matching"):
            checker.written(3, [(2, 1, 9)])


class TestDurability:
    def test_an_acknowledgement_needs_a_majority_of_disks(self):
        checker = Durability()
        checker.synced(1, [(1, 1, 7)])
        with pytest.raises(SafetyViolation, match="durability"):
            checker.acknowledged(1, 1, [THREE])
        checker.synced(2, [(1, 1, 7)])
        checker.acknowledged(1, 1, [THREE])

    def test_an_overwritten_entry_does_not_count(self):
        checker = Durability()
        checker.synced(1, [(1, 1, 7)])
        checker.synced(2, [(1, 1, 7)])
        checker.synced(2, [(1, 2, 8)])
        with pytest.raises(SafetyViolation, match="durability"):
            checker.acknowledged(1, 1, [THREE])

    def test_both_halves_of_a_joint_configuration_count(self):
        checker = Durability()
        for node in (1, 2, 3):
            checker.synced(node, [(1, 1, 7)])
        with pytest.raises(SafetyViolation, match="durability"):
            checker.acknowledged(1, 1, [Configuration(voters=(1, 2, 3), outgoing=(4, 5, 6))])

    def test_a_synced_entry_is_there_after_a_restart(self):
        checker = Durability()
        checker.synced(1, [(1, 1, 7), (2, 1, 8)])
        checker.recovered(1, [(1, 1, 7), (2, 1, 8)])
        with pytest.raises(SafetyViolation, match="it is gone"):
            checker.recovered(1, [(1, 1, 7)])

    def test_the_log_may_let_go_what_the_state_on_disk_includes(self):
        checker = Durability()
        checker.synced(1, [(1, 1, 7), (2, 1, 8)])
        checker.covered(1, 1)
        checker.recovered(1, [(2, 1, 8)])
        checker.covered(2, 1)
        checker.acknowledged(1, 1, [THREE])
        with pytest.raises(SafetyViolation, match=r"only \[1\] have it"):
            checker.acknowledged(2, 1, [THREE])

    def test_a_log_that_an_installed_state_does_not_continue_may_go(self):
        for replaced in (True, False):
            checker = Durability()
            checker.synced(1, [(1, 1, 7), (2, 1, 8), (3, 1, 9)])
            checker.covered(1, 2)
            if replaced:
                checker.replaced(1, 2)
            with nullcontext() if replaced else pytest.raises(SafetyViolation, match="it is gone"):
                checker.recovered(1, [])

    def test_a_write_under_way_may_have_happened_or_not(self):
        for found in ([(1, 1, 7), (2, 1, 8)], [(1, 1, 7), (2, 2, 9)]):
            checker = Durability()
            checker.synced(1, [(1, 1, 7), (2, 1, 8)])
            checker.in_doubt(1, 2)
            checker.recovered(1, found)


class TestPromises:
    def restarted(self, term: int, vote: int) -> Node:
        return Node(1, THREE, Recovered(HardState(term, vote)), Options(), random.Random(0), 0)

    def test_a_term_does_not_go_back(self):
        check_restart(self.restarted(5, 0), HardState(5, 0))
        with pytest.raises(SafetyViolation, match="restarted in term 4 after 5"):
            check_restart(self.restarted(4, 0), HardState(5, 0))

    @pytest.mark.parametrize("vote", [0, 3])
    def test_a_vote_is_not_forgotten_within_its_term(self, vote):
        with pytest.raises(SafetyViolation, match=f"voted for 2 in term 5 and knows {vote}"):
            check_restart(self.restarted(5, vote), HardState(5, 2))

    def test_an_interrupted_write_may_have_brought_more(self):
        check_restart(self.restarted(5, 2), HardState(5, 0))
        check_restart(self.restarted(6, 3), HardState(5, 2))


def test_unequal_states_at_an_index_are_found():
    checker = EqualDigests()
    checker.observed(1, 5, b"a")
    checker.observed(2, 6, b"b")
    with pytest.raises(SafetyViolation, match="servers 1 and 3 have different states at index 5"):
        checker.observed(3, 5, b"c")


class TestBounds:
    def leading(self, **options: int) -> Node:
        node = Node(1, Configuration(voters=(1,)), Recovered(), Options(**options), random.Random(0), 0)
        for _ in range(2 * Options().election_ticks):
            node.tick(0)
            if (write := node.ready(True).write) is not None:
                node.persisted(write.number)
        assert node.role is Role.LEADER
        return node

    def test_a_leaders_proposals_are_bounded_but_for_a_single_one(self):
        node = self.leading(uncommitted_bytes_max=1_000)
        assert node.propose(bytes(5_000), node.term)
        check_bounds(node)
        node.core.state.outstanding_bytes = 0
        assert node.propose(b"x", node.term)
        with pytest.raises(SafetyViolation, match="bytes of uncommitted proposals and may hold 1000"):
            check_bounds(node)

    def test_what_is_committed_durable_and_applied_does_not_count(self):
        node = self.leading(uncommitted_bytes_max=1_000)
        for _ in range(5):
            assert node.propose(bytes(900), node.term)
            ready = node.ready(True)
            node.persisted(ready.write.number)
            node.applied(node.ready(True).committed[-1].index)
            check_bounds(node)

    def test_waiting_reads_are_bounded(self):
        node = self.leading(reads_max=1)
        node.core.state.reads_unsent += [None]
        check_bounds(node)
        node.core.state.reads_unsent += [None]
        with pytest.raises(SafetyViolation, match="holds 2 reads and may hold 1"):
            check_bounds(node)


class TestLog:
    """What is seen goes to everybody whom it concerns."""

    def test_an_acknowledgement_counts_for_the_entry_that_was_applied(self):
        checker = LogChecker()
        checker.applied(1, 1, 2, b"x", 2)
        assert checker.newest == 1
        for node in (1, 2):
            checker.synced(node, [(1, 2, 7)])
        checker.acknowledged(1, [THREE])
        checker.synced(2, [(1, 3, 8)])
        with pytest.raises(SafetyViolation, match="durability"):
            checker.acknowledged(1, [THREE])

    def test_entries_found_at_a_start_are_compared_with_those_of_others(self):
        checker = LogChecker()
        checker.synced(1, [(1, 1, 7)])
        with pytest.raises(SafetyViolation, match="log matching"):
            checker.recovered(2, [(1, 1, 8)])
