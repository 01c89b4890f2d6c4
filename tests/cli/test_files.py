"""backup --verify, restore and inspect in this process: what they print, and with which status they end."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from state_kit import CLUSTER_TEXT, RECORDS, NodeDirectory, bookkeeping, command, make_state

from balsadb.cli.failing import sentences
from balsadb.cli.main import app
from balsadb.raft.types import HardState
from balsadb.storage.backup import write_backup
from balsadb.storage.state import StateStore


@pytest.fixture
def run(capsysbinary):
    """Run a command line; return status, standard output and standard error."""

    def run(*arguments):
        status = 0
        try:
            with sentences():
                app([str(argument) for argument in arguments])
        except SystemExit as exit:
            status = exit.code or 0
        out, err = capsysbinary.readouterr()
        return status, out.decode(), err.decode()

    return run


@pytest.fixture
def file(tmp_path):
    """A backup as of entry 9."""
    store = StateStore(str(make_state(tmp_path / "state", RECORDS)), read_only=True)
    try:
        write_backup(str(tmp_path / "file"), store, 1_700_000_000_000)
    finally:
        store.close()
    return tmp_path / "file"


@pytest.fixture
def node(tmp_path):
    """A stopped node with three entries, two of them known to be committed."""
    node = NodeDirectory(tmp_path / "node")
    node.write(
        command(1, 1, b"SET", b"user:1", b"Ada"),
        command(2, 1, b"SET", b"\xff\\n", b"\0"),
        command(3, 1, b"SET", b"user:2", b"nobody knows yet"),
        state=HardState(1, 2, 2),
    )
    return node


def test_verify_says_what_a_backup_is_of(run, file):
    status, out, err = run("backup", "--verify", file)
    assert (status, err) == (0, "")
    assert "a sound backup" in out
    assert "as of entry 9 of term 4, 4 keys" in out
    facts = json.loads(run("backup", "--verify", file, "--json")[1])
    assert (facts["index"], facts["keys"], facts["cluster_id"]) == (9, 4, "11" * 16)
    assert facts["bytes"] == file.stat().st_size


def test_a_truncated_backup_is_refused_with_place_and_remedy(run, file):
    file.write_bytes(file.read_bytes()[:-1])
    status, out, err = run("backup", "--verify", file)
    assert (status, out) == (1, "")
    length = file.stat().st_size
    assert err == (
        f"balsadb: {file} at offset {length}: the file ends within its footer: it is not complete. "
        "Use another backup\n"
    )


def test_a_backup_never_replaces_a_file(run, file):
    status, _, err = run("backup", file)
    assert status == 2
    assert "exists already; a backup gets a new file" in err


def test_a_failed_backup_leaves_nothing(run, tmp_path):
    assert run("backup", tmp_path / "new", "--from", "127.0.0.1:1")[0] == 1
    assert list(tmp_path.iterdir()) == []


def test_a_backup_into_a_directory_that_is_not_there_is_refused_before_anybody_is_asked(run, tmp_path):
    status, out, err = run("backup", tmp_path / "none" / "new", "--from", "127.0.0.1:1")
    assert (status, out) == (2, "")
    assert err == f"balsadb: {tmp_path / 'none'} is not a directory; make it before the backup\n"


def test_a_port_that_speaks_no_http_is_not_taken_for_a_server_that_is_down(run, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)

        def hang_up():
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)  # all of the short request, so that closing is no reset

        thread = threading.Thread(target=hang_up)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        code, out, err = run("backup", tmp_path / "new", "--from", address)
        thread.join(10)
    assert (code, out) == (1, "")
    assert f"({address}: closed the connection without an answer; is this its HTTP port?)" in err
    assert list(tmp_path.iterdir()) == []


class Answers(BaseHTTPRequestHandler):
    """Answers a POST as its server's `status` and `body` say, and then closes the connection."""

    def do_POST(self):
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body) + self.server.missing))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *arguments):
        pass


