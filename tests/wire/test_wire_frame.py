"""What servers say to each other survives the trip, whatever pieces it comes in."""

from __future__ import annotations

import time
import tracemalloc
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balsadb.errors import InvariantError, ProtocolError
from balsadb.raft.entry import decode_entry, encode_entry
from balsadb.raft.messages import (
    Append,
    AppendResponse,
    Heartbeat,
    Message,
    Propose,
    ProposeRejected,
    ReadIndexRequest,
    ReadIndexResponse,
    RoundAck,
    VoteRequest,
    VoteResponse,
)
from balsadb.raft.types import NUMBER_MAX, EntryKind
from balsadb.wire import frame
from balsadb.wire.frame import (
    FRAME_BYTES_MAX,
    GREETING_BYTES_MAX,
    PROTOCOL_VERSION,
    FrameDecoder,
    Hello,
    Refused,
    Welcome,
    encode_handshake,
    encode_messages,
)

HELLO = Hello(PROTOCOL_VERSION, b"c" * 16, b"d" * 32, 1, 2, b"s" * 16, 7, "10.0.0.1:7001", True)
WELCOME = Welcome(2, b"t" * 16, b"", "10.0.0.2:7001", True)
REFUSED = Refused("this is node 2, not node 3; correct --cluster or --dial")
ENTRY = encode_entry(5, 100, 1_700_000_000_000, EntryKind.COMMANDS, b"x" * 300)
MESSAGES: tuple[Message, ...] = (
    VoteRequest(1, 2, 5, 99, 4, pre=True),
    VoteResponse(1, 2, 5, True, clock_ms=1_700_000_000_000),
    Append(1, 2, 5, 99, 5, 98, 7, (ENTRY.encoded, b"")),
    AppendResponse(1, 2, 5, 100, rejected=True, prev_index=99, hint_index=50, hint_term=3),
    Heartbeat(1, 2, 5, 99, 8),
    RoundAck(1, 2, 5, 8, 100),
    Propose(1, 2, 5, (b"payload", b"\r\n\0\xff", b"")),
    ProposeRejected(1, 2, 5, busy=True),
    ReadIndexRequest(1, 2, 5, 3, 12),
    ReadIndexResponse(1, 2, NUMBER_MAX, 3, 12, NUMBER_MAX),
)


def connected() -> FrameDecoder:
    """A decoder of node 2 after the hello of node 1."""
    decoder = FrameDecoder(handshake=False)
    decoder.expect(source=1, target=2)
    return decoder


def pieces(stream: bytes, size: int) -> list[bytes]:
    return [stream[at : at + size] for at in range(0, len(stream), size)]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_kind_of_message_arrives_as_it_was_sent(message):
    assert connected().feed(encode_messages([message])) == [(message,)]


def test_the_samples_above_cover_every_kind_of_message():
    assert {type(message) for message in MESSAGES} >= set(get_args(Message)[: len(MESSAGES)])


def test_one_frame_carries_many_messages_in_order():
    assert connected().feed(encode_messages(MESSAGES)) == [MESSAGES]
    assert connected().feed(encode_messages(list(MESSAGES))) == [MESSAGES]


def test_entries_travel_as_the_bytes_that_the_log_has():
    ((append,),) = connected().feed(encode_messages([Append(1, 2, 5, 99, 5, 98, 7, (ENTRY.encoded,))]))
    assert decode_entry(append.entries[0]) == ENTRY


@pytest.mark.parametrize("greeting", [HELLO, WELCOME, REFUSED], ids=["hello", "welcome", "refused"])
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_greetings_arrive_as_they_were_sent(greeting, size):
    decoder = FrameDecoder()
    assert [said for piece in pieces(encode_handshake(greeting), size) for said in decoder.feed(piece)] == [
        greeting
    ]
    assert decoder.buffered_bytes == 0


@given(st.lists(st.lists(st.sampled_from(MESSAGES), max_size=5).map(tuple), max_size=8), st.integers(1, 700))
def test_frames_may_be_cut_and_joined_anywhere(batches, size):
    decoder = connected()
    stream = b"".join(map(encode_messages, batches))
    assert [batch for piece in pieces(stream, size) for batch in decoder.feed(piece)] == batches
    assert decoder.buffered_bytes == 0


