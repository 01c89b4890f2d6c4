"""The drive loop, when something in it goes wrong."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from balsadb.errors import InvariantError, ProtocolError, StorageError
from balsadb.raft.messages import Heartbeat
from balsadb.raft.types import Configuration, Member
from balsadb.replica.replica import Warm
from balsadb.server import admission, driver
from balsadb.server.admission import Admission
from balsadb.server.clock import Clock
from balsadb.server.driver import Driver
from balsadb.storage.meta import Meta
from balsadb.wire.frame import PROTOCOL_VERSION, Hello


class Stopped(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(autouse=True)
def stops(monkeypatch):
    def stop(sentence: str) -> None:
        raise Stopped(sentence)

    for module in (driver, admission):
        monkeypatch.setattr(module, "stop_process", stop)


class Failing:
    """A replica that raises whatever it is asked to do."""

    configuration = None

    def __init__(self, error: Exception) -> None:
        self._error = error

    def tell_time(self, now_ms: int, wall_ms: int) -> None:
        pass

    def step(self, message: object) -> None:
        raise self._error

    def turn(self, now_ms: int, wall_ms: int, disk_idle: bool) -> None:
        raise self._error

    def persisted(self, number: int) -> None:
        raise self._error


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def make(loop, error):
    wal = SimpleNamespace(complete=lambda write: None)
    return Driver(Failing(error), wal, Clock(), loop)


@pytest.mark.parametrize("error", [InvariantError("broken"), MemoryError(), KeyError("a bug")])
def test_a_turn_that_fails_stops_the_node(loop, error):
    """An entry may be half applied then, and nobody else's is (rule S4)."""
    with pytest.raises(Stopped):
        make(loop, error)._turn()
    with pytest.raises(Stopped):
        make(loop, error)._written(SimpleNamespace(number=1))
    with pytest.raises(Stopped):
        make(loop, error).receive([Heartbeat(2, 1, 1, 0, 0)])


def test_an_error_that_nobody_foresaw_says_where_it_came_from(loop):
    with pytest.raises(Stopped, match=r"(?s)in turn.*KeyError: 'a bug'"):
        make(loop, KeyError("a bug"))._turn()


def test_a_malformed_message_costs_the_connection_and_not_the_node(loop):
    with pytest.raises(ProtocolError):
        make(loop, ProtocolError("nonsense")).receive([Heartbeat(2, 1, 1, 0, 0)])


def test_a_node_that_can_not_note_whom_it_met_stops():
    """An error would end the task that dials that peer, and the node would run on half connected."""

    def full(meta: Meta) -> None:
        raise StorageError("META: could not write: no space left")

    directory = SimpleNamespace(meta=Meta(1, b"1" * 16, ""), update_meta=full)
    configuration = Configuration(voters=(1, 2), members=(Member(2, "b:8001"),))
    node = SimpleNamespace(id=1, configuration=configuration, eligible=True)
    replica = SimpleNamespace(node=node, configuration=node.configuration, identities={1: (b"1" * 16, "")})
    hello = Hello(PROTOCOL_VERSION, b"", b"digest", 2, 1, b"2" * 16, 1, "", False)
    member = Admission(replica, directory, b"digest")
    with pytest.raises(Stopped, match="no space left"):
        member.answer(hello)


@pytest.mark.parametrize("awaited", [True, False])
def test_a_read_of_cold_keys_that_fails_stops_the_node_unless_the_state_was_replaced_meanwhile(loop, awaited):
    """An install closes the old state; what is still being read from it is of no use and no damage either."""

    made = make(loop, InvariantError("never asked"))
    made.replica.awaits = lambda warm: awaited
    made.replica.warmed = lambda warm, records: None
    done = loop.create_future()
    done.set_exception(StorageError("the state is closed"))
    warm = Warm([b"k"], None, 0)
    if awaited:
        with pytest.raises(Stopped, match="closed"):
            made._warmed(warm, done)
    else:
        made._warmed(warm, done)
