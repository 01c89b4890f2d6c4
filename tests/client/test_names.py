"""Servers that are known by host names: looked up for every attempt, every address tried."""

from __future__ import annotations

import contextlib
import socket
import sys

import pytest
from scripted_server import ScriptedServer

from balsadb.client.servers import Turns
from balsadb.errors import NoServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there is all of 127.0.0.0/8 at hand")


@pytest.fixture
def names(monkeypatch):
    """What each name means; everything else is left to the system."""
    known: dict[str, list[str]] = {}
    resolve = socket.getaddrinfo

    def getaddrinfo(host, port, *rest, **options):
        if host not in known:
            return resolve(host, port, *rest, **options)
        return [entry for address in known[host] for entry in resolve(address, port, *rest, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


@contextlib.contextmanager
def a_silent_host(port: int):
    """Stand for a machine that answers nothing: what is sent to open a connection gets lost."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.2", port))
        listener.listen(0)
        for _ in range(3):  # the queue is full then
            stack.enter_context(waiting := socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.2", port))
        yield "127.0.0.2"


def test_every_address_of_a_name_is_tried(make_clerk, names):
    with ScriptedServer() as server:
        names["db.test"] = ["127.0.0.3", "127.0.0.4", "127.0.0.1"]
        clerk = make_clerk(f"db.test:{server.address[1]}")
        clerk.put("k", "v")
        assert clerk.get("k") == b"v"


def test_an_address_that_never_answers_keeps_no_other_from_being_tried(make_clerk, names):
    with ScriptedServer() as server, a_silent_host(server.address[1]) as silent:
        names["db.test"] = [silent, "127.0.0.1"]
        clerk = make_clerk(f"db.test:{server.address[1]}", timeout=10, connect_timeout=0.1)
        clerk.put("k", "v")
        assert server.accepted == 1


def test_a_server_that_comes_back_under_another_address_is_found(make_clerk, names):
    with ScriptedServer() as server:
        names["db.test"] = ["127.0.0.3"]
        clerk = make_clerk(f"db.test:{server.address[1]}", timeout=1.5)
        with pytest.raises(NoServer, match="connection refused"):
            clerk.put("k", "v")
        names["db.test"] = ["127.0.0.1"]
        clerk.put("k", "v")


def test_each_attempt_begins_with_the_next_address():
    turns = Turns()
    server, other = ("db", 1), ("db", 2)
    assert turns.order(server, [1, 2, 3]) == [1, 2, 3]
    assert turns.order(server, [1, 2, 3]) == [2, 3, 1]
    assert turns.order(other, [1, 2, 3]) == [1, 2, 3]
    assert turns.order(server, [1, 2]) == [1, 2]
    assert turns.order(server, []) == []
