"""Lets the tests of this directory share `fake_node.py`, and the script server of the Clerk's tests."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "client")]
