"""One client connection: bytes in, requests to the replica, replies out in order.

No task, future or exception per command. A piece of input becomes at most one `Request`; replies that
need no replica (PING, errors, QUEUED) stand in line with it as ready-made bytes. Replies leave in the
order of the commands, with one write per connection and turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

from balsadb.kv.reply import Refusal
from balsadb.kv.table import lookup
from balsadb.replica.request import Lane, Request, RequestKind
from balsadb.resp.encode import encode_reply
from balsadb.resp.parser import CommandParser
from balsadb.server.commands.client_state import ClientState
from balsadb.server.commands.connection import WRONG_PASSWORD, Login, logged_in
from balsadb.server.guards import Sorter, sorter
from balsadb.server.intake import Intake, Piece, names_of
from balsadb.server.logins import FAILURES_PER_CONNECTION_MAX, Attempt
from balsadb.server.passwords import DEFAULT, NOBODY
from balsadb.server.weight import unread_bytes

if TYPE_CHECKING:
    from balsadb.server.listener import Listener

UNANSWERED_COMMANDS_MAX = 16_384
"""Past this many unanswered commands a connection is not read until half of them are answered."""
UNANSWERED_BYTES_MAX = 4 * 1024 * 1024
"""The same for the bytes of unanswered commands."""
OUTPUT_BYTES_HIGH = 256 * 1024
"""So many bytes of replies are encoded at a time; what is not encoded waits as references to values."""
UNSENT_BYTES_HIGH = 64 * 1024
"""With more that the kernel does not take, a client is one that does not read: nothing more is encoded for
it, nothing more read from it, and what it holds counts. Small, because there may be thousands of them."""
INPUT_SLICE_BYTES = 16 * 1024
"""Input is parsed in slices of this. 256 KiB of the shortest commands, which is what one read may give, would
keep everybody else waiting for 50 ms."""
LATE_SLICE_BYTES = 2 * 1024
"""The same for input that had to wait: one slice with commands, then the next client has its turn."""
SMALL_INPUT_BYTES = 512
"""A client that sends so little at a time need not wait behind those who send much."""


class ClientConnection(asyncio.Protocol):
    """The protocol object of one client."""

    __slots__ = (
        "_attempt",
        "_closing",
        "_cursor",
        "_eof",
        "_intake",
        "_lane",
        "_late",
        "_late_at",
        "_listener",
        "_out",
        "_parser",
        "_reading_paused",
        "_sort",
        "_todo",
        "_unanswered",
        "_unread",
        "_watching",
        "_writing_paused",
        "buffered_bytes",
        "marked",
        "noticed_ms",
        "quiet_since_ms",
        "state",
        "stuck_since_ms",
        "transport",
    )

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._parser = CommandParser()
        self._lane = Lane(self)
        self._out: deque[bytes | Request] = deque()
        self._cursor = 0
        """Replies of the request at the head of `_out` that were encoded already."""
        self._unanswered = 0
        self._watching: tuple[Request, list[bytes]] | None = None
        """A piece that ends with a WATCH, and the keys of that; or a log-in, without keys. What follows waits
        until it is answered."""
        self._attempt: Attempt | None = None
        """The log-in that was last begun."""
        self._todo: list[list[bytes]] = []
        """Commands that were read and belong to a later piece; nothing is read while there are any."""
        self._late = b""
        """Input that was read and whose turn has not come; nothing is read while there is any."""
        self._late_at = 0
        """Where in it to go on."""
        self._eof = False
        """True when the client has closed its sending side."""
        self._closing = False
        """True when the connection closes as soon as everything in `_out` was written."""
        self._reading_paused = False
        self._writing_paused = False
        self._unread = 0
        """Bytes of the replies that wait because the client does not read."""
        self.buffered_bytes = 0
        """Memory of an unfinished command, an open MULTI and unread replies, as the listener knows it."""
        self.marked = False
        """True while the listener will flush this connection at the end of the turn."""
        self.stuck_since_ms = 0
        """Since when a command is incomplete or the client does not read; 0 when neither is the case."""
        self.noticed_ms = -1
        """`last_command_ms` of the state when the listener looked last; -1 before that."""
        self.quiet_since_ms = 0
        """When the listener has seen it change."""
        self.transport: asyncio.Transport | None = None
        self.state = ClientState(0)
        self._intake = Intake(self.state, listener.view, listener.counts)
        self._sort: Sorter = self._intake.sort
        """What the connection's commands are given to; it depends on the user."""

    # ------------------------------------------------------- asyncio callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register with the listener, which may refuse the client."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=UNSENT_BYTES_HIGH)
        listener = self._listener
        if listener.opened(self):
            log_out = None if listener.logins is None else self._log_out
            self._intake = Intake(self.state, listener.view, listener.counts, log_out)
            self.user_changed()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client. Writes under way may still happen; their replies go nowhere."""
        self._let_go()
        self._listener.closed(self)

    def drop(self) -> None:
        """Close at once, and give up everything that is kept for this client."""
        if self.transport is not None:
            self.transport.abort()
        self._let_go()

    def _let_go(self) -> None:
        self.transport = None
        self._closing = True
        self._out.clear()
        self._todo.clear()
        self._late, self._late_at, self._unread = b"", 0, 0
        # The connection and its lane know each other, so this object may stay until the next full collection
        # of garbage, and what it has buffered with it.
        self._parser = CommandParser()
        self._intake = Intake(self.state, self._listener.view, self._listener.counts)
        self._sort = self._intake.sort
        if self._attempt is not None:
            self._attempt.cancel()

    def eof_received(self) -> bool:
        """Finish the replies of a client that closed its sending side, then close."""
        self._eof = True
        if not (self._todo or self._late):
            self._close_after_replies()
        # A connection with TLS can't be half open: it closes, whatever is said here.
        return self.transport is not None and self.transport.get_extra_info("ssl_object") is None

    def pause_writing(self) -> None:
        """Note that the client does not read: nothing more is encoded for it, nothing more read from it."""
        self._writing_paused = True
        self.stuck_since_ms = self._listener.now_ms
        self._throttle()

    def resume_writing(self) -> None:
        """Go on when the client has read."""
        self._writing_paused = False
        self._unread = 0
        self.stuck_since_ms = 0
        self.weigh()
        self._mark()

    def data_received(self, data: bytes) -> None:
        """Parse a piece of input and pass it on, now or when its turn comes."""
        if self._closing:
            return
        listener = self._listener
        if (
            len(data) > INPUT_SLICE_BYTES
            or self._late
            or (
                listener.commands_processed >= listener.commands_processed_max
                and (len(data) > SMALL_INPUT_BYTES or not listener.has_room_for_small)
            )
        ):
            self._late = self._late[self._late_at :] + data
            self._late_at = 0
            if not self._reading_paused:
                self._take_late(all_of_it=True)
                if self._late:
                    self._mark()  # there must be a next turn
            else:
                self.weigh()
        else:
            self._take(data)

    def _take_late(self, *, all_of_it: bool) -> None:
        """Parse what waits, slice by slice, as far as this turn and what the client may have pending allow.

        Else one client with a full pipeline, or a thousand with half of one, would keep the others waiting,
        and above all the other servers, which hold a silent leader for dead. What costs time is commands: a
        large value is no more than copied.
        """
        listener, data, at = self._listener, self._late, self._late_at
        before = listener.commands_processed
        size = INPUT_SLICE_BYTES if all_of_it else LATE_SLICE_BYTES
        while (
            at < len(data)
            and not self._occupied
            and (listener.has_time() if all_of_it else listener.commands_processed == before)
        ):
            self._take(data[at : at + size])
            at += size
        if self._closing:
            at = len(data)  # of no interest any more
        self._late, self._late_at = (data, at) if at < len(data) else (b"", 0)
        if self._late:
            self._throttle()
            if not self._occupied:  # else what it waits for brings us here again
                listener.go_on_later(self)
        elif self._eof and not self._todo:
            self._end_of_input()
        self.weigh()

    @property
    def _occupied(self) -> bool:
        """Tell whether what came before must be done first."""
        return (
            self._closing
            or self._writing_paused
            or bool(self._todo)
            or self._watching is not None
            or self._unanswered > UNANSWERED_COMMANDS_MAX
            or self._lane.held_bytes > UNANSWERED_BYTES_MAX
        )

    def _take(self, data: bytes) -> None:
        parser = self._parser
        commands = parser.feed(data)
        if commands:
            self.stuck_since_ms = 0
            self._listener.commands_processed += len(commands)
            self._todo += commands
            self._advance()
        elif parser.error is not None:
            self._end_of_input()
        # The second question takes time when an unfinished command has many arguments.
        elif not self.stuck_since_ms and parser.buffered_bytes:
            self.stuck_since_ms = self._listener.now_ms
        if not parser.at_boundary or self.buffered_bytes or self._writing_paused or self._intake.in_multi:
            self.weigh()

    @property
    def awaits_answers(self) -> bool:
        """Tell whether the node owes this client something."""
        return self._unanswered > 0

    def weigh(self) -> None:
        """Tell the listener how much memory this client takes, when that has changed."""
        size = self._parser.arrived_bytes + self._intake.queued_bytes + len(self._late)
        if self.transport is not None:
            size += self.transport.get_write_buffer_size()
        size += self._unread
        if size != self.buffered_bytes:
            self._listener.weigh(self, size)

    def _advance(self) -> None:
        """Pass on a piece of what was read."""
        if self._watching is not None:
            self._throttle()
            return
        piece = self._sort(self._todo)
        if piece.taken == len(self._todo) or piece.closing:
            self._todo = []
        else:
            del self._todo[: piece.taken]
            self._throttle()  # the rest has its turn when this piece is answered
        self._pass_on(piece)
        if piece.closing:
            self._close_after_replies()
        elif not self._todo and ((self._eof and not self._late) or not self._parser.at_boundary):
            self._end_of_input()
            if self._parser.error is None and self._parser.buffered_bytes:
                self.stuck_since_ms = self._listener.now_ms

    def _end_of_input(self) -> None:
        """Close after everything before is answered, if there is a reason to."""
        parser = self._parser
        if self._closing:
            return
        if parser.error is not None:
            # A client that speaks HTTP gets no word.
            self._out.append(b"" if parser.hostile else b"-ERR %b\r\n" % parser.error)
        if parser.error is not None or (self._eof and not self._late):
            self._close_after_replies()

    def _pass_on(self, piece: Piece) -> None:
        listener, out = self._listener, self._out
        self.state.last_command_ms = listener.wall_ms
        literals = piece.literals
        if piece.answers:
            request = piece.request(self._lane, piece.readonly)
            if literals:
                first = 0
                while first < len(literals) and not literals[first][0]:
                    out.append(literals[first][1])
                    first += 1
                request.literals = literals[first:]
            request.context = piece.resp3
            if piece.watching:
                self._watching = request, piece.watching
            out.append(request)
            self._unanswered += piece.answers
            if self._unanswered > UNANSWERED_COMMANDS_MAX or self._lane.held_bytes > UNANSWERED_BYTES_MAX:
                self._throttle()
            listener.submit(request)
        elif literals:
            out.extend([literal for _, literal in literals])
            self._mark()
        elif piece.login is not None:
            self._log_in(piece.login)

    # ------------------------------------------------------------------- users

    def user_changed(self) -> None:
        """Have the commands that follow taken as the connection's user may give them."""
        listener = self._listener
        if listener.logins is None:
            self._sort = self._intake.sort
        else:
            self._sort = sorter(listener.logins.accounts, self.state, self._intake, listener.counts)

    def _log_in(self, login: Login) -> None:
        """Have a password checked. What follows waits; that which was not read waits in the kernel."""
        logins = self._listener.logins
        assert logins is not None
        self._throttle()
        # Not for the replica: it stands in line for its answer.
        request = Request(self._lane, RequestKind.READ, [login.argv], [], 1, 0)
        self._watching = request, []
        self._out.append(request)
        self._unanswered += 1
        host = self.state.address.rpartition(":")[0]
        self._attempt = logins.log_in(
            host, login.user, login.password, lambda refusal: self._checked(request, login, refusal)
        )

    def _checked(self, request: Request, login: Login, refusal: Refusal | None) -> None:
        """Take what came of a log-in; a refused one changes nothing."""
        if self.transport is None:
            return
        state = self.state
        reply = logged_in(state, self._listener.view, login) if refusal is None else refusal
        request.replies, request.context = [reply], state.resp3
        self.user_changed()
        if refusal is WRONG_PASSWORD:
            state.failed_logins += 1
            if state.failed_logins >= FAILURES_PER_CONNECTION_MAX:
                self._todo.clear()
                self._close_after_replies()
        self._mark()

    def _log_out(self) -> None:
        """Be what a new connection is. Called by the intake at a RESET."""
        logins = self._listener.logins
        assert logins is not None
        self.state.user = DEFAULT if logins.accounts.open else NOBODY
        self.user_changed()

    # ------------------------------------------------------------------ output

    def answered(self) -> None:
        """Note that a request of this connection has its replies."""
        self._mark()

    def flush(self) -> None:
        """Write what is ready, in order, with one write. Called by the listener at the end of a turn."""
        self.marked = False
        transport = self.transport
        if transport is None:
            return
        out = self._out
        parts: list[bytes] = []
        size = 0
        while out and not self._writing_paused:
            head = out[0]
            if isinstance(head, bytes):
                parts.append(head)
                size += len(head)
            elif head.replies is None:
                break
            else:
                if self._watching is not None and self._watching[0] is head:
                    keys, self._watching = self._watching[1], None
                    if keys:
                        watched = self._intake.watched(keys, head.replies[-1])
                        head.replies = [*head.replies[:-1], watched]
                size += self._encode(head, parts)
                if not self._cursor:
                    self._unanswered -= head.answers
            if not self._cursor:
                out.popleft()
            if size > OUTPUT_BYTES_HIGH:
                # Let the transport take this much first: that may pause writing, and what is not encoded
                # costs no memory.
                transport.write(b"".join(parts))
                parts.clear()
                size = 0
        if parts:
            transport.write(parts[0] if len(parts) == 1 else b"".join(parts))
        if self._writing_paused:
            # Only here: there may be thousands of them, and only an answer changes what they come to.
            self._unread = unread_bytes(out)
            self.weigh()
        if self._closing:
            if not (out or self._writing_paused):
                transport.close()
        elif self._todo or self._reading_paused:
            self._listener.go_on_later(self)

    def go_on(self) -> None:
        """Take more of what has come, or read again. Called by the listener when it is this client's turn."""
        if self.transport is None or self._closing:
            return
        if self._todo:
            if not (self._out or self._writing_paused):
                self._advance()
        elif self._reading_paused:
            self._maybe_resume_reading()

    def _encode(self, request: Request, parts: list[bytes]) -> int:
        """Encode replies of a request, all or as many as are sent at a time; return their bytes.

        `_cursor` says where to go on, and is 0 when the request is done.
        """
        replies, literals, resp3 = request.replies, request.literals, request.context
        assert replies is not None
        if len(replies) == 1 and not literals:
            if type(replies[0]) is Refusal:
                self._listener.counts.refused(lookup(names_of(request)[0]), replies[0])
            parts.append(encode_reply(replies[0], resp3))
            return len(parts[-1])
        size = 0
        cursor = self._cursor
        names: list[bytes] | None = None
        while cursor < len(replies):
            reply = replies[cursor]
            if type(reply) is Refusal:
                names = names or names_of(request)
                self._listener.counts.refused(lookup(names[cursor]), reply)
            encoded = encode_reply(reply, resp3)
            parts.append(encoded)
            size += len(encoded)
            cursor += 1
            if literals:
                reached = 0
                while reached < len(literals) and literals[reached][0] <= cursor:
                    parts.append(literals[reached][1])
                    size += len(literals[reached][1])
                    reached += 1
                del literals[:reached]
            if size > OUTPUT_BYTES_HIGH and cursor < len(replies):
                self._cursor = cursor
                return size
        self._cursor = 0
        return size

    def _mark(self) -> None:
        if not self.marked:
            self.marked = True
            self._listener.mark(self)

    # ----------------------------------------------------------- back-pressure

    def _throttle(self) -> None:
        if not self._reading_paused and self.transport is not None:
            self._reading_paused = True
            self.transport.pause_reading()

    def _maybe_resume_reading(self) -> None:
        """Read again when half of what was too much is answered (rule B1: this acts on clients only)."""
        if self._late:
            self._take_late(all_of_it=False)
        if (
            not (self._todo or self._late)
            and not self._closing
            and not self._writing_paused
            and self._unanswered <= UNANSWERED_COMMANDS_MAX // 2
            and self._lane.held_bytes <= UNANSWERED_BYTES_MAX // 2
            and self.transport is not None
        ):
            listener = self._listener
            if listener.overloaded or not listener.may_resume():
                # Nothing of this client may be left that would bring us here again.
                listener.go_on_later(self)
            else:
                self._reading_paused = False
                self.transport.resume_reading()

    def throttle(self) -> None:
        """Stop reading from this client, because the node as a whole holds too much."""
        self._throttle()
        self._mark()

    def _close_after_replies(self) -> None:
        self._closing = True
        self._throttle()
        self._mark()
