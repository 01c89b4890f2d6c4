"""How a run fails."""

from __future__ import annotations

from balsadb.errors import BalsaError


class SafetyViolation(BalsaError):
    """A promise was broken. `checker` names the module that found it."""

    def __init__(self, checker: str, what: str) -> None:
        self.checker = checker
        super().__init__(f"{checker}: {what}")


class LivenessViolation(BalsaError):
    """A healed majority made no progress within its bound."""
