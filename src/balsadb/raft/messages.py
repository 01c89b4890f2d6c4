"""The messages that Raft nodes exchange.

Every message names its sender, its receiver and the sender's term (for pre-votes: the term it would
campaign in). They are plain values: `wire` turns them into bytes, the simulator passes them as they are.
Numbers from outside are bounded by their type (`Number`), so a decoder refuses absurd ones.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from balsadb.raft.types import NUMBER_MAX, Member

Number: TypeAlias = Annotated[int, Meta(ge=0, le=NUMBER_MAX)]
"""A term, index, round, time or node id that came over the network."""


class _Base(msgspec.Struct, frozen=True, array_like=True, gc=False):
    source: Number
    """Node id of the sender."""
    target: Number
    """Node id of the receiver."""
    term: Number
    """Term of the sender."""


class VoteRequest(_Base, frozen=True, tag=1):
    """Asks for a vote, or asks whether one would be given (pre-vote, thesis 9.6).

    In a pre-vote `term` is the term that the sender would campaign in; nobody's term changes by it.
    """

    last_index: Number
    last_term: Number
    pre: bool = False
    transfer: bool = False
    """The campaign was ordered by the leader itself; voters then ignore that they hear a leader (rule M3)."""


class VoteResponse(_Base, frozen=True, tag=2):
    """Answers a `VoteRequest`.

    A refusal carries the voter's own term, so that terms catch up (scenario 15); a granted pre-vote
    carries the term that was asked about.
    """

    granted: bool
    pre: bool = False
    clock_ms: Number = 0
    """Sender's wall clock (rule S6)."""


class Append(_Base, frozen=True, tag=3):
    """Entries for a follower; without entries, a probe of what its log holds."""

    prev_index: Number
    """Index right before the first entry."""
    prev_term: Number
    commit: Number
    """Leader's commit index; the follower takes it only up to what it has verified (scenario 9)."""
    round: Number
    """Newest read round when the message was made (rule R2)."""
    entries: tuple[bytes, ...] = ()
    """Encoded entries (`raft/entry.py`), consecutive from `prev_index` + 1."""


class AppendResponse(_Base, frozen=True, tag=4):
    """What a follower has: verified against this leader **and** durable (rule W1)."""

    match: Number
    """All entries up to here equal the leader's and are on the follower's disk. 0 in a rejection."""
    rejected: bool = False
    """True when the entry at `prev_index` did not match."""
    prev_index: Number = 0
    """In a rejection: the `prev_index` that was refused, so that stale rejections are told apart."""
    hint_index: Number = 0
    """In a rejection: the last index at which the logs may still agree (term-level back-up)."""
    hint_term: Number = 0
    """In a rejection: the follower's term at `hint_index`."""
    clock_ms: Number = 0
    """Sender's wall clock (rule S6)."""


class Heartbeat(_Base, frozen=True, tag=5):
    """Keeps leadership and carries a read round; never held back by a full append window (rule R4)."""

    commit: Number
    """Leader's commit index; the follower takes it only up to what it has verified (scenario 9)."""
    round: Number
    """Newest read round when the message was made (rule R2)."""
    sent: Number = 0
    """Last index that was sent to this follower before this message, lost or not."""
    match: Number = 0
    """What the leader counts as durable on this follower: a log that ends below has lost entries (W5)."""


class RoundAck(_Base, frozen=True, tag=6):
    """Confirms that the sender still followed this leader when it got `round` (rules R2, R4).

    It also repeats what the follower has, so that a lost append or a lost acknowledgement is noticed by
    the next heartbeat at the latest (scenario 22).
    """

    round: Number
    """0 confirms no round (the sender is not eligible to, rule W5)."""
    verified: Number = 0
    """The sender's log equals the leader's up to here; perhaps not yet on its disk."""
    match: Number = 0
    """As in `AppendResponse`: verified and durable."""
    sent: Number = 0
    """Echo of `Heartbeat.sent`; 0 when an append is answered. `verified` below it: something was lost."""
    clock_ms: Number = 0
    """Sender's wall clock (rule S6)."""


class Propose(_Base, frozen=True, tag=7):
    """Payloads that a follower wants appended in exactly the term of this message (rule P1)."""

    payloads: tuple[bytes, ...]


class ProposeRejected(_Base, frozen=True, tag=8):
    """A hint that the receiver of a `Propose` did not append it. Proves nothing (rule P1)."""

    busy: bool = False
    """True when it leads but its bound on uncommitted bytes is reached; False when it does not lead."""


class ReadIndexRequest(_Base, frozen=True, tag=9):
    """A follower asks for an index at which it may serve linearizable reads (thesis 6.4)."""

    boot: Number
    counter: Number
    """(source, boot, counter) names the request and is never used again (rule R3)."""


class ReadIndexResponse(_Base, frozen=True, tag=10):
    """Answers a `ReadIndexRequest` once leadership was confirmed."""

    boot: Number
    counter: Number
    index: Number
    clock_ms: Number = 0
    """Leader's wall clock, for TTL answers (rule S6)."""


class CommitAdvance(_Base, frozen=True, tag=11):
    """Tells the origin of an entry at once that the commit index moved (rule P7). Not answered."""

    commit: Number


class StateRequest(_Base, frozen=True, tag=12):
    """A follower whose log is whole but whose state is lost asks for a state (rule W5)."""

    index: Number
    """Where its log begins: an older state would leave a gap."""


class TimeoutNow(_Base, frozen=True, tag=13):
    """The leader hands over: the receiver campaigns at once (thesis 3.10)."""


class Removed(_Base, frozen=True, tag=14):
    """The receiver was removed, and the removal is committed: it has to fall silent (rule M1)."""


class ChangeRequest(_Base, frozen=True, tag=15):
    """An operator at the sender wants other members, or another leader."""

    number: Number
    """Names the request; the answer repeats it."""
    based_on: Number
    """`fingerprint` of the configuration that the change was made for (rule M2)."""
    add: tuple[Member, ...] = ()
    """Nodes that are to become voters."""
    remove: tuple[Number, ...] = ()
    """Members that are to go."""
    transfer: bool = False
    """True: hand over instead, to `successor` or, with 0, to whom the leader likes."""
    successor: Number = 0


class ChangeResponse(_Base, frozen=True, tag=16):
    """Answers a `ChangeRequest`: begun, not now, or never."""

    number: Number
    verdict: Number
    """A `balsadb.raft.membership.Verdict`."""
    reason: str = ""
    """Why not, as words for the operator."""


Message: TypeAlias = (
    VoteRequest
    | VoteResponse
    | Append
    | AppendResponse
    | Heartbeat
    | RoundAck
    | Propose
    | ProposeRejected
    | ReadIndexRequest
    | ReadIndexResponse
    | CommitAdvance
    | StateRequest
    | TimeoutNow
    | Removed
    | ChangeRequest
    | ChangeResponse
)
