"""Certificates are tried before they are used, and taken up again when their files change."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from balsadb.errors import UsageError
from balsadb.server.certificates import Certificates, Files, names_in, names_node
from certificates import needs_openssl, sign

pytestmark = needs_openssl


def of_peers(directory: Path, name: str, node: int, ca: str = "peer-ca") -> Certificates:
    files = Files(
        str(directory / f"{name}.pem"),
        str(directory / f"{name}.key"),
        str(directory / f"{ca}.pem"),
        "--peer-tls",
    )
    return Certificates.of_peers(files, node)


def of_clients(directory: Path, name: str = "server", asked: str = "yes", host: str = "127.0.0.1"):
    files = Files(str(directory / f"{name}.pem"), str(directory / f"{name}.key"), str(directory / "ca.pem"))
    return Certificates.of_clients(files, asked, host)


@pytest.fixture
def copies(certificates, tmp_path):
    """Certificates that may be changed."""
    return Path(shutil.copytree(certificates, tmp_path / "copies"))


def test_certificates_made_as_the_page_says_are_good(certificates, capsys):
    peer, client = of_peers(certificates, "peer-1", 1), of_clients(certificates)
    for one in (peer, client):
        assert 364 < (one.expires_s - time.time()) / 86_400 < 366
        assert one.accepting.minimum_version is ssl.TLSVersion.TLSv1_2
        assert one.accepting.verify_mode is one.calling.verify_mode is ssl.CERT_REQUIRED
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "node", "ca", "sentence"),
    [
        (
            "peer-2",
            1,
            "peer-ca",
            "is not that of node 1: it names balsadb://node/2, and not balsadb://node/1",
        ),
        ("server", 1, "ca", "it names db1, localhost, 127.0.0.1, and not balsadb://node/1"),
        ("client", 1, "ca", "it names nobody"),
        ("expired-2", 2, "peer-ca", "certificate has expired"),
        ("stranger-2", 2, "peer-ca", "unable to get local issuer certificate"),
        ("itself-2", 2, "peer-ca", "self-signed certificate"),
        ("none", 2, "peer-ca", "none.key: No such file or directory"),
        ("peer-2", 2, "none", "--peer-tls-ca .*none.pem: No such file or directory"),
    ],
)
def test_a_peer_certificate_that_the_others_would_not_take_is_found_out_at_the_start(
    certificates, name, node, ca, sentence
):
    with pytest.raises(UsageError, match=sentence):
        of_peers(certificates, name, node, ca)


def test_a_key_of_another_certificate_is_said(copies):
    shutil.copy(copies / "peer-1.key", copies / "peer-2.key")
    with pytest.raises(UsageError, match=r"peer-2.key is not the key of the certificate .*peer-2.pem"):
        of_peers(copies, "peer-2", 2)


@pytest.mark.parametrize("file", ["peer-2.pem", "peer-2.key", "peer-ca.pem"])
def test_a_file_with_something_else_in_it_is_named(copies, file):
    (copies / file).write_text("nothing\n")
    with pytest.raises(UsageError, match=file):
        of_peers(copies, "peer-2", 2)


def test_an_encrypted_key_does_not_make_a_server_wait_for_a_terminal(copies):
    command = ["openssl", "ec", "-in", "peer-2.key", "-aes256", "-passout", "pass:x", "-out", "new.key"]
    subprocess.run(command, cwd=copies, check=True, capture_output=True)
    (copies / "new.key").rename(copies / "peer-2.key")
    with pytest.raises(UsageError, match="the key is encrypted"):
        of_peers(copies, "peer-2", 2)


def test_a_key_that_everybody_can_read_is_refused(copies):
    (copies / "peer-2.key").chmod(0o644)
    with pytest.raises(UsageError, match=r"can be read by others than its owner .*chmod 600"):
        of_peers(copies, "peer-2", 2)


def test_a_key_that_its_group_can_read_is_mentioned(copies, capsys):
    (copies / "peer-2.key").chmod(0o640)
    of_peers(copies, "peer-2", 2)
    assert "can be read by its group" in capsys.readouterr().err


def test_a_server_certificate_without_the_host_that_clients_are_told_is_mentioned(certificates, capsys):
    of_clients(certificates, "elsewhere", host="db7")
    said = capsys.readouterr().err
    assert "clients that are sent to db7 will refuse" in said
    assert "Hostname mismatch" in said


def test_changed_files_are_taken_up_at_the_next_connection(copies, capsys):
    certificates = of_peers(copies, "peer-2", 2)
    before = certificates.accepting
    assert certificates.accepting is before
    sign(copies, "new", "URI:balsadb://node/2", days=400)
    (copies / "new.key").rename(copies / "peer-2.key")
    assert certificates.accepting is before, "a key without its certificate is of no use"
    (copies / "new.pem").rename(copies / "peer-2.pem")
    assert certificates.accepting is not before
    assert certificates.expires_s > time.time() + 399 * 86_400
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "the former one stays in use" in said[0]
    assert "took up --peer-tls-cert" in said[1]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("expired-2", "certificate has expired"),
        ("peer-3", "it names balsadb://node/3"),
        ("none", "No such file"),
    ],
)
def test_new_files_that_are_of_no_use_leave_the_former_ones_in_use(copies, capsys, name, why):
    certificates = of_peers(copies, "peer-2", 2)
    before = certificates.accepting
    for kind in ("pem", "key"):
        (copies / f"peer-2.{kind}").unlink()
        if name != "none":
            shutil.copy(copies / f"{name}.{kind}", copies / f"peer-2.{kind}")
    assert certificates.accepting is before
    assert certificates.accepting is before
    said = capsys.readouterr().err
    assert said.count("the former one stays in use") == 1, "it is said once, not at every connection"
    assert why in said


def test_a_reload_looks_at_files_that_have_not_changed(certificates, capsys):
    peers = of_peers(certificates, "peer-1", 1)
    before = peers.accepting
    peers.reload()
    assert peers.accepting is not before
    assert "took up" in capsys.readouterr().err


def test_a_node_is_named_by_a_uri_and_by_nothing_like_it():
    certificate = {"subjectAltName": (("DNS", "balsadb://node/1"), ("URI", "balsadb://node/11"))}
    assert not names_node(certificate, 1)
    assert names_node(certificate, 11)
    assert not names_node(None, 1)
    assert not names_node({}, 1)


def test_names_are_shown_without_control_characters():
    assert names_in({"subjectAltName": (("DNS", "a\nb\x1b[1m"),)}) == "a?b?[1m"
