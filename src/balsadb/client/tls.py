"""What a client is told about TLS, and the context that comes of it.

    Clerk(servers, tls=Tls(ca="ca.pem"))                    servers must show a certificate of this CA
    Clerk(servers, tls=Tls("ca.pem", "me.pem", "me.key"))   and they are shown one
    Clerk(servers)                                          as BALSADB_TLS_CA, _CERT and _KEY say
    Clerk(servers, tls=False)                               no TLS, whatever they say

A server's certificate must hold the host by which it is reached, name or IP address. There is no way back to
a connection without TLS: one that can't be made with it is not made.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

from balsadb.errors import UsageError

if TYPE_CHECKING:
    from ssl import SSLContext

CA_VARIABLE: Final = "BALSADB_TLS_CA"
CERT_VARIABLE: Final = "BALSADB_TLS_CERT"
KEY_VARIABLE: Final = "BALSADB_TLS_KEY"
_READ_BYTES: Final = 256 * 1024


@dataclass(frozen=True)
class Tls:
    """Files in PEM format."""

    ca: str = "system"
    """The CAs by which servers are known; `system`: those that this machine trusts anyway."""
    cert: str | None = None
    """The certificate that is shown to servers which ask for one."""
    key: str | None = None
    """Its private key, when it is in a file of its own."""


TlsSetting: TypeAlias = "Tls | SSLContext | bool | None"
"""What a Clerk takes: files, a context of one's own, True for the system's CAs, False for no TLS, or None for
what the environment says."""


def client_context(setting: TlsSetting = None) -> SSLContext | None:
    """Return the context for connections to servers; None: without TLS. Raises UsageError."""
    if setting is None:
        setting = from_environment()
    if setting is None or setting is False:
        return None
    if setting is True:
        setting = Tls()
    return _make(setting) if isinstance(setting, Tls) else setting


def from_environment() -> Tls | None:
    """Return what the variables say; None when there are none of them."""
    ca, cert, key = (os.environ.get(name) or None for name in (CA_VARIABLE, CERT_VARIABLE, KEY_VARIABLE))
    if key is not None and cert is None:
        raise UsageError("--tls-key is of no use without --tls-cert")
    return None if ca is None and cert is None else Tls(ca or "system", cert, key)


class TlsClient:
    """One end of a TLS connection without a socket: bytes in, bytes out."""

    def __init__(self, context: SSLContext, host: str) -> None:
        """`host` is what the certificate must hold."""
        import ssl

        self._want_read = ssl.SSLWantReadError
        self._end = ssl.SSLZeroReturnError
        self._context, self._host = context, host
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.begun = False
        """True once the handshake has begun."""
        self.done = False
        """True once it is over."""
        self.ended = False
        """True when the other end has said that nothing more will come."""

    def anew(self) -> TlsClient:
        """Return another one for another connection to the same host."""
        return TlsClient(self._context, self._host)

    def begin(self) -> bytes:
        """Begin the handshake; returns what is to be sent."""
        self.begun = True
        return self._shake_hands()

    def send(self, data: bytes) -> bytes:
        """Return what is to be sent for these bytes."""
        self._tls.write(data)
        return self._outgoing.read()

    def receive(self, data: bytes) -> tuple[bytes, bytes]:
        """Take what has arrived; returns the bytes that were sent to us, and what is to be sent now.

        Raises `ssl.SSLError`.
        """
        self._incoming.write(data)
        if not self.done:
            answer = self._shake_hands()
            if not self.done:
                return b"", answer
        else:
            answer = b""
        pieces = []
        try:
            while piece := self._tls.read(_READ_BYTES):
                pieces.append(piece)
            self.ended = True
        except self._want_read:
            pass
        except self._end:
            self.ended = True
        return b"".join(pieces), answer + self._outgoing.read()

    def _shake_hands(self) -> bytes:
        with suppress(self._want_read):
            self._tls.do_handshake()
            self.done = True
        return self._outgoing.read()


@lru_cache(maxsize=8)
def _make(setting: Tls) -> SSLContext:
    from balsadb import tls  # ssl takes a while to import; only for those who want it

    context = tls.calling_context()
    tls.trust(context, setting.ca, "--tls-ca")
    if setting.cert is not None:
        tls.show(context, setting.cert, setting.key or setting.cert, "--tls-cert", "--tls-key")
    return context
