"""What one piece of a connection's input asks for: the step from commands to a request.

An `Intake` belongs to one connection and keeps its MULTI. It sorts the commands of a piece of input into
writes, reads, and replies that are known at once, without touching a socket.
"""

from __future__ import annotations

from collections.abc import Callable
from os import urandom
from time import monotonic_ns

from balsadb.kv.batch import EXEC, ONCE_EXEC
from balsadb.kv.reply import OK, QUEUED, NullArray, Refusal, Reply
from balsadb.kv.table import Command, Kind, lookup, unknown_command, wrong_arity
from balsadb.replica.request import Lane, Request, RequestKind
from balsadb.resp.encode import encode_reply
from balsadb.server.commands import run
from balsadb.server.commands.client_state import ClientState
from balsadb.server.commands.connection import Login, read_login
from balsadb.server.commands.view import NodeView
from balsadb.server.commands.words import word
from balsadb.server.telemetry import UNKNOWN_COMMAND, CommandCounts

QUEUED_COMMANDS_MAX = 65_536
"""Commands in one MULTI; more make it fail."""
QUEUED_BYTES_MAX = 16 * 1024 * 1024
"""Bytes of all commands in one MULTI; more make it fail."""
QUEUED_COMMAND_BYTES = 100
"""What a queued command takes besides its arguments, at least."""
LOCAL_NS_MAX = 2_000_000
"""A piece ends when commands that the node answers by itself have taken so long; others get their share then.
Without it 250 KB of input can ask for many seconds of work (bad input 16)."""

CHANGES = frozenset({b"ADD", b"REMOVE", b"REPLACE", b"TRANSFER"})
"""Subcommands of RAFT whose outcome the whole cluster decides."""
_LOGINS = frozenset({b"AUTH", b"HELLO"})
"""Commands that may have a password with them."""
_NO_VERSION = b"-"
"""No key ever has it."""
WATCHED_KEYS_MAX = 4_096
"""Keys that a connection watches at a time."""
WATCHED_BYTES_MAX = 1024 * 1024
"""Bytes of these keys: they travel with the EXEC in its log entry."""

_NESTED = Refusal(b"ERR MULTI calls can not be nested")
_EXEC_WITHOUT = Refusal(b"ERR EXEC without MULTI")
_DISCARD_WITHOUT = Refusal(b"ERR DISCARD without MULTI")
_ABORTED = Refusal(b"EXECABORT Transaction discarded because of previous errors.")
_NOT_IN_MULTI = Refusal(b"ERR Command not allowed inside a transaction")
_WATCH_INSIDE = Refusal(b"ERR WATCH inside MULTI is not allowed")
_TOO_MANY_WATCHED = Refusal(b"ERR too many keys are watched; EXEC will do nothing")
_MULTI_FULL = Refusal(b"ERR transaction is too large")


class Piece:
    """The sorted content of one piece of input."""

    __slots__ = (
        "answers",
        "block",
        "change",
        "closing",
        "costly",
        "ended",
        "literals",
        "login",
        "readonly",
        "reads",
        "resp3",
        "size",
        "taken",
        "until_ns",
        "watching",
        "writes",
    )

    def __init__(self, readonly: bool = False, resp3: bool = False) -> None:
        self.writes: list[list[bytes]] = []
        """For the log, flat as in `kv.batch`."""
        self.reads: list[tuple[int, list[bytes]]] = []
        """(position in `writes` before which it stands, command)."""
        self.literals: list[tuple[int, bytes]] = []
        """(answers before it, encoded reply)."""
        self.block: list[list[bytes]] | None = None
        """An EXEC of reads alone that is the only thing in the piece that needs the replica."""
        self.change: list[bytes] | None = None
        """A change of the members or of the leader; such a command has a piece of its own."""
        self.login: Login | None = None
        """A password to be checked, which takes a while; such a command has a piece of its own."""
        self.costly = False
        """True when its last command looks at many keys; the piece ends with it."""
        self.answers = 0
        """Replies that the replica has to give."""
        self.size = 0
        """Bytes of all arguments."""
        self.closing = False
        """True when the client asked to be disconnected; nothing after it is looked at."""
        self.readonly = readonly
        self.resp3 = resp3
        """What was in force for the commands that the replica has to answer."""
        self.watching: list[bytes] = []
        """Keys of a WATCH, whose versions are the last answer of the piece."""
        self.ended = False
        """True when the commands that follow belong to another piece."""
        self.taken = 0
        """Commands looked at."""
        self.until_ns = 0
        """When the node's own commands have taken long enough; 0 before the first one."""

    def request(self, lane: Lane, readonly: bool) -> Request:
        """Make the request for the replica. Only called with `answers` > 0."""
        if self.change is not None:
            return Request(lane, RequestKind.CHANGE, [self.change], [], 1, self.size)
        if self.writes:
            return Request(lane, RequestKind.WRITE, self.writes, self.reads, self.answers, self.size)
        kind = RequestKind.STALE_READ if readonly else RequestKind.READ
        if self.block is not None:
            return Request(lane, kind, self.block, [], 1, self.size, transaction=True)
        request = Request(lane, kind, [argv for _, argv in self.reads], [], self.answers, self.size)
        request.costly = self.costly
        return request


