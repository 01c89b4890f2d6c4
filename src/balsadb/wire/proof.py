"""How two servers prove to each other that they know the same secret, without telling it.

    dialler                                    listener
    Hello(authentication=1, nonce)    ->
                                      <-       Challenge(nonce)
    Proof                             ->
                                      <-       Welcome or Refused, with a proof of its own

A proof is an HMAC-SHA256, under the secret, of everything that the two have said, of both nonces, and of who
has made it. So it can't be used again: not on another connection (the listener's nonce is new each time, and
the dialler's is, too), not towards another node or cluster, not for another purpose, and not in the other
direction. The dialler goes first, because anybody can connect and nobody should get something to try
passwords on for that.

What it does not do: protect what follows. Whoever can change what goes over the network can wait for the
proofs and then speak in a peer's name; against that only TLS helps.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

import msgspec

from balsadb.wire.handshake import Hello, Refused, Welcome

NONCE_BYTES: Final = 32
SECRET_BYTES_MIN: Final = 32
"""Fewer can be guessed by whoever has heard one proof; `openssl rand -hex 32` gives 64."""

_LABEL: Final = b"balsadb peer proof 1"
_HELLO_FIELDS: Final = Hello.__struct_fields__.index("nonce") + 1
"""Of a hello so many fields are proved, and of an answer those before its proof. What a later version adds
behind them is not, so that a node can still be proved to that does not know it."""


def caller_proof(secret: bytes, hello: Hello, nonce: bytes) -> bytes:
    """Prove that the dialler knows the secret; `nonce` is the listener's."""
    return _mac(secret, b"caller", hello, nonce, ())


def answer_proof(secret: bytes, hello: Hello, nonce: bytes, answer: Welcome | Refused) -> bytes:
    """Prove that the listener knows the secret and that this is its answer."""
    fields = msgspec.structs.astuple(answer)
    proved = fields[: type(answer).__struct_fields__.index("proof")]
    return _mac(secret, b"answer", hello, nonce, (type(answer).__name__, *proved))


def equal(one: bytes, other: bytes) -> bool:
    """Compare two proofs, in a time that does not tell where they differ."""
    return hmac.compare_digest(one, other)


def _mac(secret: bytes, direction: bytes, hello: Hello, nonce: bytes, answer: tuple[object, ...]) -> bytes:
    said = (_LABEL, direction, *msgspec.structs.astuple(hello)[:_HELLO_FIELDS], nonce, answer)
    return hmac.new(secret, msgspec.msgpack.encode(said), hashlib.sha256).digest()
