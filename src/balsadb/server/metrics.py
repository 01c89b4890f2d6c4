"""/metrics: the node in the text format of Prometheus. Everything is read when it is asked for.

Names end with their unit, counters with `_total`. Labels are bounded: commands come from the table, codes
from a fixed set, members from the configuration. `docs/operations.md` says what to look at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from time import monotonic
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from balsadb.raft.roles import Role
from balsadb.server.commands.info import raft_role
from balsadb.server.commands.view import NodeStatus
from balsadb.server.insight import Insight
from balsadb.server.telemetry import SECONDS, Histogram
from balsadb.version import __version__

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

FRESH_SECONDS: Final = 0.1
"""Whoever asks more often gets the same answer again: making one takes 2 ms, for which clients wait."""

_ROLES: Final = (*(role.value for role in Role), "learner")
_BOUNDS: Final = (*(f"{bound:g}" for bound in SECONDS), "+Inf")

ROCKSDB: Final[Mapping[str, tuple[str, str]]] = {
    "live-sst-files-size": ("rocksdb_files_bytes", "Bytes of the files that hold the state."),
    "cur-size-all-mem-tables": ("rocksdb_memtables_bytes", "Memory for cuts that are in no file yet."),
    "block-cache-usage": ("rocksdb_block_cache_bytes", "Memory for blocks of the files."),
    "estimate-table-readers-mem": ("rocksdb_table_readers_bytes", "Memory for indexes and filters."),
    "estimate-num-keys": ("rocksdb_estimated_keys", "Records in the files and in memory, roughly."),
    "estimate-pending-compaction-bytes": (
        "rocksdb_pending_compaction_bytes",
        "Bytes that compaction still has to rewrite.",
    ),
    "num-running-compactions": ("rocksdb_running_compactions", "Compactions under way."),
    "num-running-flushes": ("rocksdb_running_flushes", "Flushes under way."),
    "is-write-stopped": ("rocksdb_write_stopped", "1 while RocksDB takes no cuts because it is behind."),
    "background-errors": ("rocksdb_background_errors", "Errors of RocksDB's own threads since the start."),
}
"""The name and the help of each property of RocksDB that is shown."""


class NodeCollector(Collector):
    """Makes metrics of what a node says when it is asked."""

    def __init__(self, insight: Insight) -> None:
        self._insight = insight

    def describe(self) -> Iterable[Metric]:
        """Return nothing: a registry need not ask for everything only to learn the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics as of now."""
        status = self._insight.parts.view.status()
        yield InfoMetricFamily(
            "balsadb",
            "Which node this is.",
            {"version": __version__, "node": str(status.id), "cluster": status.cluster_id},
        )
        yield from self._raft(status)
        yield from self._members(status)
        yield from self._commands()
        yield from self._stages()
        yield from self._sizes(status)
        yield from self._transfers()
        yield from self._trust()

    def _raft(self, status: NodeStatus) -> Iterator[Metric]:
        role = _family("role", "1 for the role that the node has now, 0 for the others.", "role")
        for name in _ROLES:
            role.add_metric([name], float(name == raft_role(status)))
        yield role
        leadership = self._insight.leadership
        yield _gauge("ready", "1 when the node can serve, as /readyz says.", status.ready)
        yield _gauge("loading", "1 until the log found at the start has been applied.", status.loading)
        yield _gauge("term", "Current term.", status.term)
        yield _gauge(
            "leader_id", "Id of the leader that the node knows, 0 when it knows none.", status.leader
        )
        yield _counter("elections", "Times that this node asked for votes.", leadership.elections)
        yield _counter("elections_won", "Times that this node was elected.", leadership.wins)
        changes = leadership.leader_changes
        yield _counter("leader_changes", "Times that another leader became known.", changes)
        yield _gauge("last_index", "Last index of the log.", status.last_index)
        yield _gauge("first_index", "First index present in the log.", status.first_index)
        yield _gauge("durable_index", "Last index known to be on this node's disk.", status.durable_index)
        yield _gauge("commit_index", "Last index known to be committed.", status.commit_index)
        yield _gauge("applied_index", "Last index applied to the state.", status.applied_index)
        yield _gauge(
            "snapshot_index", "Index of the state on disk with which a start begins.", status.snapshot_index
        )
        staleness = GaugeMetricFamily(
            "balsadb_readonly_staleness_seconds",
            "How old what READONLY reads see may be, when that is known.",
        )
        if status.stale_ms is not None:
            staleness.add_metric([], status.stale_ms / 1000)
        yield staleness
        lag = status.last_index - status.commit_index
        yield _gauge("commit_lag_entries", "Entries in the log that are not known to be committed.", lag)
        lag = status.commit_index - status.applied_index
        yield _gauge("apply_lag_entries", "Committed entries that are not applied yet.", lag)
        yield _gauge(
            "log_time_seconds", "Log time, the clock of the database, since 1970.", status.log_time_ms / 1000
        )
        yield _counter(
            "malformed_entries", "Entries skipped because of a malformed payload; must be 0.", status.alarms
        )

    def _members(self, status: NodeStatus) -> Iterator[Metric]:
        configuration = status.configuration
        yield _gauge("voters", "Members that vote.", len({*configuration.voters, *configuration.outgoing}))
        yield _gauge("learners", "Members that only listen.", len(configuration.learners))
        yield _gauge("change_in_progress", "1 while the members are being changed.", configuration.changing)
        connected = _family("member_connected", "1 when messages can be sent to that member.", "member")
        silence = _family(
            "member_silence_seconds",
            "Time since that member was known to be there: heard by a leader, connected for others.",
            "member",
        )
        for node, silent_ms in self._insight.silent_ms().items():
            connected.add_metric([str(node)], float(status.connected is None or node in status.connected))
            if silent_ms is not None:
                silence.add_metric([str(node)], silent_ms / 1000)
        lag = _family(
            "member_lag_entries", "On a leader, entries that are not on that member's disk.", "member"
        )
        for node, match in status.matched.items():
            if match:  # else it has not answered since this node leads
                lag.add_metric([str(node)], status.last_index - match)
        yield from (connected, silence, lag)

    def _commands(self) -> Iterator[Metric]:
        counts = self._insight.parts.listener.counts
        received = CounterMetricFamily(
            "balsadb_commands",
            "Commands received from clients; those in a MULTI count when they are queued.",
            labels=["command"],
        )
        for name, number in counts.received.items():
            if number:
                received.add_metric([name.decode()], number)
        failed = CounterMetricFamily(
            "balsadb_command_errors",
            "Error replies by command and by the first word of the error.",
            labels=["command", "code"],
        )
        for (name, code), number in list(counts.failed.items()):
            failed.add_metric([name.decode(), code.decode()], number)
        replies = CounterMetricFamily(
            "balsadb_error_replies", "Error replies by the first word of the error.", labels=["code"]
        )
        for code, number in counts.codes.items():
            replies.add_metric([code.decode()], number)
        yield from (received, failed, replies)

    def _stages(self) -> Iterator[Metric]:
        stages, cuts = self._insight.stages, self._insight.parts.cuts
        yield _histogram("turn_duration", "One turn of the drive loop.", stages.turn)
        yield _histogram("wal_sync_duration", "One write to the log with its sync.", stages.sync)
        yield _histogram(
            "commit_duration",
            "From a batch's arrival in this node's log to its commit seen here.",
            stages.commit,
        )
        yield _histogram("apply_wait", "From there to its turn of being applied.", stages.apply)
        yield _histogram("cut_duration", "Bringing one cut of the state to RocksDB.", cuts.took)

    def _sizes(self, status: NodeStatus) -> Iterator[Metric]:
        parts = self._insight.parts
        listener, replica, cuts = parts.listener, parts.replica, parts.cuts
        yield _gauge("keys", "Keys in the database, roughly.", status.keys)
        yield _gauge("sessions", "Sessions of Clerks that are open.", len(replica.machine.sessions))
        yield _gauge("log_bytes", "Bytes of the log's entries on disk.", parts.wal.bytes)
        yield _gauge("newest_cut_bytes", "Bytes of the cut written last.", cuts.newest_bytes)
        yield _gauge("cuts_waiting", "Cuts that are not in RocksDB yet.", cuts.waiting)
        yield _counter("cuts", "Cuts of the state written.", cuts.written)
        yield _counter("cut_bytes", "Bytes of all cuts written.", cuts.written_bytes)
        yield _counter("snapshots", "Cuts that were synced and let the log before them go.", cuts.durable)
        yield _gauge("client_connections", "Open client connections.", len(listener.clients()))
        yield _counter(
            "client_connections_opened", "Client connections accepted.", listener.connections_received
        )
        buffered = listener.buffered_bytes
        yield _gauge("client_buffered_bytes", "Unfinished commands and unread replies of clients.", buffered)
        yield _gauge("request_held_bytes", "Bytes of requests that have no answer yet.", replica.held_bytes)
        depth = _family("queue_depth", "What waits at each stage on the way of requests.", "queue")
        for name, number in replica.depths.items():
            depth.add_metric([name], number)
        yield depth
        yield _gauge("uptime_seconds", "How long the process runs.", status.uptime_ms / 1000)
        properties = cuts.store.properties(list(ROCKSDB))
        for name, value in properties.items():
            yield _gauge(ROCKSDB[name][0], ROCKSDB[name][1], value)

    def _transfers(self) -> Iterator[Metric]:
        parts = self._insight.parts
        dropped = parts.peers.dropped_messages
        yield _counter("peer_messages_dropped", "Messages to members that were away or slow.", dropped)
        yield _counter(
            "transfer_sent_bytes", "Bytes of the state sent to followers.", parts.sender.sent_bytes
        )
        done = _family("transfer_done_bytes", "Bytes that a follower has of the state it is sent.", "member")
        whole = _family("transfer_size_bytes", "Bytes of the state that a follower is sent.", "member")
        for node, (sent, total) in parts.sender.progress.items():
            done.add_metric([str(node)], sent)
            whole.add_metric([str(node)], total)
        yield from (done, whole)
        here, coming = parts.receiver.progress or (0, 0)
        yield _gauge("receiving_done_bytes", "Bytes that are here of a state being received.", here)
        yield _gauge("receiving_size_bytes", "Bytes of a state being received, 0 for none.", coming)

    def _trust(self) -> Iterator[Metric]:
        listener, trust = self._insight.parts.listener, self._insight.parts.peers.trust
        refusals = CounterMetricFamily(
            "balsadb_peer_refusals",
            "Connections with other servers given up because one could not prove who it is, by what failed.",
            labels=["reason"],
        )
        for reason in ("tls", "identity", "secret"):
            refusals.add_metric([reason], trust.refusals[reason])
        yield refusals
        failures = listener.tls_failures
        yield _counter("tls_failures", "Clients that did not get through a TLS handshake.", failures)
        expiry = _family(
            "certificate_expiry_seconds", "When the certificate of a port ends, since 1970.", "port"
        )
        for port, certificates in (("client", listener.certificates), ("peer", trust.certificates)):
            if certificates is not None:
                expiry.add_metric([port], certificates.expires_s)
        yield expiry


class Metrics:
    """A registry of one node's own, so that two nodes in one process don't mix."""

    def __init__(self, insight: Insight) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(NodeCollector(insight))
        ProcessCollector(registry=self._registry)
        self._text = b""
        self._made = -FRESH_SECONDS

    def text(self) -> bytes:
        """Return everything as Prometheus reads it."""
        now = monotonic()
        if now - self._made >= FRESH_SECONDS:
            self._text, self._made = generate_latest(self._registry), now
        return self._text


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"balsadb_{name}", text, float(value))


def _family(name: str, text: str, label: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"balsadb_{name}", text, labels=[label])


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"balsadb_{name}", text, value)


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    buckets = list(zip(_BOUNDS, map(float, accumulate(histogram.counts)), strict=True))
    return HistogramMetricFamily(f"balsadb_{name}_seconds", text, buckets, histogram.sum)
