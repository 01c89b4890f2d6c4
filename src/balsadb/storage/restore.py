"""A backup becomes the data directory of a node of a new cluster (rule M4).

Every node of the new cluster gets the same backup. What each of them begins with is then the same, too: the
keys, the backup's index in a term above the backup's, and nothing of the members, origins and digests of
the old cluster. The new cluster has no id yet: its first leader draws one, as in any new cluster (rule W5).

Until it has one, the name of the backup stands in `META` and is compared in every hello. So an empty node, a
node with another backup, and a node of the old cluster at the same address are all refused.

Everything is made in `restoring/` and moved into place when it is complete, `META` last. A directory that a
killed restore leaves behind is either as empty as before, or one that no node starts on.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from balsadb.errors import StorageError, UsageError
from balsadb.kv.cut import STATE_VERSION, Bookkeeping, decode_record, encode_bookkeeping
from balsadb.kv.deadlines import make_hint
from balsadb.kv.store import deadline_of
from balsadb.raft.types import NodeId
from balsadb.storage.backup import BackupReader, Pair, Summary, verify_backup
from balsadb.storage.datadir import draw_store_id
from balsadb.storage.files import Files
from balsadb.storage.meta import Meta, encode_meta
from balsadb.storage.opening import open_log
from balsadb.storage.state import STALL_SECONDS, StateDirectory, StateStore, make_durable, record_key
from balsadb.storage.wal import WalOptions

RESTORING: Final = "restoring"
MARGIN_BYTES: Final = 64 * 1024 * 1024
"""Free space that must remain beside the restored state."""
_HARMLESS: Final = {"LOCK", "lost+found", RESTORING}
"""Names in a directory that holds no node's data: our own, and that of a file system's own directory."""


def restore(
    files: Files, backup: str, directory: str, node: NodeId, cluster_text: str, members: Sequence[NodeId]
) -> Summary:
    """Make `directory`, which must be empty, that of node `node` in a new cluster of `members`.

    Raises DataError when the backup is not sound, UsageError when the directory is in use or not empty,
    StorageError when a file operation fails. Nothing is restored then.
    """
    _check_empty(files, directory)
    summary = verify_backup(backup)
    files.make_directories(directory)
    lock = files.lock(f"{directory}/LOCK")
    try:
        _check_empty(files, directory)
        free = shutil.disk_usage(directory).free
        if free < summary.length + MARGIN_BYTES:
            raise StorageError(f"{directory}: {free} bytes are free and the backup has {summary.length}")
        work = f"{directory}/{RESTORING}"
        shutil.rmtree(work, ignore_errors=True)
        try:
            files.make_directories(work)
            _make(files, work, backup, summary, Meta(node, draw_store_id(), cluster_text), members)
            files.rename(f"{work}/group-0", f"{directory}/group-0")
            files.sync_directory(directory)
            files.rename(f"{work}/META", f"{directory}/META")
            files.sync_directory(directory)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    finally:
        lock.close()
    return summary


def _check_empty(files: Files, directory: str) -> None:
    found = sorted(set(files.list(directory)) - _HARMLESS)
    if found:
        raise UsageError(
            f"{directory} is not empty (it holds {found[0]}); a backup is restored into an empty directory"
        )


def _make(
    files: Files, work: str, backup: str, summary: Summary, meta: Meta, members: Sequence[NodeId]
) -> None:
    """Make all files of the node below `work`, durably."""
    info = summary.info
    bookkeeping = Bookkeeping(
        version=STATE_VERSION,
        index=info.index,
        # Above every term that the backup knows: an entry of the old cluster never looks newer than ours.
        term=info.term + 1,
        log_time_ms=info.log_time_ms,
        members=tuple(sorted(members)),
        configuration=b"",
        origins=(),
        digests=(),
        keys=info.keys,
    )
    states = StateDirectory(files, f"{work}/group-0/state")
    files.make_directories(states.path)
    path = states.fresh()
    _fill(path, backup, summary, bookkeeping)
    make_durable(files, path)
    states.switch(os.path.basename(path), info.index)
    # To the log the state is one that was installed: it begins behind it, in its term, without a vote.
    wal, _ = open_log(files, f"{work}/group-0/wal", meta.store_id, WalOptions(), bookkeeping, info.index)
    wal.close()
    file = files.open(f"{work}/META", create=True)
    try:
        file.write([encode_meta(msgspec.structs.replace(meta, restored=summary.checksum))], 0)
        file.sync()
    finally:
        file.close()
    files.sync_directory(work)


def _fill(path: str, backup: str, summary: Summary, bookkeeping: Bookkeeping) -> None:
    """Write the records of the backup, which is read and checked once more, and then the bookkeeping."""
    store = StateStore(path)
    try:
        with open(backup, "rb") as file:
            reader = BackupReader(file, backup)
            for pairs in reader.blocks():
                _write(store, pairs, b"")
        if reader.summary != summary:
            raise StorageError(f"{backup}: the backup changed while it was restored")
        _write(store, [], encode_bookkeeping(bookkeeping))
        store.flush()
    finally:
        store.close()


def _write(store: StateStore, pairs: list[Pair], bookkeeping: bytes) -> None:
    while True:
        batch = store.batch()
        for key, record in pairs:
            batch.put_raw(key, record)
            deadline_ms = deadline_of(decode_record(record))
            if deadline_ms:
                batch.hint(make_hint(deadline_ms, record_key(key)), True)
        if bookkeeping:
            batch.bookkeeping(bookkeeping)
        if store.write(batch):
            return
        time.sleep(STALL_SECONDS)
