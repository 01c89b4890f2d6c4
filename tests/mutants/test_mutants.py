"""The simulator finds every bug that we know how to make."""

from __future__ import annotations

import pytest

from balsadb.sim.runs import Kind, run_seed
from mutants.catalogue import MUTANTS
from mutants.planting import Edit, Gone, planted


def first_failure(seeds: int) -> int | None:
    """Return the first seed that fails."""
    return next((seed for seed in range(seeds) if run_seed(seed)[0].kind is not Kind.PASSED), None)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_bug_on_purpose_is_found(mutant):
    with planted(mutant.edits):
        assert first_failure(mutant.seeds) is not None, f"{mutant.name} survives {mutant.seeds} seeds"


@pytest.mark.slow
def test_the_same_seeds_find_nothing_in_the_code_as_it_is():
    assert first_failure(60) is None


def test_a_mutant_whose_place_is_gone_fails_loudly():
    with pytest.raises(Gone), planted((Edit("raft.quorum:is_quorum", "no such text", ""),)):
        pass


def test_planting_is_undone():
    from balsadb.raft import quorum

    before = quorum.is_quorum
    with planted((Edit("raft.quorum:is_quorum", "* 2 >", "* 3 >"),)):
        assert quorum.is_quorum is not before
    assert quorum.is_quorum is before
