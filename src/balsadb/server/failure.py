"""How a node stops when it must not go on."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

EXIT_FAULT = 3
"""Exit status of a node that stopped because it could not trust itself or its disk."""


def stop_process(sentence: str) -> NoReturn:
    """Say why and leave at once: no clean-up runs, nothing more is acknowledged or flushed (rule W4)."""
    try:
        sys.stderr.write(f"balsadb: stopped: {sentence}\n")
        sys.stderr.flush()
    finally:
        os._exit(EXIT_FAULT)
