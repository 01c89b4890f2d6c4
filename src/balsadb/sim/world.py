"""A whole simulated cluster with its clients, faults and checkers.

A run has two phases. In the safety phase everything that the plan allows goes wrong and the checkers watch
every step. In the liveness phase the faults stop: the cluster must elect, commit and answer within a bound,
and then the final values are read on every server and judged together with everything the clients saw.
"""

from __future__ import annotations

import random

import google_crc32c

from balsadb.raft.messages import Message
from balsadb.raft.node import Role
from balsadb.raft.types import Configuration, Index, Member, NodeId, Term
from balsadb.replica import Replica
from balsadb.replica.request import Lane, Request, RequestKind
from balsadb.sim.checkers.bounds import check_bounds
from balsadb.sim.checkers.digests import EqualDigests
from balsadb.sim.checkers.ledger import check_ledger
from balsadb.sim.checkers.linearizability import Verdict, check
from balsadb.sim.checkers.log import LogChecker
from balsadb.sim.checkers.promises import check_restart
from balsadb.sim.checkers.reduction import shortest_prefix
from balsadb.sim.checkers.witness import AppliedOrder
from balsadb.sim.clients import Client
from balsadb.sim.failures import LivenessViolation, SafetyViolation
from balsadb.sim.faults import FaultPlan, draw
from balsadb.sim.history import Action, Operation
from balsadb.sim.members import MemberWatch
from balsadb.sim.nemesis import Nemesis
from balsadb.sim.network import Network
from balsadb.sim.scheduler import Scheduler
from balsadb.sim.server import Server
from balsadb.sim.sessions import SessionClient
from balsadb.sim.trace import Event, message_event

SAFETY_US = 6_000_000
"""Length of the safety phase."""
LIVENESS_US = 15_000_000
"""A healed cluster must do everything asked of it within this."""
PAD_US_MAX = 50_000
"""Longest time between two large values."""
DIGEST_EVERY = 16
"""States are compared at every index that this divides."""


