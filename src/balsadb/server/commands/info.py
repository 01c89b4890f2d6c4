"""INFO and ROLE: the node in the form that Redis' tools read."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from balsadb.kv.refusals import wrong_arity
from balsadb.kv.reply import Reply
from balsadb.raft.types import NOBODY, NodeId
from balsadb.server.commands.client_state import ClientState
from balsadb.server.commands.connection import REDIS_MODE, REDIS_VERSION
from balsadb.server.commands.topology import Site, head, sites, split_address
from balsadb.server.commands.view import NodeStatus, NodeView
from balsadb.server.commands.words import word
from balsadb.version import __version__

Fields: TypeAlias = list[tuple[str, str | int]]
"""Lines of a section in the order printed."""

_SYSTEM: Final = f"{platform.system()} {platform.release()} {platform.machine()}"
_PAGE_BYTES: Final = resource.getpagesize()
_EVERYTHING: Final = frozenset((b"ALL", b"DEFAULT", b"EVERYTHING"))


def info(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    """INFO [section ...]. An unknown section gives nothing, as in Redis."""
    wanted = {word(argument) for argument in argv[1:]}
    status = view.status()
    parts = []
    for title, section in _SECTIONS.items():
        if wanted and not wanted & _EVERYTHING and title.upper().encode() not in wanted:
            continue
        lines = "".join(f"{name}:{value}\r\n" for name, value in section(status, view))
        parts.append(f"# {title}\r\n{lines}")
    return "\r\n".join(parts).encode("utf-8", "replace")


def role(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    """ROLE: a leader is a master, everybody else its replica."""
    if len(argv) != 1:
        return wrong_arity(b"role")
    status = view.status()
    if status.leader == status.id:
        replicas: list[Reply] = [
            [site.host, b"%d" % site.port, b"%d" % site.offset] for site in _replicas(status)
        ]
        return [b"master", status.commit_index, replicas]
    master = _master(status)
    if master is None:
        return [b"slave", b"", 0, b"connect", status.applied_index]
    state = b"connected" if _hears_leader(status) else b"connect"
    return [b"slave", master.host, master.port, state, status.applied_index]


def raft_role(status: NodeStatus) -> str:
    """Return the role as shown: a learner is named as such, although it follows like a follower."""
    return "learner" if status.id in status.configuration.learners else status.role


def ids_shown(ids: tuple[NodeId, ...]) -> str:
    """Return ids as `1,2,3`."""
    return ",".join(str(node) for node in ids)


def _server(status: NodeStatus, view: NodeView) -> Fields:
    uptime_s = status.uptime_ms // 1000
    return [
        ("redis_version", REDIS_VERSION.decode()),
        ("balsadb_version", __version__),
        ("redis_mode", REDIS_MODE.decode()),
        ("os", _SYSTEM),
        ("arch_bits", 64 if sys.maxsize > 2**32 else 32),
        ("process_id", os.getpid()),
        ("tcp_port", split_address(status.client_address)[1]),
        ("server_time_usec", view.wall_us()),
        ("uptime_in_seconds", uptime_s),
        ("uptime_in_days", uptime_s // 86_400),
    ]


def _clients(status: NodeStatus, view: NodeView) -> Fields:
    return [("connected_clients", len(view.clients())), ("blocked_clients", 0), ("tracking_clients", 0)]


def _memory(status: NodeStatus, view: NodeView) -> Fields:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    resident = resident_bytes() or peak
    return [
        # Python does not tell how much of its memory holds data, so both figures are the process's.
        ("used_memory", resident),
        ("used_memory_human", _human(resident)),
        ("used_memory_rss", resident),
        ("used_memory_peak", peak),
        ("used_memory_peak_human", _human(peak)),
        ("maxmemory", 0),
        ("maxmemory_policy", "noeviction"),
    ]


def resident_bytes() -> int:
    """Return how much memory the process has; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0  # not Linux


def _human(count: int) -> str:
    return f"{count / 2**20:.2f}M" if count < 2**30 else f"{count / 2**30:.2f}G"


