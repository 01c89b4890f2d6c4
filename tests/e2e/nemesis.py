"""Breaks a cluster of real processes in ways drawn from a seed, and judges what its clients saw.

The counterpart of the simulator for what a simulator has to take on trust: processes, signals, sockets, the
event loop and its clock. A run has rounds. Each begins with a cluster in good health, of which it demands
that clients succeed; then faults strike, up to three of them; then what can still serve must serve; then all
is repaired.

The seed decides which faults strike, whom, and for how long. When a message or a signal arrives is up to the
machine, so a seed that failed once need not fail again: the report of a failure has all that was seen.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import combinations

from balsadb.errors import BalsaError
from balsadb.sim.checkers.ledger import check_ledger
from balsadb.sim.checkers.linearizability import Verdict, check
from balsadb.sim.history import Action, Operation
from balsadb.testing import LocalCluster
from e2e.link_proxy import Links
from e2e.load import Connection, wait_until
from e2e.shared_load import SharedLoad

ELECTION_TIMEOUT_SECONDS = 0.3
SETTINGS = {
    "election-timeout-ms": round(ELECTION_TIMEOUT_SECONDS * 1000),
    "heartbeat-ms": 30,
    "request-timeout-ms": 1000,
    "snapshot-log-bytes": "4MiB",  # segments of the log are small, so that runs go over many
}
CLIENTS = 9
SUCCESS_SHARE_MIN = 0.95
"""Of the operations called on a healthy cluster."""
CALM_SUCCESSES = 200
CALM_SUCCESSES_PER_NODE = 10
"""Successes that are waited for before the share is looked at: in all, and on each node."""
PROGRESS_SUCCESSES = 40
"""Successes that show that what is left of the cluster serves."""
RECOVERY_SECONDS_MAX = 20.0
"""Until a repaired cluster, or the majority that is left, serves. Generous: machines may be slow."""
FAULTS_MAX = 3
ANOTHER_FAULT_SHARE = 0.4
"""How likely one more fault strikes before the first is repaired."""
HOLD_SECONDS_MAX = (0.3, 2.0)
"""How long faults last at most: a moment, or longer than requests live."""


class Nemesis:
    """One run on one cluster."""

    def __init__(
        self, cluster: LocalCluster, links: Links, seed: int, faults: Iterable[Fault] | None = None
    ) -> None:
        self.cluster = cluster
        self.links = links
        self.seed = seed
        self.schedule: list[str] = []
        """What was done, with the seconds since the start."""
        self._rng = random.Random(f"nemesis {seed}")
        self._began = time.monotonic()
        self._killed: set[int] = set()
        self._cut: set[tuple[int, int]] = set()
        self._pauses: list[tuple[int, float, float]] = []
        """(node, beginning, end) of every pause that is over."""
        self._paused_at: dict[int, float] = {}
        self._hold_seconds = 0.0
        self._faults = list(FAULTS.values() if faults is None else faults)
        self._deck: list[Fault] = []
        addresses = {node.id: node.client_address for node in cluster.nodes.values()}
        self.load = SharedLoad(addresses, CLIENTS, str(seed))

    # ------------------------------------------------------------------ the run

    def run(self, rounds: int) -> None:
        """Do all rounds and judge. Raises AssertionError with the whole story."""
        with self._explained():
            self.load.start()
            try:
                for number in range(1, rounds + 1):
                    self._note(f"round {number}")
                    self._stay_calm()
                    self._strike()
                    self._endure()
                    self._repair()
                self._note("end")
                self._stay_calm()
            finally:
                self.load.stop()
            self._judge()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (AssertionError, BalsaError, OSError) as error:
            self._note("failed")
            safety = check(self.load.history).verdict.value
            logs = [f"--- node {n.id}: {n.exit_text}\n{n.log_tail()}" for n in self.cluster.nodes.values()]
            lines = [f"seed {self.seed}: {error}", "--- schedule", *self.schedule, *logs]
            raise AssertionError("\n".join([*lines, f"--- the clients' history: {safety}"])) from error

    def _note(self, text: str) -> None:
        self.schedule.append(f"{time.monotonic() - self._began:8.3f} {text}")

    def _stay_calm(self) -> None:
        """Demand of the cluster, of which nothing is broken, that clients of every node succeed."""
        self.cluster.wait_ready(RECOVERY_SECONDS_MAX)
        since = time.monotonic()

        def serves() -> bool:
            nodes = [attempt.node for attempt in self.load.attempts(since) if attempt.succeeded]
            least = min(nodes.count(node) for node in self.cluster.nodes)
            return len(nodes) >= CALM_SUCCESSES and least >= CALM_SUCCESSES_PER_NODE

        self._expect(serves, "service on every node of the healthy cluster")
        until = time.monotonic()
        self._expect(lambda: self.load.all_finished(until), "the end of the calls under way")
        attempts = self.load.attempts(since, until)
        share = sum(attempt.succeeded for attempt in attempts) / len(attempts)
        self._note(f"healthy: {share:.1%} of {len(attempts)} calls succeeded in {until - since:.2f} s")
        assert share >= SUCCESS_SHARE_MIN, f"only {share:.1%} of the calls on a healthy cluster succeeded"
        assert not self.load.surprises, self.load.surprises[0]

    def _strike(self) -> None:
        self._hold_seconds = self._rng.random() * self._rng.choice(HOLD_SECONDS_MAX)
        self._draw_fault()(self)
        for _ in range(FAULTS_MAX - 1):
            # When nobody is left there is nothing more to break.
            if self._up() and self._rng.random() < ANOTHER_FAULT_SHARE:
                self._wait(self._rng.choice((0.0, 0.05, 0.5)) * self._rng.random())
                self._draw_fault()(self)

    def _endure(self) -> None:
        """Demand progress when a majority is left, and in any case stay with the faults for a while."""
        since = time.monotonic()
        if self._majority_left():
            self._expect(
                lambda: self.load.successes(since) >= PROGRESS_SUCCESSES,
                "service by the majority that is left",
            )
            self._note(f"served again after {time.monotonic() - since:.2f} s")
        self._wait(since + self._hold_seconds - time.monotonic())

    def _repair(self) -> None:
        self._check_processes()
        repairs = [self._heal_links, self._resume_all, self._start_all]
        for repair in self._rng.sample(repairs, len(repairs)):
            repair()

    def _expect(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition, and for nothing that a node which died can't bring about any more."""

        def met() -> bool:
            self._check_processes()
            return condition()

        wait_until(met, RECOVERY_SECONDS_MAX, what)

    def _check_processes(self) -> None:
        for node in self.cluster.nodes.values():
            assert node.running or node.id in self._killed, f"node {node.id} {node.exit_text} by itself"

    def _majority_left(self) -> bool:
        """Tell whether a majority runs and hears each other. Then it must serve, whatever the rest does."""
        size = len(self.cluster.nodes) // 2 + 1
        return any(
            not any(link in self._cut for pair in combinations(group, 2) for link in (pair, pair[::-1]))
            for group in combinations(self._up(), size)
        )

    # ------------------------------------------------------------------- faults

    def _draw_fault(self) -> Fault:
        """Take the next kind of fault from a shuffled deck, so that a short run has many kinds."""
        if not self._deck:
            self._deck = self._rng.sample(self._faults, len(self._faults))
        return self._deck.pop()

    def _up(self) -> list[int]:
        return [node.id for node in self.cluster.running]

    def _any(self) -> list[int]:
        return self._rng.sample(self._up(), min(1, len(self._up())))

    def _some(self, most: int) -> list[int]:
        up = self._up()
        return self._rng.sample(up, min(len(up), self._rng.randint(1, most)))

    def _minority(self) -> list[int]:
        return self._some((len(self.cluster.nodes) - 1) // 2)

    def _leader(self) -> list[int]:
        leader = self.cluster.leader()
        return self._any() if leader is None or leader not in self._up() else [leader]

    def _kill(self, nodes: Iterable[int]) -> None:
        nodes = list(nodes)
        self._note(f"kill {nodes}")
        # Everybody at once; `cluster.kill` waits for the end of one before it goes to the next.
        for node in nodes:
            self.cluster.nodes[node].process.kill()
        for node in nodes:
            self.cluster.kill(node)
        self._killed |= set(nodes)

    def _end(self, nodes: Iterable[int]) -> None:
        for node in nodes:
            self._note(f"end {node} with SIGTERM")
            self.cluster.stop(node)
            status = self.cluster.nodes[node].process.returncode
            assert status == 0, f"node {node} left with status {status} after SIGTERM"
            self._killed.add(node)

    def _pause(self, nodes: Iterable[int]) -> None:
        nodes = list(nodes)
        seconds = self._rng.uniform(2, 10) * ELECTION_TIMEOUT_SECONDS
        self._hold_seconds = max(self._hold_seconds, seconds)
        self._note(f"pause {nodes}, for {seconds:.2f} s")
        for node in nodes:
            self._paused_at[node] = time.monotonic()
            self.cluster.pause(node)

    def _pull(self, what: str, links: Iterable[tuple[int, int]]) -> None:
        links = sorted(links)
        self._note(f"cut {what}: {links}")
        self._cut |= set(links)
        for link in links:
            self.links[link].cut()

    def _depose(self, nodes: Iterable[int]) -> None:
        """Isolate nodes so that the others know at once, and elect while a leader still trusts itself."""
        nodes = set(nodes)
        self._isolate(nodes)
        self._note("and let the others see the connections end")
        for a, b in sorted(self.links):
            if a in nodes and b not in nodes:
                self.links[a, b].cut_and_tell_target()

    def _isolate(self, nodes: Iterable[int]) -> None:
        nodes = set(nodes)
        self._pull(f"{nodes} off", [(a, b) for a, b in self.links if (a in nodes) != (b in nodes)])

    def _deafen(self, nodes: Iterable[int]) -> None:
        nodes = set(nodes)
        self._pull(f"what {nodes} would hear", [(a, b) for a, b in self.links if b in nodes])

    def _mute(self, nodes: Iterable[int]) -> None:
        nodes = set(nodes)
        self._pull(f"what {nodes} would say", [(a, b) for a, b in self.links if a in nodes])

    def _cut_one_link(self) -> None:
        a, b = self._rng.choice(sorted(self.links))
        self._pull("a link", [(a, b), (b, a)] if self._rng.random() < 0.5 else [(a, b)])

    def _make_ring(self) -> None:
        """Leave each node its two neighbours: majorities overlap, and with five nodes no two are equal."""
        nodes = self._rng.sample(sorted(self.cluster.nodes), len(self.cluster.nodes))
        place = {node: number for number, node in enumerate(nodes)}
        neighbours = (1, len(nodes) - 1)
        links = [(a, b) for a, b in self.links if (place[a] - place[b]) % len(nodes) not in neighbours]
        if links:
            self._pull(f"all but the ring {nodes}", links)
        else:  # three nodes are a ring as they are
            self._cut_one_link()

    def _reset_links(self) -> None:
        links = self._rng.sample(sorted(self.links), self._rng.randint(1, len(self.links)))
        self._note(f"reset {sorted(links)}")
        for link in links:
            self.links[link].reset()

    # ------------------------------------------------------------------ repairs

    def _heal_links(self) -> None:
        broken = self._rng.random() < 0.3
        if self._cut:
            self._note("heal all links" + (", whose connections have broken" if broken else ""))
        for link in sorted(self._cut):
            if broken:
                self.links[link].reset()
            self.links[link].heal()
        self._cut.clear()

    def _resume_all(self) -> None:
        for node in self.cluster.nodes.values():
            if node.paused:
                self._note(f"resume {node.id}")
                self.cluster.resume(node.id)
                self._pauses.append((node.id, self._paused_at[node.id], time.monotonic()))

    def _start_all(self) -> None:
        for node in self._rng.sample(sorted(self._killed), len(self._killed)):
            self._note(f"start {node}")
            self.cluster.start(node)
            self._wait(self._rng.choice((0.0, 0.3)) * self._rng.random())
        self._killed.clear()

    def _wait(self, seconds: float) -> None:
        """Let a drawn time pass between two strokes. Nothing is expected of it."""
        time.sleep(max(0.0, seconds))

    # ---------------------------------------------------------------- judgement

    def _judge(self) -> None:
        """Check the history, with the final values as every node has them, and compare the nodes."""
        history = self.load.history
        final: dict[bytes, bytes | None] = {}
        for node in self.cluster.nodes.values():
            connection = Connection(node.client_address)
            for key in sorted({operation.key for operation in history}):
                called = time.monotonic()
                value = connection.call(b"GET", key)
                assert isinstance(value, bytes | None), value
                history.append(
                    Operation(CLIENTS + node.id, Action.GET, key, b"", value, called, time.monotonic())
                )
                final[key] = value
            connection.close()
        finding = check(history)
        assert finding.verdict is Verdict.LINEARIZABLE, str(finding)
        only_appended = {key: value for key, value in final.items() if key in self.load.appended_only}
        check_ledger(history, only_appended, overwritten=False)
        check_ledger(history, {k: v for k, v in final.items() if k not in only_appended}, overwritten=True)
        self._compare_digests()
        self._check_silences()
        self._check_logs()

    def _check_silences(self) -> None:
        """Check that every node that ran has answered in time, be it with a refusal."""
        for silence in self.load.silences:
            paused = any(
                node == silence.node and began < silence.given_up and ended > silence.called
                for node, began, ended in self._pauses
            )
            at = silence.called - self._began
            assert paused, f"node {silence.node} ran and never answered a call of {at:.3f}"

    def _check_logs(self) -> None:
        """Check that no node met an exception that nobody had thought of."""
        for node in self.cluster.nodes.values():
            log = node.log_path.read_text(errors="replace")
            at = log.find("Traceback")
            assert at < 0, f"the log of node {node.id} has a traceback:\n{log[max(0, at - 500) : at + 2000]}"

    def _compare_digests(self) -> None:
        first, *others = [Connection(node.client_address) for node in self.cluster.nodes.values()]
        index, digest = first.call(b"RAFT", b"DIGEST")
        for number, other in enumerate(others, 2):
            told = other.call(b"RAFT", b"DIGEST", b"%d" % index)
            assert told == [index, digest], f"node {number} has another state at {index}: {told}"
        for connection in (first, *others):
            connection.close()


Fault = Callable[[Nemesis], None]

FAULTS: dict[str, Fault] = {
    "kill one": lambda n: n._kill(n._any()),
    "kill the leader": lambda n: n._kill(n._leader()),
    "kill a minority": lambda n: n._kill(n._minority()),
    "kill some": lambda n: n._kill(n._some(len(n.cluster.nodes))),
    "kill all": lambda n: n._kill(n._up()),
    "end one": lambda n: n._end(n._any()),
    "pause one": lambda n: n._pause(n._any()),
    "pause the leader": lambda n: n._pause(n._leader()),
    "pause some": lambda n: n._pause(n._some(len(n.cluster.nodes))),
    "isolate one": lambda n: n._isolate(n._any()),
    "isolate the leader": lambda n: n._isolate(n._leader()),
    "depose the leader": lambda n: n._depose(n._leader()),
    "split": lambda n: n._isolate(n._some(len(n.cluster.nodes) - 1)),
    "deafen one": lambda n: n._deafen(n._any()),
    "deafen the leader": lambda n: n._deafen(n._leader()),
    "mute the leader": lambda n: n._mute(n._leader()),
    "cut a link": lambda n: n._cut_one_link(),
    "make a ring": lambda n: n._make_ring(),
    "reset links": lambda n: n._reset_links(),
}
"""All kinds of faults, equally likely."""
