"""What an error reply says about the command, as docs/errors.md tells it in a table.

An error reply is about one *attempt*. What it says about the *call* depends on the attempts before it (rule
S3): when one of them has an open outcome, only an answer that the state machine gave for this very sequence
number of the session settles it; a refusal by the node that was asked does not.

The safe answer is always the default: a word that is not known is a refusal of this attempt, and settles
nothing about earlier ones.
"""

from __future__ import annotations

from enum import Enum


class Verdict(Enum):
    """What an error reply says."""

    NOT_APPLIED = "certainly not applied"
    """Not done by this attempt, neither now nor later; it may be tried again elsewhere or after a while."""
    OPEN = "may have been applied"
    """Done, to be done yet, or never: only a retry within the session can tell."""
    EXPIRED = "session expired"
    """Not done by this attempt: its session is no more, so nothing sent in it will be done any more."""
    DONE = "applied, reply not kept"
    """Done exactly once, but the reply to it is no longer there to be repeated."""
    ANSWERED = "command refused"
    """What the command itself answers: it changed nothing. The session repeats it as any other reply."""
    NOT_LOGGED_IN = "not logged in"
    """This attempt was turned down before its command was looked at: name or password is wrong or missing."""
    REFUSED = "attempt refused"
    """This attempt was turned down before its command was looked at; asking the same again is of no use."""


_BY_CODE = {
    b"CLUSTERDOWN": Verdict.NOT_APPLIED,
    b"TRYAGAIN": Verdict.NOT_APPLIED,
    b"LOADING": Verdict.NOT_APPLIED,
    b"UNKNOWN": Verdict.OPEN,
    b"SESSIONEXPIRED": Verdict.EXPIRED,
    b"DONE": Verdict.DONE,
    b"NOAUTH": Verdict.NOT_LOGGED_IN,
    b"WRONGPASS": Verdict.NOT_LOGGED_IN,
    b"ERR": Verdict.ANSWERED,
    b"WRONGTYPE": Verdict.ANSWERED,
    b"EXECABORT": Verdict.ANSWERED,
}

_BY_BEGINNING = (
    # Sentences that are more precise than their first word.
    (b"ERR max number of clients reached", Verdict.NOT_APPLIED),
    (b"ERR AUTH <password> called without any password", Verdict.NOT_LOGGED_IN),
    (b"EXECABORT Transaction discarded because of previous errors", Verdict.REFUSED),
    (b"ERR unknown command ", Verdict.REFUSED),
    (b"ERR unknown subcommand ", Verdict.REFUSED),
    (b"ERR wrong number of arguments for ", Verdict.REFUSED),
    (b"ERR Command not allowed inside a transaction", Verdict.REFUSED),
    (b"ERR transaction is too large", Verdict.REFUSED),
    (b"ERR MULTI calls can not be nested", Verdict.REFUSED),
    (b"ERR EXEC without MULTI", Verdict.REFUSED),
    (b"ERR DISCARD without MULTI", Verdict.REFUSED),
    (b"ERR WATCH inside MULTI", Verdict.REFUSED),
    (b"ERR too many keys are watched", Verdict.REFUSED),
    (b"ERR Protocol error", Verdict.REFUSED),
    # By the state machine, but about the request and not about what the number stands for.
    (b"ERR the sequence number ", Verdict.REFUSED),
    (b"ERR sequence numbers and acknowledgements ", Verdict.REFUSED),
    (b"ERR Command not allowed inside ONCE", Verdict.REFUSED),
    (b"ERR a session's ", Verdict.REFUSED),
)

_SPECIAL = frozenset(beginning.split(b" ", 1)[0] for beginning, _ in _BY_BEGINNING)


def judge(text: bytes) -> Verdict:
    """Return what an error reply (without its leading minus) says about the attempt that it answers."""
    code = text.split(b" ", 1)[0]
    if code in _SPECIAL:
        for beginning, verdict in _BY_BEGINNING:
            if text.startswith(beginning):
                return verdict
    return _BY_CODE.get(code, Verdict.REFUSED)
