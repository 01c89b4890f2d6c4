"""How a run fails."""

from __future__ import annotations

from balsadb.errors import BalsaError
from balsadb.raft.types import Index, NodeId
from balsadb.sim.history import Operation


class SafetyViolation(BalsaError):
    """A promise was broken. `checker` names the one that found it.

    The rest says what it is about, so that a report can leave out everything else.
    """

    def __init__(
        self,
        checker: str,
        what: str,
        *,
        servers: tuple[NodeId, ...] = (),
        index: Index = 0,
        history: tuple[Operation, ...] = (),
    ) -> None:
        self.checker = checker
        self.servers = servers
        """Empty: any server may have to do with it."""
        self.index = index
        """The log entry in question; 0: none in particular."""
        self.history = history
        """The operations on a key that no order explains, up to the first wrong answer."""
        super().__init__(f"{checker}: {what}")


class LivenessViolation(BalsaError):
    """A healed majority made no progress within its bound."""
