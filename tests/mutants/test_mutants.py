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

STOPS = ("AssertionError", "DataError", "EntriesLost", "InvariantError", "ProtocolError")
"""Exceptions with which BalsaDB stops itself. Any other says that the mutant is broken, and finds nothing."""


CLEAN_SEEDS = 30
"""Seeds of each special mixture of faults that must find nothing; the usual one has its own many runs."""


@pytest.fixture(scope="module")
def pool():
    """A process for every processor. A bug is planted in one of them and disturbs nobody else."""
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        yield pool
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def under_way(request, pool):
    """Everything that this session's tests wait for, all begun at once."""
    chosen = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    hunts = {
        params["mutant"].name: pool.submit(hunt, params["mutant"].name)
        for params in chosen
        if "mutant" in params
    }
    clean = {
        params["focus"]: pool.submit(first_failure, CLEAN_SEEDS, FOCUSES[params["focus"]])
        for params in chosen
        if "focus" in params
    }
    return hunts | clean


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_bug_on_purpose_is_found(mutant, under_way):
    catch = under_way[mutant.name].result()
    assert catch.kind is not Kind.PASSED, f"{mutant.name} survives: {catch.problem}"
    assert catch.kind is not Kind.CRASH or catch.found_by in STOPS, catch.problem


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("focus", FOCUSES)
def test_the_same_mixtures_of_faults_find_nothing_in_the_code_as_it_is(focus, under_way):
    assert under_way[focus].result() is None


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
