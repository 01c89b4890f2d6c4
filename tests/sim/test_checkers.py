"""The log and ledger checkers fail when, and only when, they should."""

import pytest

from balsadb.raft.types import Configuration
from balsadb.sim.checkers.ledger import check_ledger
from balsadb.sim.checkers.log import DigestChecker, LogChecker
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


class TestLog:
    def test_an_acknowledgement_needs_a_majority_of_disks(self):
        checker = LogChecker()
        checker.applied(1, 1, 1, b"x")
        checker.synced(1, [(1, 1, 7)])
        with pytest.raises(SafetyViolation, match="durability"):
            checker.acknowledged(1, THREE)
        checker.synced(2, [(1, 1, 7)])
        checker.acknowledged(1, THREE)

    def test_an_overwritten_entry_does_not_count(self):
        checker = LogChecker()
        checker.synced(1, [(1, 1, 7)])
        checker.synced(2, [(1, 1, 7)])
        checker.synced(2, [(1, 2, 8)])
        checker.applied(1, 1, 1, b"x")
        with pytest.raises(SafetyViolation, match="durability"):
            checker.acknowledged(1, THREE)

    def test_both_halves_of_a_joint_configuration_count(self):
        checker = LogChecker()
        checker.applied(1, 1, 1, b"x")
        for node in (1, 2, 3):
            checker.synced(node, [(1, 1, 7)])
        with pytest.raises(SafetyViolation, match="durability"):
            checker.acknowledged(1, Configuration(voters=(1, 2, 3), outgoing=(4, 5, 6)))

    def test_two_entries_at_an_index(self):
        checker = LogChecker()
        checker.applied(1, 1, 1, b"x")
        checker.applied(2, 1, 1, b"x")
        with pytest.raises(SafetyViolation, match="state machine safety"):
            checker.applied(3, 1, 1, b"y")

    def test_two_contents_of_an_index_and_term(self):
        checker = LogChecker()
        checker.synced(1, [(1, 1, 7)])
        with pytest.raises(SafetyViolation, match="log matching"):
            checker.synced(2, [(1, 1, 8)])

    def test_a_synced_entry_is_there_after_a_restart(self):
        checker = LogChecker()
        checker.synced(1, [(1, 1, 7), (2, 1, 8)])
        checker.recovered(1, [(1, 1, 7), (2, 1, 8)])
        with pytest.raises(SafetyViolation, match="it is gone"):
            checker.recovered(1, [(1, 1, 7)])

    def test_a_write_under_way_may_have_happened_or_not(self):
        for found in ([(1, 1, 7), (2, 1, 8)], [(1, 1, 7), (2, 2, 9)]):
            checker = LogChecker()
            checker.synced(1, [(1, 1, 7), (2, 1, 8)])
            checker.in_doubt(1, 2)
            checker.recovered(1, found)

    def test_unequal_states_at_an_index(self):
        checker = DigestChecker()
        checker.observed(1, 5, b"a")
        checker.observed(2, 6, b"b")
        with pytest.raises(SafetyViolation, match="digest"):
            checker.observed(3, 5, b"c")
