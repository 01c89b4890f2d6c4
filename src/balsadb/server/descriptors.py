"""Open files: a scarce good that connections must not use up.

A node that can't open the next file of its log must stop (rule W4). So the connections of each port have a
bound, and the bounds together leave enough for the files. Otherwise a thousand idle connections, which cost
their makers nothing, would end a node.
"""

from __future__ import annotations

import contextlib
import resource

from balsadb.errors import UsageError
from balsadb.storage.state import STATE_FILES_MAX

FILES_MAX = STATE_FILES_MAX + 64
"""Descriptors kept free for the state, the log, standard streams, event loop and reads of the log."""
CLIENTS_WANTED = 10_000
"""Clients at once, where the system allows as many open files."""
CLIENTS_MIN = 16
"""With fewer a node is of no use."""


def raise_limit(clients: int = CLIENTS_WANTED) -> None:
    """Let this process open as many files as so many clients take and the system permits.

    Many shells start with 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = max(2 * clients, CLIENTS_WANTED)
    if soft == resource.RLIM_INFINITY or soft >= files:
        return
    wanted = files if hard == resource.RLIM_INFINITY else min(hard, files)
    with contextlib.suppress(OSError, ValueError):  # macOS permits less than it says; fewer clients then
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def clients_max(others: int, wanted: int = CLIENTS_WANTED) -> int:
    """Return how many clients there may be beside `others` connections. Raises UsageError at next to none."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    clients = min(wanted, soft - FILES_MAX - others)
    if clients < min(CLIENTS_MIN, wanted):
        raise UsageError(
            f"this process may have {soft} files open and needs at least {FILES_MAX + others + CLIENTS_MIN}; "
            "raise the limit with ulimit -n"
        )
    return clients
