"""How a new server finds the cluster that it is to join, and asks to be taken in.

It has the client address of one server. As any client might, it asks there who the members are, and, once it
can be reached itself, to be added. Everything after that goes between the servers. Where clients need a
password it logs in with its own, which is the same on all nodes; the file is read again each time, because a
node keeps no password in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from ssl import SSLContext, SSLError
from typing import Any

import msgspec

from balsadb.address import parse_address
from balsadb.errors import ProtocolError, UsageError
from balsadb.kv.reply import Mapping, Refusal, Reply, Status
from balsadb.password_file import read_password_file
from balsadb.raft.types import Configuration, Member, NodeId
from balsadb.replica.replica import Replica
from balsadb.resp.decode import ReplyParser, encode_command
from balsadb.server import names
from balsadb.server.journal import journal
from balsadb.tls import describe

FIND_SECONDS_MAX = 10.0
"""How long a starting node looks for its cluster before it gives up."""
ASK_SECONDS_MAX = 8.0
"""How long one question may take: longer than a server takes to find the outcome of a change."""
CONNECT_SECONDS_MAX = 2.0
"""How long of it an attempt to connect may take."""
PAUSE_SECONDS = 0.5
REPLY_BYTES_MAX = 1024 * 1024


class Found(msgspec.Struct, frozen=True):
    """What a cluster says of itself."""

    configuration: Configuration
    """Its members, as far as a client is told of them. The new node is not among them."""
    ever: tuple[NodeId, ...]
    """All ids that are or were members: whoever proposed anything is among them (rule P5)."""
    servers: tuple[str, ...]
    """Client addresses of the members."""
    known: bool
    """True when the new node is a member already."""


async def find(
    address: str, node: NodeId, password_file: str | None = None, tls: SSLContext | None = None
) -> Found:
    """Ask the server at a client address for its cluster. Raises UsageError when there is none in time."""
    deadline = asyncio.get_running_loop().time() + FIND_SECONDS_MAX
    while True:
        try:
            return await _find(address, node, password_file, tls)
        except (OSError, ProtocolError, TimeoutError) as error:
            # What a certificate lacks will not come by waiting.
            if isinstance(error, SSLError) or asyncio.get_running_loop().time() >= deadline:
                raise UsageError(f"--join {address}: no cluster is found there ({_why(error)})") from None
        await asyncio.sleep(PAUSE_SECONDS)


async def _find(address: str, node: NodeId, password_file: str | None, tls: SSLContext | None) -> Found:
    status = _fields(await _ask(address, [b"RAFT", b"STATUS"], password_file, tls))
    members = await _ask(address, [b"RAFT", b"MEMBERS"], password_file, tls)
    cluster_id = bytes.fromhex(_text(status.get(b"cluster_id")))
    if not cluster_id:
        raise ProtocolError("its cluster has not begun yet")
    if not isinstance(members, list):
        raise ProtocolError("it does not say who its members are")
    rows = [_fields(row) for row in members]
    known = [
        Member(int(row[b"id"]), _text(row[b"peer_address"]), _text(row[b"client_address"])) for row in rows
    ]
    voters = _ids(status, b"voters")
    everyone = {*voters, *_ids(status, b"outgoing_voters"), *_ids(status, b"learners")}
    others = tuple(member for member in known if member.id != node)
    configuration = Configuration(
        voters=tuple(sorted(set(voters) - {node})), members=others, cluster_id=cluster_id
    )
    if not configuration.voters:
        raise ProtocolError("its only voter has the id of this node")
    if node in _ids(status, b"removed"):
        raise UsageError(
            f"node {node} was removed from this cluster, and an id never comes back; choose a new one"
        )
    ever = tuple(sorted({*everyone, *_ids(status, b"removed")} - {node}))
    servers = tuple(member.client_address for member in others if member.client_address)
    return Found(configuration, ever, servers, node in everyone)


async def ask_in(
    replica: Replica,
    addresses: Sequence[str],
    peer_address: str,
    client_address: str,
    password_file: str | None = None,
    tls: SSLContext | None = None,
) -> None:
    """Ask to be added, at one server after another, until this node finds itself among the members."""
    node = replica.node.id
    words = [b"RAFT", b"ADD", b"%d" % node, peer_address.encode(), client_address.encode()]
    said, turn = "", 0
    while node not in replica.configuration.everyone() and not replica.removed:
        address = addresses[turn % len(addresses)]
        turn += 1
        try:
            reply = await _ask(address, words, password_file, tls)
            problem = _text(reply.text) if isinstance(reply, Refusal) else ""
        except (OSError, ProtocolError, TimeoutError, UsageError) as error:
            problem = f"no answer from {address} ({_why(error)})"
        if problem and problem != said:
            journal.say("not-added-yet", "warning", message=problem)
            said = problem
        await asyncio.sleep(PAUSE_SECONDS)


async def _ask(
    address: str, words: Sequence[bytes], password_file: str | None, tls: SSLContext | None
) -> Reply:
    host, port = parse_address(address)
    options: dict[str, Any] = {} if tls is None else {"ssl": tls, "server_hostname": host}
    async with asyncio.timeout(ASK_SECONDS_MAX):
        reader, writer = await names.connect(
            host, port, CONNECT_SECONDS_MAX, lambda to, port: asyncio.open_connection(to, port, **options)
        )
        try:
            if password_file is not None:
                password = read_password_file(password_file)
                refusal = await _exchange(reader, writer, [b"AUTH", password])
                if isinstance(refusal, Refusal):
                    _check_login(address, refusal)
                    return refusal
            reply = await _exchange(reader, writer, words)
            if isinstance(reply, Refusal):
                _check_login(address, reply)
            return reply
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def _check_login(address: str, refusal: Refusal) -> None:
    """Raise UsageError where only another password helps."""
    if refusal.text.startswith((b"NOAUTH", b"WRONGPASS", b"ERR AUTH ")):
        raise UsageError(
            f"{address} says {_text(refusal.text)} Start this node with the --password-file of the others"
        )


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, words: Sequence[bytes]
) -> Reply:
    """Send one command and return its answer."""
    writer.write(encode_command(words))
    parser = ReplyParser()
    received = 0
    while data := await reader.read(64 * 1024):
        received += len(data)
        if received > REPLY_BYTES_MAX:
            break
        if replies := parser.feed(data):
            return replies[0]
    raise ProtocolError("it gave no answer")


def _why(error: Exception) -> str:
    return describe(error) if isinstance(error, SSLError) else str(error) or "no answer"


def _fields(reply: Any) -> dict[Any, Any]:
    """Read a map, which RESP2 writes as a flat list."""
    if isinstance(reply, Refusal):
        raise ProtocolError(_text(reply.text))
    if isinstance(reply, Mapping):
        return dict(reply.pairs)
    if not isinstance(reply, list):
        raise ProtocolError("an answer makes no sense")
    return dict(zip(reply[::2], reply[1::2], strict=False))


def _ids(status: dict[Any, Any], name: bytes) -> tuple[NodeId, ...]:
    return tuple(int(node) for node in status.get(name, ()))


def _text(value: Any) -> str:
    if isinstance(value, Status):
        value = value.text
    return value.decode(errors="replace") if isinstance(value, bytes) else ""
