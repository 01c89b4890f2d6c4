"""Lets the tests of this directory share `fake_node.py`, the script server of the Clerk's tests, and the
data directories of the storage tests."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "client"), str(HERE.parent / "storage")]
