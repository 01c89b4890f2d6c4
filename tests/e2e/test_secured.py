"""Clusters of real processes that know each other: with certificates, and with a secret."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys

import pytest

from balsadb import BlockingClerk
from balsadb.address import parse_address
from balsadb.client.ask import ask, parse_info
from balsadb.errors import ClientError
from balsadb.testing import LocalCluster
from certificates import client_tls, needs_openssl, peer_settings, server_settings, sign
from e2e.load import wait_until

pytestmark = needs_openssl
MIB = 1024 * 1024


def keys_of(fields: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in fields.items()}


def with_certificates(directory, tmp_path, **more: object) -> LocalCluster:
    return LocalCluster(
        3,
        directory=tmp_path / "cluster",
        settings={"snapshot-log-bytes": "4MiB", **keys_of(server_settings(directory)), **more},
        node_settings={node: keys_of(peer_settings(directory, f"peer-{node}")) for node in (1, 2, 3)},
        tls=client_tls(directory),
    )


def with_secret(directory, tmp_path) -> LocalCluster:
    secret = str(directory / "peer.secret")
    settings = {"snapshot-log-bytes": "4MiB", "peer-secret-file": secret}
    return LocalCluster(3, directory=tmp_path / "cluster", settings=settings)


@pytest.fixture(params=[with_certificates, with_secret])
def cluster(request, certificates, tmp_path):
    """Three nodes that know each other in one of the two ways."""
    with request.param(certificates, tmp_path) as own:
        yield own


def facts(cluster, node) -> dict[str, str]:
    return parse_info(ask(parse_address(node.client_address), ["INFO", "raft"], 5, tls=cluster.tls))


def balsadb(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: v for name, v in os.environ.items() if not name.startswith("BALSADB_")} | variables
    command = [sys.executable, "-m", "balsadb", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def variables(directory) -> dict[str, str]:
    tls = client_tls(directory)
    return {"BALSADB_TLS_CA": tls.ca, "BALSADB_TLS_CERT": tls.cert, "BALSADB_TLS_KEY": tls.key}


def redis_cli(address: str, directory, *words: str) -> str:
    host, port = parse_address(address)
    tls = client_tls(directory)
    files = ["--cacert", tls.ca, "--cert", tls.cert, "--key", tls.key]
    command = ["redis-cli", "-h", host, "-p", str(port), "--tls", *files, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()


def test_the_leaders_death_costs_nothing_and_a_follower_that_lost_everything_is_sent_the_state(cluster):
    """Every connection is made anew in between: messages and transfers, in both roles."""
    with BlockingClerk(cluster.servers, tls=cluster.tls) as clerk:
        assert clerk.append("k", "1") == 1
        first = cluster.wait_leader()
        cluster.kill(first)
        assert clerk.append("k", "2") == 2
        cluster.start(first)
        cluster.wait_ready()
        leader = cluster.wait_leader()
        away = next(node for node in cluster.nodes.values() if node.id != leader)
        cluster.kill(away.id)
        last = int(facts(cluster, cluster.nodes[leader])["raft_last_index"])
        others = [node for node in cluster.nodes.values() if node is not away]

        def compacted() -> bool:
            clerk.mput({f"big-{n}": os.urandom(64) * 800 for n in range(8)})
            return all(int(facts(cluster, node)["raft_first_index"]) > last + 1 for node in others)

        wait_until(compacted, 60, "compaction")
        cluster.start(away.id)
        wait_until(lambda: "event=state-installed" in away.log_tail(), 60, "an installed state")
        cluster.wait_ready()
        assert clerk.append("k", "3") == 3
    value = ask(parse_address(away.client_address), ["GET", "k"], 5, tls=cluster.tls)
    assert value == b"123"


def test_the_secret_is_nowhere_to_be_seen(certificates, tmp_path):
    secret = (certificates / "peer.secret").read_text().strip()
    with with_secret(certificates, tmp_path) as cluster, BlockingClerk(cluster.servers) as clerk:
        clerk.put("k", "v")
        seen = [
            str(clerk.execute(*words)) for words in (["INFO"], ["RAFT", "STATUS"], ["CONFIG", "GET", "*"])
        ]
        for node in cluster.nodes.values():
            seen.append(node.log_path.read_text())
            host, port = parse_address(node.http_address)
            seen.append(subprocess.run(["ps", "-fp", str(node.pid)], capture_output=True, text=True).stdout)
            import urllib.request

            for path in ("status", "metrics"):
                with urllib.request.urlopen(f"http://{host}:{port}/{path}", timeout=5) as answer:
                    seen.append(answer.read().decode())
    assert secret not in "".join(seen)
    assert len(secret) == 64


@pytest.fixture(scope="module")
def secured(certificates, tmp_path_factory):
    """A cluster with certificates for tests that break nothing."""
    with with_certificates(certificates, tmp_path_factory.mktemp("secured")) as own:
        yield own


def test_redis_cli_is_served_with_tls_and_not_without(secured, certificates):
    if shutil.which("redis-cli") is None and not os.environ.get("BALSADB_TEST_EVERYTHING"):
        pytest.skip("redis-cli is not there")
    for address in secured.servers:
        assert redis_cli(address, certificates, "set", "greeting", "hello") == "OK"
        assert redis_cli(address, certificates, "get", "greeting") == "hello"
        host, port = parse_address(address)
        plain = ["redis-cli", "-h", host, "-p", str(port), "get", "greeting"]
        answer = subprocess.run(plain, capture_output=True, text=True, timeout=20)
        assert "hello" not in answer.stdout + answer.stderr


COMMANDS = [
    ("put", "k", "v"),
    ("append", "k", "w"),
    ("get", "k"),
    ("status",),
    ("doctor",),
    ("digest",),
    ("member", "list"),
    ("transfer",),
    ("del", "k"),
    ("bench", "--seconds", "0.3", "--keys", "10", "--clients", "4"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_every_client_command_speaks_tls_by_variables_and_by_flags(secured, certificates, command):
    servers = ["--servers", ",".join(secured.servers)]
    done = balsadb(*command, *servers, **variables(certificates))
    assert done.returncode == 0, done.stderr
    if command[0] in ("status", "get", "put"):
        tls = client_tls(certificates)
        flags = ["--tls-ca", tls.ca, "--tls-cert", tls.cert, "--tls-key", tls.key]
        balsadb("put", "k", "v", *servers, *flags)
        assert balsadb(*command, *servers, *flags).returncode == 0


@pytest.mark.parametrize("command", [("status",), ("get", "k")])
def test_a_command_without_tls_fails_with_a_sentence(secured, command):
    done = balsadb(*command, "--servers", secured.servers[0], "--timeout", "2")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_a_file_that_is_not_there_is_wrong_usage(secured):
    done = balsadb("status", "--servers", secured.servers[0], "--tls-ca", "/nowhere/ca.pem")
    assert (done.returncode, done.stderr) == (
        2,
        "balsadb: --tls-ca /nowhere/ca.pem: No such file or directory\n",
    )


def test_a_backup_over_loopback_needs_no_certificate(secured, tmp_path, certificates):
    source = next(iter(secured.nodes.values())).http_address
    done = balsadb("backup", str(tmp_path / "b"), "--from", source, **variables(certificates))
    assert done.returncode == 0, done.stderr


def test_data_directories_are_the_owners_alone(secured):
    for node in secured.nodes.values():
        for path, _, files in os.walk(node.data_dir):
            assert not stat.S_IMODE(os.stat(path).st_mode) & 0o077, path
            for name in files:
                if os.path.exists(where := os.path.join(path, name)):
                    assert not stat.S_IMODE(os.stat(where).st_mode) & 0o077, where


def test_a_node_joins_by_tls_and_a_removed_one_is_refused_whatever_it_shows(certificates, tmp_path):
    directory = shutil.copytree(certificates, tmp_path / "files")
    sign(directory, "peer-4", "URI:balsadb://node/4")
    with with_certificates(directory, tmp_path) as cluster:
        cluster.node_settings[4] = keys_of(peer_settings(directory, "peer-4"))
        new = cluster.join(4)
        cluster.wait_ready()
        servers = ["--servers", ",".join(cluster.servers)]

        def members() -> str:
            return balsadb("member", "list", *servers, **variables(directory)).stdout

        wait_until(lambda: members().count("follower") + members().count("voter") >= 3, 30, "a fourth voter")
        cluster.kill(4)
        done = balsadb("member", "remove", "4", *servers, **variables(directory))
        assert done.returncode == 0, done.stderr
        cluster.start(4)
        wait_until(lambda: "was removed from" in new.log_tail(), 20, "the news of its removal")


def test_new_certificates_are_taken_up_by_a_running_cluster(certificates, tmp_path):
    directory = shutil.copytree(certificates, tmp_path / "files")
    with with_certificates(directory, tmp_path) as cluster:
        node = cluster.nodes[1]
        shutil.copy(directory / "elsewhere.pem", directory / "server.pem")
        node.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "is not the key of the certificate" in node.log_tail(), 10, "the complaint")
        with BlockingClerk(cluster.servers, tls=cluster.tls) as clerk:
            clerk.put("k", "v")
        shutil.copy(directory / "elsewhere.key", directory / "server.key")
        node.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "took up --tls-cert" in node.log_tail(), 10, "the new certificate")
        with pytest.raises(ClientError, match="certificate is not valid for"):
            ask(parse_address(node.client_address), ["PING"], 5, tls=cluster.tls)
        assert node.running


OPEN = {
    "peers": (["--listen", "127.0.0.1:{0}", "--peer-listen", "0.0.0.0:{1}"], "can rewrite the database"),
    "clients": (
        ["--listen", "0.0.0.0:{0}", "--advertise", "127.0.0.1:{0}", "--peer-listen", "127.0.0.1:{1}"],
        "can read and change everything",
    ),
}


@pytest.mark.parametrize("port", OPEN)
def test_a_node_that_everybody_could_reach_does_not_start(tmp_path, port):
    words, sentence = OPEN[port]
    where = [word.format(7999, 8999) for word in words]
    cluster = ["--cluster", "1=127.0.0.1:8999", "--id", "1", "--data-dir", str(tmp_path / "data")]
    done = balsadb("serve", *where, *cluster)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "--insecure" in done.stderr
    assert not (tmp_path / "data").exists()


@pytest.fixture
def reachable(tmp_path):
    """A node that listens at a name which might as well be that of another machine."""
    with contextlib.closing(LocalCluster(1, directory=tmp_path / "cluster")) as cluster:
        node = cluster.nodes[1]
        for what, address in (("listen", node.client_address), ("http-listen", node.http_address)):
            # Only the system's resolver knows that this is loopback.
            cluster.settings[what] = address.replace("127.0.0.1", "127.1")
        yield cluster


def test_an_insecure_node_starts_and_says_what_it_gives_up(reachable):
    reachable.settings["insecure"] = True
    reachable.start()
    reachable.wait_ready()
    said = reachable.nodes[1].log_tail()
    assert "--insecure: nothing is asked of whoever reaches this node, as a client" in said


def test_a_node_that_can_be_reached_serves_http_and_gives_backups_by_tls(reachable, certificates, tmp_path):
    directory = shutil.copytree(certificates, tmp_path / "files")
    sign(directory, "db1", "DNS:127.1", ca="ca")
    files = {name: value.replace("server.", "db1.") for name, value in server_settings(directory).items()}
    reachable.settings |= keys_of(files)
    reachable.start()
    node = reachable.nodes[1]
    wait_until(lambda: "event=started" in node.log_tail(), 20, "a start")
    with BlockingClerk(reachable.settings["listen"], tls=client_tls(directory)) as clerk:
        clerk.put("k", "v")

    def backup(name: str, **given: str) -> subprocess.CompletedProcess[str]:
        return balsadb("backup", str(tmp_path / name), "--from", reachable.settings["http-listen"], **given)

    done = backup("good", **variables(directory))
    assert done.returncode == 0, done.stderr
    assert "a sound backup" in done.stdout
    without = backup("none", BALSADB_TLS_CA=variables(directory)["BALSADB_TLS_CA"])
    assert without.returncode == 1
    assert "show a certificate" in without.stderr
    assert backup("plain").returncode == 1
