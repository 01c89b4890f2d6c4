"""Putting log and state together at a start (rules C4, W3).

The state is as of some entry and the log continues it. What else may be found:

    log begins ...              state is ...                    then
    at 1                        empty                           everything is applied from the log
    later                       lost, or older than that        the node fetches another one (rule W5)
    at or before its end        within the log, same term       applied from there on
    anywhere                    installed, log not begun anew   the whole log is dropped: it was replaced
    at or before its end        past the log, or another term   damage: the log has lost what it had synced
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Protocol

import msgspec

from balsadb.errors import DataError
from balsadb.kv.cut import Bookkeeping
from balsadb.raft.options import Recovered
from balsadb.raft.types import Index, Term
from balsadb.storage.files import Files
from balsadb.storage.recovery import REPLACE
from balsadb.storage.wal import Wal, WalOptions


def open_log(
    files: Files,
    directory: str,
    store_id: bytes,
    options: WalOptions,
    state: Bookkeeping | None,
    installed: Index,
) -> tuple[Wal, Recovered]:
    """Open the log that continues `state`, which was received at index `installed` (0: it was not).

    Raises DataError when they don't fit together, or when the log can't be trusted.
    """
    wal, recovered = Wal.open(files, directory, store_id, options)
    try:
        return wal, fit(wal, recovered, directory, state, installed)
    except BaseException:
        wal.close()
        raise


class Restart(Protocol):
    """The part of a log that `fit` may need."""

    def restart(self, index: Index, term: Term) -> Recovered:
        """Drop the whole log; it begins behind an installed state."""
        ...


def fit(
    wal: Restart, recovered: Recovered, directory: str, state: Bookkeeping | None, installed: Index
) -> Recovered:
    """Decide by the table above what a start begins with. Raises DataError for damage."""
    index, term, time_ms = (state.index, state.term, state.log_time_ms) if state else (0, 0, 0)
    base = recovered.first_index - 1
    if base <= index and index and _term_at(recovered, index) != term:
        if installed != index or base >= installed:
            problem = f"the state has entry {index} of term {term}, and the log has lost it"
            raise DataError(directory, None, problem, REPLACE)
        recovered = wal.restart(index, term)
    return msgspec.structs.replace(recovered, last_time_ms=max(recovered.last_time_ms, time_ms))


def _term_at(recovered: Recovered, index: Index) -> Term | None:
    runs = recovered.terms
    if not runs or not runs[0][0] <= index <= recovered.last_index:
        return None
    return runs[bisect_right(runs, index, key=lambda run: run[0]) - 1][1]
