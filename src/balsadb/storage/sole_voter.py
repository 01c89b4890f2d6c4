"""A node's directory becomes that of the only voter of its cluster, under a new cluster id (rule M4).

This is how a cluster goes on that has lost its majority for ever. To the node it looks as if it had been
sent a state: its own, with every entry of its log applied, sessions included, and behind it one entry more,
the configuration of the new incarnation. So nothing new has to be understood at a start, and

* nobody who joins later is ever sent an entry with the old members or the old cluster id, as would be if the
  new configuration were just appended to the log: the log begins anew behind the state;
* nodes of the old incarnation are refused by the new cluster id. It is listed as a former one, so that they
  can be told why, and their ids are removed ones;
* the term is above every term that any of the survivors knows, so nothing that was proposed before can count;
* the entries that were not known to be committed are. There is nobody left who could say otherwise.

The directory means what it meant before until `CURRENT` is switched, in one step, and is recovered from then
on. What a process leaves behind that is killed before or after, the next start removes or finishes, and so
does another recovery.
"""

from __future__ import annotations

import os.path
import shutil
import time
from typing import Final

import msgspec

from balsadb.errors import InvariantError, UsageError
from balsadb.kv.cut import Bookkeeping
from balsadb.kv.machine import StateMachine
from balsadb.raft.configuration import decode_configuration, encode_configuration
from balsadb.raft.options import Recovered
from balsadb.raft.types import Configuration, Index, Member, Term
from balsadb.storage.datadir import DataDirectory
from balsadb.storage.files import Files
from balsadb.storage.meta import Meta
from balsadb.storage.opening import open_log
from balsadb.storage.state import STALL_SECONDS, Current, StateDirectory, StateStore, make_durable
from balsadb.storage.survivors import Survivor, initial
from balsadb.storage.view import apply_entry, first_members
from balsadb.storage.wal import Wal, WalOptions

READ_BYTES_MAX: Final = 4 * 1024 * 1024
"""Bytes of entries that are applied at a time."""
CUT_KEYS: Final = 4_096
CUT_BYTES: Final = 4 * 1024 * 1024
"""So many changes are brought to the disk at a time, as by a node (`replica.limits`)."""


def make_sole_voter(files: Files, chosen: Survivor, term: Term, cluster_id: bytes) -> Configuration:
    """Let the node whose directory was chosen go on alone, as the cluster `cluster_id`; return how.

    `term` is one that no node of the old incarnation has. Raises UsageError when a process uses the
    directory or when it is not any more as it was when it was chosen, DataError when it can't be trusted,
    StorageError when a file operation fails. Nothing has happened then, or everything has.
    """
    directory = DataDirectory.open(chosen.place, files, chosen.node, chosen.beginning)
    try:
        meta, states = directory.meta, StateDirectory(files, directory.state_path)
        outgoing = f"{directory.group_path}/outgoing"  # a start removes what is left behind there
        shutil.rmtree(outgoing, ignore_errors=True)
        files.make_directories(outgoing)
        work = f"{outgoing}/recovered"
        try:
            new, held = _build(files, directory, states.current(), chosen, work, term, cluster_id)
            make_durable(files, work)
            states.clean()
            fresh = states.fresh()
            files.rename(work, fresh)
            files.sync_directory(states.path)
        finally:
            shutil.rmtree(outgoing, ignore_errors=True)
        states.switch(os.path.basename(fresh), held.index)
        # From here on it is recovered. A start would do the rest, too.
        installed = states.current().installed
        wal, _ = open_log(files, directory.wal_path, meta.store_id, WalOptions(), held, installed)
        wal.close()
        # Of a `META` that was put back from an old copy the recovered node could never start. Nothing that
        # was proposed before can come any more, so that a start may be counted anew from here (rule P2).
        boot = next((boot for node, boot, _ in held.origins if node == meta.node_id), 0)
        directory.update_meta(
            msgspec.structs.replace(meta, cluster_id=new.cluster_id, boot=max(meta.boot, boot))
        )
        states.clean()
        return new
    finally:
        directory.close()


def _build(
    files: Files,
    directory: DataDirectory,
    current: Current,
    chosen: Survivor,
    path: str,
    term: Term,
    cluster_id: bytes,
) -> tuple[Configuration, Bookkeeping]:
    """Make the state of the recovered node at `path`, out of the present state and log, which stay."""
    meta = directory.meta
    store = StateStore(current.path)
    try:
        held = store.bookkeeping
        wal, recovered = open_log(
            files, directory.wal_path, meta.store_id, WalOptions(), held, current.installed
        )
        try:
            if (recovered.last_index, _term_of(recovered)) != (chosen.last_index, chosen.last_term):
                raise UsageError(f"{chosen.place} has changed since it was looked at; look again")
            store.checkpoint(path)
            new = successor(_in_force(held, recovered, meta), meta, cluster_id)
            return new, _advance(path, wal, recovered, meta, new, term)
        finally:
            wal.close()
    finally:
        store.close()


def successor(old: Configuration, meta: Meta, cluster_id: bytes) -> Configuration:
    """Return the configuration with which the node goes on alone: everybody else is removed for ever."""
    member = old.member(meta.node_id)
    peer, client = ("", "") if member is None else (member.peer_address, member.client_address)
    return Configuration(
        voters=(meta.node_id,),
        removed=tuple(sorted({*old.removed, *old.everyone()} - {meta.node_id})),
        members=(Member(meta.node_id, peer, client, meta.store_id),),
        cluster_id=cluster_id,
        former=(*old.former, old.cluster_id),
    )


def _in_force(held: Bookkeeping | None, recovered: Recovered, meta: Meta) -> Configuration:
    if recovered.memberships:
        return decode_configuration(recovered.memberships[-1].payload)
    if held is not None and held.configuration:
        return decode_configuration(held.configuration)
    return initial(meta)


def _term_of(recovered: Recovered) -> Term:
    return recovered.terms[-1][1] if recovered.terms else 0


def _advance(
    path: str, wal: Wal, recovered: Recovered, meta: Meta, new: Configuration, term: Term
) -> Bookkeeping:
    """Bring the state at `path` to the end of the log and one entry further, the new configuration."""
    store = StateStore(path)
    try:
        machine = StateMachine(first_members(meta, recovered), store, store.bookkeeping)
        last = recovered.last_index
        while machine.applied_index < last:
            _apply_some(machine, store, wal, last)
        payload, index = encode_configuration(new), last + 1
        machine.apply_membership(index, term, machine.log_time_ms, new.voters, new.removed, payload)
        _bring(machine, store)
        store.flush()
        held = store.bookkeeping
        assert held is not None
        return held
    finally:
        store.close()


def _apply_some(machine: StateMachine, store: StateStore, wal: Wal, last: Index) -> None:
    entries = wal.read(machine.applied_index + 1, last, READ_BYTES_MAX)
    if not entries:
        raise InvariantError(f"entry {machine.applied_index + 1} is not in the log that was just opened")
    for entry in entries:
        apply_entry(machine, entry)
        full = machine.changed_keys >= CUT_KEYS or machine.changed_bytes >= CUT_BYTES
        if full or machine.store.cleared:
            _bring(machine, store)


def _bring(machine: StateMachine, store: StateStore) -> None:
    """Write all changes since the last time."""
    cut = machine.freeze()
    while machine.store.count(cut):
        pass
    while True:
        batch = store.batch()
        for _ in cut.build(batch):
            pass
        if store.write(batch):
            break
        time.sleep(STALL_SECONDS)
    machine.store.written(cut)
