"""Sessions through snapshots, restarts, installs and wrong clocks, on whole servers (rules S1, S2, S6)."""

from __future__ import annotations

from collections import defaultdict

import pytest

from balsadb.kv.refusals import SESSION_EXPIRED
from balsadb.kv.reply import Mapping, Refusal, Reply
from balsadb.replica.request import Lane, Request, RequestKind
from sim.lab.cluster import LabCluster

HOUR_MS = 3_600_000
ANSWER_MS = 10_000


class Sessions(LabCluster):
    """A scripted cluster that counts every server's sessions before each entry."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__(3, snapshots=True, seed=seed)
        self.counts: dict[int, set[int]] = defaultdict(set)

    def applied(self, node, index, term, payload) -> None:
        super().applied(node, index, term, payload)
        self.counts[index].add(len(self.machine(node).sessions))

    def machine(self, node: int):
        replica = self.servers[node].replica
        assert replica is not None
        return replica.machine

    def answered(self, request: Request) -> None:
        """Requests carry their replies; nobody else waits for them."""

    def ask(self, node: int, *commands: str) -> Reply:
        """Send what gets one answer to one server, again and again until the answer is definite."""
        words = [command.encode().split() for command in commands]
        for _ in range(10):
            request = Request(Lane(self), RequestKind.WRITE, words, [], 1, 1)
            replica = self.servers[node].replica
            assert replica is not None
            replica.submit(request, self.now_ms)
            self.servers[node].wake()
            assert self.wait(lambda request=request: request.replies is not None, ANSWER_MS)
            [reply] = request.replies
            if not isinstance(reply, Refusal) or reply == SESSION_EXPIRED:
                return reply
            self.run(300)
        raise AssertionError(f"{words} got {reply}")

    def open(self, ttl_ms: int) -> str:
        self.check_one_leader()
        reply = self.ask(1, f"SESSION OPEN nonce {ttl_ms}")
        assert isinstance(reply, bytes)
        return reply.decode()


@pytest.mark.slow
def test_a_reply_survives_a_snapshot_a_restart_of_all_and_an_install_on_a_wiped_node_that_then_leads():
    with Sessions() as lab:
        id = lab.open(24 * HOUR_MS)
        first = {
            (f"ONCE {id} 1 1 INCR counter",): 1,
            (f"ONCE {id} 2 1 APPEND text abc",): 3,
            (f"ONCE.EXEC {id} 3 1 2", "INCR counter", "GET text"): [2, b"abc"],
        }
        for words, reply in first.items():
            assert lab.ask(1, *words) == reply
        leader = lab.check_one_leader()
        victim = lab.neighbour(leader, 1)
        lab.crash(victim)
        for _ in range(60):
            lab.one(2, size=700)
        lab.run(500)
        assert lab.servers[leader].state.bookkeeping is not None  # a snapshot holds the session
        lab.servers[victim].state.lose()
        lab.restart(victim)
        assert lab.wait(lambda: lab.servers[victim].installs > 0, ANSWER_MS)
        lab.restart(*lab.servers)
        for _ in range(20):
            leader = lab.check_one_leader()
            if leader == victim:
                break
            lab.servers[leader].replica.transfer(victim)
            lab.servers[leader].wake()
        assert lab.check_one_leader() == victim
        for node in (victim, *lab.servers):
            for words, reply in first.items():
                assert lab.ask(node, *words) == reply
        assert lab.machine(victim).read([b"GET", b"counter"]) == b"2"
        assert all(len(counts) == 1 for counts in lab.counts.values())


def test_a_session_ends_everywhere_at_the_same_entry_though_nobody_writes():
    with Sessions() as lab:
        id = lab.open(2_000)
        assert lab.ask(2, f"ONCE {id} 1 1 INCR counter") == 1
        lab.run(1_500)
        assert {len(lab.machine(node).sessions) for node in lab.servers} == {1}
        assert lab.wait(lambda: not any(len(lab.machine(node).sessions) for node in lab.servers), 5_000)
        assert all(len(counts) == 1 for counts in lab.counts.values())
        for node in lab.servers:
            assert lab.ask(node, f"ONCE {id} 1 1 INCR counter") == SESSION_EXPIRED
            assert lab.ask(node, f"ONCE {id} 2 1 INCR counter") == SESSION_EXPIRED
        assert lab.machine(1).read([b"GET", b"counter"]) == b"1"


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS])
def test_a_wall_clock_an_hour_wrong_on_any_one_node_changes_nothing(jump_ms):
    with Sessions() as lab:
        id = lab.open(30_000)
        for node in lab.servers:
            lab.servers[node].wall_offset_ms = jump_ms
            for _ in range(5):
                lab.run(100)
                reply = lab.ask(node, f"ONCE {id} 1 1 INCR counter")
                assert reply == 1
            lab.servers[node].wall_offset_ms = 0
            lab.run(100)
        before = lab.now_ms
        lab.ask(1, f"SESSION KEEPALIVE {id}")
        lab.run(5_000)
        info = lab.ask(2, f"SESSION INFO {id}")
        assert isinstance(info, Mapping)
        left = dict(info.pairs)[b"left-ms"]
        assert abs(left - (30_720 - (lab.now_ms - before))) < 1_000
        lab.servers[1].wall_offset_ms = jump_ms
        lab.run(1_000)
        assert len(lab.machine(1).sessions) == 1
