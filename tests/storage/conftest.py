"""Lets the tests of this directory share `memory_files.py` and `wal_kit.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
