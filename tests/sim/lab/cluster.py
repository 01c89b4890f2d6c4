"""A simulated cluster that follows a script instead of chance.

It speaks the language of the course's testers: servers are cut off, connected, crashed and restarted, and
`one` lets the cluster agree on one more command. All times are simulated. Leaving the `with` block heals
everything, demands that all servers serve and hold the same, and lets all checkers judge the whole history;
the checkers of the log, of leaders and of each node's invariants watch every step before that.

What the testers demand of indexes is translated: our log also holds entries of its own (a leader's first one,
the names of the members), and commands that are handed in together share an entry.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from balsadb.kv.batch import FORMAT_VERSION, decode_batch
from balsadb.raft.node import Role
from balsadb.raft.types import Index, NodeId, Term
from balsadb.sim.faults import FaultPlan
from balsadb.sim.history import Action
from balsadb.sim.nemesis import Nemesis
from balsadb.sim.server import Server
from balsadb.sim.world import World
from sim.lab.calls import Call, Calls, Fate
from sim.lab.network import LabNetwork

ELECTION_MS = 1_000
"""The testers' own idea of an election's length; longer than any of ours."""
AGREEMENT_MS = 10_000
"""A cluster that can agree does so within this."""
ATTEMPT_MS = 2_000
"""How long `one` waits before it asks again."""
SCENARIO_MS = 120_000
"""No scenario takes longer."""
POLLS = 10
"""How often a leader is looked for, each time after about half a second."""
LOG_BYTES_MAX = 16 * 1024
"""The configured maximum of a log with snapshots, in place of the testers' 1,000 bytes.