@pytest.mark.parametrize("size", [1, 3, 11, 1000])
def test_messages_right_behind_a_hello_wait_until_it_was_accepted(size):
    decoder = FrameDecoder(handshake=True)
    first = encode_messages([Heartbeat(1, 2, 5, 9, 9)])
    second = encode_messages([RoundAck(1, 2, 5, 9)])
    said = [
        frame
        for piece in pieces(encode_handshake(HELLO) + first + second[:9], size)
        for frame in decoder.feed(piece)
    ]
    assert said == [HELLO]
    decoder.expect(source=1, target=2)
    assert decoder.feed(second[9:]) == [(Heartbeat(1, 2, 5, 9, 9),), (RoundAck(1, 2, 5, 9),)]


def test_a_peer_must_not_go_on_for_long_before_its_hello_was_accepted():
    decoder = FrameDecoder()
    decoder.feed(encode_handshake(HELLO))
    with pytest.raises(ProtocolError, match="goes on"):
        list(map(decoder.feed, [b"x" * 1000] * 5))


def test_a_node_does_not_talk_to_itself():
    with pytest.raises(ProtocolError, match="itself"):
        FrameDecoder().expect(source=2, target=2)


def test_messages_from_or_for_others_are_dropped_and_counted():
    """Bad input 40."""
    decoder = connected()
    good = Heartbeat(1, 2, 5, 9, 9)
    others = [
        Heartbeat(3, 2, 5, 9, 9),
        Heartbeat(1, 3, 5, 9, 9),
        Heartbeat(2, 2, 5, 9, 9),
        Heartbeat(0, 0, 5, 9, 9),
    ]
    assert decoder.feed(encode_messages([good, *others, good])) == [(good, good)]
    assert decoder.misaddressed == 4
    assert decoder.feed(encode_messages([good])) == [(good,)]


def test_a_later_version_may_say_more_in_its_hello():
    body = msgspec.msgpack.encode([*msgspec.structs.astuple(HELLO), "more", [1, 2]])
    assert FrameDecoder().feed(frame._encode_frame(0, 2, body)) == [HELLO]


def test_a_long_reason_is_cut_to_fit():
    (said,) = FrameDecoder().feed(encode_handshake(Refused("𝄞" * 10_000)))
    assert isinstance(said, Refused)
    assert set(said.reason) == {"𝄞"}


def test_a_greeting_that_no_peer_would_take_is_not_sent():
    with pytest.raises(ValueError, match="exceeds"):
        encode_handshake(msgspec.structs.replace(HELLO, client_address="x" * GREETING_BYTES_MAX))


def test_messages_too_large_for_one_frame_go_out_in_several(monkeypatch):
    monkeypatch.setattr(frame, "FRAME_BYTES_MAX", 5_000)
    messages = tuple(Propose(1, 2, 5, (bytes([number]) * 1_000,)) for number in range(20))
    batches = connected().feed(encode_messages(messages))
    assert len(batches) > 1
    assert sum(batches, ()) == messages  # type: ignore[arg-type]
    with pytest.raises(InvariantError):
        encode_messages([Propose(1, 2, 5, (b"x" * 5_000,))])


def test_too_many_messages_for_one_frame_go_out_in_several(monkeypatch):
    monkeypatch.setattr(frame, "MESSAGES_MAX", 3)
    assert list(map(len, connected().feed(encode_messages(MESSAGES[:8])))) == [2, 2, 2, 2]


def test_the_largest_entry_fits_into_a_frame():
    payload = bytes(64 * 1024 * 1024)
    entry = encode_entry(5, 100, 0, EntryKind.COMMANDS, payload)
    stream = encode_messages([Append(1, 2, 5, 99, 5, 98, 7, (entry.encoded,))])
    assert len(stream) < FRAME_BYTES_MAX
    decoder = connected()
    started = time.process_time()
    ((append,),) = [batch for piece in pieces(stream, 65_536) for batch in decoder.feed(piece)]
    assert time.process_time() - started < 2
    assert append.entries == (entry.encoded,)  # type: ignore[union-attr]


def test_a_large_frame_in_pieces_and_many_small_ones_in_one_take_linear_time():
    large = encode_messages([Propose(1, 2, 5, (bytes(8 * 1024 * 1024),))])
    small = encode_messages([Heartbeat(1, 2, 5, 9, 9)]) * 50_000
    decoder = connected()
    started = time.process_time()
    for size in (65_536, 4_096):
        assert sum(len(decoder.feed(piece)) for piece in pieces(large, size)) == 1
    assert len(decoder.feed(small)) == 50_000
    assert time.process_time() - started < 1


def test_a_claimed_length_costs_no_memory():
    decoder = connected()
    tracemalloc.start()
    decoder.feed((FRAME_BYTES_MAX).to_bytes(4, "little") + b"\0\0\0\0" + b"x" * 100)
    decoder.feed(b"x" * 100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000
    assert decoder.buffered_bytes == 208
