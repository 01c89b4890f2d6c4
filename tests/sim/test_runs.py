"""One seed decides everything, and a run's end says what was wrong."""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from balsadb.cli.main import app
from balsadb.sim import runs
from balsadb.sim.failures import LivenessViolation, SafetyViolation
from balsadb.sim.faults import FaultPlan
from balsadb.sim.runs import Kind, describe, run_many, run_seed
from balsadb.sim.world import World

BUSY = FaultPlan(nodes=3, loss=0.05, crashes=60.0, coups=60.0, clock_jumps=60.0, small_caches=True)


def test_the_same_seed_gives_the_same_run():
    (first, _), (second, _) = run_seed(7, BUSY), run_seed(7, BUSY)
    assert first.trace_hash == second.trace_hash
    assert first.operations == second.operations > 0
    assert first.faults == second.faults > 0


def test_another_seed_gives_another_run():
    assert run_seed(7, BUSY)[0].trace_hash != run_seed(8, BUSY)[0].trace_hash


@pytest.mark.slow
def test_a_fresh_process_with_another_hash_seed_gives_the_same_run():
    def run(hash_seed: str) -> bytes:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        line = [sys.executable, "-m", "balsadb", "sim", "--seed", "3", "--trace"]
        return subprocess.run(line, env=environment, capture_output=True, check=True, timeout=60).stdout

    assert run("1") == run("2")


@pytest.mark.slow
def test_many_seeds_run_in_other_processes_and_are_all_reported():
    outcomes = list(run_many(100, 10, None, 2))
    assert sorted(outcome.seed for outcome in outcomes) == list(range(100, 110))
    assert {outcome.kind for outcome in outcomes} == {Kind.PASSED}


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (SafetyViolation("ledger", "a value is lost"), Kind.SAFETY, 10),
        (LivenessViolation("nobody leads"), Kind.LIVENESS, 11),
        (RuntimeError("a bug"), Kind.CRASH, 12),
    ],
)
def test_a_failure_is_told_with_everything_that_repeats_it(monkeypatch, error, kind, status):
    def fail(world):
        world.note("the last event")
        raise error

    monkeypatch.setattr(World, "run", fail)
    outcome, _ = run_seed(42)
    assert outcome.kind is kind
    assert outcome.found_by == getattr(error, "checker", type(error).__name__)
    told = describe(outcome)
    for word in (
        "seed 42",
        "balsadb 0",
        "nodes=",
        str(error),
        "the last event",
        "balsadb sim --seed 42 --trace",
    ):
        assert word in told
    done = CliRunner().invoke(app, ["sim", "--seed", "42"])
    assert done.exit_code == status
    assert "seed 42 failed" in done.output


def test_the_worst_of_many_outcomes_is_the_status(monkeypatch):
    passed, _ = run_seed(7, BUSY)
    kinds = [Kind.PASSED, Kind.LIVENESS, Kind.SAFETY, Kind.CRASH]
    outcomes = [runs.msgspec.structs.replace(passed, kind=kind) for kind in kinds]
    monkeypatch.setattr("balsadb.cli.sim.run_many", lambda *_: iter(outcomes))
    done = CliRunner().invoke(app, ["sim", "--runs", "4"])
    assert done.exit_code == 10
    assert "4 seeds" in done.output
    assert "3 failed" in done.output


@pytest.mark.parametrize(
    "line", [["sim"], ["sim", "--runs", "3", "--minutes", "1"], ["sim", "--runs", "3", "--trace"]]
)
def test_a_line_that_makes_no_sense_is_refused(line):
    assert CliRunner().invoke(app, line).exception is not None