class _Transaction:
    """Commands between MULTI and EXEC."""

    __slots__ = ("commands", "failed", "size", "writes")

    def __init__(self) -> None:
        self.commands: list[list[bytes]] = []
        self.size = 0
        self.writes = False
        """True when at least one of the commands changes something."""
        self.failed = False
        """True after a refused command: EXEC then discards everything, as in Redis."""


class Intake:
    """Sorts the commands of one connection."""

    __slots__ = ("_changed", "_counts", "_log_out", "_state", "_transaction", "_view", "_watched")

    def __init__(
        self,
        state: ClientState,
        view: NodeView,
        counts: CommandCounts,
        log_out: Callable[[], None] | None = None,
    ) -> None:
        """`log_out` is called at a RESET, where there are users; without it nobody has a password."""
        self._state = state
        self._log_out = log_out
        self._view = view
        self._counts = counts
        self._transaction: _Transaction | None = None
        self._watched: dict[bytes, bytes] = {}
        """The version that each watched key had at its first WATCH (rule S7)."""
        self._changed = False
        """True when a key changed between two WATCHes, or one got no answer: EXEC must do nothing then."""

    @property
    def in_multi(self) -> bool:
        """Tell whether commands are queued for an EXEC."""
        return self._transaction is not None

    @property
    def queued_bytes(self) -> int:
        """Memory that an open MULTI takes."""
        transaction = self._transaction
        if transaction is None:
            return 0
        return transaction.size + QUEUED_COMMAND_BYTES * len(transaction.commands)

    def sort(self, commands: list[list[bytes]]) -> Piece:
        """Sort a non-empty list of commands that arrived together; `Piece.taken` says how many of them."""
        piece = Piece(self._state.readonly, self._state.resp3)
        running: Command | None = None
        counted = 0
        for argv in commands:
            command = lookup(argv[0])
            if command is not running:  # commands are counted by runs of the same one
                if counted < piece.taken:
                    self._counts.add(running, piece.taken - counted)
                running, counted = command, piece.taken
            piece.taken += 1
            self._state.last_command = argv[0]
            if command is None or not command.check_arity(len(argv)):
                self._refuse(piece, unknown_command(argv) if command is None else wrong_arity(command.name))
            elif self._transaction is not None or command.kind is Kind.TRANSACTION:
                _AROUND_MULTI.get(command.name, Intake._queue)(self, piece, command, argv)
            elif command.kind is Kind.WRITE:
                piece.writes.append(argv)
                piece.answers += 1
                piece.size += sum(map(len, argv))
            elif command.kind is Kind.READ:
                piece.reads.append((len(piece.writes), argv))
                piece.answers += 1
                piece.size += sum(map(len, argv))
                if command.unlogged:
                    piece.costly = piece.ended = True
            elif command.name == b"RAFT" and word(argv[1]) in CHANGES:
                self._change(piece, argv)
            elif self._log_out is not None and command.name in _LOGINS:
                self._log_in(piece, command, argv)
            else:
                self._local(piece, command, argv)
            if piece.ended:
                break
        # What `add` does, without a call: this happens for every piece of input.
        self._counts.received[UNKNOWN_COMMAND if running is None else running.name] += piece.taken - counted
        if piece.block is not None and piece.answers > 1:
            self._log_block(piece)
        return piece

    def refuse(self, argv: list[bytes], refusal: Refusal) -> Piece:
        """Return the piece of one command that its user may not run."""
        piece = Piece(self._state.readonly, self._state.resp3)
        piece.taken, piece.ended = 1, True
        self._state.last_command = argv[0]
        self._counts.add(lookup(argv[0]), 1)
        self._refuse(piece, refusal)
        return piece

    def _say(self, piece: Piece, reply: Reply) -> None:
        if type(reply) is Refusal:
            self._counts.refused(lookup(self._state.last_command), reply)
        piece.literals.append((piece.answers, encode_reply(reply, self._state.resp3)))

    def _refuse(self, piece: Piece, refusal: Refusal) -> None:
        if self._transaction is not None:
            self._transaction.failed = True
        self._say(piece, refusal)
        _count_time(piece)

    def _change(self, piece: Piece, argv: list[bytes]) -> None:
        """Take a command that waits for the whole cluster; what stands around it is another piece."""
        piece.ended = True
        if piece.taken > 1:
            piece.taken -= 1
            return
        piece.change = argv
        piece.answers = 1
        piece.size = sum(map(len, argv))

    def _log_in(self, piece: Piece, command: Command, argv: list[bytes]) -> None:
        """Take an AUTH or HELLO; one with a password waits until that is checked, and all behind it do."""
        login = read_login(argv)
        if not isinstance(login, Login):
            self._local(piece, command, argv)
            return
        piece.ended = True
        if piece.taken > 1:
            piece.taken -= 1
            return
        piece.login = login

    def _local(self, piece: Piece, command: Command, argv: list[bytes]) -> None:
        """Answer a command that concerns this node alone."""
        self._answer(piece, command, argv)
        state = self._state
        if piece.answers == 0:
            piece.readonly, piece.resp3 = state.readonly, state.resp3
        elif (piece.readonly, piece.resp3) != (state.readonly, state.resp3):
            piece.ended = True  # what came before READONLY, HELLO or RESET is answered as of then
        _count_time(piece)

    def _answer(self, piece: Piece, command: Command, argv: list[bytes]) -> None:
        if command.name == b"RAFT" and len(argv) <= 3 and argv[1].upper() == b"DIGEST":
            # The digest is the one admin command that goes through the log (rule S8).
            if len(argv) == 2:
                piece.writes.append([b"RAFT.DIGEST"])
            else:
                piece.reads.append((len(piece.writes), [b"RAFT.DIGESTAT", argv[2]]))
            piece.answers += 1
        elif command.name == b"RANDOMKEY":
            # Chance comes from here: a state machine has none (rule S4).
            piece.reads.append((len(piece.writes), [b"RAFT.RANDOMKEY", urandom(8)]))
            piece.answers += 1
        elif command.name == b"QUIT":
            self._say(piece, OK)
            piece.closing = piece.ended = True
        elif command.name == b"RESET":
            self._end()
            self._state.reset()
            piece.literals.append((piece.answers, b"+RESET\r\n"))
            if self._log_out is not None:
                piece.ended = True  # what follows comes from somebody else, or from nobody
                self._log_out()
        else:
            self._say(piece, run(self._state, self._view, argv))

    # ------------------------------------------------------------------- MULTI

    def _multi(self, piece: Piece, command: Command, argv: list[bytes]) -> None:
        if self._transaction is not None:
            self._say(piece, _NESTED)
            return
        self._transaction = _Transaction()
        self._state.queued = 0
        self._say(piece, OK)

    def _queue(self, piece: Piece, command: Command, argv: list[bytes]) -> None:
        transaction = self._transaction
        assert transaction is not None
        if command.kind not in (Kind.READ, Kind.WRITE) or command.unlogged or b"no_multi" in command.flags:
            self._refuse(piece, _NOT_IN_MULTI)  # answers of one node must not get into the log (rule S4)
            return
        transaction.size += sum(map(len, argv))
        if len(transaction.commands) >= QUEUED_COMMANDS_MAX or transaction.size > QUEUED_BYTES_MAX:
            transaction.commands.clear()
            self._refuse(piece, _MULTI_FULL)
            return
        transaction.commands.append(argv)
        transaction.writes = transaction.writes or command.kind is Kind.WRITE
        self._state.queued = len(transaction.commands)
        self._say(piece, QUEUED)

    def _discard(self, piece: Piece, command: Command, argv: list[bytes]) -> None:
        if self._transaction is None:
            self._say(piece, _DISCARD_WITHOUT)
        else:
            self._end()
            self._say(piece, OK)

    def _once(self, piece: Piece, command: Command, argv: list[bytes]) -> None:
        """Inside MULTI: end it by `ONCE id sequence ack EXEC`; nothing else is allowed of ONCE (rule S2)."""
        if len(argv) != 5 or argv[4].upper() != EXEC:
            self._refuse(piece, _NOT_IN_MULTI)
            return
        transaction, changed = self._transaction, self._changed
        assert transaction is not None
        conditions = [b"", _NO_VERSION] if changed else self._conditions()
        self._end()
        if transaction.failed:
            self._say(piece, _ABORTED)
            return
        # Through the log even without a command: what an EXEC of nothing says is kept as any other reply. And
        # even when it can't run any more: an earlier attempt may have, and then its reply is repeated.
        piece.writes.append([ONCE_EXEC, *argv[1:4], b"%d" % len(transaction.commands), *conditions])
        piece.writes += transaction.commands
        piece.answers += 1
        piece.size += transaction.size + sum(map(len, argv))

    def _exec(self, piece: Piece, command: Command, argv: list[bytes]) -> None:
        transaction = self._transaction
        if transaction is None:
            self._say(piece, _EXEC_WITHOUT)
            return
        conditions, changed = self._conditions(), self._changed
        self._end()
        if transaction.failed:
            self._say(piece, _ABORTED)
        elif changed:
            self._say(piece, NullArray())
        elif not transaction.commands and not conditions:
            self._say(piece, [])
        else:
            if not transaction.writes and not piece.answers and not conditions:
                piece.block = transaction.commands
            else:
                piece.writes.append([EXEC, b"%d" % len(transaction.commands), *conditions])
                piece.writes += transaction.commands
            piece.answers += 1
            piece.size += transaction.size + sum(map(len, conditions))

    def _conditions(self) -> list[bytes]:
        """Return the watched keys, each with its version (rule S7)."""
        return [word for watched in self._watched.items() for word in watched]

    def _end(self) -> None:
        """Be outside of a transaction, with no key watched."""
        self._transaction = None
        self._state.queued = -1
        self._watched, self._changed = {}, False

    # ------------------------------------------------------------------- WATCH

    def _watch(self, piece: Piece, command: Command, argv: list[bytes]) -> None:
        """Have the versions of keys read. What follows belongs to the next piece, which knows them."""
        keys = list(dict.fromkeys(argv[1:]))
        if self._transaction is not None:
            self._say(piece, _WATCH_INSIDE)
            return
        known = len(self._watched.keys() | keys)
        if known > WATCHED_KEYS_MAX or sum(map(len, self._watched)) + sum(map(len, keys)) > WATCHED_BYTES_MAX:
            self._changed = True  # a client that does not look at errors must not lose an update
            self._say(piece, _TOO_MANY_WATCHED)
            return
        piece.reads.append((len(piece.writes), [b"RAFT.VERSIONS", *keys]))
        piece.answers += 1
        piece.size += sum(map(len, keys))
        piece.watching = keys
        piece.ended = True

    def watched(self, keys: list[bytes], versions: Reply) -> Reply:
        """Take the versions that a WATCH has read; returns its answer."""
        if not isinstance(versions, list):
            self._changed = True
            return versions
        for key, version in zip(keys, versions, strict=True):
            assert isinstance(version, bytes)
            if self._watched.setdefault(key, version) != version:
                self._changed = True
        return OK

    def _unwatch(self, piece: Piece, command: Command, argv: list[bytes]) -> None:
        if self._transaction is not None:
            self._refuse(piece, _NOT_IN_MULTI)
            return
        self._watched, self._changed = {}, False
        self._say(piece, OK)

    def _log_block(self, piece: Piece) -> None:
        """Let an EXEC of reads go through the log after all, because other commands share its piece."""
        assert piece.block is not None
        header = [b"EXEC", b"%d" % len(piece.block)]
        block = [header, *piece.block]
        # The block is the first of the piece that needs the replica, so everything else stands behind it.
        piece.writes[:0] = block
        piece.reads = [(position + len(block), argv) for position, argv in piece.reads]
        piece.block = None


