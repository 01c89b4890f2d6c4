"""What clients may make a node hold or do, alone and all together (bad inputs 16-19, 27-29)."""

from __future__ import annotations

import pytest

from balsadb.server import connection, intake, listener
from balsadb.server.connection import INPUT_SLICE_BYTES, LATE_SLICE_BYTES, UNSENT_BYTES_HIGH
from balsadb.server.listener import STUCK_MS_MAX, TURN_COMMANDS_MAX, TURN_RESUMES_MAX
from server.client_rig import Rig

REFUSED = b"-ERR max number of clients reached\r\n"
PINGS = b"PING\r\n" * 10_000
"""Much more than one turn takes of a client that had to wait."""
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def time_enough(monkeypatch):
    """Bounds in time are for a node; here they would make a busy machine decide what happens."""
    monkeypatch.setattr(listener, "TURN_INPUT_SECONDS_MAX", 60.0)
    monkeypatch.setattr(intake, "LOCAL_NS_MAX", 10**12)


def exhaust(rig: Rig) -> None:
    """Let others have had this turn."""
    rig.listener.commands_processed = rig.listener.commands_processed_max + TURN_COMMANDS_MAX


# ------------------------------------------------------------------------------ how many


def test_an_address_may_have_so_many_clients_and_another_one_as_many_again():
    rig = Rig(clients_per_address_max=2)
    first = [rig.connect("10.0.0.1") for _ in range(3)]
    assert [transport.closed for _, transport in first] == [False, False, True]
    assert first[2][1].sent == REFUSED
    assert not rig.connect("10.0.0.2")[1].closed


def test_a_client_that_left_makes_room_for_another_one_of_its_address():
    rig = Rig(clients_per_address_max=1)
    for _ in range(3):
        client, transport = rig.connect("10.0.0.1")
        assert not transport.closed
        refused, its = rig.connect("10.0.0.1")
        assert its.closed
        refused.connection_lost(None)  # it never counted, so its end changes nothing
        assert rig.connect("10.0.0.1")[1].closed
        client.connection_lost(None)


def test_clients_of_one_address_are_not_counted_unless_that_is_asked_for():
    rig = Rig()
    assert not any(rig.connect("10.0.0.1")[1].closed for _ in range(50))


# ------------------------------------------------------------------------------ for how long


def test_a_client_that_says_nothing_is_closed_after_the_time_that_was_set():
    rig = Rig(idle_ms_max=60_000)
    _, silent = rig.connect()
    talking, other = rig.connect()
    for second in range(4):
        rig.replica.wall_ms += 20_000
        talking.data_received(b"PING\r\n")
        rig.pass_time(20_000)
        assert silent.closed == (second == 3)
    rig.pass_time(20_000)
    assert not other.closed
    assert silent.closed


def test_a_client_that_waits_for_an_answer_is_not_idle():
    rig = Rig(idle_ms_max=1_000)
    client, transport = rig.connect()
    client.data_received(b"GET k\r\n")
    for _ in range(5):
        rig.pass_time(2_000)
    assert not transport.closed


def test_nobody_is_closed_for_being_idle_by_default():
    rig = Rig()
    _, transport = rig.connect()
    for _ in range(3):
        rig.pass_time(10**9)
    assert not transport.closed


