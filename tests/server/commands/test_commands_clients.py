"""Real Redis clients and tools against the commands, served from a dict.

Three small servers in one thread stand for a cluster: what is tested is the conversation that clients lead
before and around their data commands, not the data.
"""

from __future__ import annotations

import asyncio
import os
import pty
import select
import shutil
import subprocess
import termios
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
import redis
from redis.backoff import NoBackoff
from redis.cluster import LoadBalancingStrategy
from redis.retry import Retry

from balsadb.kv.reply import OK, Refusal, Reply
from balsadb.kv.table import lookup
from balsadb.raft.types import Configuration, Member
from balsadb.resp.encode import encode_reply
from balsadb.resp.parser import CommandParser
from balsadb.server.commands import ClientState, NodeStatus, run

pytestmark = pytest.mark.slow


class Server:
    """One node: GET and SET on a dict that all nodes share, everything else by `run`."""

    def __init__(self, id: int, group: list[Server], data: dict[bytes, bytes]) -> None:
        self.id = id
        self.group = group
        self.data = data
        self.port = 0
        self.connections: list[ClientState] = []
        self.transports: set[asyncio.Transport] = set()

    def status(self) -> NodeStatus:
        members = tuple(Member(other.id, "127.0.0.1:1", f"127.0.0.1:{other.port}") for other in self.group)
        return NodeStatus(
            id=self.id,
            role="leader" if self.id == 2 else "follower",
            term=3,
            leader=2,
            configuration=Configuration(voters=(1, 2, 3), members=members),
            client_address=f"127.0.0.1:{self.port}",
            commit_index=1,
            applied_index=1,
            first_index=1,
            last_index=1,
            keys=len(self.data),
        )

    def clients(self) -> Sequence[ClientState]:
        return self.connections

    def keys(self) -> Iterator[bytes]:
        return iter(self.data)

    def wall_ms(self) -> int:
        return int(time.time() * 1000)

    def wall_us(self) -> int:
        return int(time.time() * 1_000_000)

    def answer(self, client: ClientState, argv: list[bytes]) -> Reply:
        client.last_command = argv[0]
        match argv[0].upper(), argv[1:]:
            case b"GET", [key]:
                return self.data.get(key)
            case b"SET", [key, value]:
                self.data[key] = value
                return OK
            case _ if lookup(argv[0]) is None:
                return Refusal(b"ERR unknown command")
            case _:
                return run(client, self, argv)


