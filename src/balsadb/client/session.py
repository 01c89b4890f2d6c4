"""One session: the numbers of its writes, and how long it lives (rules S1 to S3).

    opening --id--> open --SESSIONEXPIRED, or too long unheard--> over

The Clerk names a session by a random nonce and the database makes the id out of it, so opening may be
repeated, and an id never comes back once its session is over. Every write carries its number and the lowest
number that the Clerk still wants an answer for; below that the database forgets replies and refuses to run
anything, so that a copy that was delayed for long can't run after its caller was told something else.
"""

from __future__ import annotations

from balsadb.client.call import Call
from balsadb.client.words import bulk
from balsadb.kv.limits import SESSION_WINDOW

RENEWALS = 3
"""Renewals that fall into one time to live, so that one may fail."""


class Session:
    """The Clerk's side of one session."""

    __slots__ = (
        "_head",
        "_lowest",
        "_next",
        "_open",
        "asked_at",
        "id",
        "is_over",
        "nonce",
        "renewed_at",
        "renewing",
        "retry_at",
        "ttl",
    )

    def __init__(self, nonce: bytes, ttl: float) -> None:
        self.nonce = nonce
        self.ttl = ttl
        self.id = b""
        """Empty while it is being opened."""
        self.asked_at = 0.0
        """When the first question for it was sent that got no answer; 0 when there was none."""
        self.is_over = False
        """True: the database said so, or it is given up. Nothing is sent in it any more."""
        self.renewed_at = 0.0
        """When the last message that renewed it was sent: it lives at least a ttl from then on."""
        self.renewing = False
        """True while a message that is to open or renew it is under way."""
        self.retry_at = 0.0
        """No renewal is tried before this time."""
        self._head = b""
        self._next = 1
        self._lowest = 1
        self._open: set[int] = set()

    def opened(self, id: bytes, asked_at: float) -> None:
        """Note the id that the database made."""
        self.id = id
        self.renewed_at = asked_at
        self._head = bulk(b"ONCE") + bulk(id)

    @property
    def has_room(self) -> bool:
        """Tell whether another number may be used now."""
        return self._next < self._lowest + SESSION_WINDOW

    @property
    def is_idle(self) -> bool:
        """Tell whether no write waits for its answer."""
        return not self._open

    @property
    def lowest(self) -> int:
        """The lowest number without an answer, or the next one when all have theirs."""
        return self._lowest

    def renew_at(self) -> float:
        """When the database should hear of it again."""
        return max(self.renewed_at + self.ttl / RENEWALS, self.retry_at)

    def may_be_over(self, now: float) -> bool:
        """Tell whether the database may have ended it by now."""
        return now >= self.renewed_at + self.ttl

    def number(self, call: Call) -> None:
        """Give a write the next number."""
        call.session, call.sequence = self, self._next
        self._open.add(self._next)
        self._next += 1

    def encode(self, call: Call) -> bytes:
        """Return what to send for a write that has a number."""
        command = call.command
        sequence, lowest = b"%d" % call.sequence, b"%d" % self._lowest
        return b"%b*%d\r\n%b$%d\r\n%b\r\n$%d\r\n%b\r\n%b" % (
            command.lead,
            command.count + 4,
            self._head,
            len(sequence),
            sequence,
            len(lowest),
            lowest,
            command.body,
        )

    def answered(self, sequence: int) -> None:
        """Note that nobody waits for the answer to this number any more."""
        self._open.discard(sequence)
        while self._lowest < self._next and self._lowest not in self._open:
            self._lowest += 1
