"""How a command ends when it fails: a sentence on standard error, and a status."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from balsadb.errors import AuthenticationError, BalsaError, UsageError

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130
"""What shells use for a command that Ctrl-C ended."""

TRACEBACK = "BALSADB_TRACEBACK"
"""Variable that shows where an unexpected error came from."""

_REMEDIES = {
    "NOAUTH": "; give the password with --password-file FILE or BALSADB_PASSWORD",
    "WRONGPASS": "; look at --user and --password-file, or BALSADB_USER and BALSADB_PASSWORD",
    "ERR": "; these servers have no password, so leave it out",
}
"""What to do when the servers do not let a command in, by the first word of what they say."""


@contextmanager
def sentences() -> Iterator[None]:
    """Turn whatever goes wrong inside into a sentence and an exit status; never a traceback."""
    try:
        yield
        sys.stdout.flush()
    except UsageError as error:
        _leave(str(error), WRONG_USAGE)
    except AuthenticationError as error:
        _leave(f"{str(error).rstrip('.')}{_REMEDIES.get(error.code, '')}", FAILED)
    except BalsaError as error:
        _leave(str(error), FAILED)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        # Whoever read our output has left (`... | head -c 1`). Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(FAILED) from None
    except OSError as error:
        about = f"{error.filename}: " if error.filename else ""
        _leave(f"{about}{error.strerror or error}", FAILED)
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        _leave(
            f"unexpected {type(error).__name__}: {error} (a bug of BalsaDB; {TRACEBACK}=1 shows where)",
            FAILED,
        )


def _leave(sentence: str, status: int) -> None:
    sys.stderr.write(f"balsadb: {sentence}\n")
    raise SystemExit(status) from None
