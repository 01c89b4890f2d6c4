"""INFO and ROLE as Redis' tools read them."""

from __future__ import annotations

import pytest
from redis._parsers.helpers import parse_info

from balsadb.raft.types import Configuration, Member


def info(ask, *sections):
    return parse_info(ask("INFO", *sections))


def test_all_sections_are_there(ask):
    titles = [line[2:] for line in ask("INFO").decode().splitlines() if line.startswith("# ")]
    assert titles == [
        *("Server", "Clients", "Memory", "Persistence", "Stats"),
        *("Replication", "CPU", "Cluster", "Keyspace", "Raft"),
    ]
    assert ask("INFO", "everything").count(b"# ") == len(titles)


def test_what_tools_look_for(ask, node):
    node.becomes(keys=3)
    facts = info(ask)
    assert facts["redis_version"] == "7.2.4"
    assert facts["redis_mode"] == "standalone"
    assert facts["cluster_enabled"] == 1
    assert facts["tcp_port"] == 7001
    assert (facts["uptime_in_seconds"], facts["uptime_in_days"]) == (90_061, 1)
    assert facts["connected_clients"] == 1
    assert facts["loading"] == 0
    assert facts["db0"] == {"keys": 3, "expires": 0, "avg_ttl": 0}
    assert facts["used_memory"] > 1_000_000


def test_loading_is_told(ask, node):
    node.becomes(loading=True)
    assert info(ask, "persistence")["loading"] == 1


def test_the_raft_section(ask, node):
    node.becomes(configuration=Configuration(voters=(1, 2, 3), learners=(4,)))
    facts = info(ask, "RAFT")
    assert {name: facts[name] for name in facts if name.startswith("raft_")}.items() >= {
        "raft_id": 1,
        "raft_role": "follower",
        "raft_term": 7,
        "raft_leader": 2,
        "raft_commit_index": 50,
        "raft_applied_index": 49,
        "raft_first_index": 11,
        "raft_last_index": 52,
        "raft_snapshot_index": 10,
        "raft_voters": [1, 2, 3],
        "raft_learners": 4,
    }.items()
    assert "redis_version" not in facts


def test_a_learner_is_named_as_such(ask, node):
    node.becomes(configuration=Configuration(voters=(2, 3), learners=(1,)))
    assert info(ask, "raft")["raft_role"] == "learner"


def test_several_sections_in_the_order_of_info_and_an_unknown_one_is_empty(ask):
    assert ask("INFO", "keyspace", "cluster") == b"# Cluster\r\ncluster_enabled:1\r\n\r\n# Keyspace\r\n"
    assert ask("INFO", "foo") == b""


def test_an_empty_database_is_not_listed(ask):
    assert ask("INFO", "keyspace") == b"# Keyspace\r\n"


def test_a_leader_is_a_master_with_replicas(ask, node):
    node.becomes(role="leader", leader=1, connected=frozenset({2}), matched={2: 48, 3: 20})
    assert ask("ROLE") == [
        b"master",
        50,
        [[b"10.0.0.2", b"7001", b"48"], [b"10.0.0.3", b"7001", b"20"]],
    ]
    facts = info(ask, "replication")
    assert (facts["role"], facts["connected_slaves"]) == ("master", 1)
    assert facts["slave0"] == {"ip": "10.0.0.2", "port": 7001, "state": "online", "offset": 48, "lag": 0}
    assert facts["slave1"]["state"] == "offline"


def test_a_follower_is_a_replica_of_the_leader(ask):
    assert ask("ROLE") == [b"slave", b"10.0.0.2", 7001, b"connected", 49]
    facts = info(ask, "replication")
    assert (facts["role"], facts["master_host"], facts["master_port"]) == ("slave", "10.0.0.2", 7001)
    assert facts["master_link_status"] == "up"


def test_during_an_election_the_last_leader_is_named_without_a_link(ask, node):
    node.becomes(role="candidate", leader=0)
    assert ask("ROLE") == [b"slave", b"10.0.0.2", 7001, b"connect", 49]
    facts = info(ask, "replication")
    assert (facts["master_host"], facts["master_link_status"]) == ("10.0.0.2", "down")


def test_before_the_first_election_nobody_is_named(ask, node):
    node.becomes(role="follower", leader=0, last_leader=0)
    assert ask("ROLE") == [b"slave", b"", 0, b"connect", 49]
    assert info(ask, "replication")["master_link_status"] == "down"


@pytest.mark.parametrize(
    "address", ["", "junk", "h:99999", "a:b:c", "[::1]:7001", "caf\u00e9:7001", "\udcff:1"]
)
def test_odd_addresses_do_no_harm(ask, node, address):
    member = Member(2, address, address)
    node.becomes(client_address=address, configuration=Configuration(voters=(1, 2), members=(member,)))
    for command in (
        "INFO",
        "ROLE",
        "CLUSTER SLOTS",
        "CLUSTER NODES",
        "CLUSTER SHARDS",
        "RAFT STATUS",
        "RAFT MEMBERS",
    ):
        assert ask(*command.split()) is not None


def test_it_says_how_old_what_a_readonly_read_sees_may_be(ask, node):
    node.becomes(stale_ms=231, stale_limit_ms=5_000)
    facts = info(ask, "raft")
    assert facts["readonly_staleness_ms"] == 231
    assert facts["readonly_staleness_limit_ms"] == 5_000
    node.becomes(stale_ms=None)
    assert info(ask, "raft")["readonly_staleness_ms"] == -1
