"""`balsadb bench` against real servers, one of which dies meanwhile."""

import json
import subprocess
import sys
import time

from balsadb import BlockingClerk

BENCH = [sys.executable, "-m", "balsadb", "bench", "--keys", "500"]


def test_every_operation_is_measured_without_errors_and_no_key_stays(shared_cluster):
    with BlockingClerk(shared_cluster.servers) as clerk:
        clerk.put("bench:mine", "kept")
        keys_before = clerk.execute("DBSIZE")
        command = [*BENCH, "--servers", ",".join(shared_cluster.servers), "--seconds", "0.5", "--json"]
        command += ["--clients", "8", "--pipeline", "4"]
        for operation in ("set", "get", "append", "incr", "mixed"):
            command += ["--operation", operation]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=90)
        runs = json.loads(done.stdout)["runs"]
        assert [measured["operation"] for measured in runs] == ["set", "get", "append", "incr", "mixed"]
        facts = [facts for measured in runs for facts in measured["commands"]]
        assert all(fact["operations"] > 0 and fact["errors"] == {} for fact in facts)
        leader = shared_cluster.nodes[shared_cluster.wait_leader()].client_address
        assert all(measured["clients_at"] == {leader: 8} for measured in runs)
        assert clerk.execute("DBSIZE") == keys_before
        assert clerk.get("bench:mine") == b"kept"


def test_clients_of_a_node_that_dies_go_on_at_another(cluster):
    command = [*BENCH, "--servers", ",".join(cluster.servers), "--seconds", "4", "--json"]
    command += ["--clients", "9", "--spread", "--operation", "set", "--rate", "300"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        with BlockingClerk(cluster.servers) as clerk:
            deadline = time.monotonic() + 30
            while not clerk.execute("DBSIZE") and time.monotonic() < deadline:
                time.sleep(0.05)
        leader = cluster.wait_leader()
        dead = next(id for id in cluster.nodes if id != leader)
        cluster.kill(dead)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    (measured,) = json.loads(out)["runs"]
    (facts,) = measured["commands"]
    assert set(facts["errors"]) <= {"disconnected"}
    assert cluster.nodes[dead].client_address not in measured["clients_at"]
    assert sum(measured["clients_at"].values()) == 9
    assert facts["operations"] + sum(facts["errors"].values()) + measured["unsent"] >= 1200
