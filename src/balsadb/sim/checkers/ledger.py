"""Every append exactly as often as it was acknowledged.

All values that clients append are unique, so the final value of a key says of each append whether it
happened, how often, and in which order. Linearizability would find the same faults; the ledger finds them
at once, in any amount of history, and says which append it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from balsadb.sim.failures import SafetyViolation
from balsadb.sim.history import Action, Operation

SEPARATOR = b","
"""Ends every appended value."""


def check_ledger(
    history: Iterable[Operation], final: Mapping[bytes, bytes | None], overwritten: bool
) -> None:
    """Check the appends of a history against the final values.

    `overwritten`: keys were also put and deleted, so that an acknowledged append may be gone; then only
    doubled and foreign values are faults.
    """
    appends = [operation for operation in history if operation.action is Action.APPEND]
    known = {operation.argument for operation in appends}
    for key in sorted(final):
        pieces = (final[key] or b"").split(SEPARATOR)[:-1]
        seen: set[bytes] = set()
        for piece in pieces:
            value = piece + SEPARATOR
            if value in seen:
                raise SafetyViolation("ledger", f"{value!r} stands twice in {key!r}")
            seen.add(value)
            if not overwritten and value not in known:
                raise SafetyViolation(
                    "ledger", f"{value!r} in {key!r} was appended by nobody, or was refused"
                )
        if overwritten:
            continue
        for operation in appends:
            if operation.key == key and operation.returned is not None and operation.argument not in seen:
                raise SafetyViolation(
                    "ledger", f"the acknowledged {operation.argument!r} is lost from {key!r}"
                )
