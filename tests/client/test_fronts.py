"""The two fronts of the Clerk, asyncio and blocking, against servers that misbehave."""

import socket

import pytest
from scripted_server import (
    ScriptedServer,
    answer_once_then_close,
    close_after_doing,
    close_after_reading,
    close_at_once,
    keep_silent,
    refuse_data,
    say,
    serve,
)

from balsadb.errors import (
    CommandError,
    NoServer,
    NotApplied,
    OutcomeUnknown,
    ReplyLost,
    SessionExpired,
    UsageError,
)


@pytest.fixture
def dead_server():
    """An address at which nothing listens while the test runs."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{holder.getsockname()[1]}"


def test_put_append_get_delete(make_clerk):
    with ScriptedServer() as server:
        clerk = make_clerk([server.server])
        assert clerk.get("k") is None
        clerk.put("k", "v")
        assert clerk.append("k", b"\x00w") == 3
        assert clerk.get(b"k") == b"v\x00w"
        assert clerk.delete("k", "other") == 1
        assert clerk.delete() == 0
        assert server.accepted == 1


def test_execute_runs_any_command(make_clerk):
    with ScriptedServer() as server:
        clerk = make_clerk(server.server)
        assert clerk.execute("SET", "k", 5) == b"OK"
        assert clerk.execute("GET", "k") == b"5"
        with pytest.raises(CommandError, match="unknown command") as refused:
            clerk.execute("FOO")
        assert refused.value.code == "ERR"
        with pytest.raises(UsageError, match="MULTI"):
            clerk.execute("MULTI")


def test_large_values_pass(make_clerk):
    with ScriptedServer() as server:
        clerk = make_clerk([server.server], answer_timeout=3.0)
        value = bytes(range(256)) * 8192
        clerk.put("k", value)
        assert clerk.get("k") == value


def test_a_dead_server_is_passed_over(make_clerk, dead_server):
    with ScriptedServer() as server:
        clerk = make_clerk([dead_server, server.server])
        clerk.put("k", "v")
        assert clerk.get("k") == b"v"


def test_when_no_server_answers_the_error_says_where_and_why(make_clerk, dead_server):
    with pytest.raises(NoServer) as failed:
        make_clerk([dead_server], timeout=0.2).put("k", "v")
    assert str(failed.value) == f"no server answers at {dead_server} (connection refused)"


def test_fail_fast_does_not_wait_for_the_deadline(make_clerk, dead_server):
    with pytest.raises(NoServer):
        make_clerk([dead_server], timeout=100.0, fail_fast=True).get("k")


FAILURES = [close_at_once, close_after_reading, keep_silent, say(b"garbage\r\n")]


@pytest.mark.parametrize("act", [*FAILURES, close_after_doing, refuse_data(b"-UNKNOWN deadline\r\n")])
def test_a_write_without_an_answer_is_done_once(make_clerk, act):
    with ScriptedServer(act) as first, ScriptedServer(database=first.database) as second:
        clerk = make_clerk([first.server, second.server])
        assert clerk.append("k", "v") == 1
        assert clerk.get("k") == b"v"
        assert second.commands == [[b"APPEND", b"k", b"v"], [b"GET", b"k"]]


@pytest.mark.parametrize("act", FAILURES)
def test_without_a_session_a_write_that_got_no_answer_has_an_unknown_outcome(make_clerk, act):
    with ScriptedServer(act) as first, ScriptedServer() as second:
        clerk = make_clerk([first.server, second.server], sessions=False)
        with pytest.raises(OutcomeUnknown) as failed:
            clerk.append("k", "v")
        assert first.server in str(failed.value)
        assert second.commands == []


def test_a_write_whose_session_ended_before_its_outcome_was_learned_is_unknown(make_clerk):
    with ScriptedServer(close_after_doing) as first, ScriptedServer() as stranger:
        clerk = make_clerk([first.server, stranger.server])
        with pytest.raises(SessionExpired):
            clerk.append("k", "v")
        assert first.data == {b"k": b"v"}
        assert clerk.append("k", "w") == 1  # in a new session, at the server that lives


def test_a_session_that_ended_meanwhile_is_opened_anew_without_a_word(make_clerk):
    with ScriptedServer() as server:
        clerk = make_clerk([server.server])
        clerk.append("k", "v")
        server.database.end(server.database.ever_opened[0])
        assert clerk.append("k", "w") == 2
        assert len(server.database.ever_opened) == 2


def test_a_session_is_closed_with_the_clerk(make_clerk):
    with ScriptedServer() as server:
        clerk = make_clerk([server.server])
        clerk.put("k", "v")
        assert len(server.database.sessions) == 1
        clerk.shut()
        assert server.database.sessions == {}


def test_reads_open_no_session(make_clerk):
    with ScriptedServer() as server:
        make_clerk([server.server]).get("k")
        assert server.database.ever_opened == []


def test_a_reply_that_was_not_kept_matters_only_where_it_says_something(make_clerk):
    with ScriptedServer(close_after_doing, serve) as server:
        server.database.kept_bytes_max = 0
        make_clerk([server.server]).put("k", "v")
        assert server.data == {b"k": b"v"}
    with ScriptedServer(close_after_doing, serve) as server:
        server.database.kept_bytes_max = 0
        with pytest.raises(ReplyLost):
            make_clerk([server.server]).append("k", "v")
        assert server.data == {b"k": b"v"}


def test_all_operations(make_clerk):
    with ScriptedServer() as server:
        clerk = make_clerk([server.server])
        clerk.mput({"a": "1", b"b": 2})
        assert clerk.mget("a", "none", "b") == [b"1", None, b"2"]
        assert clerk.mget() == []
        assert clerk.exists("a", "a", "none") == 2
        assert clerk.exists() == 0
        assert clerk.increment("n") == 1
        assert clerk.increment("n", -3) == -2
        assert clerk.compare_and_set("c", None, "new") is True
        assert clerk.compare_and_set("c", None, "newer") is False
        assert clerk.compare_and_set("c", "new", "newer") is True
        assert clerk.compare_and_set("c", "new", "newest") is False
        assert clerk.get("c") == b"newer"
        assert clerk.scanned() == [b"a", b"b", b"c", b"n"]


def test_a_pipeline_runs_its_operations_in_their_order_each_for_itself(make_clerk):
    with ScriptedServer() as server:
        clerk = make_clerk([server.server])
        batch = clerk.pipeline().put("k", "v").get("k").increment("k").append("k", "w").get("none")
        ok, value, error, length, none = clerk.ran(batch)
        assert (ok, value, length, none) == (None, b"v", 2, None)
        assert isinstance(error, CommandError)
        assert clerk.ran(clerk.pipeline()) == []


def test_a_transaction_is_done_once_though_its_answer_was_lost(make_clerk):
    with ScriptedServer(close_after_doing, serve) as server:
        clerk = make_clerk([server.server])
        batch = clerk.transaction().put("k", "v").append("k", "w").get("k").increment("k")
        nothing, length, value, error = clerk.ran(batch)
        assert (nothing, length, value) == (None, 2, b"vw")
        assert isinstance(error, CommandError)
        assert server.data == {b"k": b"vw"}
        assert clerk.ran(clerk.transaction()) == []
        with pytest.raises(UsageError, match="transaction"):
            clerk.transaction().execute("RAFT", "TRANSFER")


def test_members_that_were_not_given_are_found_and_used(make_clerk):
    with ScriptedServer(answer_once_then_close, close_at_once) as given, ScriptedServer() as told:
        given.leader = told.leader = told.address
        clerk = make_clerk([given.server])
        clerk.get("k")
        assert clerk.get("k") is None
        clerk.put("k", "v")
        assert told.data == {b"k": b"v"}


@pytest.mark.parametrize("act", FAILURES)
def test_a_read_without_an_answer_is_asked_elsewhere(make_clerk, act):
    with ScriptedServer(act) as first, ScriptedServer() as second:
        second.data[b"k"] = b"v"
        assert make_clerk([first.server, second.server]).get("k") == b"v"


@pytest.mark.parametrize("code", [b"CLUSTERDOWN", b"TRYAGAIN", b"LOADING"])
def test_a_definite_refusal_is_tried_elsewhere(make_clerk, code):
    with ScriptedServer(say(b"-%b sorry\r\n" % code)) as first, ScriptedServer() as second:
        make_clerk([first.server, second.server]).put("k", "v")
        assert second.commands == [[b"SET", b"k", b"v"]]


def test_a_server_that_recovers_is_asked_again(make_clerk):
    with ScriptedServer(close_at_once, close_at_once, serve) as server:
        assert make_clerk([server.server]).get("k") is None
        assert server.accepted == 3


def test_a_write_refused_until_the_deadline_certainly_did_not_happen(make_clerk):
    with ScriptedServer(say(b"-CLUSTERDOWN no leader\r\n")) as server:
        clerk = make_clerk([server.server], timeout=0.5, backoff_min=2.0, backoff_max=2.0)
        with pytest.raises(NotApplied, match="CLUSTERDOWN no leader"):
            clerk.put("k", "v")


def test_an_open_outcome_is_never_settled_by_a_refusal(make_clerk):
    refuse = refuse_data(b"-NOAUTH Authentication required.\r\n")
    with (
        ScriptedServer(close_after_doing) as first,
        ScriptedServer(refuse, database=first.database) as second,
    ):
        with pytest.raises(OutcomeUnknown, match="NOAUTH"):
            make_clerk([first.server, second.server]).put("k", "v")
        assert second.commands == [[b"SET", b"k", b"v"]]
    with ScriptedServer(refuse) as server, pytest.raises(CommandError, match="NOAUTH"):
        make_clerk([server.server]).put("k", "v")


def test_a_connection_that_ended_between_two_calls_costs_nothing(make_clerk):
    with ScriptedServer(answer_once_then_close) as server:
        clerk = make_clerk([server.server])
        for number in range(3):
            clerk.put("k", str(number))
            server.wait_until_closed()
        assert len(server.commands) == 3


def test_it_moves_to_the_leader(make_clerk):
    with ScriptedServer() as follower, ScriptedServer(database=follower.database) as leader:
        follower.leader = leader.leader = leader.address
        clerk = make_clerk([follower.server, leader.server])
        clerk.put("k", "1")
        assert clerk.get("k") == b"1"
        clerk.put("k", "2")
        clerk.put("k", "3")
        assert leader.commands[-1] == [b"SET", b"k", b"3"]


def test_a_closed_clerk_refuses(make_clerk):
    with ScriptedServer() as server:
        clerk = make_clerk([server.server])
        clerk.put("k", "v")
        clerk.shut()
        with pytest.raises(NotApplied, match="closed"):
            clerk.put("k", "v")


def test_servers_come_from_the_environment_when_none_are_given(make_clerk, monkeypatch):
    with ScriptedServer() as server:
        monkeypatch.setenv("BALSADB_SERVERS", server.server)
        make_clerk(None).put("k", "v")
        assert server.data == {b"k": b"v"}
        monkeypatch.setenv("BALSADB_SERVERS", "nonsense")
        with pytest.raises(UsageError, match="BALSADB_SERVERS"):
            make_clerk(None)
