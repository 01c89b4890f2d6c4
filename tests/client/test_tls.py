"""Clients that speak TLS, against a whole server: what works, and what is refused with which words."""

from __future__ import annotations

import asyncio
import os
import ssl

import pytest

from balsadb import BlockingClerk, Clerk, CommandError, NoServer, NotApplied, OutcomeUnknown, Tls
from balsadb.address import parse_address
from balsadb.client import ClerkOptions
from balsadb.client.ask import ask
from balsadb.client.tls import client_context, from_environment
from balsadb.errors import ClientError, UsageError
from certificates import client_tls, needs_openssl, server_settings
from server.lone_node import lone_node

pytestmark = needs_openssl
FAST = ClerkOptions(fail_fast=True, prefer_leader=False, discover=False)
BIG = os.urandom(3_000_000)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in ("CA", "CERT", "KEY"):
        monkeypatch.delenv(f"BALSADB_TLS_{name}", raising=False)


def with_a_node(tmp_path, work, **settings) -> None:
    """Run blocking work against a node, in a thread beside it."""

    async def run() -> None:
        async with lone_node(tmp_path / "data", **settings) as node:
            await asyncio.to_thread(work, node.config.listen)

    asyncio.run(run())


def the_usual(address: str, tls) -> None:
    """What a client does, in all three ways."""
    with BlockingClerk(address, tls=tls) as clerk:
        clerk.put("k", "v")
        assert clerk.append("k", "w") == 2
        clerk.put("big", BIG)
        assert clerk.get("big") == BIG
        assert clerk.mget(*["big"] * 4) == [BIG] * 4

    async def in_asyncio() -> None:
        async with Clerk(address, tls=tls) as clerk:
            assert await clerk.get("k") == b"vw"
            await clerk.put("big", BIG[::-1])
            values = await asyncio.gather(*(clerk.get("big") for _ in range(4)))
            assert values == [BIG[::-1]] * 4

    asyncio.run(in_asyncio())
    assert ask(parse_address(address), ["GET", "k"], 5, tls=tls) == b"vw"
    with pytest.raises(CommandError, match=r"WRONGTYPE|ERR"):
        ask(parse_address(address), ["INCR", "k"], 5, tls=tls)


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["yes", "optional", "no"])
def test_clients_with_a_certificate_are_served(tmp_path, certificates, asked):
    settings = {**server_settings(certificates), "tls_client_cert": asked}
    with_a_node(tmp_path, lambda address: the_usual(address, client_tls(certificates)), **settings)


@pytest.mark.parametrize("asked", ["optional", "no"])
def test_clients_without_one_are_served_where_none_is_asked_for(tmp_path, certificates, asked):
    def work(address: str) -> None:
        with BlockingClerk(address, tls=client_tls(certificates, shown=False)) as clerk:
            clerk.put("k", "v")

    with_a_node(tmp_path, work, **{**server_settings(certificates), "tls_client_cert": asked})


def refused(address: str, tls, words: str) -> None:
    """Check that nobody gets through with this, and what each way of asking says."""
    with pytest.raises(ClientError, match=words):
        ask(parse_address(address), ["SET", "k", "v"], 5, tls=tls)
    with (
        BlockingClerk(address, timeout=1, options=FAST, tls=tls) as clerk,
        pytest.raises(NotApplied, match=words),
    ):
        clerk.put("k", "v")

    async def in_asyncio() -> None:
        async with Clerk(address, timeout=1, options=FAST, tls=tls) as clerk:
            with pytest.raises(NotApplied, match=words):
                await clerk.put("k", "v")

    asyncio.run(in_asyncio())


def test_a_client_without_a_certificate_is_told_so_where_one_is_asked_for(tmp_path, certificates):
    words = "asks for a certificate|closed the connection|reset by peer|broken pipe"

    def work(address: str) -> None:
        refused(address, client_tls(certificates, shown=False), words)

    with_a_node(tmp_path, work, **server_settings(certificates))


