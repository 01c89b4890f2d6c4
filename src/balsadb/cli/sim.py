"""`balsadb sim`: run simulated clusters and tell what broke."""

from __future__ import annotations

import os
import random
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from balsadb.errors import UsageError
from balsadb.sim.members import MemberCounts
from balsadb.sim.runs import Kind, Outcome, describe, run_many, run_seed

STATUS = {Kind.PASSED: 0, Kind.SAFETY: 10, Kind.LIVENESS: 11, Kind.CRASH: 12}
"""Exit status by the worst outcome; a broken promise is worse than standing still."""
SEVERITY = (Kind.SAFETY, Kind.CRASH, Kind.LIVENESS)
REPORTED_MAX = 5
"""Failures that are told in full; the others are counted and named."""


def sim(seed: int | None, runs: int | None, minutes: float | None, trace: bool, jobs: int | None) -> None:
    """Run one seed, or many."""
    if runs is not None and minutes is not None:
        raise UsageError("--runs and --minutes both say how long; give one of them")
    if runs is None and minutes is None:
        if seed is None:
            raise UsageError("say what to run: --seed N for one seed, --runs M or --minutes T for many")
        _one(seed, trace)
    elif trace:
        raise UsageError("--trace shows one run; give --seed N and neither --runs nor --minutes")
    else:
        first = random.SystemRandom().randrange(2**40) if seed is None else seed
        _many(first, runs, minutes, jobs or os.cpu_count() or 1)


def _one(seed: int, trace: bool) -> None:
    outcome, world = run_seed(seed)
    if trace:
        for event in world.events:
            print(event)
    if outcome.kind is Kind.PASSED:
        print(
            f"seed {seed} passed: {outcome.simulated_us / 1e6:.1f} simulated s, "
            f"{outcome.operations} operations, {outcome.faults} faults, trace {outcome.trace_hash:08x}"
        )
        print(outcome.members)
    else:
        print(describe(outcome))
    raise SystemExit(STATUS[outcome.kind])


def _many(first: int, runs: int | None, minutes: float | None, jobs: int) -> None:
    began = time.monotonic()
    print(f"seeds from {first} on, {jobs} at a time")
    failed: list[Outcome] = []
    count = simulated_us = operations = 0
    cpu = 0.0
    members = MemberCounts()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("simulating", total=runs)
        for outcome in run_many(first, runs, None if minutes is None else minutes * 60, jobs):
            count += 1
            simulated_us += outcome.simulated_us
            operations += outcome.operations
            members += outcome.members
            cpu += outcome.cpu_seconds
            progress.advance(task)
            if outcome.kind is not Kind.PASSED:
                failed.append(outcome)
                if len(failed) <= REPORTED_MAX:
                    progress.console.print(describe(outcome) + "\n", markup=False, highlight=False)
    elapsed = (time.monotonic() - began) / 60
    print(f"{count} seeds, {operations} operations, {len(failed)} failed")
    print(members)
    print(
        f"{count / elapsed:.0f} seeds and {simulated_us / 3.6e9 / elapsed:.2f} simulated hours a minute, "
        f"{cpu / max(1, count):.2f} CPU-seconds a seed"
    )
    if failed:
        print("failed seeds: " + ", ".join(f"{o.seed} ({o.kind.value})" for o in failed))
    kinds = {outcome.kind for outcome in failed}
    raise SystemExit(next((STATUS[kind] for kind in SEVERITY if kind in kinds), 0))
