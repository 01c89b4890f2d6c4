"""A cluster of real processes whose clients need a password, seen by real clients and by our own commands."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from balsadb import AuthenticationError, BlockingClerk, Clerk
from balsadb.client.ask import ask
from balsadb.client.credentials import Credentials
from balsadb.testing import LocalCluster

PASSWORD = "hunter2 \u00e4"
SECRET = PASSWORD.encode()


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(nodes=3, password=PASSWORD) as cluster:
        cluster.wait_leader()
        yield cluster


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in list(os.environ):
        if name.startswith("BALSADB_"):
            monkeypatch.delenv(name)


def place(cluster, node=1):
    host, port = cluster.nodes[node].client_address.split(":")
    return host, int(port)


def balsadb(cluster, *arguments, **variables):
    """Run a command line; returns status, output, errors."""
    environment = {**os.environ, "BALSADB_SERVERS": ",".join(cluster.servers), **variables}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "balsadb", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


# --------------------------------------------------------------------- Redis' own clients


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("username", [None, "default"])
def test_redis_py_logs_in(cluster, protocol, username):
    host, port = place(cluster)
    options = {"protocol": protocol, "username": username, "password": PASSWORD}
    with redis.Redis(host, port, **options) as client:
        assert client.set("redis-py", protocol)
        assert client.get("redis-py") == b"%d" % protocol
        assert client.client_info()["user"] == "default"

    async def run():
        async with redis.asyncio.Redis(host=host, port=port, **options) as client:
            assert await client.get("redis-py") == b"%d" % protocol

    asyncio.run(run())


def test_redis_py_takes_the_password_from_a_url(cluster):
    host, port = place(cluster)
    with redis.Redis.from_url(f"redis://:hunter2%20%C3%A4@{host}:{port}") as client:
        assert client.ping()


def test_redis_py_cluster_logs_in_everywhere(cluster):
    host, port = place(cluster)
    with redis.RedisCluster(host, port, password=PASSWORD) as client:
        assert client.set("cluster", 1)
        assert client.ping(target_nodes=redis.RedisCluster.ALL_NODES)


@pytest.mark.parametrize("password", [None, "wrong"])
def test_redis_py_is_told_so_without_the_right_password(cluster, password):
    host, port = place(cluster)
    with (
        redis.Redis(host, port, password=password, retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.get("a")


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="redis-cli is not installed")
@pytest.mark.parametrize(
    ("login", "answer"),
    [
        (["-a", PASSWORD], "PONG"),
        (["--user", "default", "-a", PASSWORD], "PONG"),
        ([], "NOAUTH Authentication required."),
        (["--user", "alice", "-a", PASSWORD], "NOAUTH Authentication required."),
    ],
)
def test_redis_cli_logs_in(cluster, login, answer):
    host, port = place(cluster)
    command = ["redis-cli", "-h", host, "-p", str(port), "--no-auth-warning", *login, "PING"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.stdout.strip().splitlines()[-1] == answer


# --------------------------------------------------------------------- our own


def test_both_clerks_log_in_at_every_server(cluster):
    with BlockingClerk(cluster.servers, password=PASSWORD) as clerk:
        clerk.put("clerk", "1")

    async def run():
        async with Clerk(cluster.servers[::-1], username="default", password=SECRET) as clerk:
            assert await clerk.get("clerk") == b"1"
            assert await clerk.append("clerk", "2") == 2

    asyncio.run(run())


@pytest.mark.parametrize("password", [None, "wrong"])
def test_a_clerk_without_the_right_password_is_told_so_at_once(cluster, password):
    with BlockingClerk(cluster.servers, password=password, timeout=20.0) as clerk:
        for act in (lambda: clerk.put("a", "1"), lambda: clerk.get("a"), lambda: clerk.increment("n")):
            with pytest.raises(AuthenticationError) as told:
                act()
            assert told.value.code == ("NOAUTH" if password is None else "WRONGPASS")


def test_a_clerk_goes_on_when_the_leader_is_killed(cluster):
    with BlockingClerk(cluster.servers, password=PASSWORD, timeout=20.0) as clerk:
        clerk.put("n", 0)
        leader = cluster.wait_leader()
        cluster.kill(leader)
        try:
            assert [clerk.increment("n") for _ in range(10)] == list(range(1, 11))
        finally:
            cluster.start(leader)
            cluster.wait_ready()


COMMANDS = [
    ["put", "k", "v"],
    ["get", "k"],
    ["append", "k", "w"],
    ["del", "k"],
    ["status"],
    ["status", "--json"],
    ["doctor"],
    ["digest"],
    ["member", "list"],
    ["transfer"],
    ["recover"],
    ["bench", "--seconds", "0.2", "--clients", "4", "--keys", "10"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_takes_the_password_from_a_file(cluster, command):
    assert cluster.password_file is not None
    status, out, err = balsadb(cluster, *command, "--password-file", cluster.password_file)
    # recover finds nothing to do in a healthy cluster; doctor may find a warning.
    assert status == 0 or command[0] in ("recover", "doctor"), out + err
    assert "NOAUTH" not in out + err
    assert "hunter2" not in out + err


@pytest.mark.parametrize("command", [*COMMANDS, ["member", "remove", "9"]], ids=" ".join)
def test_a_command_without_a_password_ends_with_the_remedy(cluster, command):
    status, _, err = balsadb(cluster, *command)
    assert status == 1
    assert err.endswith(
        "Authentication required; give the password with --password-file FILE or BALSADB_PASSWORD\n"
    )


def test_variables_hold_the_password_or_its_file(cluster):
    assert balsadb(cluster, "put", "v", "1", BALSADB_PASSWORD=PASSWORD) == (0, "OK\n", "")
    path = str(cluster.password_file)
    assert balsadb(cluster, "get", "v", BALSADB_PASSWORD_FILE=path, BALSADB_PASSWORD="no") == (0, "1\n", "")
    assert balsadb(cluster, "get", "v", BALSADB_PASSWORD=PASSWORD, BALSADB_USER="default") == (0, "1\n", "")
    status, _, err = balsadb(cluster, "get", "v", BALSADB_PASSWORD=PASSWORD, BALSADB_USER="alice")
    assert status == 1
    assert err.startswith(
        "balsadb: WRONGPASS invalid username-password pair or user is disabled; look at --user"
    )
    status, _, err = balsadb(cluster, "get", "v", "--user", "alice")
    assert status == 2
    assert err == "balsadb: --user needs a password; give it with --password-file FILE or BALSADB_PASSWORD\n"


def test_a_password_that_the_servers_do_not_have_is_told_so(tmp_path):
    with LocalCluster(nodes=1, directory=tmp_path / "open") as cluster:
        status, _, err = balsadb(cluster, "put", "k", "v", BALSADB_PASSWORD="x")
        assert status == 1
        assert "without any password configured" in err
        assert err.endswith("; these servers have no password, so leave it out\n")
        assert balsadb(cluster, "get", "k")[0] == 1  # nothing was done


def test_a_backup_needs_the_password(cluster, tmp_path):
    sources = ",".join(node.http_address for node in cluster.nodes.values())
    status, _, err = balsadb(cluster, "backup", tmp_path / "a", "--from", sources)
    assert status == 1
    assert "give the password with --password-file" in err
    status, _, err = balsadb(cluster, "backup", tmp_path / "a", "--from", sources, BALSADB_PASSWORD="wrong")
    assert status == 1
    assert "WRONGPASS" in err
    assert not (tmp_path / "a").exists()
    status, out, err = balsadb(
        cluster, "backup", tmp_path / "a", "--from", sources, "--password-file", cluster.password_file
    )
    assert status == 0, err
    assert "a sound backup" in out


def http_status(cluster, path, method="GET", **headers):
    request = urllib.request.Request(
        f"http://{cluster.nodes[1].http_address}{path}", method=method, headers=headers
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers, answer.read(100)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "Basic",
        "Basic !!!",
        "Basic aHVudGVyMg==",
        "Basic ZGVmYXVsdDp3cm9uZw==",
        "Bearer",
        "Bearer no",
        "Digest x",
    ],
)
def test_backups_are_not_given_without_the_right_password(cluster, authorization):
    headers = {} if authorization is None else {"Authorization": authorization}
    status, found, body = http_status(cluster, "/backup", "POST", **headers)
    assert status in (401, 503)
    assert status == 503 or found["WWW-Authenticate"].startswith("Basic")
    assert body.startswith((b"NOAUTH", b"WRONGPASS", b"TRYAGAIN"))


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/status", "/"])
def test_figures_need_no_password_and_do_not_tell_it(cluster, path):
    status, _, body = http_status(cluster, path)
    assert status == 200
    assert b"hunter2" not in body


def test_a_node_joins_with_its_own_password_file_and_not_without():
    with LocalCluster(nodes=1, password=PASSWORD) as cluster:
        node = cluster.join(2)
        cluster.wait_ready()
        with BlockingClerk([node.client_address], password=PASSWORD) as clerk:
            clerk.put("joined", "1")
        cluster.password_file = None  # the next node is told nothing
        stranger = cluster.join(3)
        assert stranger.process is not None
        assert stranger.process.wait(30) == 2
        assert (
            "NOAUTH Authentication required. Start this node with the --password-file" in stranger.log_tail()
        )
        cluster.forget(3)


def test_the_password_is_in_no_list_of_processes_log_or_answer(cluster):
    for node in cluster.nodes.values():
        with open(f"/proc/{node.pid}/cmdline", "rb") as file:
            assert b"hunter2" not in file.read()
        with open(f"/proc/{node.pid}/environ", "rb") as file:
            assert b"hunter2" not in file.read()
        assert b"hunter2" not in node.log_path.read_bytes()
        assert b"hunter2" not in node.config_path.read_bytes()
        for path in node.data_dir.rglob("*"):
            if path.is_file():
                assert b"hunter2" not in path.read_bytes()
        for words in (["INFO"], ["RAFT", "STATUS"], ["CONFIG", "GET", "*"], ["CLIENT", "LIST"]):
            answer = ask(place(cluster, node.id), words, 5.0, Credentials(PASSWORD))
            assert "hunter2" not in json.dumps(answer, default=repr)
    assert cluster.password_file is not None
    assert cluster.password_file.stat().st_mode & 0o077 == 0
