"""CLUSTER: always an answer, the leader first, every member listed."""

from __future__ import annotations

import pytest
from redis._parsers.helpers import parse_cluster_info, parse_cluster_nodes
from redis.crc import key_slot

from balsadb.raft.types import Configuration, Member
from balsadb.server.commands.cluster import SCANNED_KEYS_MAX

CLUSTER_ID = b"00112233445566778899aabbccddeeff"


def node_entry(id: int):
    return [b"10.0.0.%d" % id, 7001, CLUSTER_ID + b"%08x" % id, []]


def hosts(ask):
    [[first, last, *nodes]] = ask("CLUSTER", "SLOTS")
    assert (first, last) == (0, 16383)
    return [host.decode() for host, *_ in nodes]


def test_slots_lists_everybody_the_leader_first(ask):
    assert ask("CLUSTER", "SLOTS") == [[0, 16383, node_entry(2), node_entry(1), node_entry(3)]]


def test_during_an_election_the_last_leader_stays_first(ask, node):
    node.becomes(role="candidate", leader=0, last_leader=3)
    assert hosts(ask) == ["10.0.0.3", "10.0.0.1", "10.0.0.2"]


def test_before_the_first_election_this_node_is_first(ask, node):
    node.becomes(role="follower", leader=0, last_leader=0)
    assert hosts(ask) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


def test_a_member_whose_client_address_is_unknown_is_left_out_of_slots_but_not_of_nodes(ask, node):
    members = (
        Member(1, "10.0.0.1:8001"),
        Member(2, "10.0.0.2:8001"),
        Member(3, "10.0.0.3:8001", "10.0.0.3:7001"),
    )
    node.becomes(configuration=Configuration(voters=(1, 2, 3), members=members))
    assert hosts(ask) == ["10.0.0.1", "10.0.0.3"]
    assert b"noaddr" in ask("CLUSTER", "NODES").splitlines()[1]


def test_learners_are_listed_too(ask, node):
    members = (*node.now.configuration.members, Member(4, "10.0.0.4:8001", "10.0.0.4:7001"))
    node.becomes(configuration=Configuration(voters=(1, 2, 3), learners=(4,), members=members))
    assert hosts(ask) == ["10.0.0.2", "10.0.0.1", "10.0.0.3", "10.0.0.4"]


def test_a_server_that_listens_everywhere_is_told_by_its_peer_address(ask, node):
    members = (Member(1, "10.0.0.1:8001", "0.0.0.0:7001"), Member(2, "[fd00::2]:8001", "[::]:7001"))
    node.becomes(configuration=Configuration(voters=(1, 2), members=members), client_address="0.0.0.0:7001")
    assert hosts(ask) == ["fd00::2", "10.0.0.1"]


def test_names_are_told_as_given(ask, node):
    node.becomes(leader=1, client_address="localhost:7001")
    assert hosts(ask)[0] == "localhost"


def test_shards_describe_the_same(ask, node):
    node.becomes(connected=frozenset({2}))
    [shard] = ask("CLUSTER", "SHARDS")
    assert list(shard) == [b"slots", b"nodes"]
    assert shard[b"slots"] == [0, 16383]
    assert [(at[b"ip"], at[b"role"], at[b"health"]) for at in shard[b"nodes"]] == [
        (b"10.0.0.2", b"master", b"online"),
        (b"10.0.0.1", b"replica", b"online"),
        (b"10.0.0.3", b"replica", b"failed"),
    ]
    assert {b"id", b"port", b"endpoint", b"replication-offset"} <= shard[b"nodes"][0].keys()


def test_nodes_is_readable_by_a_real_client(ask, node):
    node.becomes(connected=frozenset({2}))
    text = ask("CLUSTER", "NODES").decode()
    assert text.count("\n") == 3
    nodes = parse_cluster_nodes(text)
    assert list(nodes) == ["10.0.0.1:7001", "10.0.0.2:7001", "10.0.0.3:7001"]
    leader = nodes["10.0.0.2:7001"]
    assert (leader["flags"], leader["slots"], leader["master_id"]) == ("master", [["0", "16383"]], "-")
    itself = nodes["10.0.0.1:7001"]
    assert (itself["flags"], itself["master_id"]) == ("myself,slave", leader["node_id"])
    assert [nodes[name]["connected"] for name in nodes] == [True, True, False]
    assert "10.0.0.1:7001@8001" in text


