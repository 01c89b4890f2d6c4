"""How fast this node's own disk is: a leader must not lead on one that is slow."""

from __future__ import annotations

from balsadb.replica.limits import ReplicaOptions


class DiskPace:
    """Watches the writes to the log, of which one is under way at a time."""

    __slots__ = ("_began_ms", "_options", "_slow_since_ms")

    def __init__(self, options: ReplicaOptions) -> None:
        self._options = options
        self._began_ms = -1
        """When the write under way began; -1 for none."""
        self._slow_since_ms = -1
        """When the first of the slow writes began since which none was fast; -1 for none."""

    def began(self, now_ms: int) -> None:
        """Note that a write was handed to the disk."""
        self._began_ms = now_ms

    def finished(self, now_ms: int) -> None:
        """Note that the write is on disk."""
        if now_ms - self._began_ms < self._options.slow_write_ms:
            self._slow_since_ms = -1
        elif self._slow_since_ms < 0:
            self._slow_since_ms = self._began_ms
        self._began_ms = -1

    def slow(self, now_ms: int) -> bool:
        """Tell whether all writes have been slow for too long, the one under way included."""
        since = self._slow_since_ms
        if since < 0 and self._began_ms >= 0 and now_ms - self._began_ms >= self._options.slow_write_ms:
            since = self._began_ms
        return since >= 0 and now_ms - since >= self._options.slow_disk_ms
