"""Facts that hold for every node at every moment, and for every step from one moment to the next.

Tests and the simulator observe a node before and after each step. They see more of it than any assertion
inside could: that a leader never rewrites its own log, that votes are never changed, that roles change
only in legal ways.
"""

from __future__ import annotations

from itertools import pairwise

import msgspec

from balsadb.errors import InvariantError
from balsadb.raft.core import Core
from balsadb.raft.node import Node
from balsadb.raft.quorum import halves_of
from balsadb.raft.roles import Leader, Role
from balsadb.raft.transitions import LEGAL
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
    _demand(after.term >= before.term, f"term went back from {before.term} to {after.term}")
    if after.term == before.term:
        _demand(
            before.vote in (NOBODY, after.vote),
            f"vote in term {after.term} changed from {before.vote} to {after.vote}",
        )
    for name in ("commit_index", "applied_index", "handed_index"):
        old, new = getattr(before, name), getattr(after, name)
        _demand(new >= old, f"{name} went back from {old} to {new}")
    kept = node.log.term_at(before.commit_index)
    _demand(
        kept == before.commit_term or node.log.base_index > before.commit_index,
        f"committed entry {before.commit_index} changed its term from {before.commit_term} to {kept}",
    )
    if before.role is Role.LEADER and after.role is Role.LEADER:
        _demand(after.term == before.term, f"a leader of term {before.term} leads term {after.term}")
        _demand(
            node.log.term_at(before.last_index) == before.last_term,
            f"the leader of term {after.term} changed its own entry {before.last_index}",
        )
    # One step may pass through several roles (a lone voter becomes candidate at once).
    _demand(_reachable(before.role, after.role), f"{before.role.value} became {after.role.value}")
    return after


def _reachable(start: Role, end: Role) -> bool:
    seen, edge = {start}, [start]
    while edge:
        for role in LEGAL[edge.pop()] - seen:
            seen.add(role)
            edge.append(role)
    return end in seen


def _check_log(core: Core) -> None:
    log, disk = core.log, core.disk
    _demand(
        log.base_index <= log.applied_index <= core.handed_index <= log.commit_index <= log.last_index,
        f"base {log.base_index} <= applied {log.applied_index} <= handed {core.handed_index} "
        f"<= commit {log.commit_index} <= last {log.last_index} does not hold",
    )
    _demand(
        log.durable_index <= log.written_index <= log.last_index,
        f"durable {log.durable_index} <= written {log.written_index} <= last {log.last_index} does not hold",
    )
    _demand(
        log.cache_first <= log.durable_index + 1 and log.cache_first + len(log.entries) == log.last_index + 1,
        f"cache {log.cache_first} + {len(log.entries)} does not cover "
        f"{log.durable_index + 1}..{log.last_index}",
    )
    _demand(core.term >= log.last_term, f"term {core.term} is below the last entry's {log.last_term}")
    _demand(disk.term <= core.term, f"durable term {disk.term} is past the term {core.term}")
    runs = log.runs()
    ascending = all(
        first < next_first and term < next_term for (first, term), (next_first, next_term) in pairwise(runs)
    )
    _demand(ascending, f"terms do not ascend along the log: {runs}")
    before = None
    for position, entry in enumerate(log.entries[-8:], start=max(len(log.entries) - 8, 0)):
        index = log.cache_first + position
        _demand(
            entry.index == index and entry.term == log.term_at(index),
            f"cached entry ({entry.term}, {entry.index}) lies where ({log.term_at(index)}, {index}) belongs",
        )
        _demand(
            before is None or entry.time_ms >= before.time_ms,
            f"log time goes back to {entry.time_ms} at entry {index}",
        )
        before = entry


def _check_configuration(core: Core) -> None:
    _demand(
        core.configuration == core.configurations.current and core.halves == halves_of(core.configuration),
        f"configuration {core.configuration} is not that of entry {core.configurations.index}",
    )
    _demand(
        core.configurations.index <= core.log.last_index,
        f"configuration of entry {core.configurations.index} is past the last index {core.log.last_index}",
    )


def _check_leader(core: Core, leader: Leader) -> None:
    log = core.log
    _demand(core.vote == core.id, f"node {core.id} leads term {core.term} and voted for {core.vote}")
    _demand(core.disk.term == core.term, f"leader's term {core.term} is not durable ({core.disk.term})")
    _demand(
        leader.first_index <= log.last_index and log.last_term == core.term,
        f"leader of term {core.term} has no entry of its own; the last is of {log.last_term}",
    )
    _demand(
        leader.matches[core.id] <= log.durable_index,
        f"leader counts itself up to {leader.matches[core.id]} and is durable up to {log.durable_index}",
    )
    _demand(
        sorted(leader.progress) == [node for node in core.configuration.everyone() if node != core.id],
        f"leader tracks {sorted(leader.progress)} and the members are {core.configuration.everyone()}",
    )
    for peer in leader.peers:
        _demand(
            peer.match < peer.next <= log.last_index + 1,
            f"follower {peer.id}: match {peer.match} < next {peer.next} <= {log.last_index + 1} must hold",
        )
        _demand(
            peer.inflight_bytes == sum(size for _, size in peer.inflight),
            f"follower {peer.id}: window of {peer.inflight_bytes} bytes holds {peer.inflight}",
        )
        _demand(
            peer.match == leader.matches.get(peer.id, 0),
            f"follower {peer.id}: match {peer.match} and {leader.matches.get(peer.id, 0)} disagree",
        )


def _demand(fact: bool, otherwise: str) -> None:
    if not fact:
        raise InvariantError(otherwise)
