"""Replies out, in the words of both protocols."""

from __future__ import annotations

import math

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balsadb.kv.reply import OK, QUEUED, Mapping, NullArray, Refusal, Reply, Status
from balsadb.resp.encode import encode_reply

FORMS: list[tuple[Reply, bytes, bytes]] = [
    (OK, b"+OK\r\n", b"+OK\r\n"),
    (Status(b"OK"), b"+OK\r\n", b"+OK\r\n"),
    (QUEUED, b"+QUEUED\r\n", b"+QUEUED\r\n"),
    (b"", b"$0\r\n\r\n", b"$0\r\n\r\n"),
    (b"a\r\nb\xff", b"$5\r\na\r\nb\xff\r\n", b"$5\r\na\r\nb\xff\r\n"),
    (0, b":0\r\n", b":0\r\n"),
    (-(2**63), b":-9223372036854775808\r\n", b":-9223372036854775808\r\n"),
    (None, b"$-1\r\n", b"_\r\n"),
    (NullArray(), b"*-1\r\n", b"_\r\n"),
    (True, b":1\r\n", b"#t\r\n"),
    (False, b":0\r\n", b"#f\r\n"),
    (1.5, b"$3\r\n1.5\r\n", b",1.5\r\n"),
    (3.0, b"$1\r\n3\r\n", b",3\r\n"),
    (math.inf, b"$3\r\ninf\r\n", b",inf\r\n"),
    (-math.inf, b"$4\r\n-inf\r\n", b",-inf\r\n"),
    (Refusal(b"ERR syntax error"), b"-ERR syntax error\r\n", b"-ERR syntax error\r\n"),
    ([], b"*0\r\n", b"*0\r\n"),
    ([b"a", None, 1], b"*3\r\n$1\r\na\r\n$-1\r\n:1\r\n", b"*3\r\n$1\r\na\r\n_\r\n:1\r\n"),
    ([[OK], [[]]], b"*2\r\n*1\r\n+OK\r\n*1\r\n*0\r\n", b"*2\r\n*1\r\n+OK\r\n*1\r\n*0\r\n"),
    (
        Mapping([(b"a", 1), (b"b", [])]),
        b"*4\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n*0\r\n",
        b"%2\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n*0\r\n",
    ),
    (Mapping([]), b"*0\r\n", b"%0\r\n"),
]


@pytest.mark.parametrize(("reply", "resp2", "resp3"), FORMS, ids=[repr(form[0])[:40] for form in FORMS])
def test_each_kind_of_reply_has_its_form_alone_and_inside_a_list(reply, resp2, resp3):
    assert encode_reply(reply, resp3=False) == resp2
    assert encode_reply(reply, resp3=True) == resp3
    assert encode_reply([reply], resp3=False) == b"*1\r\n" + resp2
    assert encode_reply([reply], resp3=True) == b"*1\r\n" + resp3


@pytest.mark.parametrize("resp3", [False, True])
def test_no_text_can_forge_another_reply(resp3):
    """Bad input 23: a command's name comes back inside an error."""
    assert (
        encode_reply(Refusal(b"ERR unknown command 'a\r\n+OK\n'"), resp3)
        == b"-ERR unknown command 'a  +OK '\r\n"
    )
    assert encode_reply(Status(b"a\r\n:1"), resp3) == b"+a  :1\r\n"


def replies() -> st.SearchStrategy[Reply]:
    plain = st.one_of(
        st.binary(max_size=20),
        st.integers(-(2**63), 2**63 - 1),
        st.none(),
        st.booleans(),
        st.floats(allow_nan=False),
    )
    return st.recursive(plain, lambda inner: st.lists(inner, max_size=5), max_leaves=20)


@given(replies())
def test_hiredis_reads_the_same_value_in_resp3(reply):
    reader = hiredis.Reader()
    reader.feed(encode_reply(reply, resp3=True))
    assert reader.gets() == reply
    assert reader.gets() is False
