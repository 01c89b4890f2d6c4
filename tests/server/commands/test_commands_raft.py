"""RAFT: the operator's questions."""

from __future__ import annotations

import pytest

from balsadb.raft.types import Configuration


def test_status_tells_the_state_of_this_node(ask):
    status = ask("RAFT", "STATUS")
    assert (
        status.items()
        >= {
            b"id": 1,
            b"role": b"follower",
            b"term": 7,
            b"leader": 2,
            b"commit_index": 50,
            b"applied_index": 49,
            b"first_index": 11,
            b"last_index": 52,
            b"last_term": 6,
            b"snapshot_index": 10,
            b"voters": [1, 2, 3],
            b"outgoing_voters": [],
            b"learners": [],
            b"promote": [],
            b"retire": [],
            b"removed": [],
            b"client_address": b"10.0.0.1:7001",
            b"ready": 1,
            b"version": b"1.2.3",
            b"sync_p99_us": 1_500,
        }.items()
    )


def test_members_tells_who_and_where(ask, node):
    node.becomes(
        configuration=Configuration(voters=(1, 2), learners=(3,), members=node.now.configuration.members),
        connected=frozenset({2}),
    )
    first, second, third = ask("RAFT", "MEMBERS")
    assert first == {
        b"id": 1,
        b"role": b"voter",
        b"leader": 0,
        b"connected": 1,
        b"peer_address": b"10.0.0.1:8001",
        b"client_address": b"10.0.0.1:7001",
        b"matched_index": 52,
        b"silent_ms": 0,
    }
    assert (second[b"silent_ms"], third[b"silent_ms"]) == (40, None)
    assert (second[b"leader"], second[b"connected"]) == (1, 1)
    assert (third[b"role"], third[b"connected"]) == (b"learner", 0)


def test_snapshot_is_begun_at_once(ask, node):
    assert ask("RAFT", "SNAPSHOT") == "+OK"
    assert node.snapshots == 1


@pytest.mark.parametrize(
    "command",
    [("ADD", "4", "h:1", "h:2"), ("REMOVE", "1"), ("REPLACE", "1", "4", "h:1", "h:2"), ("TRANSFER",)],
)
def test_what_the_whole_cluster_decides_is_no_matter_of_one_node(ask, command):
    assert ask("RAFT", *command) == f"-ERR RAFT {command[0]} can only be answered by the whole cluster"


def test_a_change_of_the_members_names_all_that_it_needs(ask):
    assert ask("RAFT", "ADD", "4", "h:1") == "-ERR wrong number of arguments for 'raft|add' command"
    assert ask("RAFT", "REMOVE") == "-ERR wrong number of arguments for 'raft|remove' command"


def test_an_unknown_question_is_refused_in_redis_words(ask):
    assert ask("RAFT", "FOO") == "-ERR unknown subcommand 'FOO'. Try RAFT HELP."
    assert ask("RAFT") == "-ERR wrong number of arguments for 'raft' command"
    assert ask("RAFT", "STATUS", "x") == "-ERR wrong number of arguments for 'raft|status' command"