class World:
    """One run."""

    def __init__(self, seed: int, plan: FaultPlan | None = None) -> None:
        self.seed = seed
        rng = random.Random(seed)
        drawn = draw(rng)
        self.plan = plan or drawn
        self.scheduler = Scheduler()
        self.network = Network(self.scheduler, self._fork(rng), self.plan, self._deliver)
        self._events: list[Event | tuple[int, Message]] = []
        """Everything that has happened; arrivals of messages as they are, because they are many."""
        self._hash = 0
        voters = tuple(range(1, self.plan.nodes + 1))
        self.configuration = Configuration(
            voters=voters, members=tuple(Member(node, f"peer:{node}") for node in voters)
        )
        self.log_checker = LogChecker()
        self.order = AppliedOrder()
        self.members = MemberWatch(self.configuration)
        self._digests = EqualDigests()
        self.servers: dict[NodeId, Server] = {}
        for node in voters:
            self.servers[node] = Server(self, node, self._fork(rng))
        self._builder = random.Random(f"newcomers of {seed}")
        self.nemesis = Nemesis(self, self._fork(rng))
        self.healthy = False
        self._rewrites = rng.random() < 0.5
        keys = tuple(b"key-%d" % number for number in range(rng.randint(1, 4)))
        self._keys = keys
        self.clients: list[Client | SessionClient] = [
            Client(self, number, self._fork(rng), keys, self._rewrites)
            for number in range(1, rng.randint(2, 8) + 1)
        ]
        self._rng = self._fork(rng)
        for number in range(len(self.clients) + 1, len(self.clients) + rng.choice((0, 0, 1, 2, 4)) + 1):
            self.clients.append(SessionClient(self, number, self._fork(rng), keys, self._rewrites))
        self._probes: dict[Request, NodeId] = {}
        self._finals: list[Operation] = []
        self._answered: set[NodeId] = set()
        """Servers whose final values were read; negative: that have answered a read by itself."""

    @staticmethod
    def _fork(rng: random.Random) -> random.Random:
        """Give a part its own random numbers, so that a change in one does not shift all others."""
        return random.Random(rng.getrandbits(64))

    def build(self, node: NodeId, joins: Configuration) -> Server:
        """Put up another machine, whose server is to join the cluster."""
        self.servers[node] = Server(self, node, self._fork(self._builder), joins)
        return self.servers[node]

    def ask(self, server: Server, words: list[bytes]) -> None:
        """Ask a server for a change of the cluster itself; nobody looks at the answer."""
        if server.replica is not None:
            self.members.asked += 1
            request = Request(Lane(None), RequestKind.CHANGE, [words], [], 1, sum(map(len, words)))
            server.replica.submit(request, self.scheduler.now_ms)
            server.wake()

    # ----------------------------------------------------------------------- run

    def run(self) -> None:
        """Run both phases. Raises SafetyViolation, LivenessViolation, or InvariantError of the core."""
        for server in self.servers.values():
            server.start()
        for client in self.clients:
            client.begin()
        if self.plan.padding_bytes:
            self._pad()
        self.nemesis.begin()
        self.scheduler.run(SAFETY_US)
        self.settle()
        self.judge()

    def _pad(self) -> None:
        """Write something large to one of the servers, again and again; nobody looks at the answers."""
        if self.healthy:
            return
        server = self._rng.choice(list(self.servers.values()))
        if server.replica is not None:
            size = self._rng.randint(1, self.plan.padding_bytes)
            # Zeros too: the log must tell them from what a power loss has left out.
            value = self._rng.choice((b"\0", b"x")) * size
            request = Request(Lane(None), RequestKind.WRITE, [[b"SET", b"padding", value]], [], 1, size)
            server.replica.submit(request)
            server.wake()
        self.scheduler.after(self._rng.randrange(PAD_US_MAX), self._pad)

    def settle(self) -> None:
        """End all faults and wait until every server serves; raises LivenessViolation if that takes long."""
        self.healthy = self.network.healthy = True
        self.nemesis.stop()
        for server in self.servers.values():
            server.wall_offset_ms = 0
        # Messages may have been lost without any connection noticing: a full queue drops them (rule B1).
        if self._rng.random() < 0.5:
            for a in self.servers:
                for b in self.servers:
                    if a < b:
                        self.reset_connection(a, b)
        for client in self.clients:
            client.stopped = True
        deadline = self.scheduler.now_us + LIVENESS_US
        for node, server in self.servers.items():
            self._probe(server, node, deadline)
        if not self.scheduler.run(deadline, self._settled):
            raise LivenessViolation(self._describe_standstill())

    def _probe(self, server: Server, node: NodeId, deadline: int) -> None:
        """Ask a server for a write and for all final values, again and again until it answers."""
        # Only when no client waits any more, so that nothing changes after the values were read.
        if any(client.waiting for client in self.clients):
            return
        asked = self._probes.values()
        if server.replica is None or server.replica.outside or node in asked or -node in asked:
            return
        if not {node, -node} <= self._answered:
            commands = [[b"GET", key] for key in self._keys]
            reads = [(1, command) for command in commands]
            lane = Lane(None)
            request = Request(
                lane, RequestKind.WRITE, [[b"SET", b"probe", b"%d" % node]], reads, len(reads) + 1, 1
            )
            self._probes[request] = node
            request.context = self.scheduler.now_us / 1e6
            server.replica.submit(request)
            # A read by itself takes another way than one that rides on a write; both must be answered.
            read = Request(Lane(None), RequestKind.READ, commands[:1], [], 1, 1)
            self._probes[read] = -node
            server.replica.submit(read)
            server.wake()

    def _settled(self) -> bool:
        """Tell whether every server has answered and has applied the whole log."""
        configuration = self._newest_configuration()
        members = [self.servers[node] for node in configuration.everyone()]
        working = [server for server in members if server.broken is None]
        if configuration.changing and not any(server.broken for server in members):
            return False  # a change that has begun must end
        if not all({server.id, -server.id} <= self._answered for server in working):
            return False
        indexes = {s.replica.machine.applied_index if s.replica else -1 for s in working}
        return len(indexes) == 1 and indexes == {self.log_checker.newest}

    def _newest_configuration(self) -> Configuration:
        """Return the configuration of the server that has applied most."""
        up = [server.replica for server in self.servers.values() if server.replica is not None]
        furthest = max(up, key=lambda replica: replica.machine.applied_index, default=None)
        return furthest.configuration if furthest else self.configuration

    def judge(self) -> None:
        """Judge what the clients saw together with the final values."""
        for client in self.clients:
            client.finish()
        history = [operation for client in self.clients for operation in client.history] + self._finals
        final: dict[bytes, bytes | None] = {}
        for operation in self._finals:
            assert not isinstance(operation.result, int)
            final[operation.key] = operation.result
        check_ledger(history, final, self._rewrites)
        finding = check(history, order=self.order.effects())
        if finding.verdict is not Verdict.LINEARIZABLE:
            what = f"{finding.verdict.value}: key {finding.key!r}"
            wrong = tuple(shortest_prefix(finding.operations))
            raise SafetyViolation("linearizability", what, history=wrong)
        for server in self.servers.values():
            self._compare_digest(server)

    def _describe_standstill(self) -> str:
        lines = [f"not everything was answered {LIVENESS_US // 1_000_000} s after the faults ended"]
        for server in self.servers.values():
            node = server.replica.node if server.replica else None
            lines.append(
                f"  server {server.id}: down"
                if node is None
                else f"  server {server.id}: {node.role.value} term {node.term} leader {node.leader} "
                f"last {node.last_index} commit {node.commit_index} applied {node.applied_index}"
            )
        return "\n".join(lines)

    # ------------------------------------------------------------- what happens

    def note(
        self, what: str, *servers: NodeId, first: Index = 0, last: Index = 0, routine: bool = False
    ) -> None:
        """Add an event to the trace: whom it concerns, and which log entries."""
        now = self.scheduler.now_us
        self._hash = google_crc32c.extend(self._hash, f"{now} {what}".encode())
        self._events.append(Event(now, what, servers, first, last, routine))

    @property
    def events(self) -> list[Event]:
        """Everything that has happened so far."""
        return [event if isinstance(event, Event) else message_event(*event) for event in self._events]

    @property
    def trace_hash(self) -> int:
        """A number that two runs share only if the same happened in both."""
        return self._hash

    def _deliver(self, message: Message) -> None:
        now = self.scheduler.now_us
        what = f"{now} {message.source}->{message.target} {type(message).__name__} {message.term}"
        self._hash = google_crc32c.extend(self._hash, what.encode())
        self._events.append((now, message))
        self.members.delivered(message)
        self.servers[message.target].receive(message)

    def reset_connection(self, a: NodeId, b: NodeId) -> None:
        """Break the connections between two servers and make new ones."""
        for here, there in ((a, b), (b, a)):
            self.servers[here].lost(there)
            self.scheduler.after(5_000, self.servers[here].connected, there)

    def started(self, server: Server) -> None:
        """Note that a process has started."""
        assert server.replica is not None
        self.note(f"server {server.id} starts", server.id)
        check_restart(server.replica.node, server.durable)
        for other in self.servers.values():
            if other is not server:
                self.scheduler.after(5_000, other.connected, server.id)
                self.scheduler.after(5_000, server.connected, other.id)

    def ended(self, server: Server, *, was_up: bool) -> None:
        """Let everybody who was connected to an ended process notice."""
        self.note(f"server {server.id} ends", server.id)
        if server.broken is not None:
            self.note(f"server {server.id} is broken: {server.broken}", server.id)
            if server.id not in self.nemesis.damaged:
                what = f"server {server.id} refuses a sound disk: {server.broken}"
                raise SafetyViolation("recovery", what, servers=(server.id,))
        self.nemesis.ended(server)
        if not was_up:
            return
        self.network.forget(server.id)
        for client in self.clients:
            client.disconnected(server.id)
        for request in [r for r, node in self._probes.items() if abs(node) == server.id]:
            del self._probes[request]
        for other in self.servers.values():
            if other is not server:
                self.scheduler.after(1_000, other.lost, server.id)

    def turned(self, server: Server) -> None:
        """Look at a server after a turn."""
        assert server.replica is not None
        node = server.replica.node
        self.members.look(server.replica)
        if self.plan.small_caches:  # with room for everything, nobody meets a bound
            check_bounds(node)
        if self.log_checker.stepped(node):
            self.note(f"server {node.id} leads term {node.term}", node.id)
        if self.healthy:
            self._probe(server, server.id, 0)

    def applied(self, node: NodeId, index: Index, term: Term, payload: bytes) -> None:
        """Look at an entry that a server is about to apply."""
        self.note(f"server {node} applies {index} of term {term}", node, first=index, last=index)
        replica = self.servers[node].replica
        assert replica is not None
        self.log_checker.applied(node, index, term, payload, replica.node.term)
        if index % DIGEST_EVERY == 1:
            self._compare_digest(self.servers[node])

    def _compare_digest(self, server: Server) -> None:
        if server.replica is not None:
            machine = server.replica.machine
            if server.joins is not None and not machine.configuration:
                return  # it knows the members only from the first configuration in the log on
            self._digests.observed(server.id, machine.applied_index, machine.digest())

    def finished(self, server: Server, request: Request) -> None:
        """Bring an answer to its client."""
        assert server.replica is not None
        client = request.lane.owner
        refused = [getattr(reply, "text", None) for reply in request.replies or []]
        self.note(f"server {server.id} answers {refused}", server.id, routine=True)
        if request.kind is RequestKind.WRITE and not any(refused):
            self.log_checker.acknowledged(
                server.replica.machine.applied_index, self._in_force(server.replica)
            )
        if client is not None:
            client.answered(request)
            return
        node = self._probes.pop(request, None)
        if node is not None and not any(text for text in refused if text != b"OK"):
            self._answered.add(node)
            if node < 0:
                return
            assert request.replies is not None
            for key, reply in zip(self._keys, request.replies[1:], strict=True):
                if not isinstance(reply, bytes | None):
                    raise SafetyViolation("answers", f"get {key!r} was answered {reply!r}")
                now = self.scheduler.now_us / 1e6
                self._finals.append(Operation(-node, Action.GET, key, b"", reply, request.context, now))

    def _in_force(self, replica: Replica) -> list[Configuration]:
        """Return the configurations by whose majorities the newest applied entry may have been committed.

        That is the one applied here, or one behind it that is in force in a log without being applied.
        """
        later = [s.replica.node.configuration for s in self.servers.values() if s.replica is not None]
        return [replica.configuration, *(c for c in later if c != replica.configuration)]

    @property
    def leaders(self) -> list[NodeId]:
        """Servers that believe to lead."""
        return [s.id for s in self.servers.values() if s.replica and s.replica.node.role is Role.LEADER]