@pytest.mark.parametrize(
    ("status", "body", "missing", "sentence"),
    [
        (503, b"CLUSTERDOWN no leader", 0, "no server gave a backup (ADDRESS: CLUSTERDOWN no leader)"),
        (404, b"not found", 0, "this is not the HTTP port of a BalsaDB server that makes backups"),
        (200, b"", 0, "no server gave a backup (ADDRESS: the answer broke off"),
        (200, b"\x40\0\0\0", 100, "no server gave a backup (ADDRESS: the answer broke off"),
        (200, b"<html>hello, world</html>", 0, "a peer frame"),
    ],
)
def test_what_a_server_answers_instead_of_a_state_becomes_a_sentence(
    run, tmp_path, status, body, missing, sentence
):
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        server.status, server.body, server.missing = status, body, missing
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        address = f"127.0.0.1:{server.server_port}"
        code, out, err = run("backup", tmp_path / "new", "--from", address)
        thread.join(10)
    assert (code, out) == (1, "")
    assert sentence.replace("ADDRESS", address) in err
    assert list(tmp_path.iterdir()) == []


def test_restore_says_what_to_do_next(run, file, tmp_path):
    arguments = ("--id", 1, "--data-dir", tmp_path / "d", "--cluster", "2=b:2,1=a:1")
    status, out, err = run("restore", file, *arguments)
    assert (status, err) == (0, "")
    assert "is node 1 of a new cluster, with the 4 keys of" in out
    assert "Restore the same file for node 2, then start all of them" in out
    assert json.loads(run("inspect", tmp_path / "d", "--json")[1])["meta"]["cluster_text"] == "1=a:1,2=b:2"
    status, out, err = run("restore", file, *arguments)
    assert (status, out) == (2, "")
    assert "is not empty (it holds META)" in err


def test_restore_takes_the_servers_own_configuration_file(run, file, tmp_path):
    config = tmp_path / "node.toml"
    config.write_text(f'id = 1\ndata-dir = "{tmp_path}/d"\nlisten = "a:7001"\ncluster = "1=a:1"\n')
    status, out, _ = run("restore", file, "--config", config)
    assert status == 0
    assert "Restore the same file" not in out  # there is no other node


def test_inspect_shows_identity_log_and_state(run, node):
    node.state(RECORDS, bookkeeping(len(RECORDS), index=2, term=1))
    status, out, err = run("inspect", node.path)
    assert (status, err) == (0, "")
    for part in (
        "node 1 of cluster (not named yet)",
        f"store    {node.store_id.hex()}, 1 start, admitted to vote",
        f"began    as {CLUSTER_TEXT}",
        "log      entries 1..3, newest batch 3",
        "hard state: term 1, vote 2, commit 2",
        "0000000001-00000000000000000001.wal",
        "state    as of entry 2 of term 1, log time 2023-11-14 22:13:20 UTC, 4 keys",
        "configuration: voters 1 2 3; 1=a:1, 2=b:2, 3=c:3",
        "origin 1: boot 3, last payload 70",
        "Nothing here keeps the node from starting.",
    ):
        assert part in out


def test_inspect_ends_with_one_when_the_node_would_not_start(run, node):
    segment = node.segments()[0]
    data = bytearray(segment.read_bytes())
    data[600] ^= 1
    segment.write_bytes(data)
    status, out, err = run("inspect", node.path)
    assert (status, err) == (1, "")
    assert f"DAMAGE  {segment} at offset" in out
    assert "The node does not start on this." in out
    status, out, _ = run("inspect", node.path, "--json")
    assert status == 1
    facts = json.loads(out)
    assert facts["sound"] is False
    assert facts["findings"][0]["damage"] is True
    status, out, err = run("inspect", node.path, "--keys")
    assert (status, out) == (1, "")
    assert f"{segment} at offset" in err


def test_inspect_prints_keys_and_values_of_committed_entries_only(run, node):
    assert run("inspect", node.path, "--keys") == (0, "user:1\n\\xff\\\\n\n", "")
    assert run("inspect", node.path, "--keys", "--prefix", "user:") == (0, "user:1\n", "")
    assert run("inspect", node.path, "--get", "user:1") == (0, "Ada\n", "")
    assert run("inspect", node.path, "--get", "user:2") == (1, "", "")


def test_inspect_json_has_every_number(run, node):
    facts = json.loads(run("inspect", node.path, "--json")[1])
    assert facts["meta"]["store_id"] == node.store_id.hex()
    assert facts["meta"]["met"] == {"2": (b"2" * 16).hex(), "3": (b"3" * 16).hex()}
    assert facts["log"]["hard_state"] == {"term": 1, "vote": 2, "commit": 2}
    assert facts["log"]["segments"][0]["last_index"] == 3
    assert facts["state"] is None
