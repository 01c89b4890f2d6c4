"""`balsadb` on a machine whose resolver answers from a file: `python named_server.py FILE serve ...`.

The file is read at every lookup, so that a name can get another address while servers run.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

_resolve = socket.getaddrinfo


def answer_from(file: Path):
    """Return a resolver that knows the names in the file, and asks the system's for everything else."""

    def getaddrinfo(host, port, *rest, **options):
        name = host.decode() if isinstance(host, bytes) else host
        if isinstance(name, str) and name.endswith(".test"):
            host = json.loads(file.read_text()).get(name)
            if host is None:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return _resolve(host, port, *rest, **options)

    return getaddrinfo


def main() -> None:
    socket.getaddrinfo = answer_from(Path(sys.argv.pop(1)))
    from balsadb.cli.main import main as balsadb

    balsadb()


if __name__ == "__main__":
    main()
