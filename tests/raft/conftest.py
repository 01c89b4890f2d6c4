"""Lets the tests of this directory share `raft_cluster.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
