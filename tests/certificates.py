"""Certificates for tests, made as docs/security.md says, and some that must be refused."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from balsadb.client.tls import Tls

PAGE = Path(__file__).parent.parent / "docs" / "security.md"
KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None and not os.environ.get("BALSADB_TEST_EVERYTHING"),
    reason="certificates are made by openssl",
)


def run_the_page(directory: Path) -> None:
    """Run every command of the page that makes something."""
    blocks = re.findall(r"^<!-- run -->\n```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        subprocess.run(["sh", "-euc", block], cwd=directory, check=True, capture_output=True)


def sign(
    directory: Path, name: str, alternative: str, ca: str = "peer-ca", days: int = 30, subject: str = "/CN=x"
) -> None:
    """Make NAME.key and NAME.pem, signed by a CA that is there."""
    request = ["openssl", "req", *KEY, "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.csr"]
    subprocess.run(request, cwd=directory, check=True, capture_output=True)
    (directory / f"{name}.ext").write_text(f"subjectAltName={alternative}\n")
    given = ["-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial", "-days", str(days)]
    signing = ["openssl", "x509", "-req", "-in", f"{name}.csr", *given, "-extfile", f"{name}.ext"]
    subprocess.run([*signing, "-out", f"{name}.pem"], cwd=directory, check=True, capture_output=True)


def sign_itself(directory: Path, name: str, alternative: str) -> None:
    """Make NAME.key and NAME.pem that is signed by nobody else."""
    wanted = ["-subj", f"/CN={name}", "-addext", f"subjectAltName={alternative}", "-days", "30"]
    files = ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
    command = ["openssl", "req", "-x509", *KEY, *wanted, *files]
    subprocess.run(command, cwd=directory, check=True, capture_output=True)


@cache
def made(directory: Path) -> Path:
    """Return a directory with everything that tests need, made once."""
    run_the_page(directory)
    sign(directory, "expired-2", "URI:balsadb://node/2", days=-1)
    sign_itself(directory, "itself-2", "URI:balsadb://node/2")
    sign_itself(directory, "other-ca", "DNS:other-ca")
    sign(directory, "stranger-2", "URI:balsadb://node/2", ca="other-ca")
    sign(directory, "elsewhere", "DNS:elsewhere.test", ca="ca")
    return directory


@pytest.fixture(scope="session")
def certificates(tmp_path_factory) -> Path:
    """A directory with certificates; nothing in it may be changed."""
    return made(tmp_path_factory.mktemp("certificates"))


def client_tls(directory: Path, shown: bool = True) -> Tls:
    """What a client with these certificates is told."""
    ca = str(directory / "ca.pem")
    return Tls(ca, str(directory / "client.pem"), str(directory / "client.key")) if shown else Tls(ca)


def server_settings(directory: Path) -> dict[str, str]:
    """Fields of a configuration for the client port."""
    return {
        "tls_cert": str(directory / "server.pem"),
        "tls_key": str(directory / "server.key"),
        "tls_ca": str(directory / "ca.pem"),
    }


def peer_settings(directory: Path, name: str, ca: str = "peer-ca") -> dict[str, str]:
    """Fields of a configuration for the peer port."""
    return {
        "peer_tls_cert": str(directory / f"{name}.pem"),
        "peer_tls_key": str(directory / f"{name}.key"),
        "peer_tls_ca": str(directory / f"{ca}.pem"),
    }
