"""Addresses as people write them."""

import pytest

from balsadb.address import format_addresses, is_loopback, parse_addresses
from balsadb.errors import UsageError


def test_a_port_may_be_a_range():
    assert parse_addresses("127.0.0.1:7001-7003, db:9") == [
        ("127.0.0.1", 7001),
        ("127.0.0.1", 7002),
        ("127.0.0.1", 7003),
        ("db", 9),
    ]


def test_an_address_named_twice_counts_once():
    assert parse_addresses("a:1,a:1") == [("a", 1)]


@pytest.mark.parametrize(
    "text", ["", ",", "a", "a:", ":1", "a:1-99999", "a:5-4", "a:1-500", "a:x", "a b:1", "x://a:1"]
)
def test_nonsense_is_refused(text):
    with pytest.raises(UsageError, match="--servers"):
        parse_addresses(text)


@pytest.mark.parametrize("text", ["127.0.0.1:7001-7003", "a:1, b:2-3", "[::1]:7001"])
def test_what_is_written_reads_back_the_same(text):
    assert format_addresses(parse_addresses(text)) == text


def test_loopback():
    assert is_loopback([("127.0.0.1", 1), ("localhost", 2)])
    assert not is_loopback([("127.0.0.1", 1), ("db", 2)])


@pytest.mark.parametrize("host", ["a..b", ".a", "x" * 64, "a." * 127 + "b", "ä" * 63])
def test_a_host_that_no_resolver_can_be_asked_for_is_refused(host):
    with pytest.raises(UsageError, match="is not an address"):
        parse_addresses(f"{host}:1")


@pytest.mark.parametrize("host", ["db.example.", "x" * 63, "10.0.0.1", "fe80::1%eth0", "bücher.example"])
def test_names_and_addresses_of_all_kinds_are_taken(host):
    written = f"[{host}]:1" if ":" in host else f"{host}:1"
    assert parse_addresses(written) == [(host, 1)]
