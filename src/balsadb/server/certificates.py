"""The certificates of one port: contexts made of files, tried out before they are used, and made anew later.

A server that shows a certificate which nobody takes is found out by those who can't connect. So a
certificate is tried in memory first, in a handshake of this process with itself, which also tells what it
says: until when it is valid, and whom it names.
"""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from balsadb import tls
from balsadb.errors import UsageError
from balsadb.raft.types import NodeId
from balsadb.server.journal import journal
from balsadb.server.reloading import Reloaded

Certificate: TypeAlias = Mapping[str, Any]
"""What `ssl` tells of a certificate that it has checked; empty when there is none."""

CLIENT_CERTIFICATES: Final = {
    "yes": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "no": ssl.CERT_NONE,
}
"""What `--tls-client-cert` can be."""

_FLIGHTS_MAX: Final = 8


@dataclass(frozen=True)
class Files:
    """Where a port's certificate is, and the flags that said so, for sentences."""

    cert: str
    key: str
    ca: str | None
    prefix: str = "--tls"

    @property
    def paths(self) -> list[str]:
        """All files."""
        return [path for path in (self.cert, self.key, self.ca) if path is not None]

    def show(self, context: ssl.SSLContext) -> None:
        """Have a context show the certificate."""
        tls.show(context, self.cert, self.key, f"{self.prefix}-cert", f"{self.prefix}-key")

    def check_private(self) -> None:
        """Refuse a key that everybody can read, and warn of one that a group can."""
        if warning := tls.check_private(self.key, f"{self.prefix}-key"):
            journal.say("caution", "warning", message=warning)


@dataclass(frozen=True)
class _Contexts:
    accepting: ssl.SSLContext
    calling: ssl.SSLContext
    expires_s: float
    """When the certificate ends, since 1970."""


class Certificates:
    """What a port shows and demands, as its files are now."""

    def __init__(self, files: Files, make: Any) -> None:
        self.files = files
        self._contexts: Reloaded[_Contexts] = Reloaded(files.paths, make, self._describe)

    @classmethod
    def of_clients(cls, files: Files, client_certificates: str, host: str) -> Certificates:
        """Return those of the client port; `host` is where clients believe to be. Raises UsageError."""

        def make() -> _Contexts:
            return _make_for_clients(files, client_certificates, host)

        return cls(files, make)

    @classmethod
    def of_peers(cls, files: Files, node: NodeId) -> Certificates:
        """Return those of the peer port: both ends show one, and both demand one. Raises UsageError."""
        return cls(files, lambda: _make_for_peers(files, node))

    @property
    def accepting(self) -> ssl.SSLContext:
        """For a connection that was made to us."""
        return self._contexts.now.accepting

    @property
    def calling(self) -> ssl.SSLContext:
        """For a connection that we make."""
        return self._contexts.now.calling

    @property
    def expires_s(self) -> float:
        """When the certificate ends, since 1970."""
        return self._contexts.now.expires_s

    def reload(self) -> None:
        """Read the files again."""
        self._contexts.reload()

    def _describe(self, contexts: _Contexts) -> str:
        end = datetime.datetime.fromtimestamp(contexts.expires_s, datetime.UTC)
        return f"{self.files.prefix}-cert {self.files.cert}, valid until {end:%Y-%m-%d %H:%M} UTC"


def node_uri(node: NodeId) -> str:
    """Return the name that a peer's certificate must hold, as a URI among its alternative names."""
    return f"balsadb://node/{node}"


def names_node(certificate: Certificate | None, node: NodeId) -> bool:
    """Tell whether a certificate that was checked against the CA is that of a node."""
    return ("URI", node_uri(node)) in (certificate or {}).get("subjectAltName", ())


def names_in(certificate: Certificate | None) -> str:
    """Say whom a certificate names, for a sentence."""
    found = [str(value) for _, value in (certificate or {}).get("subjectAltName", ())]
    text = ", ".join(found)[:200] or "nobody"
    return "".join(c if c.isprintable() else "?" for c in text)


def _make_for_clients(files: Files, client_certificates: str, host: str) -> _Contexts:
    files.check_private()
    accepting, calling = tls.listening_context(), tls.calling_context()
    files.show(accepting)
    tried = _try(accepting, _trusting_itself(files), f"{files.prefix}-cert {files.cert}")
    accepting.verify_mode = CLIENT_CERTIFICATES[client_certificates]
    if files.ca is not None:
        tls.trust(accepting, files.ca, f"{files.prefix}-ca")
    tls.trust(calling, files.ca or tls.SYSTEM, f"{files.prefix}-ca")
    files.show(calling)
    _warn_of_name(files, host)
    return _Contexts(accepting, calling, _end_of(tried))


def _make_for_peers(files: Files, node: NodeId) -> _Contexts:
    files.check_private()
    assert files.ca is not None
    accepting, calling = tls.listening_context(), tls.calling_context(check_name=False)
    for context in (accepting, calling):
        context.verify_mode = ssl.CERT_REQUIRED
        tls.trust(context, files.ca, f"{files.prefix}-ca")
        files.show(context)
    what = f"{files.prefix}-cert {files.cert}"
    tried = _try(accepting, calling, what)
    if not names_node(tried, node):
        raise UsageError(
            f"{what} is not that of node {node}: it names {names_in(tried)}, and not {node_uri(node)} "
            "as a URI among its subject's alternative names"
        )
    return _Contexts(accepting, calling, _end_of(tried))


def _trusting_itself(files: Files) -> ssl.SSLContext:
    """Return a client that takes the very certificate, whoever has signed it."""
    context = tls.calling_context(check_name=False)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    tls.trust(context, files.cert, f"{files.prefix}-cert")
    return context


def _warn_of_name(files: Files, host: str) -> None:
    """Say when clients will not take the certificate, because it does not hold the host they are told."""
    server, client = tls.listening_context(), _trusting_itself(files)
    files.show(server)
    client.check_hostname = True
    try:
        _shake_hands(server, client, host)
    except ssl.SSLError as error:
        why = tls.describe(error).partition(": ")[2]
        journal.say(
            "caution",
            "warning",
            message=f"clients that are sent to {host} will refuse {files.prefix}-cert {files.cert}: {why}",
        )


def _try(server: ssl.SSLContext, client: ssl.SSLContext, what: str) -> Certificate:
    """Let two contexts meet; returns the certificate that the client has seen. Raises UsageError."""
    try:
        return _shake_hands(server, client)
    except ssl.SSLCertVerificationError as error:
        raise UsageError(f"{what} is of no use: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise UsageError(f"{what} is of no use: {tls.describe(error)}") from None


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str | None = None) -> Certificate:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    calling = client.wrap_bio(to_client, to_server, server_hostname=host)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [calling, answering]
    for _ in range(_FLIGHTS_MAX):
        for end in list(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)
    assert not waiting, "a handshake in memory takes three flights"
    return calling.getpeercert() or {}


def _end_of(certificate: Certificate) -> float:
    return float(ssl.cert_time_to_seconds(certificate["notAfter"]))
