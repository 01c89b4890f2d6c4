"""Running seeds: one, many, or for a while; and telling what came out."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from enum import Enum

import msgspec

from balsadb.sim.checkers.reduction import explain
from balsadb.sim.failures import LivenessViolation, SafetyViolation
from balsadb.sim.faults import FaultPlan
from balsadb.sim.history import Operation
from balsadb.sim.members import MemberCounts
from balsadb.sim.trace import explaining
from balsadb.sim.world import World
from balsadb.version import __version__

GARBAGE_OBJECTS = 50_000
"""Objects that collect before a worker process looks for garbage."""
SEEDS_PER_JOB = 8
"""Seeds that a worker process runs before it reports."""


class Kind(Enum):
    """How a run ended."""

    PASSED = "passed"
    SAFETY = "safety"
    """A promise was broken."""
    LIVENESS = "liveness"
    """A healed majority did not do what it was asked within its bound."""
    CRASH = "crash"
    """A node's code failed: a broken invariant, or an exception that nobody expected."""


class Outcome(msgspec.Struct, frozen=True):
    """What one run gave."""

    seed: int
    kind: Kind
    problem: str
    """Empty when the run passed."""
    plan: FaultPlan
    found_by: str
    """The checker, or the name of the exception, that ended it; empty when the run passed."""
    history: tuple[Operation, ...]
    """What clients saw of a key and no order explains."""
    events: tuple[str, ...]
    """The events that explain a failure; none when the run passed."""
    trace_hash: int
    """Equal for two runs only if the same happened in both."""
    simulated_us: int
    cpu_seconds: float
    operations: int
    """Operations that clients called."""
    faults: int
    members: MemberCounts
    """Changes of the members and of the leader."""


def run_seed(seed: int, plan: FaultPlan | None = None) -> tuple[Outcome, World]:
    """Run one seed to its end."""
    began = time.process_time()
    world = World(seed, plan)
    kind, problem = Kind.PASSED, ""
    failure: Exception | None = None
    try:
        world.run()
    except SafetyViolation as violation:
        kind, problem, failure = Kind.SAFETY, str(violation), violation
    except LivenessViolation as violation:
        kind, problem, failure = Kind.LIVENESS, str(violation), violation
    except Exception as error:
        kind, problem, failure = Kind.CRASH, "".join(traceback.format_exception(error)).rstrip(), error
    outcome = Outcome(
        seed=seed,
        kind=kind,
        problem=problem,
        plan=world.plan,
        found_by=getattr(failure, "checker", type(failure).__name__) if failure else "",
        history=getattr(failure, "history", ()),
        events=tuple(explaining(world.events, failure)) if failure else (),
        trace_hash=world.trace_hash,
        simulated_us=world.scheduler.now_us,
        cpu_seconds=time.process_time() - began,
        operations=sum(len(client.history) for client in world.clients),
        faults=world.nemesis.count,
        members=world.members.counts,
    )
    return outcome, world


def _run_seeds(seeds: list[int]) -> list[Outcome]:
    # Runs make much garbage, nearly all without cycles: looking for these so often took a tenth of the time.
    gc.set_threshold(GARBAGE_OBJECTS)
    return [run_seed(seed)[0] for seed in seeds]


def run_many(first: int, runs: int | None, seconds: float | None, jobs: int) -> Iterator[Outcome]:
    """Run `runs` seeds from `first` on, or as many as begin within `seconds`, on `jobs` processes."""
    seeds = itertools.count(first) if runs is None else iter(range(first, first + runs))
    deadline = None if seconds is None else time.monotonic() + seconds
    # Fresh interpreters: nothing that this process has loaded or seeded can leak into a run.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        flying: set[Future[list[Outcome]]] = set()
        while True:
            while len(flying) < 2 * jobs and (deadline is None or time.monotonic() < deadline):
                batch = list(itertools.islice(seeds, SEEDS_PER_JOB))
                if not batch:
                    break
                flying.add(pool.submit(_run_seeds, batch))
            if not flying:
                return
            done, flying = wait(flying, return_when=FIRST_COMPLETED)
            for future in done:
                yield from future.result()


def describe(outcome: Outcome) -> str:
    """Tell everything that is needed to understand and repeat a failure."""
    plan = msgspec.structs.asdict(outcome.plan)
    again = f"balsadb sim --seed {outcome.seed}"
    after = f"after {outcome.simulated_us / 1e6:.3f} simulated s"
    lines = [
        f"seed {outcome.seed} failed ({outcome.kind.value}) {after}",
        f"balsadb {__version__}",
        "faults: " + ", ".join(f"{name}={value}" for name, value in plan.items()),
        "",
        outcome.problem,
        *(f"  {line}" for line in (explain(outcome.history) if outcome.history else ())),
        "",
        f"the last {len(outcome.events)} events that have to do with it (simulated microseconds, what):",
        *(f"  {line}" for line in outcome.events),
        "",
        f"again: {again}    with every event: {again} --trace",
    ]
    return "\n".join(lines)