Theirs is the length of about twenty entries in memory. Ours lies on a disk in whole sectors of 512 bytes, and
a segment, a quarter of the maximum, begins with a sector for itself: a log of 1,000 bytes can't even be made.
Twenty of our writes take 10 to 20 KiB, and segments of eight sectors waste little enough to be measured.
"""
LOG_DIRECTORY = "data/group-0/wal"
KEY = b"log"
"""What the commands of the Raft scenarios append to."""


class Script(Nemesis):
    """Lets nothing happen that the script does not say: who ends stays down."""

    def ended(self, server: Server) -> None:
        if self._stopped:
            super().ended(server)


class LabCluster(World):
    """The servers of one scenario."""

    def __init__(
        self,
        servers: int,
        *,
        unreliable: bool = False,
        one_by_one: bool = False,
        snapshots: bool = False,
        seed: int = 1,
    ) -> None:
        """Make a cluster.

        With `one_by_one` each entry goes to a follower in a message of its own. With `snapshots` the log is
        let go as if `LOG_BYTES_MAX` were configured; without, it never is.
        """
        log_bytes_max = LOG_BYTES_MAX if snapshots else 0
        super().__init__(seed, FaultPlan(nodes=servers, small_caches=one_by_one, log_bytes_max=log_bytes_max))
        self.rng = random.Random(seed)
        """For whatever a script leaves to chance."""
        self.nemesis = Script(self, self.rng)
        self.network: LabNetwork = LabNetwork(self.scheduler, self._fork(self.rng), self.plan, self._deliver)
        self.network.set_unreliable(unreliable)
        self.calls = Calls(self)
        self.clients = [self.calls]
        self.connected = set(self.servers)
        self.landed: dict[bytes, Index] = {}
        """Where in the log each appended value was applied first."""
        self.appliers: dict[Index, set[NodeId]] = {}
        """Which servers have applied an index."""
        self._reached: dict[NodeId, Index] = {}
        """Newest index that each process has applied."""
        self._serial = 0
        self.log_bytes_seen = 0
        """Most bytes that `check_log_bytes` has found."""

    def __enter__(self) -> LabCluster:
        for server in self.servers.values():
            server.start()
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        if failed is None:
            self.finish()

    def finish(self) -> None:
        """End the scenario: heal, wait until all servers have answered and applied everything, judge."""
        assert self.now_ms <= SCENARIO_MS
        history = self.calls.history
        self._keys = tuple(sorted({KEY} | {operation.key for operation in history}))
        self._rewrites = any(operation.action is Action.PUT for operation in history)
        self.settle()
        self.judge()

    # ---------------------------------------------------------------------- time

    @property
    def now_ms(self) -> int:
        return self.scheduler.now_ms

    def run(self, milliseconds: float) -> None:
        """Let time pass."""
        self.scheduler.run(self.scheduler.now_us + int(milliseconds * 1_000))

    def wait(self, condition: Callable[[], bool], milliseconds: float) -> bool:
        """Let time pass until the condition holds; tell whether it did in time."""
        return condition() or self.scheduler.run(self.scheduler.now_us + int(milliseconds * 1_000), condition)

    # ------------------------------------------------------------------- servers

    def partition(self, *parts: Iterable[NodeId]) -> None:
        """Let only servers of the same part talk; who is in none talks to nobody."""
        part_of = {node: number for number, part in enumerate(parts) for node in part}
        self.connected = set(part_of)
        self.network.heal()
        self.network.cut(
            (a, b)
            for a in self.servers
            for b in self.servers
            if a != b and part_of.get(a, -a) != part_of.get(b, -b)
        )

    def cut(self, *nodes: NodeId) -> None:
        """Take servers off the network; nobody is told that connections broke."""
        self.partition(self.connected.difference(nodes))

    def connect(self, *nodes: NodeId) -> None:
        """Put servers back on the network."""
        self.partition(self.connected.union(nodes))

    def heal(self) -> None:
        """Connect everybody."""
        self.partition(self.servers)

    def crash(self, *nodes: NodeId) -> None:
        """Kill processes, half of them by a power loss, and take them off the network."""
        self.cut(*nodes)
        for node in nodes:
            self.servers[node].end(power_loss=self.rng.random() < 0.5)

    def restart(self, *nodes: NodeId) -> None:
        """Start processes on what their disks hold, end them before if they run, and connect them."""
        self.crash(*(node for node in nodes if self.is_up(node)))
        for node in nodes:
            self.servers[node].start()
        self.connect(*nodes)

    def shut_down(self, *nodes: NodeId) -> None:
        """Let processes answer what they hold and leave, as a server does when it is told to stop."""
        for node in nodes:
            server = self.servers[node]
            assert server.replica is not None
            for request in server.replica.stop():
                self.finished(server, request)
            server.end(power_loss=False)

    def is_up(self, node: NodeId) -> bool:
        return self.servers[node].replica is not None

    def neighbour(self, node: NodeId, steps: int) -> NodeId:
        """Return the server `steps` after another, around the ring of ids."""
        return (node - 1 + steps) % len(self.servers) + 1

    def last_index(self, node: NodeId) -> Index:
        replica = self.servers[node].replica
        assert replica is not None
        return replica.node.last_index

    def term(self, node: NodeId) -> Term:
        replica = self.servers[node].replica
        assert replica is not None
        return replica.node.term

    # ------------------------------------------------------------------- leaders

    def leads(self, node: NodeId) -> bool:
        """Tell whether a server believes to lead."""
        replica = self.servers[node].replica
        return replica is not None and replica.node.role is Role.LEADER

    def leader(self) -> NodeId | None:
        """Return who leads the newest term among the connected servers."""
        leaders = {self.term(node): node for node in sorted(self.connected) if self.leads(node)}
        return leaders[max(leaders)] if leaders else None

    def check_one_leader(self) -> NodeId:
        """Wait for a leader among the connected servers, and see that no term has two."""
        for _ in range(POLLS):
            self.run(450 + self.rng.randrange(100))
            leaders = [node for node in sorted(self.connected) if self.leads(node)]
            terms = [self.term(node) for node in leaders]
            assert len(set(terms)) == len(terms), f"{leaders} lead terms {terms}"
            if leaders:
                return leaders[terms.index(max(terms))]
        raise AssertionError(f"nobody of {sorted(self.connected)} leads")

    def check_terms(self) -> Term:
        """Return the term that all connected servers agree on."""
        terms = {self.term(node) for node in self.connected}
        assert len(terms) == 1, f"connected servers are in terms {terms}"
        return terms.pop()

    # ----------------------------------------------------------------- agreement

    def new_value(self, size: int = 0) -> bytes:
        """Return a value that was never used before, of at least `size` bytes.

        All are written with the same number of digits, so that none ends like another: only so can the
        checker tell from a read which appends happened.
        """
        self._serial += 1
        return (b"%06d" % self._serial).rjust(size, b"0") + b","

    def start(self, node: NodeId, size: int = 0) -> Call:
        """Hand a new command to a server and don't wait."""
        return self.calls.start(node, Action.APPEND, KEY, self.new_value(size))

    def start_many(self, node: NodeId, count: int, size: int = 0) -> list[Call]:
        """Hand commands to a server one after the other, so that a leader makes an entry of each."""
        calls: list[Call] = []
        for _ in range(count):
            calls.append(self.start(node, size))
            self.run(1)
        return calls

    def appliers_of(self, call: Call) -> int:
        """Count the servers that have applied a command, or have installed a state with it."""
        index = self.landed.get(call.argument)
        if index is None:
            return 0
        appliers = self.appliers[index]
        return sum(
            node in appliers or server.state.installed >= index for node, server in self.servers.items()
        )

    def one(self, servers: int, *, retry: bool = True, size: int = 0) -> Index:
        """Let the cluster agree on one command, applied by so many servers; return its index."""
        deadline = self.now_ms + AGREEMENT_MS
        while self.now_ms < deadline:
            leader = self.leader()
            if leader is None:
                self.run(20)
                continue
            call = self.start(leader, size)
            self.wait(
                lambda call=call: self.appliers_of(call) >= servers or call.fate is Fate.REFUSED, ATTEMPT_MS
            )
            if self.appliers_of(call) >= servers:
                return self.landed[call.argument]
            if not retry:
                break
        raise AssertionError(f"{servers} servers did not agree on a command")

    def all_applied(self, calls: Iterable[Call], servers: int, milliseconds: float) -> bool:
        """Wait until so many servers have applied each command."""
        return self.wait(lambda: all(self.appliers_of(call) >= servers for call in calls), milliseconds)

    # ------------------------------------------------------------------ snapshots

    @property
    def states_sent(self) -> int:
        """How often any server began to send its state."""
        return sum(server.states_sent for server in self.servers.values())

    @property
    def installs(self) -> int:
        """How often any server went on from another one's state."""
        return sum(server.installs for server in self.servers.values())

    def log_files(self, node: NodeId) -> dict[str, int]:
        """Return the files of a server's log and their sizes, with those made ahead of need."""
        disk = self.servers[node].disk
        return {name: disk.open(f"{LOG_DIRECTORY}/{name}").size for name in disk.list(LOG_DIRECTORY)}

    def state_bytes(self, node: NodeId) -> int:
        """Return what a server's state takes."""
        base = self.servers[node].state.base
        return len(base.data) + sum(len(key) + len(record) for key, record in base.records.items())

    def check_log_bytes(self) -> None:
        """See that no server's log takes more than twice the maximum and one segment.

        The testers allow 8 times. A batch that is larger than a segment gets one of its own size, so
        it is the largest that counts.
        """
        for node in self.servers:
            files = self.log_files(node)
            size = sum(files.values())
            self.log_bytes_seen = max(self.log_bytes_seen, size)
            assert size <= 2 * LOG_BYTES_MAX + max(files.values()), f"the log of server {node} takes {files}"

    # ------------------------------------------------------------ what is watched

    def started(self, server: Server) -> None:
        self._reached.pop(server.id, None)
        super().started(server)

    def applied(self, node: NodeId, index: Index, term: Term, payload: bytes) -> None:
        super().applied(node, index, term, payload)
        before = self._reached.get(node)
        if before is not None and self.servers[node].state.installed > before:
            before = self.servers[node].state.installed
        assert before is None or index == before + 1, f"server {node} applies {index} after {before}"
        self._reached[node] = index
        if index not in self.appliers:
            self._note_values(index, payload)
        self.appliers.setdefault(index, set()).add(node)

    def _note_values(self, index: Index, payload: bytes) -> None:
        if payload[:1] != bytes([FORMAT_VERSION]):
            return  # not a batch of commands
        batch = decode_batch(payload)
        for command in batch.commands if batch is not None else ():
            if command[0] == b"APPEND":
                self.landed.setdefault(command[2], index)
