"""One question to one server, without retries: for operators' tools, which must know who answered."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from typing import Any

from balsadb.address import format_address
from balsadb.client.call import Address
from balsadb.client.credentials import Credentials
from balsadb.client.servers import describe_failure
from balsadb.client.tls import TlsSetting, client_context
from balsadb.client.verdicts import Verdict, judge
from balsadb.client.words import Word, encode, to_python
from balsadb.errors import AuthenticationError, CommandError, NoServer, OutcomeUnknown
from balsadb.kv.reply import Refusal, Reply
from balsadb.resp.decode import ReplyParser

RECEIVE_BYTES = 64 * 1024


def ask(
    address: Address,
    command: Sequence[Word],
    timeout: float,
    credentials: Credentials | None = None,
    tls: TlsSetting = None,
) -> Any:
    """Send one command to one server, after logging in with `credentials`, and return its answer.

    `tls` is as for a Clerk.

    Raises `NoServer` when it can't be reached, `OutcomeUnknown` when no answer comes, `CommandError` when the
    answer is an error (`AuthenticationError` when it does not let us in), and `ProtocolError` when it is
    nonsense.
    """
    deadline = time.monotonic() + timeout
    where = format_address(*address)
    context = client_context(tls)
    try:
        connection = socket.create_connection(address, timeout)
        if context is not None:
            connection = context.wrap_socket(connection, server_hostname=address[0])
    except OSError as error:
        raise NoServer(f"no server answers at {where} ({describe_failure(error)})") from None
    with connection:
        try:
            if credentials is not None:
                # The command must not reach a server that does not know the password: it may have none.
                _exchange(connection, credentials.encoded(), deadline, where)
            return to_python(_exchange(connection, encode(*command), deadline, where))
        except OSError as error:
            if is_refusal(error):
                raise NoServer(f"no server answers at {where} ({describe_failure(error)})") from None
            raise OutcomeUnknown(f"{where} did not answer ({describe_failure(error)})") from None


def _exchange(connection: socket.socket, data: bytes, deadline: float, where: str) -> Reply:
    """Send an encoded command and return its answer. Raises what `ask` does, and OSError."""
    parser = ReplyParser()
    connection.sendall(data)
    while True:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        piece = connection.recv(RECEIVE_BYTES)
        if not piece:
            raise OutcomeUnknown(f"{where} closed the connection without an answer")
        if replies := parser.feed(piece):
            break
    if isinstance(replies[0], Refusal):
        text = replies[0].text
        kind = AuthenticationError if judge(text) is Verdict.NOT_LOGGED_IN else CommandError
        raise kind(text.decode(errors="replace"))
    return replies[0]


def is_refusal(error: OSError) -> bool:
    """Tell whether a server has broken off the TLS handshake, which in TLS 1.3 a client learns only later."""
    if type(error).__module__ != "ssl":
        return False
    from balsadb.tls import REFUSALS

    return getattr(error, "reason", None) in REFUSALS


def parse_info(reply: Any) -> dict[str, str]:
    """Read the lines `name:value` of an answer to INFO."""
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else ""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))


def pairs(reply: Any) -> dict[str, Any]:
    """Read a map that came as a flat list of names and values, as RESP2 writes it."""
    if isinstance(reply, dict):
        items = list(reply.items())
    else:
        flat = reply if isinstance(reply, list) else []
        items = list(zip(flat[::2], flat[1::2], strict=False))
    return {name.decode(errors="replace"): value for name, value in items if isinstance(name, bytes)}
