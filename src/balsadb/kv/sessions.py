"""Sessions: what makes a repeated request run once (thesis 6.3; rules S1, S2).

What holds at every moment, on every replica after the same entry:

    an id is made of the nonce and of where in the log it was made, so none is ever made twice
    a sequence number runs at most once in its session: it runs only while the session lives, it is at or
    above the floor and nothing is noted for it; what ran is noted before the next command runs, and the note
    stays until the floor has passed it
    the floor is the largest `ack` seen
    a session ends by CLOSE, or one ttl of log time after its last sign of life, and not earlier than one ttl
    after the first entry of the newest term (rule S6)
    bytes and counts are bounded by constants and by nothing that a node knows alone

Sessions with the same ttl end in the order of their signs of life, so a queue for each ttl replaces a sorted
index; a ttl is rounded up a little, so that there are few of them.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from balsadb.errors import LocalFault
from balsadb.kv.limits import (
    REPLIES_BYTES_MAX,
    SESSION_BYTES_MAX,
    SESSION_WINDOW,
    SESSIONS_BYTES_MAX,
    SESSIONS_MAX,
)
from balsadb.kv.refusals import (
    REPLY_NOT_KEPT,
    SEQUENCE_BELOW,
    SEQUENCE_BEYOND,
    SEQUENCE_REUSED,
    SESSION_EXPIRED,
    SESSION_TABLE_FULL,
    SESSIONS_TOO_LARGE,
)
from balsadb.kv.reply import Mapping, Refusal, Reply, decode_reply, encode_reply, reply_bytes

SEQUENCE_BYTES: Final = 200
"""What a sequence number counts for besides its reply. Part of the format level, as all limits."""
SMALL_REPLY_BYTES: Final = 512
"""Smaller replies are always kept, errors above all: "done, reply not kept" is not true of a refusal."""
TTL_STEPS: Final = 16
"""Steps of a ttl from one power of two to the next."""
_NEVER: Final = 2**63
_NEW: Final = 0
"""Era of a session that is in no cut of this process."""

_Revision = tuple[int, int]
"""Log index, and position in the entry's batch."""


class _NotKept:
    """Stands for a reply that was too large to be kept."""


NOT_KEPT: Final = _NotKept()


class Session:
    """One session. Once a cut has it, it is not changed any more: a copy takes its place."""

    __slots__ = ("bytes", "done", "era", "floor", "heard", "heard_ms", "id", "nonce", "ttl_ms")

    def __init__(self, id: bytes, nonce: bytes, ttl_ms: int) -> None:
        self.id = id
        self.nonce = nonce
        self.ttl_ms = ttl_ms
        self.heard_ms = 0
        """Log time of the last sign of life."""
        self.heard: _Revision = (0, 0)
        """Where in the log that was. No two sessions share it, so it orders them."""
        self.floor = 1
        """Smaller sequence numbers are forgotten and refused."""
        self.done: dict[int, tuple[bytes, Reply | _NotKept, int]] = {}
        """By sequence number: checksum of the command, its reply, and what both count for."""
        self.bytes = 0
        """What all of `done` counts for."""
        self.era = _NEW

    def copy(self) -> Session:
        """Return the same session, to be changed."""
        copy = Session(self.id, self.nonce, self.ttl_ms)
        copy.heard_ms, copy.heard, copy.floor = self.heard_ms, self.heard, self.floor
        copy.done, copy.bytes = dict(self.done), self.bytes
        return copy

    def encode(self) -> bytes:
        """Return the session as it stands on disk and in digests."""
        done = [
            (sequence, checksum) if isinstance(reply, _NotKept) else (sequence, checksum, encode_reply(reply))
            for sequence, (checksum, reply, _) in sorted(self.done.items())
        ]
        return _ENCODER.encode((self.nonce, self.ttl_ms, self.heard_ms, *self.heard, self.floor, done))


class _Stored(msgspec.Struct, array_like=True, frozen=True, gc=False):
    nonce: bytes
    ttl_ms: int
    heard_ms: int
    heard_index: int
    heard_position: int
    floor: int
    done: list[list[Any]]
    """Sequence number, checksum, and the reply if it was kept."""


_ENCODER: Final = msgspec.msgpack.Encoder()


