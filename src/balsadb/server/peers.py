"""Connections between the servers of a cluster.

Each node dials every other one and sends over its own connection; what the other sends comes over the
connection that the other dialled. So a connection has one direction, and the loss of the one that carries
the leader's messages says at once that the leader's process is gone (rule M3).

Sending never waits: when a connection is down or full, messages are dropped, because Raft and the origins
of proposals send again what matters (rule B1). Receiving never stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import cast

from balsadb.address import format_address
from balsadb.errors import ProtocolError
from balsadb.raft.messages import Message
from balsadb.raft.types import NodeId
from balsadb.server import names, sockets
from balsadb.server.addresses import AddressBook
from balsadb.server.admission import Admission
from balsadb.server.driver import Driver
from balsadb.server.entrance import Entrance
from balsadb.server.journal import journal
from balsadb.server.snapshots import Inbox, SnapshotReceiver
from balsadb.server.trust import Introduction, PeerTrust, Reception, Untrusted, certificate_of
from balsadb.wire.frame import (
    Challenge,
    FrameDecoder,
    Hello,
    Proof,
    Refused,
    Welcome,
    encode_handshake,
    encode_messages,
)
from balsadb.wire.handshake import STATE
from balsadb.wire.transfer import Transfer

OUTBOX_BYTES_MAX = 32 * 1024 * 1024
"""Unsent bytes to one peer; past it messages to it are dropped."""
STRANGERS_MAX = 32
"""Inbound connections at once besides two for each peer. Past it the oldest one without a hello is closed, or
else the newest: strangers may neither use up the open files nor keep members out."""
BACKLOG = 128
"""Connections waiting to be accepted."""
CONNECT_SECONDS_MAX = 2.0
"""An attempt to connect is given up after this and made anew; the kernel waits longer from try to try."""
UNACKNOWLEDGED_MS_MAX = 2_000
"""A connection is given up, and made anew, when what was sent on it is not acknowledged for so long."""
HELLO_SECONDS_MAX = 5.0
"""A connection without a finished handshake is closed after this."""
REDIAL_SECONDS_MIN = 0.02
REDIAL_SECONDS_MAX = 0.25
"""Pause between attempts to reach a peer; doubles from the least to the greatest."""
REFUSED_SECONDS = 1.0
"""Pause after a peer has refused us."""
FAREWELL_SECONDS = 2.0
"""How long the links to a removed node stay, so that it hears that it was removed."""
GROUP = 0
"""The only Raft group for now; every frame names one."""


class _Outbound(asyncio.Protocol):
    """A connection that we dialled: hello out, welcome in, then messages out."""

    def __init__(self, hello: Hello, trust: PeerTrust) -> None:
        self._introduction = Introduction(trust, hello)
        self._decoder = FrameDecoder(handshake=True)
        self.transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[Welcome | Refused] = asyncio.get_running_loop().create_future()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def greet(self) -> None:
        """Say hello: whom we have reached is known, as far as certificates go."""
        assert self.transport is not None
        self.transport.write(encode_handshake(self._introduction.hello))

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        try:
            for frame in self._decoder.feed(data):
                if self.answer.done():
                    raise ProtocolError("a peer sent more than its answer on our connection")
                said = self._introduction.take(frame)
                if isinstance(said, Proof):
                    self._decoder.expect_greeting()
                    self.transport.write(encode_handshake(said))
                else:
                    self.answer.set_result(said)
        except ProtocolError as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            # In TLS 1.3 it is only now that one learns that the other side does not take one's certificate.
            broken = exc if isinstance(exc, ssl.SSLError) else None
            self.answer.set_exception(broken or ConnectionResetError("closed before an answer"))
            self.answer.exception()  # looked at by the dialler or by nobody
        if not self.closed.done():
            self.closed.set_result(None)


class _Inbound(asyncio.Protocol):
    """A connection that a peer dialled: hello in, welcome out, then messages in."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._decoder = FrameDecoder(handshake=True)
        self._reception: Reception | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport | None = None
        self.node: NodeId = 0
        """Who is at the other end; 0 before its hello was accepted."""
        self._inbox: Inbox | None = None
        """Takes the frames of a transfer, when this is one."""

    @property
    def greeted(self) -> bool:
        """True when a member is at the other end, as far as its hello says."""
        return bool(self.node) or self._inbox is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peers = self._peers
        self._reception = Reception(
            peers.trust, lambda hello: peers.admission.answer(hello), certificate_of(transport)
        )
        self._timer = asyncio.get_running_loop().call_later(HELLO_SECONDS_MAX, self.transport.abort)
        self._peers.inbound[self] = None
        self._peers.make_room()

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        try:
            for frame in self._decoder.feed(data):
                if isinstance(frame, tuple):
                    self._peers.driver.receive(frame)
                elif self._inbox is not None and isinstance(frame, Transfer):
                    self._inbox.feed(frame)
                else:
                    self._greet(frame)
        except ProtocolError as error:
            journal.say("peer-closed", "warning", remote=sockets.remote(self.transport), message=str(error))
            self.transport.abort()

    def _greet(self, frame: object) -> None:
        assert self.transport is not None
        assert self._reception is not None
        answer = self._reception.take(frame)
        hello = self._reception.hello
        assert hello is not None
        self.transport.write(encode_handshake(answer))
        if isinstance(answer, Challenge):
            self._decoder.expect_greeting()
            return
        if isinstance(answer, Refused):
            remote = sockets.remote(self.transport)
            journal.say("peer-refused", "warning", peer=hello.node_id, remote=remote, message=answer.reason)
            self.transport.close()
            return
        if self._timer is not None:
            self._timer.cancel()
        if hello.purpose == STATE:
            # A connection for one state; its loss says nothing about the leader's process.
            self._inbox = Inbox(self._peers.receiver, self.transport)
            self._decoder.expect_transfer()
            return
        self.node = hello.node_id
        self._decoder.expect(source=hello.node_id, target=hello.target_id)
        self._peers.replace(self)
        self._peers.called_by(hello)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._inbox is not None:
            self._inbox.lost()
        self._peers.inbound.pop(self, None)
        if self.node and not any(other.node == self.node for other in self._peers.inbound):
            self._peers.lost(self.node)


