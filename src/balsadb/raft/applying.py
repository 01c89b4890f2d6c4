"""Handing committed entries out to the state machine, each once and in order (Raft paper, 5.3).

Entries that left the memory cache - after a restart, or when applying lags - are asked back from the WAL
(rule B2). They are committed, so nothing can replace them while they are read.
"""

from __future__ import annotations

from balsadb.errors import InvariantError
from balsadb.raft.core import Core
from balsadb.raft.entry import Entry
from balsadb.raft.log import bounded
from balsadb.raft.ready import Fetch
from balsadb.raft.roles import Leader
from balsadb.raft.types import Index


def has_work(core: Core) -> bool:
    """Tell whether `take` would hand out entries or ask for them."""
    if core.handed_index >= core.log.commit_index:
        return False
    return core.apply_fetch is None or bool(core.apply_fetched)


def take(core: Core) -> tuple[Entry, ...]:
    """Return the next committed entries; none while they are read back from the WAL."""
    log = core.log
    first = core.handed_index + 1
    if core.apply_fetched:
        # Handed out in pieces, too: the driver may have read back more than one `Ready` admits.
        entries = bounded(core.apply_fetched, core.options.apply_bytes_max)
        core.apply_fetched = core.apply_fetched[len(entries) :]
        if not core.apply_fetched:
            core.apply_fetch = None
    elif first >= log.cache_first:
        entries = log.cached(first, log.commit_index, core.options.apply_bytes_max)
    else:
        if core.apply_fetch is None:
            core.apply_fetch = Fetch(core.id, first, min(log.commit_index, log.cache_first - 1))
            core.fetches.append(core.apply_fetch)
        return ()
    core.handed_index = entries[-1].index
    return tuple(entries)


def fetched(core: Core, fetch: Fetch, entries: tuple[Entry, ...]) -> None:
    """Take entries that were read back in order to be applied."""
    if fetch != core.apply_fetch or core.apply_fetched:
        # The wish was given up when an installed state took the place of what they would have made.
        return
    expected = core.handed_index
    for entry in entries:
        expected += 1
        if entry.index != expected or entry.term != core.log.term_at(expected) or expected > fetch.last:
            raise InvariantError(
                f"the WAL gave entry ({entry.term}, {entry.index}) back where "
                f"({core.log.term_at(expected)}, {expected}) belongs"
            )
    if not entries:
        raise InvariantError(f"the WAL gave nothing back of entries {fetch.first}..{fetch.last}")
    core.apply_fetched = entries


def applied(core: Core, index: Index) -> None:
    """Note how far the state machine is."""
    log = core.log
    if not log.applied_index <= index <= core.handed_index:
        raise InvariantError(
            f"applied index {index} is outside of {log.applied_index}..{core.handed_index}, "
            f"the entries that were handed out"
        )
    log.applied_index = index
    leader = core.state
    if isinstance(leader, Leader):
        leader.release(min(log.commit_index, log.durable_index, index))
