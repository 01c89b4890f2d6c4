"""What the targets have found and what is not repaired yet: each fails here, and the targets look away.

A decoder that names the error which it raises for bytes that make no sense must raise that one for all of
them. Whoever repairs one takes it out here and out of `kit.UNREPAIRED`.
"""

from __future__ import annotations

import contextlib
import struct

import google_crc32c
import pytest

from balsadb.errors import DataError, LocalFault, ProtocolError
from balsadb.kv.batch import FORMAT_VERSION, decode_batch, encode_batch
from balsadb.kv.cut import STATE_VERSION, Bookkeeping, decode_bookkeeping, encode_bookkeeping
from balsadb.kv.machine import StateMachine
from balsadb.kv.sessions import decode_session
from balsadb.raft.configuration import decode_configuration, encode_configuration
from balsadb.raft.types import Configuration, Member
from balsadb.storage import meta
from balsadb.storage.files import OsFiles
from balsadb.storage.transfer import Incoming
from balsadb.wire.transfer import Chunk, Offer, StateFile
from fuzz.backup_files import _made, read

DEEP = b"\x91" * 5_000 + b"\x90"
"""Arrays inside one another, where a decoder skips what a later version may have added."""
recursion = pytest.mark.xfail(raises=RecursionError, strict=True, reason="deep nesting behind the last field")
unicode = pytest.mark.xfail(raises=UnicodeDecodeError, strict=True, reason="a text that is not UTF-8")


def with_one_more(array: bytes) -> bytes:
    """The same MessagePack array with one more element, which is nested deeply."""
    assert 0x90 <= array[0] < 0x9F
    return bytes([array[0] + 1]) + array[1:] + DEEP


@recursion
def test_a_batch_with_a_deeply_nested_field_more_is_no_batch_or_the_same_one():
    """Rule S4. How deep is too deep depends on the stack of whoever decodes, so replicas may even differ."""
    payload = bytes([FORMAT_VERSION]) + with_one_more(encode_batch(1, 1, 1, [[b"SET", b"a", b"1"]])[1:])
    decode_batch(payload)


@recursion
def test_an_entry_with_such_a_batch_stops_no_replica():
    """Rule S4: it would stop at every start, and with it all the others."""
    payload = bytes([FORMAT_VERSION]) + with_one_more(encode_batch(1, 1, 1, [[b"SET", b"a", b"1"]])[1:])
    StateMachine((1, 2)).apply_commands(1, 1, 1, payload)


@recursion
def test_a_configuration_with_a_deeply_nested_field_more_is_refused_or_read():
    payload = encode_configuration(Configuration((1, 2)))
    with contextlib.suppress(ProtocolError):
        decode_configuration(with_one_more(payload))


@unicode
def test_a_configuration_with_an_address_that_is_no_text_is_refused():
    payload = encode_configuration(Configuration((1,), members=(Member(1, "host:8001"),)))
    with pytest.raises(ProtocolError):
        decode_configuration(payload.replace(b"host", b"ho\xff\xff"))


@recursion
def test_bookkeeping_with_a_deeply_nested_field_more_is_refused_or_read():
    found = encode_bookkeeping(Bookkeeping(STATE_VERSION, 9, 2, 1, (1,), b"", (), (), 7, 1))
    with contextlib.suppress(LocalFault):
        decode_bookkeeping(with_one_more(found))


@recursion
def test_a_session_with_a_deeply_nested_reply_is_refused():
    done = b"\x91\x93\x01\xc4\x01c" + DEEP
    with pytest.raises(LocalFault):
        decode_session(b"id", b"\x97\xc4\x05nonce" + b"\x05" * 5 + done)


def identity(content: bytes) -> bytes:
    head = struct.pack("<8sIII", meta.MAGIC, meta.FORMAT_VERSION, len(content), google_crc32c.value(content))
    return head + content


@recursion
def test_an_identity_with_a_deeply_nested_field_more_is_refused():
    with pytest.raises(DataError):
        meta.decode_meta("META", identity(b"\x81\xa1x" + DEEP))


@unicode
def test_an_identity_whose_members_are_no_text_is_refused():
    content = meta.encode_meta(meta.Meta(1, bytes(16), "1=host:8001"))[20:]
    with pytest.raises(DataError):
        meta.decode_meta("META", identity(content.replace(b"host", b"ho\xff\xff")))


@recursion
def test_a_backup_whose_description_is_nested_deeply_is_refused():
    with pytest.raises(DataError):
        read(_made(b"\x81\xa1x" + DEEP, [], 0, 0))


@pytest.mark.xfail(raises=IndexError, strict=True, reason="the place behind the last file is taken for one")
def test_a_piece_behind_the_last_file_is_refused(tmp_path):
    """The server does not let it come to that: what is complete takes no more pieces."""
    incoming = Incoming(OsFiles(), str(tmp_path), Offer(1, 1, (StateFile("a", 0, 0),)))
    incoming.take(Chunk(0, 0, b""))
    assert incoming.complete
    with pytest.raises(ProtocolError):
        incoming.take(Chunk(1, 0, b"more"))


def test_the_decoders_of_the_network_turn_both_into_their_own_error():
    """Nothing of the above comes straight from a connection; there it is refused with the frame around it."""
    from fuzz.peer_frames import MESSAGES, framed, receive

    frame = framed(b"\x91" * 5_000 + b"\x90", 1)
    assert receive(MESSAGES, [frame])[1] is not None
