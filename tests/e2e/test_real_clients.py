"""Redis clients run unmodified, against every node."""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest
import redis

from balsadb.address import parse_address


def client(address: str, **options) -> redis.Redis:
    host, port = parse_address(address)
    return redis.Redis(host=host, port=port, **options)


@pytest.fixture(params=[0, 1, 2])
def address(request, shared_cluster):
    """Each node in turn, leader or not."""
    return shared_cluster.servers[request.param]


def redis_cli(address: str, *argv: str) -> str:
    host, port = parse_address(address)
    tool = shutil.which("redis-cli")
    assert tool, "redis-cli is not installed; install redis-tools"
    done = subprocess.run(
        [tool, "-h", host, "-p", str(port), *argv], capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout.strip()


def test_redis_cli_sets_appends_and_gets_on_every_node(address):
    assert redis_cli(address, "set", "cli", "v") == "OK"
    assert redis_cli(address, "append", "cli", "w") == "2"
    assert redis_cli(address, "get", "cli") == "vw"


def test_what_one_node_acknowledged_every_node_shows(shared_cluster):
    for number, writer in enumerate(shared_cluster.servers):
        with client(writer) as connection:
            connection.set("seen", number)
        for reader in shared_cluster.servers:
            with client(reader) as connection:
                assert connection.get("seen") == str(number).encode()


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py(address, protocol):
    with client(address, protocol=protocol) as connection:
        connection.delete("a", "b", "n")
        assert connection.set("a", "1") is True
        assert connection.set("a", "2", nx=True) is None
        assert connection.set("a", "3", xx=True, get=True) == b"1"
        assert connection.append("a", "4") == 2
        assert connection.get("a") == b"34"
        assert connection.get("missing") is None
        assert connection.strlen("a") == 2
        assert connection.mset({"a": 1, "b": 2}) is True
        assert connection.mget("a", "missing", "b") == [b"1", None, b"2"]
        assert connection.exists("a", "b", "missing") == 2
        assert connection.incr("n") == 1
        assert connection.incrby("n", 10) == 11
        assert connection.decr("n", 2) == 9
        assert connection.delete("a", "missing") == 1
        assert connection.dbsize() >= 2
        assert connection.ping() is True
        assert connection.info("server")["redis_version"]
        assert connection.config_get("save") is not None
        connection.set("a", "text")
        with pytest.raises(redis.ResponseError, match="not an integer"):
            connection.incr("a")


def test_redis_py_pipelines(address):
    with client(address) as connection:
        with connection.pipeline(transaction=False) as pipe:
            pipe.set("p", "1").get("p").append("p", "2").get("p")
            assert pipe.execute() == [True, b"1", 2, b"12"]
        with connection.pipeline(transaction=True) as pipe:
            pipe.set("p", "1").incr("p").get("p")
            assert pipe.execute() == [True, 2, b"2"]
        with connection.pipeline(transaction=True) as pipe:
            pipe.get("p").exists("p")
            assert pipe.execute() == [b"2", 1]


def test_a_long_pipeline_keeps_its_order(address):
    with client(address) as connection, connection.pipeline(transaction=False) as pipe:
        connection.delete("long")
        for _ in range(5000):
            pipe.incr("long").get("long")
        replies = pipe.execute()
    assert replies == [value for n in range(1, 5001) for value in (n, str(n).encode())]


def test_redis_cluster(address):
    host, port = parse_address(address)
    with redis.RedisCluster(host=host, port=port) as connection:
        for number in range(20):
            connection.set(f"cluster-{number}", number)
            assert connection.get(f"cluster-{number}") == str(number).encode()
        assert connection.append("cluster-0", "x") == 2


def test_keys_expire_in_an_idle_cluster_and_ttl_counts_down(shared_cluster):
    """Rule S6: nobody writes, and still every node agrees on what is there."""
    writer, *others = [client(address) for address in shared_cluster.servers]
    try:
        writer.set("short", "v", px=600)
        writer.set("long", "v", px=60_000)
        first = others[0].pttl("long")
        assert 0 < first <= 60_000
        deadline = time.monotonic() + 20
        while any(reader.exists("short") for reader in (writer, *others)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for reader in (writer, *others):
            assert 0 < reader.pttl("long") <= first - 400
            assert reader.ttl("short") == -2
    finally:
        for connection in (writer, *others):
            connection.close()


def test_redis_py_watches(address):
    with client(address) as connection, client(address) as other, connection.pipeline() as pipe:
        connection.set("watched", "1")
        pipe.watch("watched")
        other.set("watched", "2")
        pipe.multi()
        pipe.set("watched", "3")
        with pytest.raises(redis.WatchError):
            pipe.execute()
        assert other.get("watched") == b"2"
        pipe.watch("watched", "absent")
        value = int(pipe.get("watched"))
        pipe.multi()
        pipe.set("watched", value + 1)
        assert pipe.execute() == [True]
        assert other.get("watched") == b"3"


def test_redis_py_scans_and_flushes(address):
    with client(address) as connection:
        connection.mset({f"scan:{number:04}": number for number in range(300)})
        assert sorted(connection.scan_iter("scan:*", count=40)) == [
            b"scan:%04d" % number for number in range(300)
        ]
        assert len(connection.keys("scan:00*")) == 100
        assert connection.randomkey() is not None
        assert connection.flushall() is True
        assert connection.dbsize() == 0
        assert connection.randomkey() is None
        assert connection.scan(0) == (0, [])


def test_large_values(address):
    value = bytes(range(256)) * 16_384
    with client(address) as connection:
        connection.set("large", value)
        assert connection.get("large") == value
        connection.delete("large")


def test_redis_benchmark(shared_cluster):
    host, port = parse_address(shared_cluster.servers[1])
    tool = shutil.which("redis-benchmark")
    assert tool, "redis-benchmark is not installed; install redis-tools"
    done = subprocess.run(
        [
            tool,
            "-h",
            host,
            "-p",
            str(port),
            "-t",
            "ping,set,get,incr,mset",
            "-n",
            "2000",
            "-c",
            "20",
            "--csv",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    rows = {line.split(",")[0].strip('"') for line in done.stdout.splitlines()[1:]}
    assert rows == {"PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"}, done.stdout


def test_all_nodes_have_the_same_digest(shared_cluster):
    first, *others = shared_cluster.servers
    with client(first) as connection:
        index, digest = connection.execute_command("RAFT", "DIGEST")
    for other in others:
        with client(other) as connection:
            assert connection.execute_command("RAFT", "DIGEST", index) == [index, digest]
