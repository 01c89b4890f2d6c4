"""Facts that hold for every node at every moment, and for every step from one moment to the next.

Tests and the simulator observe a node before and after each step. They see more of it than any assertion
inside could: that a leader never rewrites its own log, that votes are never changed. Which role may follow
which is checked where it happens, in `transitions.py`. Sentences are made only for violated facts, because
the simulator checks after every step.
"""

from __future__ import annotations

from itertools import pairwise

import msgspec

from balsadb.errors import InvariantError
from balsadb.raft.core import Core
from balsadb.raft.node import Node
from balsadb.raft.quorum import halves_of
from balsadb.raft.roles import Leader, Role
from balsadb.raft.types import NOBODY, Index, NodeId, Term


class Observation(msgspec.Struct, frozen=True):
    """What of a node is compared between two moments."""

    term: Term
    vote: NodeId
    role: Role
    commit_index: Index
    applied_index: Index
    handed_index: Index
    last_index: Index
    commit_term: Term
    last_term: Term


def observe(node: Node) -> Observation:
    """Note a moment."""
    core, log = node.core, node.log
    return Observation(
        term=core.term,
        vote=core.vote,
        role=core.state.role,
        commit_index=log.commit_index,
        applied_index=log.applied_index,
        handed_index=core.handed_index,
        last_index=log.last_index,
        commit_term=log.term_at(log.commit_index),
        last_term=log.last_term,
    )


def check(node: Node) -> None:
    """Raise InvariantError when a static fact does not hold."""
    core = node.core
    _check_log(core)
    _check_configuration(core)
    if isinstance(core.state, Leader):
        _check_leader(core, core.state)


def check_step(before: Observation, node: Node) -> Observation:
    """Check a node after a step, and the step itself; return the new observation."""
    check(node)
    after = observe(node)
    if after.term < before.term:
        raise InvariantError(f"term went back from {before.term} to {after.term}")
    if after.term == before.term and before.vote not in (NOBODY, after.vote):
        raise InvariantError(f"vote in term {after.term} changed from {before.vote} to {after.vote}")
    for name in ("commit_index", "applied_index", "handed_index"):
        old, new = getattr(before, name), getattr(after, name)
        if new < old:
            raise InvariantError(f"{name} went back from {old} to {new}")
    kept = node.log.term_at(before.commit_index)
    if kept != before.commit_term and node.log.base_index <= before.commit_index:
        raise InvariantError(
            f"committed entry {before.commit_index} changed its term from {before.commit_term} to {kept}"
        )
    if before.role is Role.LEADER and after.role is Role.LEADER:
        if after.term != before.term:
            raise InvariantError(f"a leader of term {before.term} leads term {after.term}")
        if node.log.term_at(before.last_index) != before.last_term:
            raise InvariantError(f"the leader of term {after.term} changed its own entry {before.last_index}")
    return after


def _check_log(core: Core) -> None:
    log, disk = core.log, core.disk
    if not log.base_index <= log.applied_index <= core.handed_index <= log.commit_index <= log.last_index:
        raise InvariantError(
            f"base {log.base_index} <= applied {log.applied_index} <= handed {core.handed_index} "
            f"<= commit {log.commit_index} <= last {log.last_index} does not hold"
        )
    if not log.durable_index <= log.written_index <= log.last_index:
        raise InvariantError(
            f"durable {log.durable_index} <= written {log.written_index} <= last {log.last_index} must hold"
        )
    if not (
        log.cache_first <= log.durable_index + 1 and log.cache_first + len(log.entries) == log.last_index + 1
    ):
        raise InvariantError(
            f"cache {log.cache_first} + {len(log.entries)} does not cover "
            f"{log.durable_index + 1}..{log.last_index}"
        )
    if core.term < log.last_term:
        raise InvariantError(f"term {core.term} is below the last entry's {log.last_term}")
    if disk.term > core.term:
        raise InvariantError(f"durable term {disk.term} is past the term {core.term}")
    runs = log.runs()
    ascending = all(
        first < next_first and term < next_term for (first, term), (next_first, next_term) in pairwise(runs)
    )
    if not ascending:
        raise InvariantError(f"terms do not ascend along the log: {runs}")
    before = None
    for position, entry in enumerate(log.entries[-8:], start=max(len(log.entries) - 8, 0)):
        index = log.cache_first + position
        if entry.index != index or entry.term != log.term_at(index):
            raise InvariantError(
                f"entry ({entry.term}, {entry.index}) lies where ({log.term_at(index)}, {index}) belongs"
            )
        if before is not None and entry.time_ms < before.time_ms:
            raise InvariantError(f"log time goes back to {entry.time_ms} at entry {index}")
        before = entry


def _check_configuration(core: Core) -> None:
    if not (
        core.configuration == core.configurations.current and core.halves == halves_of(core.configuration)
    ):
        raise InvariantError(
            f"configuration {core.configuration} is not that of entry {core.configurations.index}"
        )
    if core.configurations.index > core.log.last_index:
        raise InvariantError(
            f"configuration of entry {core.configurations.index} is past the last index {core.log.last_index}"
        )


def _check_leader(core: Core, leader: Leader) -> None:
    log = core.log
    if core.vote != core.id:
        raise InvariantError(f"node {core.id} leads term {core.term} and voted for {core.vote}")
    if core.disk.term != core.term:
        raise InvariantError(f"leader's term {core.term} is not durable ({core.disk.term})")
    if leader.first_index > log.last_index or log.last_term != core.term:
        raise InvariantError(
            f"leader of term {core.term} has no entry of its own; the last is of {log.last_term}"
        )
    if leader.matches[core.id] > log.durable_index:
        raise InvariantError(
            f"leader counts itself up to {leader.matches[core.id]} and is durable up to {log.durable_index}"
        )
    if sorted(leader.progress) != [node for node in core.configuration.everyone() if node != core.id]:
        raise InvariantError(
            f"leader tracks {sorted(leader.progress)} and the members are {core.configuration.everyone()}"
        )
    for peer in leader.peers:
        if not peer.match < peer.next <= log.last_index + 1:
            raise InvariantError(
                f"follower {peer.id}: match {peer.match} < next {peer.next} <= {log.last_index + 1} must hold"
            )
        if peer.inflight_bytes != sum(size for _, size in peer.inflight):
            raise InvariantError(
                f"follower {peer.id}: window of {peer.inflight_bytes} bytes holds {peer.inflight}"
            )
        if peer.match != leader.matches.get(peer.id, 0):
            raise InvariantError(
                f"follower {peer.id}: match {peer.match} and {leader.matches.get(peer.id, 0)} disagree"
            )
