"""What a bug on purpose is, and the mixtures of faults that rare ones need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mutants.planting import Edit


class Mutant(NamedTuple):
    """A bug on purpose."""

    name: str
    rule: str
    """The rule, or section of the Raft paper, that it breaks."""
    edits: tuple[Edit, ...]
    seeds: int
    """Seeds of the simulator within which one must fail; 0 when a scenario is the judge."""
    focus: Mapping[str, float | bool]
    """Fields of the fault plan that are fixed, for bugs that need a rare mixture of faults."""
    scenario: str
    """The test that must fail, below `tests/`, where chance does not find it in time or at all."""


def mutant(
    name: str,
    rule: str,
    seeds: int,
    *edits: tuple[str, str, str],
    focus: Mapping[str, float | bool] | None = None,
) -> Mutant:
    """Describe a bug that the simulator finds within so many seeds.

    An edit is a function, a piece of its text, and what stands there instead.
    """
    return Mutant(name, rule, tuple(Edit(*edit) for edit in edits), seeds, focus or {}, "")


def scripted(name: str, rule: str, scenario: str, *edits: tuple[str, str, str]) -> Mutant:
    """Describe a bug that costs only time or memory, or too rarely more, so that a scenario judges it."""
    return Mutant(name, rule, tuple(Edit(*edit) for edit in edits), 0, {}, scenario)


COUPS = {"nodes": 5, "election_ticks": 10, "coups": 300.0, "crashes": 60.0, "small_caches": True}
"""Leader after leader, none of which finishes what it began."""
STRAGGLING_COUPS = {
    "nodes": 3,
    "election_ticks": 10,
    "coups": 300.0,
    "straggling": 0.2,
    "small_caches": False,
}
"""Messages that arrive in another term than they were sent in."""
SPLIT_VOTES = {"nodes": 3, "election_ticks": 10, "coups": 200.0, "crashes_in_writes": 0.005, "slow_sync": 0.1}
"""Candidates that meet in a term, on disks that take their time."""
QUICK_RESTARTS = {
    "nodes": 3,
    "duplication": 0.5,
    "straggling": 0.2,
    "crashes": 60.0,
    "relapses": 0.5,
    "coups": 0.0,
}
"""Processes that live shorter than their messages."""
LONG_REIGNS = {"nodes": 3, "election_ticks": 50, "coups": 60.0, "partitions": 0.0}
"""Leaders that believe for long that they still lead."""
SLOW_LINKS = {"nodes": 5, "delay_us_max": 30_000, "coups": 200.0, "small_caches": False}
"""Rounds of a leader that are on their way while others elect the next one."""
RELAPSES = {"crashes": 60.0, "relapses": 0.5, "crashes_in_writes": 0.005}
"""Power losses right after starts, which may have read what was never synced."""
FLIPS = {"nodes": 3, "bit_flips": 60.0, "padding_bytes": 5_000}
CHANGES = {"changes": 120.0}
"""Members that come and go all the time."""
FOCUSES = {
    "coups": COUPS,
    "stragglers": STRAGGLING_COUPS,
    "votes": SPLIT_VOTES,
    "restarts": QUICK_RESTARTS,
    "reigns": LONG_REIGNS,
    "slow links": SLOW_LINKS,
    "relapses": RELAPSES,
    "flips": FLIPS,
    "changes": CHANGES,
}
"""All of them, by name. The code as it is passes under each."""