def _persistence(status: NodeStatus, view: NodeView) -> Fields:
    return [
        ("loading", int(status.loading)),
        ("rdb_changes_since_last_save", 0),
        ("rdb_bgsave_in_progress", 0),
        ("rdb_last_bgsave_status", "ok"),
        ("aof_enabled", 1),
        ("aof_rewrite_in_progress", 0),
        ("aof_last_write_status", "ok"),
    ]


def _statistics(status: NodeStatus, view: NodeView) -> Fields:
    return [
        ("total_connections_received", status.connections_received),
        ("total_commands_processed", status.commands_processed),
    ]


def _replication(status: NodeStatus, view: NodeView) -> Fields:
    replication_id = status.cluster_id[:40].ljust(40, "0")
    if status.leader == status.id:
        replicas = _replicas(status)
        fields: Fields = [("role", "master"), ("connected_slaves", sum(site.connected for site in replicas))]
        for number, site in enumerate(replicas):
            state = "online" if site.connected else "offline"
            host = site.host.decode("utf-8", "replace")
            line = f"ip={host},port={site.port},state={state},offset={site.offset},lag=0"
            fields.append((f"slave{number}", line))
    else:
        master = _master(status)
        fields = [
            ("role", "slave"),
            ("master_host", master.host.decode("utf-8", "replace") if master else ""),
            ("master_port", master.port if master else 0),
            ("master_link_status", "up" if master and _hears_leader(status) else "down"),
            ("slave_repl_offset", status.applied_index),
            # Every node takes writes and hands them to the leader.
            ("slave_read_only", 0),
            ("connected_slaves", 0),
        ]
    return [*fields, ("master_replid", replication_id), ("master_repl_offset", status.commit_index)]


def _cpu(status: NodeStatus, view: NodeView) -> Fields:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return [("used_cpu_sys", f"{usage.ru_stime:.6f}"), ("used_cpu_user", f"{usage.ru_utime:.6f}")]


def _cluster(status: NodeStatus, view: NodeView) -> Fields:
    # Cluster-aware clients ask this before CLUSTER SLOTS.
    return [("cluster_enabled", 1)]


def _keyspace(status: NodeStatus, view: NodeView) -> Fields:
    return [("db0", f"keys={status.keys},expires=0,avg_ttl=0")] if status.keys else []


def _raft(status: NodeStatus, view: NodeView) -> Fields:
    return [
        ("raft_id", status.id),
        ("raft_role", raft_role(status)),
        ("raft_term", status.term),
        ("raft_leader", status.leader),
        ("raft_commit_index", status.commit_index),
        ("raft_applied_index", status.applied_index),
        ("raft_first_index", status.first_index),
        ("raft_last_index", status.last_index),
        ("raft_durable_index", status.durable_index),
        ("raft_snapshot_index", status.snapshot_index),
        ("raft_voters", ids_shown(status.configuration.voters)),
        ("raft_outgoing_voters", ids_shown(status.configuration.outgoing)),
        ("raft_learners", ids_shown(status.configuration.learners)),
        ("raft_cluster_id", status.cluster_id),
        ("raft_boot", status.boot),
        ("raft_ready", int(status.ready)),
        ("raft_log_time_ms", status.log_time_ms),
        ("raft_alarms", status.alarms),
        ("readonly_staleness_ms", -1 if status.stale_ms is None else status.stale_ms),
        ("readonly_staleness_limit_ms", status.stale_limit_ms),
    ]


def _replicas(status: NodeStatus) -> list[Site]:
    return [site for site in sites(status) if site.id != status.id and site.port]


def _master(status: NodeStatus) -> Site | None:
    """Return the other node that is or was the leader; None when there is none to name."""
    first = head(status)
    return next((site for site in sites(status) if site.id == first != status.id), None)


def _hears_leader(status: NodeStatus) -> bool:
    if status.leader == NOBODY:
        return False
    return status.connected is None or status.leader in status.connected


_SECTIONS: Final[Mapping[str, Callable[[NodeStatus, NodeView], Fields]]] = {
    "Server": _server,
    "Clients": _clients,
    "Memory": _memory,
    "Persistence": _persistence,
    "Stats": _statistics,
    "Replication": _replication,
    "CPU": _cpu,
    "Cluster": _cluster,
    "Keyspace": _keyspace,
    "Raft": _raft,
}
