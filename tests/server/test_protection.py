"""A node that everybody could reach does not start unless it is told how to know them."""

from __future__ import annotations

import msgspec
import pytest

from balsadb.errors import UsageError
from balsadb.server import protection
from balsadb.server.config import ServeConfig

HERE = ServeConfig(
    id=1,
    data_dir="d",
    listen="127.0.0.1:7001",
    peer_listen="[::1]:8001",
    http_listen="localhost:9001",
    cluster={1: "[::1]:8001"},
    advertise="127.0.0.1:7001",
)
EVERYWHERE = {"listen": "0.0.0.0:7001", "peer_listen": "10.0.0.1:8001"}
TLS = {"tls_cert": "c", "tls_key": "k"}
MUTUAL_TLS = {**TLS, "tls_ca": "a"}
PEER_TLS = {"peer_tls_cert": "c", "peer_tls_key": "k", "peer_tls_ca": "a"}


def check(**settings: object) -> None:
    protection.check(msgspec.structs.replace(HERE, **settings))


def test_on_this_machine_alone_nothing_is_asked_for(capsys):
    check()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "10.0.0.1", "db1", "127.example.com", "[fe80::1]"])
def test_a_client_port_beyond_this_machine_needs_tls_or_a_password(host):
    with pytest.raises(UsageError, match=r"--listen .* can be reached .* --tls-cert, .* --password-file"):
        check(listen=f"{host}:7001")


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "10.0.0.1", "db1"])
def test_a_peer_port_beyond_this_machine_needs_certificates_or_a_secret(host):
    with pytest.raises(UsageError, match=r"--peer-listen .* can be reached .* --peer-secret-file"):
        check(peer_listen=f"{host}:8001")


def test_both_are_said_at_once_with_the_way_out():
    with pytest.raises(UsageError, match=r"--peer-listen .*; --listen .*--insecure"):
        check(**EVERYWHERE)


@pytest.mark.parametrize("peers", [PEER_TLS, {"peer_secret_file": "s"}])
def test_with_certificates_of_clients_and_a_way_to_know_peers_it_starts(peers, capsys):
    check(**EVERYWHERE, **MUTUAL_TLS, **peers)
    assert capsys.readouterr().err == ""


def test_tls_that_knows_nobody_is_said(capsys):
    check(**EVERYWHERE, **TLS, **PEER_TLS)
    assert "encrypted, but whoever reaches it can read and change everything" in capsys.readouterr().err


def test_insecure_is_said_once_at_every_start(capsys):
    check(**EVERYWHERE, insecure=True)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--insecure: nothing is asked of whoever reaches this node, as a peer and as a client" in said


def test_insecure_says_nothing_where_nothing_is_open(capsys):
    check(insecure=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("file", "starts"), [("p", True), (None, False)])
def test_a_password_opens_the_client_port(file, starts, capsys):
    config = msgspec.structs.replace(HERE, listen="db1:1", password_file=file)
    if starts:
        protection.check(config)
        assert capsys.readouterr().err == ""
    else:
        with pytest.raises(UsageError):
            protection.check(config)
