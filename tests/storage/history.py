"""The entries of `some_log`, as the log on disk has them."""

from __future__ import annotations

from balsadb.raft.configuration import encode_configuration
from balsadb.raft.entry import Entry, encode_entry
from balsadb.raft.types import EntryKind
from kv.some_log import SomeLog

CLUSTER = "1=a:1,2=b:2,3=c:3"
LENGTH = 120
LOG = SomeLog(LENGTH)

_KINDS = {"commands": EntryKind.COMMANDS, "empty": EntryKind.NOOP, "membership": EntryKind.MEMBERSHIP}


def entry(index: int) -> Entry:
    """Return an entry; terms and times are those with which `SomeLog.apply` applies it."""
    kind, what = LOG._entries[index - 1]
    payload = what if kind == "commands" else encode_configuration(what) if what else b""
    return encode_entry(1 + index // 10, index, 1000 * index, _KINDS[kind], payload)
