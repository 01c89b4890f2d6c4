"""The command line in this process: what it prints, and with which status it ends."""

import json
import subprocess
import sys

import pytest
from fake_node import FakeNode

from balsadb.cli.failing import sentences
from balsadb.cli.main import app
from balsadb.errors import UsageError
from balsadb.kv.table import lookup
from balsadb.version import __version__

NOBODY = "127.0.0.1:1"  # a port at which nothing listens


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    monkeypatch.delenv("BALSADB_SERVERS", raising=False)


@pytest.fixture
def run(capsysbinary, monkeypatch):
    """Run a command line; return status, standard output and standard error."""

    def run(*arguments):
        status = 0
        try:
            with sentences():
                app(arguments)
        except SystemExit as exit:
            status = exit.code or 0
        out, err = capsysbinary.readouterr()
        return status, out.decode(), err.decode()

    return run


def test_version(run):
    assert run("--version") == (0, f"balsadb {__version__}\n", "")


COMMANDS = ["demo", "serve", "get", "put", "append", "del", "status", "doctor", "digest"]
COMMANDS += ["backup", "restore", "recover", "inspect", "sim", "transfer", "bench"]
COMMANDS += ["member list", "member add", "member remove", "member replace"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(run, command):
    status, out, _ = run(*command.split(), "--help")
    assert status == 0
    assert f"\n  balsadb {command}" in out


NEVER_BY_ACCIDENT = {"recover": {"--confirm", "--force"}}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_also_a_variable_but_for_those_that_must_be_typed(run, command):
    _, out, _ = run(*command.split(), "--help")
    words = " ".join(out.split())
    for flag in {w for w in words.split() if w.startswith("--")} - {"--help", "--", "--watch`"}:
        if "Options:" in words and flag in words.split("Options:")[1]:
            typed = flag in NEVER_BY_ACCIDENT.get(command, ())
            assert (f"BALSADB_{flag[2:].upper().replace('-', '_')}" in words) is not typed, flag


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (
            ("get", "k"),
            1,
            "balsadb: no server answers at 127.0.0.1:1 (connection refused); start one: balsadb demo\n",
        ),
        (("put", "k", "v"), 1, "start one: balsadb demo"),
        (("append", "k", "v"), 1, "start one: balsadb demo"),
        (("del", "k"), 1, "start one: balsadb demo"),
        (("status",), 1, "start one: balsadb demo"),
        (("digest",), 1, "start one: balsadb demo"),
        (("get", "k", "--servers", "x"), 2, "servers: 'x' is not an address; write HOST:PORT"),
        (("get",), 2, "Missing argument 'KEY'"),
        (("nonsense",), 2, "No such command 'nonsense'"),
        (("get", "k", "--nonsense"), 2, "No such option: --nonsense"),
        (("serve",), 2, "balsadb: --id is missing; write --id 1\n"),
        (
            ("serve", "--id", "4", "--data-dir", "d", "--listen", "h:1", "--join", "h:2"),
            2,
            "--peer-listen is missing",
        ),
        (("member", "list"), 1, "start one: balsadb demo"),
        (("member", "remove", "3"), 1, "start one: balsadb demo"),
        (("member", "add", "4"), 2, "'4' is not ID=PEER-ADDRESS,CLIENT-ADDRESS, such as 4=db4:8001,db4:7001"),
        (("member", "replace", "3", "4=x"), 2, "'4=x' is not ID=PEER-ADDRESS,CLIENT-ADDRESS"),
        (("member", "replace", "3", "4=h:1,x"), 2, "the client address: 'x' is not an address"),
        (("transfer",), 1, "start one: balsadb demo"),
        (("bench",), 1, "no server answers at 127.0.0.1:1 (connection refused); start one: balsadb demo"),
        (("bench", "--spread", "--operation", "set"), 1, "(connection refused); start one: balsadb demo"),
        (
            ("bench", "--operation", "dance"),
            2,
            "--operation: 'dance' is none of set, get, append, incr, mixed",
        ),
        (("bench", "--leader", "--spread"), 2, "--leader and --spread exclude each other"),
        (("bench", "--clients", "0"), 2, "Invalid value for '--clients'"),
        (("bench", "--clients", "9999", "--value-bytes", "999999"), 2, "more than 1 GiB in flight"),
        (("serve", "--config", "/nowhere.toml"), 2, "--config /nowhere.toml: No such file or directory"),
        (("backup",), 2, "Missing argument 'FILE'"),
        (("backup", "f", "--from", "x"), 2, "--from: 'x' is not an address"),
        (("backup", "f", "--from", NOBODY), 1, "(127.0.0.1:1: connection refused); start one: balsadb demo"),
        (("backup", "--verify", "/nowhere"), 1, "/nowhere: could not open: No such file or directory"),
        (("restore", "f", "--id", "1"), 2, "--data-dir is missing; write --data-dir DIR"),
        (("restore", "f", "--id", "4", "--data-dir", "d", "--cluster", "1=a:1"), 2, "does not name node 4"),
        (("inspect", "/nowhere"), 2, "/nowhere is not a directory"),
        (("demo", "--base-port", "65535"), 2, "base port 65535 leaves no room"),
        (("demo", "--nodes", "1000"), 2, "a local cluster has 1 to 64 nodes"),
    ],
)
def test_failures_are_sentences_with_a_status(run, monkeypatch, arguments, status, sentence):
    monkeypatch.setenv("BALSADB_SERVERS", NOBODY)
    got, out, err = run(*arguments)
    assert (got, out) == (status, "")
    assert sentence in err
    assert "Traceback" not in err


