"""Bounded memory: a node holds no more uncommitted proposals and waiting reads than it may (rules B1, R4).

What is held is counted anew here; the counters of the node itself may be what is wrong.
"""

from __future__ import annotations

from balsadb.raft.core import Core
from balsadb.raft.entry import ENTRY_OVERHEAD_BYTES
from balsadb.raft.node import Node
from balsadb.raft.roles import Follower, Leader
from balsadb.raft.types import EntryKind
from balsadb.sim.failures import SafetyViolation


def check_bounds(node: Node) -> None:
    """Look at what a server holds after a turn."""
    core = node.core
    state, most = core.state, core.options.reads_max
    if isinstance(state, Leader):
        _check_proposals(core)
        reads = len(state.reads_unsent) + sum(len(reads) for _, reads in state.reads_pending)
    elif isinstance(state, Follower):
        reads = len(state.reads_unsent) + sum(len(reads) for _, reads in state.reads_sent.values())
    else:
        return
    if reads > most:
        what = f"server {node.id} holds {reads} reads and may hold {most}"
        raise SafetyViolation("bounds", what, servers=(node.id,))


def _check_proposals(core: Core) -> None:
    """Count a leader's own proposals that are not yet committed, durable and applied."""
    log, most = core.log, core.options.uncommitted_bytes_max
    floor = min(log.commit_index, log.durable_index, log.applied_index)
    sizes = [
        len(entry.encoded)
        for entry in log.entries[max(floor + 1 - log.cache_first, 0) :]
        if entry.term == core.term and entry.kind is EntryKind.COMMANDS
    ]
    # One is always admitted; the newest was admitted by its payload, before it became an entry.
    if len(sizes) > 1 and sum(sizes) > most + ENTRY_OVERHEAD_BYTES:
        what = f"server {core.id} holds {sum(sizes)} bytes of uncommitted proposals and may hold {most}"
        raise SafetyViolation("bounds", what, servers=(core.id,))
