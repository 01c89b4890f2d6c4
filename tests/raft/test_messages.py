"""Messages as values on the wire."""

import msgspec
import pytest

from balsadb.raft.messages import (
    Append,
    AppendResponse,
    CommitAdvance,
    Heartbeat,
    Message,
    Propose,
    ProposeRejected,
    ReadIndexRequest,
    ReadIndexResponse,
    RoundAck,
    StateRequest,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)

EXAMPLES = [
    VoteRequest(1, 2, 3, 4, 5, True, True),
    VoteResponse(1, 2, 3, True, True, 6),
    Append(1, 2, 3, 4, 5, 6, 7, (b"a", b"b")),
    AppendResponse(1, 2, 3, 4, True, 5, 6, 7, 8),
    Heartbeat(1, 2, 3, 4, 5, 6),
    RoundAck(1, 2, 3, 4, 5, 6, 7, 8),
    Propose(1, 2, 3, (b"x",)),
    ProposeRejected(1, 2, 3, True),
    ReadIndexRequest(1, 2, 3, 4, 5),
    ReadIndexResponse(1, 2, 3, 4, 5, 6, 7),
    CommitAdvance(1, 2, 3, 4),
    StateRequest(1, 2, 3, 4),
    TimeoutNow(1, 2, 3),
]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_survives_its_encoding(message):
    data = msgspec.msgpack.encode(message)
    assert msgspec.msgpack.decode(data, type=Message) == message


@pytest.mark.parametrize("term", [-1, 2**62 + 1, "1"])
def test_absurd_terms_are_refused(term):
    data = msgspec.msgpack.encode([11, 1, 2, term, 4])
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(data, type=Message)
