"""Quorum arithmetic: pure functions of halves and numbers.

A configuration has one half, or two while it is joint (thesis 4.3); then a majority of *each* must agree.
Learners are in no half. Everything else in the core asks these functions and never counts itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from balsadb.raft.types import Configuration, NodeId

Half: TypeAlias = tuple[NodeId, ...]
Halves: TypeAlias = tuple[Half, ...]
"""One half, or two while joint; each is a sorted tuple of voters."""


def halves_of(configuration: Configuration) -> Halves:
    """Return the groups of voters of which each must agree by majority."""
    if configuration.outgoing:
        return (configuration.voters, configuration.outgoing)
    return (configuration.voters,)


def agreed_number(halves: Halves, numbers: Mapping[NodeId, int]) -> int:
    """Return the highest number that a quorum has reached.

    With match indexes this is the commit index that counting allows; with rounds it is the round that
    confirms leadership. A voter without a number counts as 0.
    """
    agreed = -1
    for half in halves:
        reached = sorted([numbers.get(voter, 0) for voter in half])
        # The majority's smallest: at least half + 1 voters have reached it.
        number = reached[(len(reached) - 1) // 2]
        if agreed < 0 or number < agreed:
            agreed = number
    return max(agreed, 0)


def is_quorum(halves: Halves, agrees: Callable[[NodeId], bool]) -> bool:
    """Tell whether a majority of each half agrees."""
    return all(sum(map(agrees, half)) * 2 > len(half) for half in halves)


def is_quorum_of(halves: Halves, nodes: Iterable[NodeId]) -> bool:
    """Tell whether `nodes` contains a majority of each half."""
    present = frozenset(nodes)
    return is_quorum(halves, present.__contains__)


def lower_median(values: Iterable[int]) -> int:
    """Return the middle value, the lower one of two; 0 for no values."""
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2] if ordered else 0
