"""Every bug that we know how to make is found."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import pytest

from balsadb.sim.runs import Kind
from mutants.catalogue import FOCUSES, MUTANTS
from mutants.hunting import first_failure, hunt
from mutants.planting import Edit, Gone, planted

STOPS = ("AssertionError", "DataError", "InvariantError", "ProtocolError")
"""Exceptions with which BalsaDB stops itself. Any other says that the mutant is broken, and finds nothing."""


@pytest.fixture(scope="module")
def hunts(request):
    """All hunts of this session by the mutant's name, on all processors at once."""
    wanted = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        names = [params["mutant"].name for params in wanted if "mutant" in params]
        yield {name: pool.submit(hunt, name) for name in names}
        pool.shutdown(cancel_futures=True)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_bug_on_purpose_is_found(mutant, hunts):
    catch = hunts[mutant.name].result()
    assert catch.kind is not Kind.PASSED, f"{mutant.name} survives: {catch.problem}"
    assert catch.kind is not Kind.CRASH or catch.found_by in STOPS, catch.problem


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("focus", FOCUSES.values(), ids=FOCUSES)
def test_the_same_seeds_find_nothing_in_the_code_as_it_is(focus):
    assert first_failure(60, focus) is None


def test_every_bug_has_its_own_name():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_a_mutant_whose_place_is_gone_fails_loudly():
    with pytest.raises(Gone), planted((Edit("raft.quorum:is_quorum", "no such text", ""),)):
        pass


def test_planting_is_undone():
    from balsadb.raft import quorum

    before = quorum.is_quorum
    with planted((Edit("raft.quorum:is_quorum", "* 2 >", "* 3 >"),)):
        assert quorum.is_quorum is not before
    assert quorum.is_quorum is before