def test_an_unexpected_error_is_a_sentence_too(capsys):
    with pytest.raises(SystemExit) as left, sentences():
        raise ZeroDivisionError("division by zero")
    assert left.value.code == 1
    assert "unexpected ZeroDivisionError: division by zero" in capsys.readouterr().err


def test_ctrl_c_is_not_a_traceback():
    with pytest.raises(SystemExit) as left, sentences():
        raise KeyboardInterrupt
    assert left.value.code == 130


def test_wrong_usage_inside_is_status_two(capsys):
    with pytest.raises(SystemExit) as left, sentences():
        raise UsageError("so not")
    assert (left.value.code, capsys.readouterr().err) == (2, "balsadb: so not\n")


# ------------------------------------------------------------------ against a server that is a dictionary


@pytest.fixture
def server(monkeypatch):
    with FakeNode() as node:
        monkeypatch.setenv("BALSADB_SERVERS", node.server)
        yield node


def test_put_append_get_del(run, server):
    assert run("put", "k", "v") == (0, "OK\n", "")
    assert run("append", "k", "w") == (0, "2\n", "")
    assert run("get", "k") == (0, "vw\n", "")
    assert run("del", "k", "other") == (0, "1\n", "")


def test_a_missing_key_prints_nothing_and_ends_with_status_one(run, server):
    assert run("get", "none") == (1, "", "")


def test_keys_and_values_are_the_bytes_that_the_shell_passed(run, server):
    assert run("put", "--", "-k", b"\xff\xc3\xbc".decode(errors="surrogateescape"))[0] == 0
    assert server.data == {b"-k": b"\xff\xc3\xbc"}


def test_an_unknown_outcome_is_said_so(run, server):
    server.refusal = b"-UNKNOWN the deadline passed; it may happen yet\r\n"
    text = "the write was sent and may have happened, or may happen yet"
    refusal = server.refusal[1:-2].decode()
    assert run("put", "k", "v", "--timeout", "0.5") == (1, "", f"balsadb: {text}: {refusal}\n")


def test_status_shows_every_server_and_how_far_it_lags(run):
    with (
        FakeNode(1, role=b"leader", commit=9, applied=9) as leader,
        FakeNode(2, commit=7, applied=7) as follower,
    ):
        status, out, _ = run("status", "--servers", f"{leader.server},{follower.server},{NOBODY}")
        assert status == 0
        header, first, second, third = out.splitlines()
        assert header.split() == [
            "node",
            "clients",
            "at",
            "role",
            "term",
            "leader",
            "commit",
            "applied",
            "lag",
            "keys",
        ]
        assert first.split() == ["1", leader.server, "leader", "3", "1", "9", "9", "0", "0"]
        assert second.split() == ["2", follower.server, "follower", "3", "1", "7", "7", "2", "0"]
        assert third.split() == ["?", NOBODY, "connection", "refused"]
        status, out, _ = run("status", "--json", "--servers", f"{leader.server},{follower.server},{NOBODY}")
        rows = json.loads(out)["servers"]
        assert [row.get("id") for row in rows] == [1, 2, None]
        assert [row.get("lag") for row in rows] == [0, 2, None]
        assert rows[0]["voters"] == [1, 2, 3]
        assert "connection refused" in rows[2]["error"]


def told_of(*nodes: FakeNode) -> None:
    """Let every node know where the others are; the first one leads."""
    for node in nodes:
        node.members = [
            {b"id": other.facts[b"id"], b"client_address": other.server.encode(), b"peer_address": b"h:1"}
            | {b"silent_ms": 0}
            for other in nodes
        ]


def test_doctor_says_that_nothing_is_wrong(run):
    with FakeNode(1, role=b"leader") as one, FakeNode(2) as two, FakeNode(3) as three:
        told_of(one, two, three)
        # The second one is found through the others.
        status, out, _ = run("doctor", "--servers", f"{one.server},{three.server}")
        assert (status, out) == (
            0,
            "nothing is wrong: node 1 leads in term 3, all 3 nodes answer and keep up\n",
        )


