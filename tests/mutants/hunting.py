"""Looks for one bug on purpose, in a process of its own that has no other use."""

from __future__ import annotations

import contextlib
import io
import os
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from msgspec import structs

from balsadb.sim.checkers.linearizability import Verdict
from balsadb.sim.faults import draw
from balsadb.sim.runs import Kind, Outcome, run_seed
from mutants.catalogue import MUTANTS, Mutant
from mutants.planting import planted

TESTS = Path(__file__).parent.parent


class Catch(NamedTuple):
    """How a bug was found."""

    seed: int | None
    """The first seed that failed; None for none, and for a scenario."""
    kind: Kind
    found_by: str
    """The checker, the exception, or the scenario."""
    problem: str


def hunt(name: str) -> Catch:
    """Plant a mutant and look for it."""
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    return _play(mutant) if mutant.scenario else _search(mutant)


def _search(mutant: Mutant) -> Catch:
    with planted(mutant.edits):
        # A search that gives up has found nothing, and another seed may show the same more plainly.
        found = (outcome for outcome in failures(mutant.seeds, mutant.focus) if not gave_up(outcome))
        failed = next(found, None)
    if failed is None:
        return Catch(None, Kind.PASSED, "", f"{mutant.seeds} seeds passed")
    return Catch(failed.seed, failed.kind, failed.found_by, failed.problem)


def gave_up(outcome: Outcome) -> bool:
    """Tell whether the checker of linearizability could not judge."""
    return outcome.problem.startswith(f"linearizability: {Verdict.GAVE_UP.value}")


def failures(seeds: int, focus: Mapping[str, float | bool]) -> Iterator[Outcome]:
    """Run seeds with some fields of the fault plan fixed, and yield what fails."""
    for seed in range(seeds):
        outcome, _ = run_seed(seed, structs.replace(draw(random.Random(seed)), **focus))
        if outcome.kind is not Kind.PASSED:
            yield outcome


def first_failure(seeds: int, focus: Mapping[str, float | bool]) -> Outcome | None:
    """Return what fails first; a checker that gives up counts."""
    return next(failures(seeds, focus), None)


def _play(mutant: Mutant) -> Catch:
    scenario = mutant.scenario
    status, told = _run_test(scenario)
    if status != pytest.ExitCode.OK:
        raise AssertionError(f"{scenario} fails without a bug:\n{told}")
    with planted(mutant.edits):
        status, told = _run_test(scenario)
    found = status == pytest.ExitCode.TESTS_FAILED
    return Catch(None, Kind.SAFETY if found else Kind.PASSED, scenario if found else "", told)


def _run_test(scenario: str) -> tuple[int, str]:
    told = io.StringIO()
    here = Path.cwd()
    os.chdir(TESTS.parent)  # where the configuration of pytest is
    try:
        # Runs beside each other would tidy up the one directory that pytest keeps for all of them.
        with (
            TemporaryDirectory(prefix="balsadb-mutant-") as place,
            contextlib.redirect_stdout(told),
            contextlib.redirect_stderr(told),
        ):
            options = ["-q", "-p", "no:cacheprovider", f"--basetemp={place}/tests"]
            status = pytest.main([*options, str(TESTS / scenario)])
    finally:
        os.chdir(here)
    return int(status), told.getvalue()
