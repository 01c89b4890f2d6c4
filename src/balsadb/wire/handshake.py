"""The greetings that open a connection between two servers.

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

NodeNumber: TypeAlias = Annotated[int, Meta(ge=1, le=NUMBER_MAX)]
Counter: TypeAlias = Annotated[int, Meta(ge=0, le=NUMBER_MAX)]
Identity: TypeAlias = Annotated[bytes, Meta(max_length=64)]
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


class Refused(msgspec.Struct, frozen=True, array_like=True):
    """The answer to a hello that can't be accepted; the connection closes after it."""

    reason: Sentence
    """A sentence for the dialler's operator. Cut to fit when it is encoded."""
    removed_from: Identity = b""
    """The cluster id under which the dialler is out for good: it was removed (rule M1), or that cluster is no
    more, because it was recovered without the dialler (rule M4). Else empty."""


Greeting: TypeAlias = Hello | Welcome | Refused
