"""All that a node knows about itself, for whoever looks from outside: /metrics, /status and the dashboard.

Nothing here is on the way of a request. What is measured while the node works stands in `telemetry.py`; the
rest is read from the parts themselves when somebody asks.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from balsadb.raft.types import Configuration, Millis, NodeId
from balsadb.replica.replica import Replica
from balsadb.server.chronicle import Chronicle
from balsadb.server.clock import Clock
from balsadb.server.commands.facts import Facts, member_facts, node_facts
from balsadb.server.commands.info import resident_bytes
from balsadb.server.commands.view import NodeStatus, NodeView
from balsadb.server.cuts import CutWriter
from balsadb.server.driver import TICK_SECONDS, Driver
from balsadb.server.history import History
from balsadb.server.leadership import Leadership
from balsadb.server.listener import Listener
from balsadb.server.peers import Peers
from balsadb.server.reach import Reach
from balsadb.server.snapshots import SnapshotReceiver, SnapshotSender
from balsadb.server.telemetry import Stages
from balsadb.storage.wal import Wal
from balsadb.version import __version__

RECENT_CHANGES_MS: Final = 600_000
"""Changes of the leader in this time count as recent."""
SAMPLE_SECONDS: Final = 1.0
"""How often the curves of the dashboard get a point."""


class Parts(msgspec.Struct, frozen=True):
    """The parts of a node that are looked into."""

    view: NodeView
    driver: Driver
    replica: Replica
    wal: Wal
    cuts: CutWriter
    listener: Listener
    peers: Peers
    sender: SnapshotSender
    receiver: SnapshotReceiver
    clock: Clock
    addresses: Mapping[NodeId, tuple[str, int]]
    """Where the other members are."""


class Insight:
    """Looks into one node."""

    def __init__(self, parts: Parts) -> None:
        """Begin to measure."""
        self.parts = parts
        core = parts.replica.node.core
        self._log = parts.replica.node.log
        self.stages = Stages(self._log.last_index)
        self.leadership = Leadership(core, self._connected, parts.clock.wall_ms, self._why_handing_over)
        self.stopping = False
        """True once the node drains: then that is why it hands over."""
        self._chronicle = Chronicle(core, self._connected, parts.addresses)
        self.reach = Reach(core, self._connected, round(TICK_SECONDS * 1000))
        self.history = History(
            lambda: parts.listener.commands_processed,
            {"commit": self.stages.commit, "sync": self.stages.sync, "turn": self.stages.turn},
        )
        self._timer: asyncio.TimerHandle | None = None
        parts.driver.on_measure = self._turn_ended
        parts.driver.on_synced = self.stages.sync.add

    def start(self) -> None:
        """Begin to take samples."""
        self._sample()

    def stop(self) -> None:
        """Take no more samples."""
        if self._timer is not None:
            self._timer.cancel()

    def _connected(self) -> frozenset[int]:
        return self.parts.peers.connected

    def _turn_ended(self, began: float) -> None:
        self.stages.turn_ended(began, self._log)
        self.leadership.look()
        self._chronicle.look()

    def _why_handing_over(self) -> str:
        if self.stopping:
            return "it stops"
        seconds = self.parts.driver.write_seconds
        if seconds * 1000 >= self.parts.replica.options.slow_write_ms:
            return f"its disk is slow, a write to the log takes {seconds:.1f} s"
        return ""

    def _sample(self) -> None:
        now_ms = self.parts.clock.monotonic_ms()
        self.history.take(now_ms, self.parts.clock.wall_ms())
        self.reach.look(now_ms)
        self._timer = asyncio.get_running_loop().call_later(SAMPLE_SECONDS, self._sample)

    # ---------------------------------------------------------------- answers

    def silent_ms(self) -> dict[int, Millis | None]:
        """Return for how long each other member was not known to be there; see `reach.py`."""
        return self.reach.silent_ms(self.parts.clock.monotonic_ms())

    def figures(self) -> dict[str, int | str]:
        """Return what RAFT STATUS shows behind the facts of consensus."""
        parts, history = self.parts, self.history
        volume = os.statvfs(parts.cuts.store.path)
        size = "live-sst-files-size"
        times = {
            f"{stage}_p{percent}_us": history.recent_us(stage, percent / 100)
            for stage, percent in (("commit", 50), ("commit", 99), ("sync", 50), ("sync", 99), ("turn", 99))
        }
        return {
            "version": __version__,
            "time_ms": parts.clock.wall_ms(),
            "unready": parts.view.status().unready or "",
            **times,
            "recent_leader_changes": self.leadership.recent(parts.clock.wall_ms() - RECENT_CHANGES_MS),
            "commands": parts.listener.commands_processed,
            "connections": len(parts.listener.clients()),
            "sessions": len(parts.replica.machine.sessions),
            "log_bytes": parts.wal.bytes,
            "state_bytes": parts.cuts.store.properties([size]).get(size, 0),
            "memory_bytes": resident_bytes(),
            "disk_bytes": volume.f_frsize * volume.f_blocks,
            "disk_free_bytes": volume.f_frsize * volume.f_bavail,
        }

    def status(self) -> Facts:
        """Return what /status shows: what RAFT STATUS answers first, and then what is only here."""
        parts = self.parts
        status = parts.view.status()
        return {
            **node_facts(status),
            **self.figures(),
            "members": self._members(status),
            "change": change_facts(status.configuration),
            "leader_changes": [msgspec.structs.asdict(change) for change in self.leadership.changes],
            "transfers": [
                {"to": node, "sent_bytes": sent, "total_bytes": total}
                for node, (sent, total) in sorted(parts.sender.progress.items())
            ],
            "receiving": self._receiving(),
            "queues": parts.replica.depths,
        }

    def _members(self, status: NodeStatus) -> list[Facts]:
        silent = self.silent_ms()
        members = []
        for node in status.configuration.everyone():
            facts = member_facts(status, node, silent.get(node))
            # A new leader knows how far somebody is when it has heard him, and not before.
            known = node == status.id or status.matched.get(node, 0) > 0
            facts["matched_index"] = facts["matched_index"] if known else None
            facts["lag"] = status.last_index - facts["matched_index"] if known else None
            members.append(facts)
        return members

    def _receiving(self) -> dict[str, int] | None:
        progress = self.parts.receiver.progress
        return None if progress is None else {"received_bytes": progress[0], "total_bytes": progress[1]}


def change_facts(configuration: Configuration) -> dict[str, Any] | None:
    """Describe the change of the members that is under way; None when there is none."""
    if not configuration.changing:
        return None
    joint = bool(configuration.outgoing)
    adding = set(configuration.voters) - set(configuration.outgoing) if joint else configuration.promote
    removing = set(configuration.outgoing) - set(configuration.voters) if joint else configuration.retire
    return {
        "adding": sorted(adding),
        "removing": sorted(removing),
        "step": "the voters are being changed" if joint else "the new nodes are catching up",
    }
