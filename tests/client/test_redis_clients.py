"""What Redis' own clients do on each error, as docs/errors.md says: real ones and a scripted node.

go-redis is not at hand; what it repeats was read in its source, and here it is held against what we promise.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from scripted_server import ScriptedServer

from balsadb.client.verdicts import Verdict, judge
from balsadb.resp.parser import CommandParser

PAGE = (Path(__file__).parent.parent.parent / "docs" / "errors.md").read_text()
GO_REDIS_REPEATS = (
    # Beginnings of errors after which it sends a command again, besides a lost connection and a time-out.
    b"LOADING READONLY MASTERDOWN CLUSTERDOWN TRYAGAIN NOREPLICAS".split()
)
COMMANDS = b"".join(
    b"*6\r\n$3\r\n%b\r\n:%d\r\n*1\r\n+%b\r\n:1\r\n:1\r\n:1\r\n" % command
    for command in ((b"set", -3, b"write"), (b"get", 2, b"readonly"))
)


def rows():
    (section,) = re.findall(r"^## Plain Redis clients\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines[2:]]


ROWS = rows()


def refuse(text):
    """Answer data commands with this error, and what clients ask about the server as a node does."""

    def act(server, connection):
        parser = CommandParser()
        while commands := server.read(connection, parser):
            for command in commands:
                match command[0].upper():
                    case b"CLUSTER":
                        slots = b"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:%d\r\n$40\r\n%b\r\n"
                        connection.sendall(slots % (server.address[1], b"a" * 40))
                    case b"COMMAND":
                        connection.sendall(b"*2\r\n" + COMMANDS)
                    case b"CLIENT" | b"HELLO" | b"INFO":
                        connection.sendall(b"+OK\r\n")
                    case _:
                        server.commands.append(command)
                        connection.sendall(b"-%b\r\n" % text)

    return act


def error_of(cell):
    first = cell.strip("`")
    if " " in first and first != "all others":
        return first.encode()  # the whole sentence
    return (b"WRONGTYPE" if first == "all others" else first.encode()) + b" for a test"


@pytest.mark.parametrize("kind", [redis.Redis, redis.RedisCluster])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_redis_py_does_as_the_table_says(row, kind):
    said = row[1 if kind is redis.Redis else 2]
    with ScriptedServer(refuse(error_of(row[0]))) as server:
        host, port = server.address
        client = kind(host=host, port=port, protocol=2, retry=Retry(NoBackoff(), 3), socket_timeout=5)
        try:
            with pytest.raises(redis.RedisError) as raised:
                client.set("k", "v")
        finally:
            client.close()
        (name,) = re.findall(r"raises `(\w+)`", said)
        assert type(raised.value).__name__ == name
        assert (len(server.commands) > 1) == ("tries again" in said or "try again" in said)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_redis_cli_shows_the_error_and_asks_no_second_time(row):
    program = shutil.which("redis-cli")
    if program is None:
        pytest.skip("redis-cli is not installed")
    assert row[4] == "shows it"
    text = error_of(row[0])
    with ScriptedServer(refuse(text)) as server:
        host, port = server.address
        command = [program, "-h", host, "-p", str(port), "SET", "k", "v"]
        done = subprocess.run(command, capture_output=True, timeout=20, check=False)
        assert text in done.stdout + done.stderr
        assert server.commands == [[b"SET", b"k", b"v"]]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_any_client_repeats_by_itself_certainly_did_not_happen(row):
    text = error_of(row[0])
    repeats_in_go = text.startswith(tuple(code + b" " for code in GO_REDIS_REPEATS)) or b"max number" in text
    assert (row[3] == "tries again") == repeats_in_go
    definite = judge(text) is Verdict.NOT_APPLIED
    if repeats_in_go:
        assert definite
    for cell in row[1:3]:
        # A connection that is to be authenticated is made anew; nothing can have happened on it.
        assert definite or "tries again" not in cell or text.startswith((b"WRONGPASS", b"NOAUTH"))
