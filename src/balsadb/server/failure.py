"""How a node stops when it must not go on."""

from __future__ import annotations

import os
from typing import NoReturn

from balsadb.server.journal import journal

EXIT_FAULT = 3
"""Exit status of a node that stopped, or did not start, because it could not trust itself or its disk.
Starting it again by itself helps nobody: a supervisor should leave it to people."""


def stop_process(sentence: str) -> NoReturn:
    """Say why and leave at once: no clean-up runs, nothing more is acknowledged or flushed (rule W4)."""
    try:
        journal.say("stopped", "error", status=EXIT_FAULT, message=sentence)
    finally:
        os._exit(EXIT_FAULT)
