"""How the servers of a cluster know each other, before any of them believes a word.

Two ways, each sufficient, and both together if both are set up:

* **Certificates** (TLS both ways). Every node shows one of the cluster's own CA, and it must name the node
that
  the hello speaks of, as the URI `balsadb://node/3` among its subject's alternative names.
* **A shared secret**, which both prove to know without telling it (`wire/proof.py`).

Whether that node is a member is then for `admission.py` to say: a node that was removed is refused whatever
it can prove, and its id never comes back. So removing a node is also how its key is revoked.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from balsadb import tls
from balsadb.errors import ProtocolError, UsageError
from balsadb.raft.types import NodeId
from balsadb.server.certificates import Certificate, Certificates, names_in, names_node, node_uri
from balsadb.server.journal import journal
from balsadb.server.reloading import Reloaded
from balsadb.tls import HANDSHAKE_SECONDS_MAX, SHUTDOWN_SECONDS_MAX
from balsadb.wire.handshake import (
    SHARED_SECRET,
    Challenge,
    Hello,
    Proof,
    Refused,
    Welcome,
)
from balsadb.wire.proof import NONCE_BYTES, SECRET_BYTES_MIN, answer_proof, caller_proof, equal

SECRETS_MAX: Final = 8
"""Secrets in the file: two while one is being replaced by another, and a few for those who are slow."""


class Untrusted(ProtocolError):
    """The other side could not prove who it is, or does not believe us."""


class Secrets:
    """The file of the shared secret: one a line. The first is what we prove; any is believed.

    So it is replaced while all nodes run: add the new one behind the old one everywhere, then put it first
    everywhere, then remove the old one.
    """

    def __init__(self, path: str) -> None:
        """Raises UsageError when the file can't be used."""
        self._secrets: Reloaded[tuple[bytes, ...]] = Reloaded(
            [path],
            lambda: _read_secrets(path),
            lambda found: f"--peer-secret-file {path} ({len(found)} in it)",
        )

    @property
    def own(self) -> bytes:
        """The one that this node proves to know."""
        return self._secrets.now[0]

    @property
    def believed(self) -> tuple[bytes, ...]:
        """All that others may prove to know."""
        return self._secrets.now

    def reload(self) -> None:
        """Read the file again."""
        self._secrets.reload()


def _read_secrets(path: str) -> tuple[bytes, ...]:
    what = "--peer-secret-file"
    if warning := tls.check_private(path, what):
        journal.say("caution", "warning", message=warning)
    with tls.reading(path, what), open(path, "rb") as file:
        found = tuple(line.strip() for line in file.read(64 * 1024).splitlines() if line.strip())
    if not found or len(found) > SECRETS_MAX:
        raise UsageError(
            f"{what} {path} must hold 1 to {SECRETS_MAX} secrets, one a line; it has {len(found)}"
        )
    if any(len(secret) < SECRET_BYTES_MIN for secret in found):
        raise UsageError(
            f"{what} {path}: a secret has fewer than {SECRET_BYTES_MIN} characters; "
            "make one with: openssl rand -hex 32"
        )
    return found


class PeerTrust:
    """What this node shows and demands on its connections with other servers."""

    def __init__(self, certificates: Certificates | None = None, secrets: Secrets | None = None) -> None:
        """Without either everybody is believed, which is for loopback and for networks that are closed."""
        self.certificates = certificates
        self.secrets = secrets
        self.refusals: Counter[str] = Counter()
        """How often somebody was not believed, by what was wrong: tls, identity, secret."""

    def calling(self) -> dict[str, Any]:
        """Return what `create_connection` needs for TLS; nothing without it."""
        if self.certificates is None:
            return {}
        return {
            "ssl": self.certificates.calling,
            "ssl_handshake_timeout": HANDSHAKE_SECONDS_MAX,
            "ssl_shutdown_timeout": SHUTDOWN_SECONDS_MAX,
        }

    def reload(self) -> None:
        """Read all files again."""
        for one in (self.certificates, self.secrets):
            if one is not None:
                one.reload()

    def refuse(self, kind: str, sentence: str) -> None:
        """Count that somebody was not believed, and say why."""
        self.refusals[kind] += 1
        journal.say("peer-closed", "warning", message=sentence)

    def objection(self, node: NodeId, certificate: Certificate | None) -> str | None:
        """Say why the other side is not that node, as far as certificates go."""
        if self.certificates is None or names_node(certificate, node):
            return None
        return f"the certificate names {names_in(certificate)}, and not {node_uri(node)}"

    def check_target(self, node: NodeId, certificate: Certificate | None) -> None:
        """Check whom we have reached. Raises Untrusted."""
        if problem := self.objection(node, certificate):
            self.refusals["identity"] += 1
            raise Untrusted(f"at the address of node {node} {problem}")

    def describe_failure(self, error: ssl.SSLError) -> str:
        """Say why a connection that we made came to nothing, and count it."""
        self.refusals["tls"] += 1
        return tls.describe(error)