def test_a_command_that_comes_byte_by_byte_is_given_up_although_something_always_comes():
    """27: slowloris."""
    rig = Rig()
    client, transport = rig.connect()
    for byte in b"*2\r\n$3\r\nGET\r\n$9\r\nabcdefgh":
        if transport.closed:
            break
        client.data_received(bytes([byte]))
        rig.pass_time(STUCK_MS_MAX // 10)
    assert transport.closed


def test_a_client_that_finishes_its_commands_slowly_is_kept():
    rig = Rig()
    client, transport = rig.connect()
    for _ in range(5):
        client.data_received(b"*1\r\n$4\r\nPI")
        rig.pass_time(STUCK_MS_MAX // 2)
        client.data_received(b"NG\r\n")
        rig.listener.flush()
        rig.pass_time(STUCK_MS_MAX)
    assert not transport.closed


def test_a_client_that_does_not_read_is_closed_and_one_that_reads_in_time_is_not():
    """17."""
    rig = Rig()
    (idle, its), (slow, other) = rig.connect(), rig.connect()
    for client in (idle, slow):
        client.data_received(b"GET k\r\n")
    rig.answer(bytes(UNSENT_BYTES_HIGH + 1))
    rig.pass_time(STUCK_MS_MAX // 2)
    other.read_all()
    rig.pass_time(STUCK_MS_MAX)
    assert its.closed
    assert not other.closed


# ------------------------------------------------------------------------------ how much


def test_a_little_that_thousands_do_not_read_counts_as_well(monkeypatch):
    """Each is far from the bound at which a client counts as one that does not read."""
    monkeypatch.setattr(listener, "BUFFERED_BYTES_MAX", 10 * UNSENT_BYTES_HIGH // 2)
    rig = Rig()
    clients = [rig.connect() for _ in range(20)]
    for client, _ in clients:
        client.data_received(b"GET k\r\n")
    rig.answer(bytes(UNSENT_BYTES_HIGH // 2))
    assert not any(transport.closed for _, transport in clients)
    rig.pass_time(1_000)
    assert sum(transport.closed for _, transport in clients) == 11
    assert rig.listener.buffered_bytes <= listener.BUFFERED_BYTES_MAX


def test_values_that_wait_unencoded_count_each_once(monkeypatch):
    """A client that asks for many values and reads none keeps them in memory."""
    monkeypatch.setattr(listener, "BUFFERED_BYTES_MAX", 20 * MIB)
    rig = Rig()
    (same, its), (many, other) = rig.connect(), rig.connect()
    value = bytes(MIB)
    for client, reply in ((same, value), (many, lambda: bytes(MIB))):
        client.data_received(b"GET k\r\n" * 40)
        rig.answer(reply)
    assert not its.closed, "forty references to one value are one value"
    assert other.closed


def test_the_greatest_is_closed_and_the_others_stay(monkeypatch):
    monkeypatch.setattr(listener, "BUFFERED_BYTES_MAX", MIB)
    rig = Rig()
    small = [rig.connect() for _ in range(10)]
    for client, _ in small:
        client.data_received(b"*2\r\n$3\r\nGET\r\n$50000\r\n" + bytes(10_000))
    great, its = rig.connect()
    great.data_received(b"*2\r\n$3\r\nGET\r\n$7000000\r\n" + bytes(INPUT_SLICE_BYTES - 50))
    for _ in range(70):
        great.data_received(bytes(INPUT_SLICE_BYTES))
    assert its.closed
    assert not any(transport.closed for _, transport in small)
    assert rig.listener.buffered_bytes < 11 * 50_000


# ------------------------------------------------------------------------------ in which turn


@pytest.mark.slow
def test_a_turn_takes_so_many_commands_and_the_rest_has_its_turn_later():
    """Rule B1: the other servers are heard between turns."""
    rig = Rig()
    clients = [rig.connect(kernel_bytes=10**9) for _ in range(8)]
    for client, _ in clients:
        client.data_received(PINGS)
    slice_max = INPUT_SLICE_BYTES // 6 + 1
    slice_late_max = LATE_SLICE_BYTES // 6 + 1
    taken = rig.listener.commands_processed
    assert taken <= TURN_COMMANDS_MAX + slice_max
    turns = 0
    while not all(transport.reading for _, transport in clients):
        assert rig.wakes, "somebody waits, and nothing brings the next turn"
        before, rig.wakes = rig.listener.commands_processed, 0
        rig.listener.flush()
        assert rig.listener.commands_processed - before <= TURN_COMMANDS_MAX + slice_late_max
        turns += 1
        assert turns < 10_000
    rig.listener.flush()
    for _, transport in clients:
        assert transport.sent == b"+PONG\r\n" * 10_000
    assert turns >= 8 * 10_000 // (TURN_COMMANDS_MAX + slice_max)


@pytest.mark.parametrize(("data", "turns"), [(b"PING\r\n", 3), (b"PING\r\n" + b" " * 600, 5)])
def test_a_client_that_sends_little_is_not_kept_waiting_by_those_who_send_much(data, turns):
    rig = Rig()
    flood = [rig.connect(kernel_bytes=10**9) for _ in range(40)]
    for client, _ in flood:
        client.data_received(PINGS)
    client, transport = rig.connect()
    client.data_received(data)
    for _ in range(turns):
        rig.listener.flush()
    assert transport.sent == b"+PONG\r\n"
    assert not any(its.reading for _, its in flood), "the flood is not over, and others were answered"
    assert not any(its.closed for _, its in flood)


@pytest.mark.slow
def test_every_client_that_waits_has_its_share_before_another_one_has_two():
    rig = Rig()
    clients = [rig.connect(kernel_bytes=10**9) for _ in range(30)]
    exhaust(rig)
    for client, _ in clients:
        client.data_received(PINGS)
    for _ in range(20):
        rig.listener.flush()
        shares = [len(transport.sent) for _, transport in clients]
        share = (LATE_SLICE_BYTES // 6 + 1) * len(b"+PONG\r\n")
        assert max(shares) - min(shares) <= 2 * share


def test_one_client_that_waits_alone_uses_all_of_its_turns():
    rig = Rig()
    client, transport = rig.connect(kernel_bytes=10**9)
    client.data_received(PINGS * 2)
    for _ in range(3):
        rig.listener.flush()
    assert transport.sent == b"+PONG\r\n" * 20_000


def test_input_that_takes_long_has_so_much_time_of_a_turn_and_the_rest_waits(monkeypatch):
    monkeypatch.setattr(listener, "TURN_INPUT_SECONDS_MAX", 0.0)
    rig = Rig()
    clients = [rig.connect(kernel_bytes=10**9) for _ in range(3)]
    for client, _ in clients:
        client.data_received(b"PING\r\n" * 4_000)
    assert rig.listener.commands_processed == 0
    turns = 0
    while not all(transport.sent == b"+PONG\r\n" * 4_000 for _, transport in clients):
        assert rig.wakes, "somebody waits, and nothing brings the next turn"
        rig.wakes = 0
        rig.listener.flush()
        turns += 1
    assert turns >= 3 * 4_000 * 6 // LATE_SLICE_BYTES, "each turn takes one slice of one client"


def test_many_that_send_little_wait_for_the_next_turn_too():
    rig = Rig()
    clients = [rig.connect() for _ in range(3 * TURN_COMMANDS_MAX // 80)]
    for client, _ in clients:
        client.data_received(b"PING\r\n" * 80)
    assert rig.listener.commands_processed <= 2 * TURN_COMMANDS_MAX + 80
    turns = 0
    while not all(transport.sent == b"+PONG\r\n" * 80 for _, transport in clients):
        rig.listener.flush()
        turns += 1
        assert turns < 1_000


def test_only_so_many_that_had_to_wait_are_read_again_in_one_turn():
    rig = Rig()
    clients = [rig.connect() for _ in range(3 * TURN_RESUMES_MAX)]
    exhaust(rig)
    for client, _ in clients:
        client.data_received(b"PING\r\n")
    assert not any(transport.reading for _, transport in clients)
    reading = []
    for _ in range(5):
        rig.listener.flush()
        reading.append(sum(transport.reading for _, transport in clients))
    assert reading[0] <= TURN_RESUMES_MAX
    assert reading[-1] == len(clients)
    assert all(b - a <= TURN_RESUMES_MAX for a, b in zip([0, *reading], reading, strict=False))
    rig.listener.flush()
    assert all(transport.sent == b"+PONG\r\n" for _, transport in clients)


@pytest.mark.parametrize("size", [1, 7, 1_000, INPUT_SLICE_BYTES, 10**6])
def test_what_waits_is_answered_in_order_also_when_input_ends_meanwhile(size, monkeypatch):
    monkeypatch.setattr(connection, "INPUT_SLICE_BYTES", 50)
    rig = Rig()
    client, transport = rig.connect(kernel_bytes=10**9)
    stream = b"".join(b"ECHO %d\r\n" % number for number in range(400)) + b"*1\r\n$-7\r\nPING\r\n"
    for at in range(0, len(stream), size):
        exhaust(rig)
        client.data_received(stream[at : at + size])
    client.eof_received()
    for _ in range(2_000):
        rig.listener.flush()
    echoes = b"".join(b"$%d\r\n%d\r\n" % (len(str(number)), number) for number in range(400))
    assert transport.sent == echoes + b"-ERR Protocol error: invalid bulk length\r\n"
    assert transport.closed


def test_a_client_that_waits_for_its_turn_and_does_not_read_keeps_no_turn_busy():
    rig = Rig()
    client, transport = rig.connect()
    client.data_received(b"GET k\r\n" * 10_000)
    rig.answer(bytes(100))
    assert not transport.reading
    for _ in range(3):
        rig.listener.flush()
    rig.wakes = 0
    for _ in range(10):
        rig.listener.flush()
    assert rig.wakes == 0, "it waits for its client, and the node spins"
    while transport.unread:
        transport.read_all()
        rig.listener.flush()
        rig.answer(bytes(100))
    assert transport.sent == (b"$100\r\n" + bytes(100) + b"\r\n") * 10_000
    assert transport.reading