def test_myid_is_the_id_in_the_other_replies(ask):
    assert ask("CLUSTER", "MYID") == node_entry(1)[2]
    assert len(ask("CLUSTER", "MYID")) == 40


def test_an_id_has_forty_digits_before_the_cluster_has_one(ask, node):
    node.becomes(cluster_id="")
    assert ask("CLUSTER", "MYID") == b"0" * 39 + b"1"


def test_info_says_ok_while_the_node_can_serve(ask, node):
    facts = parse_cluster_info(ask("CLUSTER", "INFO"))
    assert facts["cluster_state"] == "ok"
    assert (facts["cluster_slots_ok"], facts["cluster_known_nodes"], facts["cluster_size"]) == (
        "16384",
        "3",
        "1",
    )
    node.becomes(leader=0, ready=True)
    assert parse_cluster_info(ask("CLUSTER", "INFO"))["cluster_state"] == "ok"
    node.becomes(leader=0, ready=False)
    assert parse_cluster_info(ask("CLUSTER", "INFO"))["cluster_state"] == "fail"


def test_replicas_are_those_of_the_leader(ask):
    leader, itself = node_entry(2)[2], node_entry(1)[2]
    assert len(ask("CLUSTER", "REPLICAS", leader)) == 2
    assert ask("CLUSTER", "REPLICAS", itself) == "-ERR The specified node is not a master"
    assert ask("CLUSTER", "REPLICAS", "abc") == "-ERR Unknown node abc"
    assert ask("CLUSTER", "COUNT-FAILURE-REPORTS", itself) == 0
    assert ask("CLUSTER", "COUNT-FAILURE-REPORTS", "a\r\nb") == "-ERR Unknown node a..b"


@pytest.mark.parametrize(
    "key", [b"foo", b"{user1000}.following", b"foo{}{bar}", b"foo{{bar}}zap", b"", b"{", b"\xff{\x00}"]
)
def test_keyslot_minds_hash_tags(ask, key):
    assert ask("CLUSTER", "KEYSLOT", key) == key_slot(key)


def test_keys_of_a_slot_are_counted_and_named(ask, node):
    node.data = {b"a{x}": b"", b"b{x}": b"", b"c": b""}
    slot = str(key_slot(b"x"))
    assert ask("CLUSTER", "COUNTKEYSINSLOT", slot) == 2
    assert ask("CLUSTER", "GETKEYSINSLOT", slot, "10") == [b"a{x}", b"b{x}"]
    assert ask("CLUSTER", "GETKEYSINSLOT", slot, "1") == [b"a{x}"]
    assert ask("CLUSTER", "COUNTKEYSINSLOT", "0") == 0


def test_a_scan_that_would_stall_the_node_is_refused(ask, node):
    node.becomes(keys=SCANNED_KEYS_MAX + 1)
    refusal = "-ERR CLUSTER COUNTKEYSINSLOT would look at every key; it is available up to 65536 keys"
    assert ask("CLUSTER", "countkeysinslot", "1") == refusal
    assert ask("CLUSTER", "GETKEYSINSLOT", "1", "1").startswith("-ERR CLUSTER GETKEYSINSLOT would")


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        ("COUNTKEYSINSLOT x", "-ERR value is not an integer or out of range"),
        ("COUNTKEYSINSLOT 16384", "-ERR Invalid slot"),
        ("GETKEYSINSLOT 1 -1", "-ERR Invalid slot or number of keys"),
        ("KEYSLOT", "-ERR wrong number of arguments for 'cluster|keyslot' command"),
        ("SLOTS x", "-ERR wrong number of arguments for 'cluster|slots' command"),
        ("FAILOVER", "-ERR unknown subcommand 'FAILOVER'. Try CLUSTER HELP."),
        ("", "-ERR wrong number of arguments for 'cluster' command"),
    ],
)
def test_refusals_are_those_of_redis(ask, words, refusal):
    assert ask("CLUSTER", *words.split()) == refusal
