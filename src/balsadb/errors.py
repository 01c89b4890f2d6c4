"""Every exception that BalsaDB raises, in one tree sorted by who must act.

    BalsaError
    ├── InvariantError        our bug: the node stops with the sentence, never continues
    ├── ProtocolError         the peer's or client's bug: close that connection, nobody else notices
    ├── LocalFault            this machine or its disk: the node stops; the message names the remedy
    │   ├── StorageError      a file operation failed; nothing is acknowledged after it
    │   ├── DataError         data on disk can't be trusted: file, offset, remedy
    │   └── EntriesLost       the disk has lost what this node had acknowledged
    ├── UsageError            the operator's or caller's input: a sentence, exit status 2
    └── ClientError           what a Clerk raises to its caller
        ├── NotApplied        certainly did not happen; safe to do again
        │   └── NoServer      no server could be reached at all
        ├── OutcomeUnknown    may have happened; doing it again may do it twice
        │   └── SessionExpired  the session that would have told the outcome is no more
        ├── ReplyLost         happened exactly once, but what it answered is no longer known
        └── CommandError      the database refused the command deterministically; nothing changed
            └── AuthenticationError  the servers want a name and password, or others

Names never shadow Python's builtins. Data travels as attributes, not inside message texts.
"""

from __future__ import annotations


class BalsaError(Exception):
    """Base of everything raised on purpose by this package."""


class InvariantError(BalsaError):
    """A fact that must always hold does not. Only a bug of ours can cause it; the node stops."""


class ProtocolError(BalsaError):
    """The other side of a connection sent what it must not. The connection is closed."""


class LocalFault(BalsaError):
    """This machine can't go on as a member. The process stops and the message says what to do."""


class StorageError(LocalFault):
    """A write, sync, rename or read of a file failed. After it nothing is acknowledged (rule W4)."""


class DataError(LocalFault):
    """What lies on disk can't be trusted.

    `path` names the file, `offset` the first byte in doubt (None when the whole file is meant),
    `remedy` is one sentence that tells the operator what to do.
    """

    def __init__(self, path: str, offset: int | None, problem: str, remedy: str) -> None:
        self.path = path
        self.offset = offset
        self.problem = problem
        self.remedy = remedy
        where = path if offset is None else f"{path} at offset {offset}"
        super().__init__(f"{where}: {problem}. {remedy}")


class EntriesLost(LocalFault):
    """The log lacks entries that this node had acknowledged, as a leader proves.

    `index` is the last entry that the leader counts as durable here.
    """

    def __init__(self, index: int, last: int, leader: int) -> None:
        self.index = index
        super().__init__(
            f"this node had acknowledged entry {index} to node {leader}, and its log ends at entry {last}: "
            "the disk has lost data. Check the disk, then replace the node by a new one under a new id; "
            "never start this id again on an emptied directory."
        )


class UsageError(BalsaError):
    """A flag, address or argument is wrong. Shown as a sentence; the exit status is 2."""


class ClientError(BalsaError):
    """Base of what a Clerk raises."""


class NotApplied(ClientError):
    """The operation certainly did not happen and may be repeated."""


class NoServer(NotApplied):
    """No server could be reached, so nothing was sent."""


class OutcomeUnknown(ClientError):
    """The operation was sent and no answer came: it may have happened."""


class SessionExpired(OutcomeUnknown):
    """The session ended before the outcome could be learned: the operation may have happened, once, and will
    not happen any more."""


class ReplyLost(ClientError):
    """The operation happened exactly once; its reply was too large to be kept for a repeated question."""


class CommandError(ClientError):
    """The database refused the command. `code` is the first word of the reply, such as WRONGTYPE."""

    def __init__(self, message: str) -> None:
        self.code = message.split(" ", 1)[0]
        super().__init__(message)


class AuthenticationError(CommandError):
    """The servers did not let the client in, so nothing was done. `code` is NOAUTH where it gave no password,
    WRONGPASS where name or password are wrong, and ERR where the servers have no password."""
