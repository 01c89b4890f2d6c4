"""Two servers with certificates, over real connections: who is believed, and what is said of the others."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace

import pytest
import uvloop

from balsadb.raft.messages import Heartbeat
from balsadb.raft.types import Configuration, Member
from balsadb.server.addresses import AddressBook
from balsadb.server.certificates import Certificates, Files
from balsadb.server.peers import Peers
from balsadb.server.trust import PeerTrust, Secrets
from balsadb.wire.frame import PROTOCOL_VERSION, Hello, Welcome, encode_handshake
from certificates import needs_openssl

pytestmark = needs_openssl
LOOPS = [uvloop.new_event_loop, asyncio.new_event_loop]
MEMBERS = Configuration(voters=(1, 2), members=(Member(1, "a:1"), Member(2, "b:1")))


def with_certificate(directory, name: str, ca: str = "peer-ca", node: int | None = None) -> PeerTrust:
    """Trust as a node with this certificate would have it, tried or not."""
    files = Files(
        str(directory / f"{name}.pem"),
        str(directory / f"{name}.key"),
        str(directory / f"{ca}.pem"),
        "--peer-tls",
    )
    if node is not None:
        return PeerTrust(Certificates.of_peers(files, node))
    from balsadb.server import certificates

    untried = certificates._shake_hands
    certificates._shake_hands = lambda *_: {
        "subjectAltName": (("URI", "balsadb://node/2"),),
        "notAfter": "Jan  1 00:00:00 2040 GMT",
    }
    try:
        return PeerTrust(Certificates.of_peers(files, 2))
    finally:
        certificates._shake_hands = untried


class Node:
    """As much of a server as its connections need."""

    def __init__(self, node: int, trust: PeerTrust, address: tuple[str, int] | None = None) -> None:
        self.received: list[object] = []
        raft = SimpleNamespace(id=node, configuration=MEMBERS)
        replica = SimpleNamespace(node=raft, peer_up=lambda _: None, peer_lost=lambda _: None)
        driver = SimpleNamespace(replica=replica, wake=lambda: None, receive=self.received.append)
        admission = SimpleNamespace(
            hello=lambda target: Hello(PROTOCOL_VERSION, b"c", b"", node, target, b"1" * 16, 1, "", True),
            welcomed=lambda target, welcome: None,
            answer=lambda hello: Welcome(node, bytes([node]) * 16, b"c", "", True),
            refused=lambda refusal: refusal.reason,
        )
        book = AddressBook(node, {})
        self.other = 3 - node
        if address is not None:
            book.known[self.other] = address
        self.peers = Peers(driver, admission, book, SimpleNamespace(), trust)

    async def start(self) -> tuple[str, int]:
        await self.peers.start("127.0.0.1", 0)
        return self.peers._server.sockets[0].getsockname()


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def dialling(one: PeerTrust, two: PeerTrust):
    """Node 2 dials node 1."""
    listener = Node(1, one)
    address = await listener.start()
    dialler = Node(2, two, address)
    await dialler.start()
    try:
        yield dialler, listener
    finally:
        await dialler.peers.stop()
        await listener.peers.stop()


def play(make_loop, scenario) -> None:
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(scenario())


@pytest.mark.parametrize("make_loop", LOOPS)
@pytest.mark.parametrize("secret", [False, True])
def test_nodes_with_certificates_of_the_same_ca_send_each_other_messages(
    make_loop, certificates, tmp_path, secret
):
    one, two = (with_certificate(certificates, f"peer-{node}", node=node) for node in (1, 2))
    if secret:
        one.secrets = two.secrets = Secrets(str(certificates / "peer.secret"))

    async def scenario() -> None:
        async with dialling(one, two) as (dialler, listener):
            await until(lambda: dialler.peers.connected == {1})
            dialler.peers.send(1, [Heartbeat(2, 1, 1, 0, 0)])
            await until(lambda: listener.received == [(Heartbeat(2, 1, 1, 0, 0),)])
            assert not one.refusals + two.refusals

    play(make_loop, scenario)


REFUSED = {
    "expired": ("expired-2", "peer-ca", "certificate has expired"),
    "of another CA": ("stranger-2", "peer-ca", "unable to get local issuer certificate"),
    "signed by itself": ("itself-2", "peer-ca", "self-signed certificate"),
    "of another node": ("peer-3", "peer-ca", "names balsadb://node/3, and not balsadb://node/2"),
}


@pytest.mark.parametrize("make_loop", LOOPS)
@pytest.mark.parametrize("case", REFUSED)
def test_a_dialler_with_a_wrong_certificate_is_refused_counted_and_said(
    make_loop, case, certificates, capsys
):
    name, ca, sentence = REFUSED[case]
    one, two = with_certificate(certificates, "peer-1", node=1), with_certificate(certificates, name, ca)

    async def scenario() -> None:
        async with dialling(one, two) as (dialler, listener):
            await until(lambda: one.refusals)
            assert not listener.received
            assert not dialler.peers.connected

    play(make_loop, scenario)
    assert sentence in capsys.readouterr().err
    assert set(one.refusals) == {"identity" if case == "of another node" else "tls"}


@pytest.mark.parametrize("make_loop", LOOPS)
@pytest.mark.parametrize("case", REFUSED)
def test_a_listener_with_a_wrong_certificate_hears_no_hello_and_it_is_said(
    make_loop, case, certificates, capsys
):
    """Here the node with the right one, number 1, is the dialler."""
    name, ca, sentence = REFUSED[case]
    one, two = with_certificate(certificates, "peer-1", node=1), with_certificate(certificates, name, ca)

    async def scenario() -> None:
        listener = Node(2, two)
        heard: list[object] = []
        listener.peers.admission.answer = lambda hello: heard.append(hello)
        address = await listener.start()
        dialler = Node(1, one, address)
        await dialler.start()
        try:
            await until(lambda: one.refusals)
            assert not heard
            assert not dialler.peers.connected
        finally:
            await dialler.peers.stop()
            await listener.peers.stop()

    play(make_loop, scenario)
    said = capsys.readouterr().err
    assert sentence in said
    assert "event=peer-unusable peer=2 message=" in said


@pytest.mark.parametrize("make_loop", LOOPS)
def test_a_node_without_certificates_does_not_reach_one_with_them(make_loop, certificates, capsys):
    one, two = with_certificate(certificates, "peer-1", node=1), PeerTrust()

    async def scenario() -> None:
        async with dialling(one, two) as (dialler, listener):
            await until(lambda: one.refusals["tls"])
            assert not listener.received
            assert not dialler.peers.connected

    play(make_loop, scenario)
    assert "it does not speak TLS" in capsys.readouterr().err


@pytest.mark.parametrize("make_loop", LOOPS)
def test_a_node_with_certificates_does_not_use_one_without_them(make_loop, certificates, capsys):
    one, two = PeerTrust(), with_certificate(certificates, "peer-2", node=2)
    said: list[str] = []

    async def scenario() -> None:
        async with dialling(one, two) as (dialler, listener):
            await until(lambda: said.append(capsys.readouterr().err) or "speaks TLS" in "".join(said))
            assert not listener.received
            assert not dialler.peers.connected

    play(make_loop, scenario)


@pytest.mark.parametrize("make_loop", LOOPS)
def test_a_connection_without_a_certificate_gets_nowhere(make_loop, certificates):
    one = with_certificate(certificates, "peer-1", node=1)

    async def scenario() -> None:
        listener = Node(1, one)
        host, port = await listener.start()
        try:
            import ssl

            context = ssl.create_default_context(cafile=str(certificates / "peer-ca.pem"))
            context.check_hostname = False
            try:
                reader, writer = await asyncio.open_connection(host, port, ssl=context)
                hello = Hello(PROTOCOL_VERSION, b"c", b"", 2, 1, b"1" * 16, 1, "", True)
                writer.write(encode_handshake(hello))
                assert await reader.read() == b""
                writer.close()
            except OSError:
                pass
            await until(lambda: one.refusals["tls"])
            assert not listener.peers.inbound
        finally:
            await listener.peers.stop()

    play(make_loop, scenario)


@pytest.mark.parametrize("make_loop", LOOPS)
def test_nodes_with_different_secrets_do_not_use_each_other(make_loop, tmp_path, capsys):
    trusts = []
    for name in "ab":
        file = tmp_path / name
        file.write_text(name * 64)
        file.chmod(0o600)
        trusts.append(PeerTrust(secrets=Secrets(str(file))))
    one, two = trusts

    async def scenario() -> None:
        async with dialling(one, two) as (dialler, listener):
            await until(lambda: one.refusals["secret"] and two.refusals["secret"])
            assert not listener.received
            assert not dialler.peers.connected

    play(make_loop, scenario)
    said = capsys.readouterr().err
    assert "different shared secrets" in said
    assert "a" * 64 not in said
    assert "b" * 64 not in said
