"""The payload of an entry: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balsadb.errors import LocalFault
from balsadb.kv.batch import FORMAT_VERSION, Batch, UnknownFormat, decode_batch, encode_batch

NUMBERS = st.integers(1, 2**62)
COMMANDS = st.lists(st.lists(st.binary(max_size=40), max_size=5), max_size=8)


@given(NUMBERS, NUMBERS, NUMBERS, COMMANDS)
def test_a_batch_comes_back_as_it_was(node, boot, sequence, commands):
    assert decode_batch(encode_batch(node, boot, sequence, commands)) == Batch(node, boot, sequence, commands)


def test_an_unknown_version_stops_the_node_with_a_sentence():
    payload = bytes([FORMAT_VERSION + 1]) + encode_batch(1, 1, 1, [])[1:]
    with pytest.raises(UnknownFormat, match=r"format 2 .* Start a newer BalsaDB") as caught:
        decode_batch(payload)
    assert isinstance(caught.value, LocalFault)


def pack(value: object) -> bytes:
    return bytes([FORMAT_VERSION]) + msgspec.msgpack.encode(value)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        bytes([FORMAT_VERSION]),
        pack(None),
        pack([1, 1, 1]),
        pack([1, 1, 1, [["text is not bytes"]]]),
        pack([1, 1, 1, [[b"INCR", 5]]]),
        pack([1, 1, 1, [b"GET", b"a"]]),
        pack([0, 1, 1, []]),
        pack([1, -1, 1, []]),
        pack([1, 1, 0, []]),
        pack([2**63, 1, 1, []]),
        pack([1, 1, 1, []]) + b"more",
        pack([1, 1, 1, [[b"SET", b"a", b"b"]]])[:-1],
    ],
)
def test_a_malformed_payload_is_no_batch(payload):
    assert decode_batch(payload) is None


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_header_may_claim_four_billion_elements_without_costing_memory(depth):
    header = bytes([FORMAT_VERSION]) + b"\x94\x01\x01\x01" + b"\x91" * depth
    assert decode_batch(header + b"\xdd\xff\xff\xff\xff") is None
    assert decode_batch(header + b"\xc6\xff\xff\xff\xff") is None


def test_a_payload_of_nested_arrays_is_no_batch():
    assert decode_batch(bytes([FORMAT_VERSION]) + b"\x91" * 100_000) is None


@given(st.binary())
def test_no_bytes_raise(data):
    decode_batch(bytes([FORMAT_VERSION]) + data)