class Connection(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self.server = server
        self.client = ClientState(len(server.connections) + 1, created_ms=server.wall_ms())
        self.parser = CommandParser()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server.transports.add(transport)
        self.server.connections.append(self.client)
        self.client.address = "{}:{}".format(*transport.get_extra_info("peername"))

    def connection_lost(self, exception: Exception | None) -> None:
        self.server.transports.discard(self.transport)
        self.server.connections.remove(self.client)

    def data_received(self, data: bytes) -> None:
        for argv in self.parser.feed(data):
            reply = self.server.answer(self.client, argv)
            self.transport.write(encode_reply(reply, self.client.resp3))


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Server]]:
    group: list[Server] = []
    data: dict[bytes, bytes] = {}
    group += [Server(id, group, data) for id in (1, 2, 3)]
    loop = asyncio.new_event_loop()

    async def start() -> list[asyncio.Server]:
        listening = []
        for server in group:
            factory = lambda server=server: Connection(server)  # noqa: E731
            listening.append(await loop.create_server(factory, "127.0.0.1", 0))
            server.port = listening[-1].sockets[0].getsockname()[1]
        return listening

    async def stop(listening: list[asyncio.Server]) -> None:
        for server in listening:
            server.close()
        for server in group:
            for transport in list(server.transports):
                transport.abort()

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    listening = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    yield group
    asyncio.run_coroutine_threadsafe(stop(listening), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def connect(server: Server, **options) -> redis.Redis:
    return redis.Redis(host="127.0.0.1", port=server.port, retry=Retry(NoBackoff(), 0), **options)


def tool(name: str) -> str:
    """Return where a tool is. Missing it is a failure in CI, which must not pass by testing less."""
    path = shutil.which(name)
    if path is None and os.environ.get("CI") != "true":
        pytest.skip(f"{name} is not installed")
    assert path is not None, f"{name} is not installed; install redis-tools"
    return path


def output(name: str, server: Server, *arguments: str) -> str:
    command = [tool(name), "-h", "127.0.0.1", "-p", str(server.port), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.parametrize("protocol", [2, 3])
class TestRedisPy:
    def test_connects_names_itself_and_reads_what_it_wrote(self, servers, protocol):
        with connect(servers[0], protocol=protocol, client_name="tester") as r:
            assert r.ping() is True
            assert r.set("a", b"\x00\r\n") is True
            assert r.get("a") == b"\x00\r\n"
            assert r.client_getname() in ("tester", b"tester")
            info = r.client_info()
            assert (info["lib-name"], info["resp"]) == ("redis-py", str(protocol))
            assert [entry["name"] for entry in r.client_list()] == ["tester"]
            assert r.client_id() == int(info["id"])

    def test_reads_every_description_of_the_server(self, servers, protocol):
        with connect(servers[1], protocol=protocol) as r:
            r.set("a", "1")
            info = r.info()
            assert (info["role"], info["raft_role"], info["raft_voters"]) == ("master", "leader", [1, 2, 3])
            assert info["db0"]["keys"] >= 1
            assert r.info("raft")["raft_leader"] == 2
            assert r.config_get("appendonly") == {"appendonly": "yes"}
            assert r.config_get("max*")["maxmemory"] == "0"
            assert r.role()[0] in (b"master", "master")
            assert len(r.time()) == 2
            with pytest.raises(redis.ResponseError, match="immutable"):
                r.config_set("maxmemory", 1)

    def test_reads_the_command_table(self, servers, protocol):
        with connect(servers[0], protocol=protocol) as r:
            commands = r.command()
            assert len(commands) == r.command_count()
            get = commands["get"]
            assert (get["arity"], get["first_key_pos"], get["last_key_pos"], get["step_count"]) == (
                2,
                1,
                1,
                1,
            )
            assert "readonly" in get["flags"]
            assert r.command_getkeys("MSET", "a", "1", "b", "2") in (["a", "b"], [b"a", b"b"])
            assert len(r.command_list()) == len(commands)

    def test_reads_the_topology(self, servers, protocol):
        with connect(servers[0], protocol=protocol) as r:
            leader = f"127.0.0.1:{servers[1].port}"
            nodes = r.execute_command("CLUSTER NODES")
            assert len(nodes) == 3
            assert r.execute_command("CLUSTER INFO")["cluster_state"] == "ok"
            [[_, _, first, *others]] = r.execute_command("CLUSTER SLOTS")
            assert f"127.0.0.1:{first[1]}" == leader
            assert len(others) == 2
            assert len(r.execute_command("CLUSTER SHARDS")) == 1

    def test_meets_refusals_as_from_redis(self, servers, protocol):
        with (
            pytest.raises(redis.AuthenticationError),
            connect(servers[0], protocol=protocol, password="x") as r,
        ):
            r.ping()
        with (
            pytest.raises(redis.ResponseError, match="DB index is out of range"),
            connect(servers[0], db=1) as r,
        ):
            r.ping()

    def test_as_cluster_client_finds_the_leader_first(self, servers, protocol):
        with redis.RedisCluster(host="127.0.0.1", port=servers[2].port, protocol=protocol) as r:
            assert [node.port for node in r.get_primaries()] == [servers[1].port]
            assert sorted(node.port for node in r.get_replicas()) == sorted(
                [servers[0].port, servers[2].port]
            )
            for number in range(20):
                assert r.set(f"key-{number}", number) is True
                assert r.get(f"key-{number}") == b"%d" % number
            assert r.keyslot("a{x}") == r.cluster_keyslot("a{x}")
            assert r.cluster_countkeysinslot(r.keyslot("key-1")) >= 1

    def test_as_cluster_client_reads_from_replicas(self, servers, protocol):
        options = {"protocol": protocol, "load_balancing_strategy": LoadBalancingStrategy.ROUND_ROBIN}
        with redis.RedisCluster(host="127.0.0.1", port=servers[2].port, **options) as r:
            r.set("a", "b")
            assert {r.get("a") for _ in range(10)} == {b"b"}


def test_redis_cli_asks_and_shows(servers):
    assert output("redis-cli", servers[0], "PING") == "PONG\n"
    assert output("redis-cli", servers[0], "-3", "SET", "a", "b") == "OK\n"
    assert "redis_version:7.2.4" in output("redis-cli", servers[0], "INFO", "server")
    assert "ERR unknown subcommand 'FOO'. Try CLIENT HELP." in output(
        "redis-cli", servers[0], "CLIENT", "FOO"
    )
    assert "cluster_state:ok" in output("redis-cli", servers[0], "CLUSTER", "INFO")
    assert output("redis-cli", servers[0], "-c", "GET", "a") == "b\n"


@pytest.mark.parametrize("options", [[], ["-3"]])
def test_redis_cli_works_interactively(servers, options):
    """At a terminal redis-cli first reads COMMAND DOCS, for its hints and its help."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 80))
    terminal = Terminal(ours)
    command = [tool("redis-cli"), "-p", str(servers[0].port), *options]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True) as process:
        os.close(theirs)
        try:
            # What is typed before a prompt is lost: redis-cli flushes its input when it shows one.
            terminal.expect(f"127.0.0.1:{servers[0].port}> ")
            terminal.type("help get")
            terminal.expect("summary")
            terminal.expect("> ")
            terminal.type("ECHO here")
            terminal.expect('"here"')
        finally:
            process.terminate()
            process.wait(10)
            os.close(ours)


class Terminal:
    """The user's end of a pseudo-terminal."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.unread = ""

    def type(self, line: str) -> None:
        os.write(self.fd, line.encode() + b"\r")

    def expect(self, text: str) -> None:
        """Read until `text` has come, for at most ten seconds, and forget everything up to it."""
        deadline = time.monotonic() + 10
        while text not in self.unread:
            assert time.monotonic() < deadline, f"{text!r} did not come: {self.unread!r}"
            if select.select([self.fd], [], [], 0.1)[0]:
                self.unread += os.read(self.fd, 65_536).decode(errors="replace")
        self.unread = self.unread.partition(text)[2]


def test_redis_benchmark_runs(servers):
    done = output("redis-benchmark", servers[0], "-t", "ping,set,get", "-n", "100", "-q")
    assert done.count("requests per second") == 4
    assert "WARNING" not in done