class Introduction:
    """The dialler's side of a greeting. `take` gets what the other side says."""

    def __init__(self, trust: PeerTrust, hello: Hello) -> None:
        self._trust = trust
        self._secret: bytes | None = None
        self._nonce: bytes | None = None
        """The listener's, once it has given one."""
        if trust.secrets is not None:
            self._secret = trust.secrets.own
            nonce = secrets.token_bytes(NONCE_BYTES)
            hello = msgspec.structs.replace(hello, authentication=SHARED_SECRET, nonce=nonce)
        self.hello = hello

    def take(self, greeting: object) -> Proof | Welcome | Refused:
        """Return the proof that must be sent, or the other side's final answer.

        Raises Untrusted when the other side proves nothing, ProtocolError when it talks nonsense.
        """
        if isinstance(greeting, Challenge) and self._nonce is None:
            if self._secret is None:
                raise self._untrusted("it asks for the proof of a shared secret (--peer-secret-file)")
            self._nonce = greeting.nonce
            return Proof(caller_proof(self._secret, self.hello, greeting.nonce))
        if not isinstance(greeting, Welcome | Refused):
            raise ProtocolError("the answer to a hello is no welcome")
        if self._secret is None or self._is_proved(greeting):
            return greeting
        if isinstance(greeting, Refused):
            # Nothing may follow from it: a stranger could tell us that we were removed.
            raise self._untrusted(f"it refuses us, and proves nothing: {greeting.reason}")
        raise self._untrusted("it does not prove that it knows the shared secret (--peer-secret-file)")

    def _is_proved(self, answer: Welcome | Refused) -> bool:
        if self._secret is None or self._nonce is None:
            return False
        return equal(answer.proof, answer_proof(self._secret, self.hello, self._nonce, answer))

    def _untrusted(self, sentence: str) -> Untrusted:
        self._trust.refusals["secret"] += 1
        return Untrusted(sentence)


class Reception:
    """The listener's side of a greeting. `take` gets what the other side says.

    Nothing of a hello is acted upon before it is proved who has sent it.
    """

    def __init__(
        self, trust: PeerTrust, answer: Callable[[Hello], Welcome | Refused], certificate: Certificate | None
    ) -> None:
        """`answer` decides about a hello that is believed; `certificate` is the dialler's, if it has one."""
        self._trust = trust
        self._answer = answer
        self._certificate = certificate
        self.hello: Hello | None = None
        self._nonce: bytes | None = None
        """Ours, until the one proof that it is good for."""

    def take(self, greeting: object) -> Challenge | Welcome | Refused:
        """Return what must be said. Raises ProtocolError when the other side talks out of turn."""
        if isinstance(greeting, Hello) and self.hello is None:
            self.hello = greeting
            return self._hear(greeting)
        if isinstance(greeting, Proof) and self.hello is not None and self._nonce is not None:
            nonce, self._nonce = self._nonce, None
            return self._examine(self.hello, greeting, nonce)
        raise ProtocolError("a peer sent a frame out of place")

    def _hear(self, hello: Hello) -> Challenge | Welcome | Refused:
        problem = self._trust.objection(hello.node_id, self._certificate)
        if problem is not None:
            return self._refuse("identity", hello, problem)
        if self._trust.secrets is None:
            return self._answer(hello)
        if hello.authentication != SHARED_SECRET or len(hello.nonce) != NONCE_BYTES:
            return self._refuse(
                "secret", hello, "a proof of the shared secret is needed (--peer-secret-file)"
            )
        self._nonce = secrets.token_bytes(NONCE_BYTES)
        return Challenge(self._nonce)

    def _examine(self, hello: Hello, proof: Proof, nonce: bytes) -> Welcome | Refused:
        assert self._trust.secrets is not None
        for secret in self._trust.secrets.believed:
            if equal(proof.proof, caller_proof(secret, hello, nonce)):
                answer = self._answer(hello)
                if isinstance(answer, Refused):
                    answer = answer.cut()
                sealed = answer_proof(secret, hello, nonce, answer)
                return msgspec.structs.replace(answer, proof=sealed)
        return self._refuse("secret", hello, "the two nodes have different shared secrets")

    def _refuse(self, kind: str, hello: Hello, problem: str) -> Refused:
        self._trust.refusals[kind] += 1
        return Refused(f"node {hello.node_id} is not believed: {problem}")


def certificate_of(transport: asyncio.BaseTransport | asyncio.StreamWriter) -> Mapping[str, Any] | None:
    """Return what the other side's certificate says; None without TLS."""
    return transport.get_extra_info("peercert")  # type: ignore[no-any-return]
