"""`balsadb bench` against servers that are dictionaries, or misbehave."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from fake_node import FakeNode
from scripted_server import close_after_doing, keep_silent, refuse_data, say, serve

from balsadb.cli.failing import sentences
from balsadb.cli.main import app
from balsadb.resp.parser import CommandParser

SHORT = ("--clients", "4", "--seconds", "0.2", "--keys", "30", "--value-bytes", "10")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    monkeypatch.delenv("BALSADB_SERVERS", raising=False)


@pytest.fixture
def run(capsys):
    """Run `balsadb bench`; return status, standard output and standard error."""

    def run(server, *arguments):
        status = 0
        try:
            with sentences():
                app(["bench", "--servers", server, *SHORT, *arguments])
        except SystemExit as exit:
            status = exit.code or 0
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def server():
    with FakeNode() as node:
        node.leader = node.address
        yield node


def begin(server, *arguments):
    """Run it in a process of its own, for what needs signals: a test has only one SIGALRM."""
    command = [sys.executable, "-m", "balsadb", "bench", "--servers", server, *SHORT, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


def rows(out):
    """Return the table's rows by their first word."""
    lines = [line for line in out.splitlines() if line]
    assert lines[1].split()[:3] == ["operation", "operations", "op/s"]
    return {line.split()[0]: line.split()[1:] for line in lines[2:]}


@pytest.mark.parametrize("operation", ["set", "get", "append", "incr"])
@pytest.mark.parametrize("pipeline", ["1", "7"])
def test_an_operation_is_measured_and_leaves_nothing_behind(run, server, operation, pipeline):
    server.data.update({b"mine": b"1", b"bench:mine": b"2"})
    status, out, err = run(server.server, "--operation", operation, "--pipeline", pipeline)
    assert (status, err) == (0, "")
    (row,) = rows(out).items()
    assert row[0] == operation
    assert int(row[1][0].replace(",", "")) > 0
    assert row[1][-1] == "0"
    done = [command for command in server.commands if command[0] == operation.upper().encode()]
    assert len(done) >= int(row[1][0].replace(",", ""))
    assert server.data == {b"mine": b"1", b"bench:mine": b"2"}


def test_by_default_it_measures_set_and_get(run, server):
    assert list(rows(run(server.server)[1])) == ["set", "get"]


def test_mixed_is_set_and_get_at_the_same_time(run, server):
    status, out, _ = run(server.server, "--operation", "mixed", "--json")
    (measured,) = json.loads(out)["runs"]
    assert status == 0
    assert [facts["command"] for facts in measured["commands"]] == ["set", "get"]
    assert all(facts["operations"] > 0 for facts in measured["commands"])
    assert server.data == {}


def test_get_finds_a_value_at_every_key(run, server):
    assert run(server.server, "--operation", "get", "--keep")[0] == 0
    asked = {command[1] for command in server.commands if command[0] == b"GET"}
    assert asked
    assert asked <= set(server.data)
    assert {len(value) for value in server.data.values()} == {10}


def test_kept_keys_are_all_below_the_prefix_that_was_printed(run, server):
    status, out, _ = run(server.server, "--operation", "set", "--operation", "incr", "--keep")
    assert status == 0
    prefix = out.split("The keys below ")[1].split(" ")[0].encode()
    assert server.data
    assert all(key.startswith(prefix) for key in server.data)


def test_two_runs_use_different_keys(run, server):
    run(server.server, "--operation", "set", "--keep")
    before = dict(server.data)
    run(server.server, "--operation", "set")
    assert server.data == before


def test_json_has_everything_that_the_table_has(run, server):
    status, out, _ = run(server.server, "--operation", "set", "--json")
    document = json.loads(out)
    (measured,) = document["runs"]
    (facts,) = measured["commands"]
    assert status == 0
    assert measured["clients_at"] == {server.server: 4}
    assert facts["rate"] == pytest.approx(facts["operations"] / measured["seconds"])
    latencies = [facts[f"{name}_ms"] for name in ("p50", "p95", "p99", "p999", "max")]
    assert latencies == sorted(latencies)
    assert facts["p50_ms"] > 0
    assert (facts["errors"], document["rate_wanted"]) == ({}, None)


def test_clients_are_at_the_leader_although_another_server_was_named(run, server):
    with FakeNode() as follower:
        follower.leader = server.address
        _, out, _ = run(follower.server, "--operation", "set", "--json")
        assert json.loads(out)["runs"][0]["clients_at"] == {server.server: 4}
        assert follower.commands == []


def test_spread_clients_are_at_every_server(run, server):
    with FakeNode() as other:
        _, out, _ = run(f"{server.server},{other.server}", "--spread", "--operation", "set", "--json")
        assert json.loads(out)["runs"][0]["clients_at"] == {server.server: 2, other.server: 2}


def test_a_server_that_is_down_is_left_out(run, server):
    status, out, _ = run(f"127.0.0.1:1,{server.server}", "--spread", "--operation", "set", "--json")
    assert status == 0
    assert json.loads(out)["runs"][0]["clients_at"] == {server.server: 4}


