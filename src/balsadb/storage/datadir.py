"""A node's data directory: who may use it, whose it is, and where things lie.

    LOCK           held by the process that uses the directory
    META           identity; replaced by a temporary file, sync, rename, directory sync
    group-0/wal/   the write-ahead log

A new identity is drawn only where no data is: a log without its `META`, or a `META` that has taken part in a
cluster without its log, is a node that has lost its memory, and it must not vote again (rule W5).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

import msgspec

from balsadb.errors import DataError, UsageError
from balsadb.raft.types import NodeId
from balsadb.storage import segments
from balsadb.storage.files import Files, Lock
from balsadb.storage.meta import META_BYTES_MAX, STORE_ID_BYTES, Meta, decode_meta, encode_meta
from balsadb.storage.recovery import REPLACE, RESTORE

__all__ = ["DataDirectory", "Meta"]


def draw_store_id() -> bytes:
    """Return a new identity for a data directory."""
    return secrets.token_bytes(STORE_ID_BYTES)


OURS = frozenset({"LOCK", "META", "META.tmp", "group-0", "lost+found"})
"""Names that a data directory may have; the last one is the root of a file system of its own."""


def _check_ours(path: str, files: Files) -> None:
    """Refuse to make a data directory of one with something else in it, as a slip of the keyboard would."""
    others = sorted(set(files.list(path)) - OURS)
    if others and not files.exists(f"{path}/META"):
        raise UsageError(
            f"{path} is no data directory, and it has other things in it ({others[0]}); name an empty one"
        )


class DataDirectory:
    """An open data directory. Used on one thread only."""

    def __init__(self, path: str, files: Files, lock: Lock) -> None:
        """Stand for a directory that is locked; `open` reads what is in it."""
        self.path = path
        self.group_path = f"{path}/group-0"
        """Everything of the one Raft group."""
        self.wal_path = f"{self.group_path}/wal"
        self.state_path = f"{self.group_path}/state"
        self.meta: Meta
        """As on disk."""
        self._files = files
        self._lock: Lock | None = lock

    @classmethod
    def open(
        cls,
        path: str,
        files: Files,
        node_id: NodeId,
        cluster_text: str,
        *,
        new_store_id: Callable[[], bytes] = draw_store_id,
    ) -> DataDirectory:
        """Claim the directory for this process and raise the boot counter, durably (rule P2).

        Raises UsageError when another process has it or when it is another node's or cluster's, DataError
        when it can't be trusted, StorageError when a file operation fails.
        """
        files.make_directories(path)
        _check_ours(path, files)
        directory = cls(path, files, files.lock(f"{path}/LOCK"))
        try:
            meta = directory._read(node_id, cluster_text) or Meta(node_id, new_store_id(), cluster_text)
            directory.update_meta(msgspec.structs.replace(meta, boot=meta.boot + 1))
        except BaseException:
            directory.close()
            raise
        return directory

    def update_meta(self, meta: Meta) -> None:
        """Replace `META`; when this returns, the new one is durable. Raises StorageError."""
        files, path = self._files, f"{self.path}/META"
        temporary = path + ".tmp"
        file = files.open(temporary, create=True)
        try:
            file.write([encode_meta(meta)], 0)
            file.sync()
        finally:
            file.close()
        files.rename(temporary, path)
        files.sync_directory(self.path)
        self.meta = meta

    def close(self) -> None:
        """Give the directory up."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _read(self, node_id: NodeId, cluster_text: str) -> Meta | None:
        """Return what `META` says and check that it fits; None when this is a new directory."""
        path = f"{self.path}/META"
        has_log = any(map(segments.is_segment, self._files.list(self.wal_path)))
        if not self._files.exists(path):
            if has_log:
                raise DataError(path, None, f"the file is missing, and {self.wal_path} holds a log", RESTORE)
            return None
        meta = decode_meta(path, self._content(path))
        if meta.node_id != node_id:
            raise UsageError(
                f"{path}: this is the data of node {meta.node_id}, not of node {node_id}; "
                f"correct --id or --data-dir"
            )
        if meta.joined and cluster_text:
            raise UsageError(f"{path}: this node joined its cluster later; start it without --cluster")
        if meta.cluster_text != cluster_text:
            raise UsageError(
                f"{path}: the cluster began as {meta.cluster_text}, and --cluster says "
                f"{cluster_text or 'nothing'}; give the first value, also after members have changed"
            )
        if not has_log and (meta.admitted or meta.cluster_id or meta.met or meta.restored):
            raise DataError(self.wal_path, None, f"the log that belongs to {path} is missing", RESTORE)
        return meta

    def _content(self, path: str) -> bytes:
        file = self._files.open(path)
        try:
            if file.size > META_BYTES_MAX:
                raise DataError(path, META_BYTES_MAX, f"the file has {file.size} bytes", REPLACE)
            return file.read(file.size, 0)
        finally:
            file.close()