def names_of(request: Request) -> list[bytes]:
    """Return the names of the commands that a request's replies belong to, as they came."""
    if request.transaction:
        return [EXEC]
    if request.kind is not RequestKind.WRITE:
        return [argv[0] for argv in request.commands]
    commands = request.commands
    names: list[bytes] = []
    reads = iter([*request.reads, (len(commands), [b""])])
    position, read = next(reads)
    place = 0
    while place < len(commands):
        while position <= place:
            names.append(read[0])
            position, read = next(reads)
        argv = commands[place]
        names.append(argv[0])
        # A transaction is flat: its header says how many of the following commands are inside.
        inside = {EXEC: 1, ONCE_EXEC: 4}.get(argv[0])
        place += 1 if inside is None else 1 + int(argv[inside])
    names += [argv[0] for start, argv in request.reads if start >= len(commands)]
    return names


def _count_time(piece: Piece) -> None:
    """End a piece whose local commands have taken long enough; the end of the first one starts the clock."""
    now = monotonic_ns()
    if not piece.until_ns:
        piece.until_ns = now + LOCAL_NS_MAX
    elif now >= piece.until_ns:
        piece.ended = True


_AROUND_MULTI: dict[bytes, Callable[[Intake, Piece, Command, list[bytes]], None]] = {
    b"MULTI": Intake._multi,
    b"EXEC": Intake._exec,
    b"DISCARD": Intake._discard,
    b"ONCE": Intake._once,
    b"WATCH": Intake._watch,
    b"UNWATCH": Intake._unwatch,
    b"QUIT": Intake._local,
    b"RESET": Intake._local,
}
"""Commands that are not queued inside MULTI."""
