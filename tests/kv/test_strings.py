"""Strings and counters, in Redis' exact words."""

from __future__ import annotations

import pytest

from balsadb.kv.limits import KEY_BYTES_MAX, REPLY_BYTES_MAX, VALUE_BYTES_MAX

NOT_AN_INTEGER = "-ERR value is not an integer or out of range"
OVERFLOW = "-ERR increment or decrement would overflow"


def test_set_get_append(fed):
    assert fed.do("SET a 1") == "+OK"
    assert fed.do("APPEND a 23") == 3
    assert fed.do("APPEND b x") == 1
    assert fed.read("GET a") == b"123"
    assert fed.read("STRLEN a") == 3
    assert fed.read("GET missing") is None
    assert fed.read("STRLEN missing") == 0


def test_set_options(fed):
    assert fed.do("SET a 1 XX") is None
    assert fed.do("SET a 1 NX") == "+OK"
    assert fed.do("SET a 2 nx") is None
    assert fed.do("SET a 2 xx") == "+OK"
    assert fed.do("SET a 3 GET") == b"2"
    assert fed.do("SET a 4 NX GET") == b"3"
    assert fed.read("GET a") == b"3"
    assert fed.do("SET b 1 NX GET") is None
    assert fed.read("GET b") == b"1"


@pytest.mark.parametrize(
    "options",
    [
        "NX XX", "FOO", "NXX", "NX GET XX", "\0", "EX", "PX", "EXAT", "PXAT", "EX 10 KEEPTTL", "KEEPTTL PX 1",
        "EX 10 PX 1", "PXAT 1 EXAT 1", "PERSIST", "IFEQ", "NX IFEQ v", "IFEQ v XX", "EX 10 PERSIST",
    ],
)  # fmt: skip
def test_other_options_are_refused_and_change_nothing(fed, options):
    assert fed.do(f"SET a 1 {options}") == "-ERR syntax error"
    assert fed.read("EXISTS a") == 0


def test_a_value_is_set_only_if_it_is_the_expected_one(fed):
    """IFEQ: a compare-and-set in one command, which Redis has since 8.4."""
    assert fed.do("SET a 2 IFEQ 1") is None
    assert fed.read("EXISTS a") == 0
    assert fed.do("SET a 1") == "+OK"
    assert fed.do("SET a 3 IFEQ 2") is None
    assert fed.do("SET a 3 IFEQ 2 GET") == b"1"
    assert fed.read("GET a") == b"1"
    assert fed.do("SET a 2 ifeq 1 GET") == b"1"
    assert fed.do("SET a 3 IFEQ 2") == "+OK"
    assert fed.read("GET a") == b"3"
    assert fed.do([b"SET", b"e", b"x", b"IFEQ", b""]) is None
    assert fed.do([b"SET", b"a", b"x", b"IFEQ", b"IFEQ"]) is None


def test_counting(fed):
    assert [fed.do("INCR n"), fed.do("INCRBY n 10"), fed.do("DECR n"), fed.do("DECRBY n -5")] == [
        1,
        11,
        10,
        15,
    ]
    assert fed.read("GET n") == b"15"
    fed.do(f"SET n {2**63 - 1}")
    assert fed.do("INCR n") == OVERFLOW
    assert fed.read("GET n") == str(2**63 - 1).encode()
    fed.do(f"SET n {-(2**63)}")
    assert fed.do("DECR n") == OVERFLOW
    assert fed.do(f"DECRBY n {-(2**63)}") == "-ERR decrement would overflow"


@pytest.mark.parametrize(
    "text",
    [
        b"+5", b"05", b" 5", b"5 ", b"1_0", b"0x10", "٣".encode(), b"-0", b"1e3", b"", b"-", b"--1", b"1.0",
        b"9223372036854775808", b"-9223372036854775809", b"9" * 5000, b"\0", b"00", b"5\n",
    ],
)  # fmt: skip
def test_what_redis_takes_for_no_integer_is_none(fed, text):
    fed.do([b"SET", b"n", text])
    assert fed.do("INCR n") == NOT_AN_INTEGER
    assert fed.do([b"INCRBY", b"m", text]) == NOT_AN_INTEGER
    assert fed.read("GET n") == text
    assert fed.read("EXISTS m") == 0


def test_several_keys(fed):
    assert fed.do("MSET a 1 b 2 a 3") == "+OK"
    assert fed.read("MGET a missing b a") == [b"3", None, b"2", b"3"]
    assert fed.read("EXISTS a a b missing") == 3
    assert fed.read("DBSIZE") == 2
    assert fed.do("DEL a a missing") == 1
    assert fed.read("DBSIZE") == 1
    assert fed.do("MSET a 1 b") == "-ERR wrong number of arguments for 'mset' command"


@pytest.mark.parametrize("value", [b"", bytes(range(256)), b"\r\n", b"\xff\xfe", b"$5\r\nhello\r\n"])
def test_keys_and_values_are_any_bytes(fed, value):
    assert fed.do([b"SET", value, value]) == "+OK"
    assert fed.read([b"GET", value]) == value
    assert fed.do([b"APPEND", value, value]) == 2 * len(value)


def test_the_longest_key_and_value_and_one_byte_more(fed):
    key, value = b"k" * KEY_BYTES_MAX, b"v" * VALUE_BYTES_MAX
    too_long = "-ERR string exceeds maximum allowed size (proto-max-bulk-len)"
    key_too_long = f"-ERR key exceeds maximum allowed size of {KEY_BYTES_MAX} bytes"
    assert fed.do([b"SET", key, value]) == "+OK"
    assert fed.do([b"APPEND", key, b"x"]) == too_long
    assert fed.read([b"STRLEN", key]) == VALUE_BYTES_MAX
    assert fed.do([b"SET", key + b"k", b"v"]) == key_too_long
    assert fed.do([b"MSET", b"a", b"1", key + b"k", b"v"]) == key_too_long
    assert fed.do([b"MSET", b"a", b"1", b"b", value + b"v"]) == too_long
    assert fed.do([b"INCR", key + b"k"]) == key_too_long
    assert fed.read("EXISTS a b") == 0
    assert fed.read([b"GET", key + b"k"]) is None
    assert fed.do([b"DEL", key + b"k"]) == 0


def test_a_short_command_can_not_ask_for_a_huge_reply(fed):
    fed.do([b"SET", b"a", b"v" * VALUE_BYTES_MAX])
    most = REPLY_BYTES_MAX // VALUE_BYTES_MAX
    assert len(fed.read([b"MGET"] + [b"a"] * most)) == most
    refused = f"-ERR reply would exceed {REPLY_BYTES_MAX} bytes; nothing was done"
    assert fed.read([b"MGET"] + [b"a"] * (most + 1)) == refused
    assert fed.machine.read_transaction([[b"GET", b"a"]] * (most + 1)).text == refused[1:].encode()
    block = [b"EXEC %d" % (most + 2), b"INCR n", *[b"GET a"] * (most + 1)]
    assert fed.batch(*[line.decode() for line in block]) == [refused]
    assert fed.read("EXISTS n") == 0