def test_a_server_of_another_ca_is_not_believed(tmp_path, certificates):
    stranger = Tls(str(certificates / "other-ca.pem"))
    words = "its certificate is refused: (unable to get local issuer|self-signed) certificate"
    with_a_node(tmp_path, lambda address: refused(address, stranger, words), **server_settings(certificates))


@pytest.mark.parametrize("tls", [True, Tls()])
def test_a_server_of_an_own_ca_is_not_believed_by_the_systems(tmp_path, certificates, tls):
    with_a_node(
        tmp_path,
        lambda address: refused(address, tls, "its certificate is refused"),
        **server_settings(certificates),
    )


def test_a_server_whose_certificate_has_another_name_is_not_believed(tmp_path, certificates):
    settings = server_settings(certificates)
    settings["tls_cert"] = settings["tls_cert"].replace("server", "elsewhere")
    settings["tls_key"] = settings["tls_key"].replace("server", "elsewhere")
    words = "its certificate is refused: IP address mismatch"
    with_a_node(tmp_path, lambda address: refused(address, client_tls(certificates), words), **settings)


def test_a_client_that_wants_tls_sends_nothing_without_it(tmp_path, certificates):
    with_a_node(tmp_path, lambda address: refused(address, client_tls(certificates), "it does not speak TLS"))


def test_a_client_without_tls_gets_no_answer_from_a_server_with_it(tmp_path, certificates):
    def work(address: str) -> None:
        with pytest.raises(ClientError, match=r"closed the connection|reset|speaks TLS"):
            ask(parse_address(address), ["SET", "k", "v"], 5)
        with BlockingClerk(address, timeout=1) as clerk, pytest.raises((NotApplied, OutcomeUnknown)):
            clerk.put("k", "v")
        with BlockingClerk(address, tls=client_tls(certificates)) as clerk:
            assert clerk.get("k") is None

    with_a_node(tmp_path, work, **server_settings(certificates))


def test_a_server_that_can_not_be_reached_is_that_with_tls_too(certificates):
    with pytest.raises(NoServer, match="connection refused"):
        ask(("127.0.0.1", 1), ["PING"], 1, tls=client_tls(certificates))


def test_the_variables_say_what_a_clerk_without_more_does(tmp_path, certificates, monkeypatch):
    def work(address: str) -> None:
        with BlockingClerk(address) as clerk:
            clerk.put("k", "v")
        with BlockingClerk(address, timeout=1, tls=False) as clerk, pytest.raises(ClientError):
            clerk.put("k", "v")

    monkeypatch.setenv("BALSADB_TLS_CA", str(certificates / "ca.pem"))
    monkeypatch.setenv("BALSADB_TLS_CERT", str(certificates / "client.pem"))
    monkeypatch.setenv("BALSADB_TLS_KEY", str(certificates / "client.key"))
    with_a_node(tmp_path, work, **server_settings(certificates))


def test_without_variables_there_is_no_tls():
    assert from_environment() is None
    assert client_context() is None
    assert client_context(False) is None


def test_a_context_of_ones_own_is_taken_as_it_is():
    context = ssl.create_default_context()
    assert client_context(context) is context


@pytest.mark.parametrize(
    ("tls", "sentence"),
    [
        (Tls("/nowhere/ca.pem"), "--tls-ca /nowhere/ca.pem: No such file or directory"),
        (Tls(__file__), "--tls-ca .*no certificate in it"),
        (Tls("system", "/nowhere/me.pem"), "--tls-cert /nowhere/me.pem: No such file or directory"),
        (Tls("system", __file__, __file__), "can't be read as PEM"),
    ],
)
def test_files_that_are_of_no_use_are_said_before_anything_is_sent(tls, sentence):
    with pytest.raises(UsageError, match=sentence):
        BlockingClerk("127.0.0.1:1", tls=tls)


def test_a_key_without_a_certificate_is_a_slip(monkeypatch):
    monkeypatch.setenv("BALSADB_TLS_KEY", "x")
    with pytest.raises(UsageError, match="--tls-key is of no use"):
        BlockingClerk("127.0.0.1:1")
