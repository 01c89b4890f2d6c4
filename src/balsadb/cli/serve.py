"""serve: settings from everywhere become one configuration, and a server runs with it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping

from balsadb.cli.failing import WRONG_USAGE
from balsadb.errors import BalsaError, UsageError
from balsadb.testing import EXIT_WITH_STDIN

DRAIN_SECONDS = 10.0
"""How long a server whose parent is gone may take to stop in good order."""


def serve(settings: Mapping[str, object], config_file: str | None) -> None:
    """Run a server until SIGTERM or SIGINT. `settings` by field name; what is None comes from the file."""
    from balsadb.server.config import make_config, read_config_file

    from_file = read_config_file(config_file) if config_file else {}
    given = {name: value for name, value in settings.items() if value not in (None, [])}
    config = make_config({**from_file, **given})

    from balsadb.server.failure import EXIT_FAULT
    from balsadb.server.journal import journal
    from balsadb.server.node import run

    # The database is nobody's business but this user's, whoever makes the files: RocksDB, too.
    os.umask(0o077)

    if os.environ.get(EXIT_WITH_STDIN):
        threading.Thread(target=_leave_with_parent, name="parent watch", daemon=True).start()
    journal.begin(config.id, config.log_format)
    try:
        run(config)
    except BalsaError as error:
        status = WRONG_USAGE if isinstance(error, UsageError) else EXIT_FAULT
        journal.say("stopped", "error", status=status, message=str(error))
        raise SystemExit(status) from None


def _leave_with_parent() -> None:
    """Wait for the end of standard input, a pipe that only our parent can close or leave open by dying."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(DRAIN_SECONDS)
    os._exit(1)
