"""Sending to other servers never waits (rule B1)."""

from __future__ import annotations

from balsadb.raft.messages import Heartbeat
from balsadb.server.addresses import AddressBook
from balsadb.server.peers import OUTBOX_BYTES_MAX, Peers


class Link:
    """A connection whose other end reads nothing."""

    def __init__(self) -> None:
        self.unsent = 0

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write(self, data: bytes) -> None:
        self.unsent += len(data)


class Driver:
    """Stands where the peers expect their driver."""

    peers = None


def test_messages_to_a_peer_that_does_not_read_are_dropped_past_a_bound():
    peers, link = Peers(Driver(), None, AddressBook(1, {}), None), Link()
    peers._links[2] = link
    messages = [Heartbeat(1, 2, 1, 0, 0)]
    peers.send(2, messages)
    assert link.unsent > 0
    assert peers.dropped_messages == 0
    link.unsent = full = OUTBOX_BYTES_MAX + 1
    peers.send(2, messages)
    assert link.unsent == full
    assert peers.dropped_messages == 1


def test_messages_to_a_peer_that_is_away_are_dropped():
    peers = Peers(Driver(), None, AddressBook(1, {}), None)
    peers.send(2, [Heartbeat(1, 2, 1, 0, 0)])
    assert peers.dropped_messages == 1
