"""What `pip install` brings: wheel and sdist are built, installed into a fresh environment, and used."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import sysconfig
import tarfile
import urllib.request
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from balsadb.testing import LocalCluster
from balsadb.version import __version__

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/balsadb"
pytestmark = pytest.mark.slow


def alone() -> dict[str, str]:
    """Return an environment in which no other copy of the package is found."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "BALSADB_"))}


def run(*words: object, **options) -> str:
    line = [str(word) for word in words]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100, env=alone(), **options)
    assert done.returncode == 0, f"{line}: {done.stderr}"
    return done.stdout


def build(source: Path, target: Path, kind: str) -> Path:
    run(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", target, cwd=source)
    (built,) = target.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def hatchling():
    if find_spec("hatchling") is None:
        if os.environ.get("BALSADB_TEST_EVERYTHING"):
            pytest.fail("hatchling is not installed")
        pytest.skip("hatchling is not installed; it is among the extras [dev]")


@pytest.fixture(scope="module")
def wheel(hatchling, tmp_path_factory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def sdist(hatchling, tmp_path_factory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("sdist"), "sdist")


@pytest.fixture(scope="module")
def programs(wheel, tmp_path_factory) -> Path:
    """Return the folder of programs of an environment that has the wheel, and our dependencies from here."""
    home = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    install = (sys.executable, "-m", "pip", "--python", home / "bin/python", "install", "--quiet")
    run(*install, "--no-deps", "--no-index", "--disable-pip-version-check", wheel)
    (site,) = (home / "lib").glob("python3*/site-packages")
    # Behind the environment's own packages, and without the .pth files there: so not this checkout.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def names_in(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def source_files() -> set[str]:
    return {
        f"balsadb/{path.relative_to(SOURCE)}"
        for path in SOURCE.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(wheel):
    names = names_in(wheel)
    described = {name for name in names if name.startswith(f"balsadb-{__version__}.dist-info/")}
    assert names - described == source_files()
    assert {"balsadb/server/dashboard.html", "balsadb/py.typed"} <= names
    assert not any("test" in name.split("/")[0] for name in names)


def test_the_wheel_says_what_it_is_and_what_it_needs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        path = f"balsadb-{__version__}.dist-info"
        facts = email.message_from_bytes(archive.read(f"{path}/METADATA"))
        assert b"balsadb = balsadb.cli.main:main" in archive.read(f"{path}/entry_points.txt")
    assert facts["Name"] == "balsadb"
    assert facts["Version"] == __version__
    assert facts["Requires-Python"] == ">=3.11"
    assert facts["Summary"].startswith("A fault-tolerant")
    assert facts["Description-Content-Type"] == "text/markdown"
    assert facts.get_payload().startswith("# BalsaDB")
    assert "Typing :: Typed" in facts.get_all("Classifier")
    assert all("github" not in str(value) for name, value in facts.items() if name == "Project-URL")


def test_the_sdist_builds_the_same_wheel(sdist, wheel, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    assert folder.name == f"balsadb-{__version__}"
    assert {"docs", "deploy", "src", "README.md", "pyproject.toml", "PKG-INFO"} <= {
        path.name for path in folder.iterdir()
    }
    again = build(folder, tmp_path / "again", "wheel")
    assert names_in(again) == names_in(wheel)
    with zipfile.ZipFile(again) as mine, zipfile.ZipFile(wheel) as theirs:
        for name in mine.namelist():
            assert mine.read(name) == theirs.read(name), name


def test_an_installed_package_serves_a_cluster_and_its_commands_use_it(programs, tmp_path):
    assert run(programs / "balsadb", "--version", cwd=tmp_path) == f"balsadb {__version__}\n"
    where = run(programs / "python", "-c", "import balsadb; print(balsadb.__file__)", cwd=tmp_path)
    assert Path(where).is_relative_to(programs.parent)
    with LocalCluster(nodes=1, command=[str(programs / "balsadb"), "serve"]) as cluster:
        (node,) = cluster.nodes.values()
        there = ("--servers", node.client_address)
        run(programs / "balsadb", "put", "greeting", "hello", *there, cwd=tmp_path)
        assert run(programs / "balsadb", "get", "greeting", *there, cwd=tmp_path) == "hello\n"
        run(programs / "balsadb", "backup", "file.balsa", "--from", node.http_address, cwd=tmp_path)
        with urllib.request.urlopen(f"http://{node.http_address}/", timeout=10) as page:
            assert b"<!doctype html>" in page.read().lower()
        assert "event=started version=" + __version__ in node.log_path.read_text()
        cluster.stop()
        assert node.process.returncode == 0
        assert "event=stopped status=0" in node.log_tail()


def test_the_demo_starts_from_an_installed_package_and_leaves_with_its_parent(programs, tmp_path):
    line = [str(programs / "balsadb"), "demo", "--nodes", "1", "--dir", str(tmp_path / "demo")]
    with LocalCluster(nodes=1, directory=tmp_path / "demo") as ports:
        ports.stop()  # a directory with free ports of its own, which the demo uses again
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=alone(), cwd=tmp_path) as process:
        try:
            for line in process.stdout:
                if "node 1 leads" in line:
                    break
            else:
                pytest.fail("nobody leads")
        finally:
            process.terminate()
        assert process.wait(30) == 0
