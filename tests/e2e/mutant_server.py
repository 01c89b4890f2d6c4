"""`balsadb` with a bug on purpose: `python mutant_server.py NAME serve ...` runs the mutant of that name.

Planting changes a running process, so a server has to plant its bug itself.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from balsadb.cli.main import main as balsadb
    from mutants.catalogue import MUTANTS
    from mutants.planting import planted

    name = sys.argv.pop(1)
    (mutant,) = (mutant for mutant in MUTANTS if mutant.name == name)
    with planted(mutant.edits):
        balsadb()


if __name__ == "__main__":
    main()