def round_up(ttl_ms: int) -> int:
    """Return the ttl that a session gets: at most one sixteenth longer, and one of few."""
    step = 1 << max(0, ttl_ms.bit_length() - TTL_STEPS.bit_length())
    return -(-ttl_ms // step) * step


class Sessions:
    """All living sessions. Whoever runs an entry tells the time by `clock` first."""

    def __init__(self) -> None:
        self.term_ms = 0
        """Log time of the first entry of the newest term. Part of the state."""
        self._now_ms = 0
        self._by_id: dict[bytes, Session] = {}
        self._by_nonce: dict[bytes, Session] = {}
        self._queues: dict[int, OrderedDict[bytes, Session]] = {}
        """By ttl, the sessions in the order of their last signs of life."""
        self._quiet_until_ms = _NEVER
        """No session ends before this; signs of life and new terms only move the ends on."""
        self.bytes = 0
        """What the sequence numbers of all sessions count for."""
        self._changes: dict[bytes, Session | None] = {}
        self.changed_bytes = 0
        """What changed since the newest cut, in bytes, about."""
        self._era = _NEW + 1

    def __len__(self) -> int:
        return len(self._by_id)

    # ------------------------------------------------------------------- time

    def clock(self, now_ms: int, new_term: bool) -> None:
        """Let it be `now_ms` by log time; with `new_term` an entry is the first of its term."""
        self._now_ms = now_ms
        if new_term:
            self.term_ms = now_ms

    def _end_ms(self, session: Session) -> int:
        return max(session.heard_ms, self.term_ms) + session.ttl_ms  # rule S6

    def next_deadline_ms(self) -> int | None:
        """Return when the next session ends, should nothing be heard of it; None without sessions."""
        ends = [self._end_ms(next(iter(queue.values()))) for queue in self._queues.values()]
        return min(ends, default=None)

    def expire(self, index: int, now_ms: int, limit: int) -> int:
        """End up to `limit` sessions whose time is over; return how many."""
        if now_ms < self._quiet_until_ms:
            return 0
        heads = [self._head(queue) for queue in self._queues.values()]
        heapq.heapify(heads)
        ended = 0
        while heads and heads[0][0] <= now_ms and ended < limit:
            session = heads[0][2]
            self._remove(session)
            ended += 1
            queue = self._queues.get(session.ttl_ms)
            if queue:
                heapq.heapreplace(heads, self._head(queue))
            else:
                heapq.heappop(heads)
        self._quiet_until_ms = heads[0][0] if heads else _NEVER
        return ended

    def _head(self, queue: OrderedDict[bytes, Session]) -> tuple[int, _Revision, Session]:
        session = next(iter(queue.values()))
        return self._end_ms(session), session.heard, session

    # --------------------------------------------------------------- commands

    def open(self, nonce: bytes, ttl_ms: int, revision: _Revision) -> bytes | Refusal:
        """Return the id of the living session with this nonce, or of a new one (rule S1)."""
        session = self._by_nonce.get(nonce)
        if session is not None and self._end_ms(session) > self._now_ms:
            self._hear(session, revision)
            return session.id
        if session is not None:
            self._remove(session)  # it is due, and its turn has not come
        if len(self._by_id) >= SESSIONS_MAX:
            return SESSION_TABLE_FULL
        # With the position: two sessions that one batch opens must not share an id either.
        session = Session(b"%b-%d-%d" % (nonce, *revision), nonce, round_up(ttl_ms))
        session.heard_ms, session.heard = self._now_ms, revision
        self._put(session)
        self._write(session)
        self._quiet_until_ms = min(self._quiet_until_ms, self._end_ms(session))
        return session.id

    def keep_alive(self, id: bytes, revision: _Revision) -> Refusal | None:
        """Note a sign of life, or return why not."""
        session = self._living(id)
        if session is None:
            return SESSION_EXPIRED
        self._hear(session, revision)
        return None

    def close(self, id: bytes) -> None:
        """End a session; nothing when there is none."""
        session = self._by_id.get(id)
        if session is not None:
            self._remove(session)

    def describe(self, id: bytes) -> Reply:
        """Return what is known about a session."""
        session = self._living(id)
        if session is None:
            return SESSION_EXPIRED
        return Mapping(
            [
                (b"id", session.id),
                (b"ttl-ms", session.ttl_ms),
                (b"left-ms", self._end_ms(session) - self._now_ms),
                (b"floor", session.floor),
                (b"kept", len(session.done)),
                (b"kept-bytes", session.bytes),
            ]
        )

    def attempt(
        self, id: bytes, sequence: int, ack: int, checksum: bytes, revision: _Revision
    ) -> tuple[Session | None, Reply]:
        """Return the session in which a command is to run now, or None and what to answer (rule S2).

        When it has run, `note` must follow, before anything else runs.
        """
        session = self._living(id)
        if session is None:
            return None, SESSION_EXPIRED
        session = self._hear(session, revision)
        if ack > session.floor:
            self._raise_floor(session, ack)
        if sequence < session.floor:
            return None, SEQUENCE_BELOW
        if sequence >= session.floor + SESSION_WINDOW:
            return None, SEQUENCE_BEYOND
        noted = session.done.get(sequence)
        if noted is not None:
            if noted[0] != checksum:
                return None, SEQUENCE_REUSED
            reply = noted[1]
            return None, REPLY_NOT_KEPT if isinstance(reply, _NotKept) else reply
        if self.bytes >= SESSIONS_BYTES_MAX:
            return None, SESSIONS_TOO_LARGE
        return session, None

    def note(self, session: Session, sequence: int, checksum: bytes, reply: Reply) -> int:
        """Note that a command ran, with its reply as far as there is room for it; return the bytes."""
        size = reply_bytes(reply)
        kept: Reply | _NotKept = reply
        full = session.bytes + size > SESSION_BYTES_MAX or self.bytes + size > REPLIES_BYTES_MAX
        if full and size > SMALL_REPLY_BYTES:
            kept, size = NOT_KEPT, 0
        size += SEQUENCE_BYTES
        session.done[sequence] = checksum, kept, size
        session.bytes += size
        self.bytes += size
        self.changed_bytes += size
        return size

    # ------------------------------------------------------------------ inside

    def _living(self, id: bytes) -> Session | None:
        session = self._by_id.get(id)
        return session if session is not None and self._end_ms(session) > self._now_ms else None

    def _hear(self, session: Session, revision: _Revision) -> Session:
        """Note a sign of life; return the session as it may be changed."""
        if session.era != self._era:
            session = session.copy()
            self._put(session)
            self._write(session)
        session.heard_ms, session.heard = self._now_ms, revision
        self._queues[session.ttl_ms].move_to_end(session.id)
        return session

    def _raise_floor(self, session: Session, floor: int) -> None:
        done = session.done
        if done:
            freed = 0
            for sequence in range(session.floor, min(floor, session.floor + SESSION_WINDOW)):
                noted = done.pop(sequence, None)
                if noted is not None:
                    freed += noted[2]
            session.bytes -= freed
            self.bytes -= freed
        session.floor = floor

    def _put(self, session: Session) -> None:
        self._by_id[session.id] = self._by_nonce[session.nonce] = session
        self._queues.setdefault(session.ttl_ms, OrderedDict())[session.id] = session

    def _write(self, session: Session) -> None:
        session.era = self._era
        self._changes[session.id] = session
        self.changed_bytes += len(session.id) + SEQUENCE_BYTES + session.bytes

    def _remove(self, session: Session) -> None:
        del self._by_id[session.id], self._by_nonce[session.nonce]
        queue = self._queues[session.ttl_ms]
        del queue[session.id]
        if not queue:
            del self._queues[session.ttl_ms]
        self.bytes -= session.bytes
        self._changes[session.id] = None
        self.changed_bytes += len(session.id)

    # ------------------------------------------------------- cuts and digests

    @property
    def changed(self) -> int:
        """Number of sessions changed since the newest cut."""
        return len(self._changes)

    def freeze(self) -> dict[bytes, Session | None]:
        """Return the sessions changed since the cut before, None for those that ended.

        They are not changed any more: who changes one takes a copy.
        """
        changes, self._changes, self.changed_bytes = self._changes, {}, 0
        self._era += 1
        return changes

    @classmethod
    def load(cls, stored: Iterable[tuple[bytes, bytes]], now_ms: int, term_ms: int) -> Sessions:
        """Return stored sessions. Raises LocalFault when they can't be read.

        100,000 of them take half a second, so while others wait this is done in a worker thread.
        """
        loaded = cls()
        loaded._now_ms, loaded.term_ms = now_ms, term_ms
        sessions = [decode_session(id, data) for id, data in stored]
        sessions.sort(key=lambda session: session.heard)
        for session in sessions:
            loaded._put(session)
            loaded.bytes += session.bytes
        loaded._quiet_until_ms = loaded.next_deadline_ms() or _NEVER
        return loaded

    def adopt(self, loaded: Sessions) -> None:
        """Become what was loaded; what was here is gone."""
        vars(self).update(vars(loaded))

    def sorted_items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all sessions, encoded, in the order of their ids."""
        return ((id, self._by_id[id].encode()) for id in sorted(self._by_id))


_DECODER: Final = msgspec.msgpack.Decoder(_Stored)


def decode_session(id: bytes, data: bytes) -> Session:
    """Return the session of `Session.encode`. Raises LocalFault for anything else."""
    try:
        stored = _DECODER.decode(data)
        session = Session(id, stored.nonce, stored.ttl_ms)
        session.heard_ms, session.heard = stored.heard_ms, (stored.heard_index, stored.heard_position)
        session.floor = stored.floor
        for sequence, checksum, *kept in stored.done:
            reply: Reply | _NotKept = decode_reply(kept[0]) if kept else NOT_KEPT
            size = SEQUENCE_BYTES + (0 if isinstance(reply, _NotKept) else reply_bytes(reply))
            session.done[sequence] = checksum, reply, size
            session.bytes += size
    except (msgspec.MsgspecError, TypeError, ValueError, IndexError) as error:
        raise LocalFault(f"the session {id!r} in the state can't be read: {error}") from error
    return session
