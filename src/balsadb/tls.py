"""What both ends of a TLS connection need: files into contexts, and failures into words.

Nothing older than TLS 1.2 is spoken, and no context here ever accepts a certificate without checking it. Who
is at the other end is decided by those who use it: clients by the name of the server, servers among each
other by the node id (`server/trust.py`).
"""

from __future__ import annotations

import contextlib
import os
import ssl
import stat
from collections.abc import Iterator
from typing import Final, NoReturn

from balsadb.errors import UsageError

HANDSHAKE_SECONDS_MAX: Final = 5.0
"""A TLS handshake that takes longer is given up."""
SHUTDOWN_SECONDS_MAX: Final = 5.0
"""How long a closing connection waits for the other end to say that it closes, too."""
SYSTEM: Final = "system"
"""Instead of a file of CAs: those that this machine trusts anyway."""

_NO_TLS: Final = frozenset(
    {
        "WRONG_VERSION_NUMBER",
        "HTTP_REQUEST",
        "HTTPS_PROXY_REQUEST",
        "UNKNOWN_PROTOCOL",
        "PACKET_LENGTH_TOO_LONG",
    }
)
_WORDS: Final = {
    **dict.fromkeys(_NO_TLS, "it does not speak TLS"),
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it has shown no certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it asks for a certificate",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it asks for a certificate, or there is no cipher that both know",
    "TLSV1_ALERT_UNKNOWN_CA": "it refuses our certificate: it does not know the CA",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it refuses our certificate: expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "it refuses our certificate: revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it refuses our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it refuses our certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it refuses our certificate: made for another purpose",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks no version of TLS that we do",
    "UNSUPPORTED_PROTOCOL": "it speaks no version of TLS from 1.2 on",
    "NO_SHARED_CIPHER": "there is no cipher that both know",
    "UNEXPECTED_EOF_WHILE_READING": "it closed the connection in the middle of TLS",
}
REFUSALS: Final = frozenset(name for name in _WORDS if "_ALERT_" in name)
"""Reasons for which the other end breaks off while it shakes hands: it has taken nothing of what was sent."""


def describe(error: BaseException) -> str:
    """Say in a few words why TLS failed, seen from here; "it" is the other end."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or "no reason is known"
        return _WORDS.get(reason) or f"TLS fails: {reason.lower().replace('_', ' ')}"
    if isinstance(error, ConnectionAbortedError):
        return "the TLS handshake took too long"
    if isinstance(error, OSError):
        return "it closed the connection during the TLS handshake"
    return str(error)


def listening_context() -> ssl.SSLContext:
    """Return what a server begins with. It shows no certificate and asks for none yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Renegotiation is a way to make a server work for nothing. Resumed sessions would outlive the
    # certificates with which they began; connections here live long, so a whole handshake each is cheap.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    return context


def calling_context(*, check_name: bool = True) -> ssl.SSLContext:
    """Return what a client begins with. It demands a certificate and trusts nobody yet.

    Without `check_name` any name will do, and the caller must look at the certificate itself.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = check_name
    return context


def trust(context: ssl.SSLContext, ca: str, what: str) -> None:
    """Trust the CAs in a file. `what` names the setting in the sentence of the UsageError."""
    try:
        if ca == SYSTEM:
            context.load_default_certs()
        else:
            context.load_verify_locations(ca)
    except ssl.SSLError:
        raise UsageError(f"{what} {ca}: there is no certificate in it that can be read (PEM)") from None
    except OSError as error:
        raise UsageError(f"{what} {ca}: {error.strerror or error}") from None


def show(context: ssl.SSLContext, cert: str, key: str, what: str, key_what: str) -> None:
    """Show a certificate, with those between it and its CA, from a file. Raises UsageError."""
    for path, name in ((cert, what), (key, key_what)):
        with reading(path, name), open(path, "rb"):
            pass

    def passphrase() -> NoReturn:
        # Without this OpenSSL would ask at the terminal, and a server stand still.
        raise UsageError(f"{key_what} {key}: the key is encrypted; give it without a passphrase")

    try:
        context.load_cert_chain(cert, key, passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UsageError(f"{key_what} {key} is not the key of the certificate {cert}") from None
        raise UsageError(f"{what} {cert} with {key_what} {key}: can't be read as PEM") from None


def check_private(path: str, what: str) -> str | None:
    """Refuse a key or a secret that everybody on this machine can read or change. Raises UsageError.

    Returns a sentence when its group can read it, which is no more than a warning: systems that hand out
    secrets to containers do it by a group that was made for this.
    """
    with reading(path, what):
        mode = os.stat(path).st_mode
    if mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        who = "changed" if mode & (stat.S_IWOTH | stat.S_IWGRP) else "read"
        raise UsageError(
            f"{what} {path} can be {who} by others than its owner ({stat.filemode(mode)}): chmod 600 {path}"
        )
    if mode & stat.S_IRGRP:
        return f"{what} {path} can be read by its group; chmod 600 it unless that is meant"
    return None


@contextlib.contextmanager
def reading(path: str, what: str) -> Iterator[None]:
    """Turn a failure to read a file into a UsageError."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{what} {path}: {error.strerror or error}") from None
