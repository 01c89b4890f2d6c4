"""The simulator finds every bug that we know how to make."""

from __future__ import annotations

import random
from functools import partial
from importlib import import_module

import pytest
from msgspec import structs

from balsadb.sim.faults import draw
from balsadb.sim.runs import Kind, run_seed
from mutants.catalogue import COUPS, MUTANTS, QUICK_RESTARTS, SPLIT_VOTES
from mutants.planting import Edit, Gone, planted


def first_failure(seeds: int, **focus) -> int | None:
    """Return the first seed that fails, with some fields of the fault plan fixed."""
    for seed in range(seeds):
        plan = structs.replace(draw(random.Random(seed)), **focus)
        if run_seed(seed, plan)[0].kind is not Kind.PASSED:
            return seed
    return None


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_bug_on_purpose_is_found(mutant):
    if mutant.scenario is not None:
        module, function, *arguments = mutant.scenario
        scenario = partial(getattr(import_module(module), function), *arguments)
        scenario()
        with planted(mutant.edits), pytest.raises(AssertionError):
            scenario()
        return
    with planted(mutant.edits):
        assert first_failure(mutant.seeds, **mutant.focus) is not None, (
            f"{mutant.name} survives {mutant.seeds} seeds"
        )


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "focus", [{}, COUPS, SPLIT_VOTES, QUICK_RESTARTS], ids=["any", "coups", "votes", "restarts"]
)
def test_the_same_seeds_find_nothing_in_the_code_as_it_is(focus):
    assert first_failure(60, **focus) is None


def test_a_mutant_whose_place_is_gone_fails_loudly():
    with pytest.raises(Gone), planted((Edit("raft.quorum:is_quorum", "no such text", ""),)):
        pass


def test_planting_is_undone():
    from balsadb.raft import quorum

    before = quorum.is_quorum
    with planted((Edit("raft.quorum:is_quorum", "* 2 >", "* 3 >"),)):
        assert quorum.is_quorum is not before
    assert quorum.is_quorum is before
