"""One question to one server, without retries: for operators' tools, which must know who answered."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from typing import Any

from balsadb.address import format_address
from balsadb.client.call import Address
from balsadb.client.servers import describe_failure
from balsadb.client.tls import TlsSetting, client_context
from balsadb.client.words import Word, encode, to_python
from balsadb.errors import CommandError, NoServer, OutcomeUnknown
from balsadb.kv.reply import Refusal
from balsadb.resp.decode import ReplyParser

RECEIVE_BYTES = 64 * 1024


def ask(address: Address, command: Sequence[Word], timeout: float, tls: TlsSetting = None) -> Any:
    """Send one command to one server and return its answer. `tls` is as for a Clerk.

    Raises `NoServer` when it can't be reached, `OutcomeUnknown` when no answer comes, `CommandError` when the
    answer is an error, and `ProtocolError` when it is nonsense.
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
        parser = ReplyParser()
        replies: list[Any] = []
        try:
            connection.sendall(encode(*command))
            while True:
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                data = connection.recv(RECEIVE_BYTES)
                if not data:
                    raise OutcomeUnknown(f"{where} closed the connection without an answer")
                if replies := parser.feed(data):
                    break
        except OSError as error:
            if is_refusal(error):
                raise NoServer(f"no server answers at {where} ({describe_failure(error)})") from None
            raise OutcomeUnknown(f"{where} did not answer ({describe_failure(error)})") from None
    if isinstance(replies[0], Refusal):
        raise CommandError(replies[0].text.decode(errors="replace"))
    return to_python(replies[0])


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
