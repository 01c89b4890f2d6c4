"""Proofs of a shared secret are good for one connection, one direction and one answer."""

from __future__ import annotations

import msgspec
import pytest

from balsadb.errors import ProtocolError
from balsadb.wire.frame import FrameDecoder, Proof, encode_handshake
from balsadb.wire.handshake import SHARED_SECRET, Challenge, Hello, Refused, Welcome
from balsadb.wire.proof import answer_proof, caller_proof

SECRET, OTHER = b"s" * 64, b"t" * 64
NONCE = b"n" * 32
HELLO = Hello(1, b"c" * 16, b"d" * 16, 1, 2, b"s" * 16, 7, "a:1", True, 0, "a:2", SHARED_SECRET, b"h" * 32)
WELCOME = Welcome(2, b"t" * 16, b"c" * 16, "b:1", True)

CHANGED: dict[str, object] = {
    "protocol_version": 2,
    "cluster_id": b"x" * 16,
    "cluster_digest": b"x" * 16,
    "node_id": 3,
    "target_id": 3,
    "store_id": b"x" * 16,
    "boot": 8,
    "client_address": "x:1",
    "admitted": False,
    "purpose": 1,
    "peer_address": "x:2",
    "authentication": 2,
    "nonce": b"x" * 32,
}


def test_the_cases_below_change_every_field_of_a_hello():
    assert set(CHANGED) == set(Hello.__struct_fields__)


@pytest.mark.parametrize("field", CHANGED)
def test_a_proof_is_good_for_no_other_hello(field):
    other = msgspec.structs.replace(HELLO, **{field: CHANGED[field]})
    assert caller_proof(SECRET, other, NONCE) != caller_proof(SECRET, HELLO, NONCE)
    assert answer_proof(SECRET, other, NONCE, WELCOME) != answer_proof(SECRET, HELLO, NONCE, WELCOME)


def test_a_proof_is_good_for_no_other_challenge_secret_or_direction():
    proof = caller_proof(SECRET, HELLO, NONCE)
    assert proof == caller_proof(SECRET, HELLO, NONCE)
    swapped = msgspec.structs.replace(HELLO, nonce=NONCE)
    others = {
        caller_proof(SECRET, HELLO, b"m" * 32),
        caller_proof(OTHER, HELLO, NONCE),
        caller_proof(SECRET, swapped, HELLO.nonce),
        answer_proof(SECRET, HELLO, NONCE, WELCOME),
    }
    assert len(others) == 4
    assert proof not in others


@pytest.mark.parametrize(
    "other",
    [
        msgspec.structs.replace(WELCOME, node_id=3),
        msgspec.structs.replace(WELCOME, never_met_other=False),
        msgspec.structs.replace(WELCOME, store_id=b"u" * 16),
        Refused("no"),
        Refused("no", b"c" * 16),
    ],
)
def test_the_proof_of_an_answer_is_good_for_no_other_answer(other):
    assert answer_proof(SECRET, HELLO, NONCE, other) != answer_proof(SECRET, HELLO, NONCE, WELCOME)


def test_an_answer_is_proved_whatever_stands_where_its_proof_will_be():
    sealed = msgspec.structs.replace(WELCOME, proof=b"p" * 32)
    assert answer_proof(SECRET, HELLO, NONCE, sealed) == answer_proof(SECRET, HELLO, NONCE, WELCOME)


@pytest.mark.parametrize("greeting", [Challenge(NONCE), Proof(NONCE), HELLO, Refused("no", b"", NONCE)])
def test_greetings_with_proofs_arrive_as_they_were_sent(greeting):
    assert FrameDecoder().feed(encode_handshake(greeting)) == [greeting]


@pytest.mark.parametrize("greeting", [Challenge(b"short"), Proof(b"x" * 33), Refused("no", b"", b"x" * 33)])
def test_proofs_and_challenges_of_another_length_are_refused(greeting):
    with pytest.raises(ProtocolError, match="can't be decoded"):
        FrameDecoder().feed(encode_handshake(greeting))


def test_a_second_greeting_is_taken_only_when_it_is_expected():
    decoder = FrameDecoder()
    assert decoder.feed(encode_handshake(HELLO)) == [HELLO]
    assert decoder.feed(encode_handshake(Proof(NONCE))) == []
    decoder.expect_greeting()
    assert decoder.feed(b"") == [Proof(NONCE)]


@pytest.mark.parametrize("record", [b"\x16\x03\x01\x02\x00\x01", b"\x15\x03\x03\x00\x02\x02\x28\x00"])
def test_the_other_side_speaking_tls_is_said_in_so_many_words(record):
    with pytest.raises(ProtocolError, match="speaks TLS"):
        FrameDecoder().feed(record + bytes(64))
