"""The one encoded form of an entry."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balsadb.errors import ProtocolError
from balsadb.raft.entry import ENTRY_OVERHEAD_BYTES, PAYLOAD_BYTES_MAX, decode_entry, encode_entry
from balsadb.raft.types import NUMBER_MAX, EntryKind

number = st.integers(0, NUMBER_MAX)


@given(number, st.integers(1, NUMBER_MAX), number, st.sampled_from(EntryKind), st.binary(max_size=50))
def test_an_entry_survives_its_encoding(term, index, time_ms, kind, payload):
    entry = encode_entry(term, index, time_ms, kind, payload)
    assert decode_entry(entry.encoded) == entry
    assert entry.payload == payload
    assert len(entry.encoded) == ENTRY_OVERHEAD_BYTES + len(payload)


@given(st.data())
def test_no_flipped_bit_and_no_cut_passes(data):
    encoded = bytearray(encode_entry(3, 4, 5, EntryKind.COMMANDS, b"payload").encoded)
    bit = data.draw(st.integers(0, 8 * len(encoded) - 1))
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(ProtocolError):
        decode_entry(bytes(encoded[:cut]))
    encoded[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ProtocolError):
        decode_entry(bytes(encoded))


def test_a_payload_that_is_too_large_is_refused():
    with pytest.raises(ValueError, match="exceeds"):
        encode_entry(1, 1, 1, EntryKind.COMMANDS, bytes(PAYLOAD_BYTES_MAX + 1))