class Peers:
    """All connections of one node to and from the other members."""

    def __init__(
        self,
        driver: Driver,
        admission: Admission,
        book: AddressBook,
        receiver: SnapshotReceiver,
        trust: PeerTrust | None = None,
    ) -> None:
        self.driver = driver
        self.trust = trust or PeerTrust()
        self.receiver = receiver
        self.admission = admission
        self.inbound: dict[_Inbound, None] = {}
        """Connections that were made to us, the oldest first."""
        self.dropped_messages = 0
        self._book = book
        self._addresses = book.known
        """Where each other member is; who changes it calls `follow`."""
        self._links: dict[NodeId, asyncio.Transport] = {}
        self._diallers: dict[NodeId, asyncio.Task[None]] = {}
        self._nudges: dict[NodeId, asyncio.Event] = {}
        """Set to dial a node now instead of after a pause."""
        self._server: asyncio.Server | Entrance | None = None
        self._stopping = False
        self._alone = False
        driver.peers = self

    async def start(self, host: str, port: int) -> None:
        """Listen for peers and begin to dial them. Raises OSError when the address is taken."""
        loop = asyncio.get_running_loop()
        if self.trust.certificates is None:
            self._server = await loop.create_server(lambda: _Inbound(self), host, port, backlog=BACKLOG)
        else:
            self._server = Entrance(
                self.trust.certificates,
                lambda: _Inbound(self),
                lambda: STRANGERS_MAX,
                lambda why: self.trust.refuse("tls", why),
            )
            await self._server.start(host, port, BACKLOG)
        for listening in self._server.sockets:
            sockets.keep_alive(listening)
        self.follow()

    def follow(self, *, alone: bool = False) -> None:
        """Dial who is new among the members; let go of those who are gone, a moment after they were told.

        `alone`: this node itself is gone, and so is everybody for it.
        """
        if self._server is None or self._stopping:
            return
        self._alone = alone
        loop = asyncio.get_running_loop()
        gone = set(self._diallers) - (set() if alone else set(self._addresses))
        for node in sorted(set(self._addresses) - set(self._diallers) - gone):
            self._diallers[node] = loop.create_task(self._dial(node), name=f"dial-{node}")
        for node in gone:
            loop.call_later(FAREWELL_SECONDS, self._let_go, node)

    def called_by(self, hello: Hello) -> None:
        """Note that a node has reached us, so that we may reach it, too: it knows us.

        A node whose log lags does not know every member yet, and must answer all the same (rule M1).
        """
        node = hello.node_id
        if self._book.called(node, hello.peer_address):
            self.follow(alone=self._alone)
        # The task that dials it may not have begun yet; it must not wait for a call that has come.
        self._nudges.setdefault(node, asyncio.Event()).set()

    def _let_go(self, node: NodeId) -> None:
        dialler = self._diallers.get(node)
        if dialler is None or (node in self._addresses and not self._alone):
            return
        del self._diallers[node]
        self._nudges.pop(node, None)
        dialler.cancel()
        for peer in self.inbound:
            if peer.node == node and peer.transport is not None:
                peer.transport.close()

    async def stop(self) -> None:
        """Close all connections."""
        self._stopping = True
        if self._server is not None:
            self._server.close()
        tasks = list(self._diallers.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for transport in [*self._links.values(), *[peer.transport for peer in self.inbound]]:
            if transport is not None:
                transport.abort()

    def replace(self, newest: _Inbound) -> None:
        """Close what is left of earlier connections of the same node, whose end may never be heard of."""
        for other in list(self.inbound):
            if other is not newest and other.node == newest.node and other.transport is not None:
                other.transport.abort()

    def make_room(self) -> None:
        """Close a connection when there is one too many."""
        if len(self.inbound) > 2 * len(self._addresses) + STRANGERS_MAX:
            victim = next((peer for peer in self.inbound if not peer.greeted), list(self.inbound)[-1])
            if victim.transport is not None:
                victim.transport.abort()

    @property
    def connected(self) -> frozenset[NodeId]:
        """Peers that messages can be sent to now."""
        return frozenset(self._links)

    def send(self, target: NodeId, messages: list[Message]) -> None:
        """Send messages in one frame, or drop them when the peer is away or slow (rule B1)."""
        link = self._links.get(target)
        # A link stays in the table for a moment after it broke, and writing to it then raises.
        if link is None or link.is_closing() or link.get_write_buffer_size() > OUTBOX_BYTES_MAX:
            self.dropped_messages += len(messages)
            return
        link.write(encode_messages(messages, GROUP))

    def lost(self, node: NodeId) -> None:
        """Note that the last connection from `node` closed (rule M3)."""
        if not self._stopping:
            self.driver.replica.peer_lost(node)
            self.driver.wake()

    # ----------------------------------------------------------------- dialling

    async def _dial(self, node: NodeId) -> None:
        """Keep one connection to `node` for as long as this node lives."""
        pause = REDIAL_SECONDS_MIN
        last_reason: str | None = None
        nudge = self._nudges.setdefault(node, asyncio.Event())
        me, known = self.driver.replica.node.id, self.driver.replica.node.configuration
        if me not in known.everyone() and me not in known.removed:
            await nudge.wait()  # a new node is let in only when it was added; then it is called
        while True:
            nudge.clear()
            try:
                reason = await self._connect(node)
                pause = REDIAL_SECONDS_MIN if reason is None else REFUSED_SECONDS
            except socket.gaierror as error:
                reason = f"the name in {self._where(node)} has no address ({error.strerror or error})"
                pause = min(pause * 2, REDIAL_SECONDS_MAX)
            except ssl.SSLError as error:
                reason = self.trust.describe_failure(error)
                pause = REFUSED_SECONDS
            except ProtocolError as error:
                reason = str(error)
                pause = (
                    REFUSED_SECONDS if isinstance(error, Untrusted) else min(pause * 2, REDIAL_SECONDS_MAX)
                )
            except (OSError, TimeoutError):
                # That a server does not answer is nothing new when it is down; no line for every attempt.
                reason = last_reason
                pause = min(pause * 2, REDIAL_SECONDS_MAX)
            if reason and reason != last_reason:
                journal.say("peer-unusable", "warning", peer=node, message=reason)
            last_reason = reason
            # Not `asyncio.wait_for`: it forgets that it was cancelled when the nudge comes at the same time.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await nudge.wait()

    def _where(self, node: NodeId) -> str:
        return format_address(*self._addresses[node]) if node in self._addresses else f"node {node}'s address"

    async def _connect(self, node: NodeId) -> str | None:
        """Connect, greet, and stay until the connection closes. Returns why it can't be used, or None."""
        loop = asyncio.get_running_loop()
        host, port = self._addresses[node]
        hello = self.admission.hello(node)
        transport, protocol = await names.connect(
            host,
            port,
            CONNECT_SECONDS_MAX,
            lambda address, port: loop.create_connection(
                lambda: _Outbound(hello, self.trust), address, port, **self.trust.calling()
            ),
        )
        sockets.give_up_after(transport.get_extra_info("socket"), UNACKNOWLEDGED_MS_MAX)
        try:
            self.trust.check_target(node, certificate_of(transport))
            protocol.greet()
            async with asyncio.timeout(HELLO_SECONDS_MAX):
                answer = await protocol.answer
        except BaseException:
            transport.abort()
            raise
        if isinstance(answer, Refused):
            reason: str | None = self.admission.refused(answer)
        else:
            reason = self.admission.welcomed(node, answer)
        if reason is not None:
            transport.abort()
            return reason
        self._links[node] = transport
        self.driver.replica.peer_up(node)
        self.driver.wake()
        try:
            await protocol.closed
        finally:
            del self._links[node]
            transport.abort()
        return None