def test_refused_commands_are_errors_by_their_first_word_and_the_status_is_one(run, server):
    server.acts = (serve, *[refuse_data(b"-CLUSTERDOWN no leader\r\n")] * 4, serve)
    status, out, _ = run(server.server, "--operation", "set")
    assert status == 1
    assert rows(out)["set"][0] == "0"
    assert " errors (CLUSTERDOWN), the first of them: CLUSTERDOWN no leader\n" in out


def test_what_a_broken_connection_leaves_open_is_an_error_and_the_client_comes_back(run, server):
    server.acts = (serve, *[close_after_doing] * 4, serve)
    status, out, _ = run(server.server, "--operation", "set", "--json")
    (facts,) = json.loads(out)["runs"][0]["commands"]
    assert status == 1
    assert facts["errors"] == {"disconnected": 4}
    assert facts["operations"] > 0
    assert server.data == {}


def test_what_is_never_answered_is_an_error_and_the_measurement_ends(run, server, monkeypatch):
    monkeypatch.setattr("balsadb.cli.loops.DRAIN_SECONDS", 0.2)
    server.acts = (serve, *[keep_silent] * 4, serve)
    status, out, _ = run(server.server, "--operation", "set", "--json")
    (facts,) = json.loads(out)["runs"][0]["commands"]
    assert status == 1
    assert (facts["operations"], facts["errors"]) == (0, {"unanswered": 4})


def test_a_server_that_speaks_something_else_is_a_sentence(run, server):
    server.acts = (serve, say(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    status, _, err = run(server.server, "--operation", "set")
    assert status == 1
    assert err.startswith(f"balsadb: {server.server}: a reply begins with b'HTTP/1.1")


def test_a_server_that_says_more_than_it_was_asked_is_a_sentence(run, server):
    server.acts = (serve, say(b"+OK\r\n+OK\r\n"))
    assert "more replies than there were commands" in run(server.server, "--operation", "set")[2]


def test_keys_that_can_not_be_removed_are_told_after_the_table(run, server):
    server.acts = (*[serve] * 5, say(b"-NOPERM not you\r\n"))
    status, out, err = run(server.server, "--operation", "set")
    assert status == 1
    assert list(rows(out)) == ["set"]
    assert "the keys below bench:" in err
    assert "could not be removed" in err
    assert "NOPERM not you" in err


def test_a_cluster_that_names_no_leader_is_a_sentence(run, server):
    server.leader = None
    assert run(server.server)[2] == (
        "balsadb: nobody says who leads (no member was named); --spread asks nobody\n"
    )


def test_ctrl_c_prints_what_was_measured_and_removes_the_keys(server):
    process = begin(server.server, "--operation", "set", "--operation", "get", "--seconds", "60")
    deadline = time.monotonic() + 30
    while len(server.commands) < 200 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    status, out, err = finish(process)
    assert (status, err) == (130, "")
    assert list(rows(out)) == ["set"]
    assert int(rows(out)["set"][0].replace(",", "")) > 0
    assert server.data == {}


# ------------------------------------------------------------------ a fixed rate


def stand_still_once(seconds, after):
    """Serve, but stand still once, after so many commands of all connections together."""

    def act(server, connection):
        parser = CommandParser()
        while commands := server.read(connection, parser):
            server.note(commands)
            if not server.ended.is_set() and len(server.commands) >= after and not hasattr(server, "stood"):
                server.stood = True
                time.sleep(seconds)
            connection.sendall(b"".join(map(server.answer, commands)))

    return act


@pytest.mark.slow
def test_at_a_fixed_rate_that_many_operations_are_begun(server):
    _, out, _ = finish(
        begin(server.server, "--operation", "set", "--rate", "100", "--seconds", "1", "--json")
    )
    (measured,) = json.loads(out)["runs"]
    begun = measured["commands"][0]["operations"] + measured["unsent"]
    assert 100 <= begun <= 102 * max(1.0, measured["seconds"])
    assert measured["unsent"] == 0 or measured["commands"][0]["max_ms"] > 10


@pytest.mark.slow
def test_at_a_fixed_rate_a_pause_counts_for_all_operations_that_were_due_in_it(server):
    """One connection stands still for half of the time; a closed loop would have one slow operation."""
    server.acts = (serve, stand_still_once(0.5, after=40))
    arguments = ("--operation", "set", "--clients", "1", "--rate", "200", "--seconds", "1", "--json")
    _, out, _ = finish(begin(server.server, *arguments))
    (facts,) = json.loads(out)["runs"][0]["commands"]
    assert server.stood
    # 100 of 200 were due in the pause, half of them in its first half.
    assert facts["p95_ms"] > 200
    assert facts["max_ms"] > 400


@pytest.mark.slow
def test_what_a_slow_server_leaves_unsent_is_said(server):
    server.acts = (serve, stand_still_once(0.5, after=1))
    status, out, _ = finish(begin(server.server, "--operation", "set", "--clients", "1", "--rate", "100000"))
    assert status == 0
    assert " operations were due and not sent, because every client was waiting" in out
