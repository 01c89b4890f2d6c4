"""The order of the log proves a history linearizable exactly when it is one that explains it."""

from __future__ import annotations

import itertools
import random

import msgspec

from balsadb.kv.batch import ONCE_EXEC, encode_batch
from balsadb.kv.machine import Outcome, StateMachine
from balsadb.kv.reply import OK
from balsadb.sim.checkers.linearizability import Verdict, check
from balsadb.sim.checkers.witness import AppliedOrder, explains
from balsadb.sim.history import Action
from balsadb.sim.runs import run_seed
from sim.test_linearizability import append, delete, get, lived, naive, put

A, B, C = (b"k", b"a"), (b"k", b"b"), (b"k", b"c")


def test_an_order_that_fits_explains_the_answers():
    assert explains([put(0, 9, b"a"), put(0, 9, b"b"), get(10, 11, b"a")], [B, A])


def test_an_order_with_another_end_explains_nothing():
    assert not explains([put(0, 9, b"a"), put(0, 9, b"b"), get(10, 11, b"a")], [A, B])


def test_an_order_against_time_explains_nothing():
    operations = [append(0, 1, b"a", 2), append(2, 3, b"b", 1)]
    assert not explains(operations, [B, A])


def test_a_write_that_was_answered_and_never_done_is_not_explained():
    assert not explains([put(0, 1, b"a")], [])


def test_a_write_without_an_answer_may_have_been_done_or_not():
    assert explains([put(0, None, b"a"), get(5, 6, None), get(7, 8, b"a")], [A])
    assert explains([put(0, None, b"a"), get(5, 6, None), get(7, 8, None)], [])
    assert not explains([put(0, None, b"a"), get(5, 6, b"a"), get(7, 8, None)], [A])


def test_reads_never_go_back():
    operations = [put(0, 1, b"a"), put(2, 20, b"b"), get(3, 9, b"b"), get(4, 8, b"a"), get(10, 11, b"a")]
    assert explains(operations[:4], [A, B])
    assert not explains(operations, [A, B])


def test_only_the_first_of_several_copies_counts_and_strangers_are_passed_over():
    operations = [append(0, 1, b"a", 1), append(2, 3, b"b", 2), get(4, 5, b"ab")]
    assert explains(operations, [A, (b"k", b"of nobody"), B, A, A])


def test_two_operations_that_look_alike_are_left_to_the_search():
    operations = [append(0, 1, b"a", 1), append(2, 3, b"a", 2)]
    assert not explains(operations, [A, A])
    assert check(operations, order=[A, A]).verdict is Verdict.LINEARIZABLE


def test_some_order_of_the_writes_explains_a_history_exactly_when_some_order_of_everything_does():
    verdicts = []
    for seed in range(1500):
        operations = lived(random.Random(seed))
        for number, operation in enumerate(operations):
            if operation.action is Action.DELETE:
                operations[number] = msgspec.structs.replace(operation, argument=b"deletion %d" % number)
        effects = [(op.key, op.argument) for op in operations if op.action is not Action.GET]
        verdicts.append(
            any(
                explains(operations, order)
                for count in range(len(effects) + 1)
                for order in itertools.permutations(effects, count)
            )
        )
        assert verdicts[-1] == naive(operations), f"seed {seed}"
    assert 100 < sum(verdicts) < len(verdicts) - 100


def test_the_order_is_read_from_what_the_state_machine_answered():
    machine, order = StateMachine((1,)), AppliedOrder()

    def apply(index, commands, slots=()):
        payload = encode_batch(1, 1, index, commands)
        reads = [(slot, [b"GET", b"k"]) for slot in slots]
        outcome = machine.apply_commands(index, 1, 1_000, payload, reads)
        order.applied(index, payload, list(slots), outcome)
        return outcome.replies

    [session] = apply(1, [[b"SESSION", b"OPEN", b"nonce", b"60000"]])
    once = [b"ONCE", session, b"1", b"1", b"APPEND", b"k", b"b"]
    apply(2, [[b"SET", b"k", b"a"], once, [b"DEL", b"k", b"mark"]], slots=(0, 1, 1, 3))
    twice = [[ONCE_EXEC, session, b"2", b"1", b"2"], [b"APPEND", b"k", b"c"], [b"APPEND", b"l", b"d"]]
    stranger = [b"ONCE", b"nobody", b"1", b"1", b"APPEND", b"k", b"never"]
    apply(3, [*twice, stranger, once, [b"APPEND", b"k", b"e"]], slots=(1, 3, 5))
    order.applied(3, encode_batch(1, 1, 3, [[b"SET", b"k", b"again"]]), [], Outcome(1, 1, 3, True, [OK]))

    assert [effect for effect in order.effects() if effect[0] in (b"k", b"l")] == [
        (b"k", b"a"),
        (b"k", b"b"),
        (b"k", b"mark"),
        (b"k", b"c"),
        (b"l", b"d"),
        (b"k", b"b"),
        (b"k", b"e"),
    ]


def test_deletions_are_told_apart_by_their_marks():
    operations = [
        put(0, 1, b"a"),
        msgspec.structs.replace(delete(2, 3, True), argument=b"first"),
        msgspec.structs.replace(delete(2, 3, False), argument=b"second"),
    ]
    assert explains(operations, [A, (b"k", b"first"), (b"k", b"second")])
    assert not explains(operations, [A, (b"k", b"second"), (b"k", b"first")])


def test_the_log_spares_the_search_whatever_the_faults_were():
    for seed in (17, 109):  # histories with many unanswered calls, which took the search a long time
        outcome, world = run_seed(seed)
        assert outcome.problem == ""
        history = [operation for client in world.clients for operation in client.history]
        assert any(operation.returned is None for operation in history)
        finding = check(history, steps_max=0, order=world.order.effects())
        assert finding.verdict is Verdict.LINEARIZABLE