def test_doctor_says_what_is_wrong_and_what_to_do_and_how_bad_it_is(run):
    with FakeNode(1, role=b"leader") as one, FakeNode(2) as two, FakeNode(3) as three:
        told_of(one, two, three)
        three.facts[b"sync_p99_us"] = 900_000
        status, out, _ = run("doctor", "--servers", one.server)
        assert status == 1
        problem, remedy = out.splitlines()
        assert problem == "warning: node 3's disk takes 900 ms for a sync; it can't lead"
        assert remedy.startswith("  See what else uses the disk")
        two.facts[b"alarms"] = 1
        status, out, _ = run("doctor", "--json", "--servers", one.server)
        answer = json.loads(out)
        assert (status, answer["verdict"]) == (3, "broken")
        assert [finding["severity"] for finding in answer["findings"]] == ["broken", "warning"]
        assert {server["id"] for server in answer["servers"]} == {1, 2, 3}


def test_doctor_of_nobody_says_so_with_a_status_of_its_own(run):
    status, out, _ = run("doctor", "--servers", NOBODY)
    assert status == 3
    assert out.startswith("broken: no server answers (127.0.0.1:1: connection refused)\n")


def test_doctor_shows_what_servers_say_without_letting_it_write_to_the_terminal(run):
    with FakeNode(1, role=b"leader") as one, FakeNode(2) as two, FakeNode(3) as three:
        told_of(one, two, three)
        three.facts |= {b"ready": 0, b"unready": b"\x1b[2J\xff gone"}
        _, out, _ = run("doctor", "--servers", one.server)
        assert "\x1b" not in out
        assert "node 3 runs and can't serve: ?[2J" in out


def test_digest_says_whether_all_are_equal(run):
    with FakeNode(1) as one, FakeNode(2) as two:
        servers = f"{one.server},{two.server}"
        status, out, _ = run("digest", "--servers", servers)
        assert status == 0
        assert out.splitlines() == [
            f"digest of the state at log index 5, from {one.server}: abcd",
            f"  {one.server}  equal",
            f"  {two.server}  equal",
        ]
        two.digest = b"ef01"
        status, out, _ = run("digest", "--servers", servers)
        assert status == 1
        assert f"  {two.server}  DIFFERENT: ef01\n" in out
        status, out, _ = run("digest", "--json", "--servers", servers)
        assert status == 1
        assert json.loads(out)["equal"] is False


def test_digest_with_nothing_to_compare_is_a_failure(run):
    with FakeNode(1) as one:
        status, out, _ = run("digest", "--servers", f"{one.server},{NOBODY}")
        assert status == 1
        assert f"  {NOBODY}  not compared: connection refused\n" in out


# ------------------------------------------------------------------ what it imports


@pytest.mark.parametrize(
    ("arguments", "sparing"),
    [
        (["backup", "--verify", "/nowhere"], {"aiohttp", "prometheus_client", "uvloop", "asyncio", "rich"}),
        (
            ["restore", "/nowhere", "--id", "1", "--data-dir", "/nowhere", "--cluster", "1=a:1"],
            {"aiohttp", "rich"},
        ),
        (["inspect", "."], {"aiohttp", "uvloop", "asyncio", "rich", "balsadb.server"}),
    ],
)
def test_commands_on_files_import_no_network_parts(arguments, sparing):
    program = (
        "import sys\n"
        "from balsadb.cli.main import app\n"
        "try:\n"
        f"    app({arguments!r})\n"
        "except (Exception, SystemExit): pass\n"
        "assert 'balsadb.storage' in sys.modules\n"
        f"print(sorted({sparing!r} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "sparing"),
    [
        (["get", "k", "--servers", NOBODY], {"aiohttp", "prometheus_client", "uvloop", "asyncio", "rich"}),
        (["bench", "--spread", "--servers", NOBODY], {"aiohttp", "prometheus_client"}),
    ],
)
def test_client_commands_import_no_server_parts(arguments, sparing):
    program = (
        "import sys\n"
        "from balsadb.cli.failing import sentences\n"
        "from balsadb.cli.main import app\n"
        "try:\n"
        f"    app({arguments!r})\n"
        "except Exception: pass\n"
        f"bad = {sparing!r}\n"
        "bad |= {f'balsadb.{part}' for part in ('server', 'storage', 'raft', 'replica', 'wire')}\n"
        "print(sorted(bad & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_commands_asked_of_servers_exist():
    for name in (b"GET", b"SET", b"APPEND", b"DEL", b"RAFT", b"CLUSTER", b"INFO"):
        assert lookup(name) is not None
