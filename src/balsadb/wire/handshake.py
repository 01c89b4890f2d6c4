"""The greetings that open a connection between two servers.

A hello is answered by a welcome or a refusal. With a shared secret a challenge and a proof come in between,
and the answer has a proof, too (`proof.py`).

Fields may be added at the end of a greeting but never removed or reordered: a decoder ignores what it does
not know, so that a newer node's hello can still be read, and refused by its version with a sentence.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from balsadb.raft.types import NUMBER_MAX

PROTOCOL_VERSION = 1
"""Version of the frames and of the Raft messages in them. Raised by any change that a node of the former
version would misunderstand."""

MESSAGES = 0
"""Purpose of a connection that carries Raft messages."""
STATE = 1
"""Purpose of a connection over which one state is sent (`transfer.py`)."""

NO_PROOF = 0
"""Authentication of a connection without a shared secret. Who is there may be proved by certificates."""
SHARED_SECRET = 1
"""Authentication by the proofs of `proof.py`. Another way to make them would get another number."""

REASON_CHARACTERS_MAX = 500
"""Of the sentence in a refusal."""

NodeNumber: TypeAlias = Annotated[int, Meta(ge=1, le=NUMBER_MAX)]
Counter: TypeAlias = Annotated[int, Meta(ge=0, le=NUMBER_MAX)]
Identity: TypeAlias = Annotated[bytes, Meta(max_length=64)]
Digest: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
MaybeDigest: TypeAlias = Annotated[bytes, Meta(max_length=32)]
Address: TypeAlias = Annotated[str, Meta(max_length=512)]
Sentence: TypeAlias = Annotated[str, Meta(max_length=512)]


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """What a dialler says first."""

    protocol_version: Counter
    """`PROTOCOL_VERSION` of the dialler. First, so that every version can read it."""
    cluster_id: Identity
    """Identity of the cluster; empty while the dialler does not know it (rule W5)."""
    cluster_digest: Identity
    """Digest of the dialler's `--cluster`, compared while nobody knows a cluster id."""
    node_id: NodeNumber
    """Who dials."""
    target_id: NodeNumber
    """Whom the dialler believes to reach."""
    store_id: Identity
    """Identity of the dialler's data directory."""
    boot: Counter
    """How often the dialler has started with this directory."""
    client_address: Address
    """host:port that its clients are told."""
    admitted: bool
    """True once the dialler may vote (rule W5)."""
    purpose: Counter = 0
    """What the connection is for: `MESSAGES` or `STATE`."""
    peer_address: Address = ""
    """host:port at which other servers reach the dialler: a node that lags may not know it yet (rule M1)."""
    authentication: Counter = NO_PROOF
    """How the two prove that they may talk: `NO_PROOF` or `SHARED_SECRET`."""
    nonce: MaybeDigest = b""
    """32 random bytes of this connection alone, when there are to be proofs."""


class Challenge(msgspec.Struct, frozen=True, array_like=True):
    """What a listener with a shared secret says to a hello."""

    nonce: Digest
    """32 random bytes of this connection alone."""


class Proof(msgspec.Struct, frozen=True, array_like=True):
    """What a dialler says to a challenge."""

    proof: Digest
    """As `proof.caller_proof` makes it."""


class Welcome(msgspec.Struct, frozen=True, array_like=True):
    """The answer to a hello: messages may come."""

    node_id: NodeNumber
    """Who answers."""
    store_id: Identity
    """Identity of its data directory."""
    cluster_id: Identity
    """Identity of its cluster; empty while it does not know it."""
    client_address: Address
    """host:port that its clients are told."""
    never_met_other: bool
    """True when it has never met another data directory under the dialler's node id (rule W5)."""
    proof: MaybeDigest = b""
    """As `proof.answer_proof` makes it; empty without a shared secret."""


class Refused(msgspec.Struct, frozen=True, array_like=True):
    """The answer to a hello that can't be accepted; the connection closes after it."""

    reason: Sentence
    """A sentence for the dialler's operator. Cut to fit when it is encoded."""
    removed_from: Identity = b""
    """The cluster id under which the dialler is out for good: it was removed (rule M1), or that cluster is no
    more, because it was recovered without the dialler (rule M4). Else empty."""
    proof: MaybeDigest = b""
    """As `proof.answer_proof` makes it; empty without a shared secret, and when the dialler has proved
    nothing."""

    def cut(self) -> Refused:
        """Return it with a reason that fits into a frame."""
        return Refused(self.reason[:REASON_CHARACTERS_MAX], self.removed_from, self.proof)


Greeting: TypeAlias = Hello | Welcome | Refused | Challenge | Proof
