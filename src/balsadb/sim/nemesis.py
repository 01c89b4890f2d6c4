"""Makes the faults of a plan happen, at times drawn from the seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from balsadb.raft.types import Configuration, NodeId

if TYPE_CHECKING:
    from balsadb.sim.server import Server
    from balsadb.sim.world import World

MINUTE_US = 60_000_000
DOWN_US_MAX = (5_000, 200_000, 2_000_000)
"""How long a killed process stays down at most, with a supervisor and without."""
RELAPSE_US_MAX = (30_000, 300_000)
TICK_US = 10_000
FULL_US_MAX = 2_000_000
PAUSE_US_MAX = 3_000_000
CUT_US_MAX = 4_000_000
CLOG_US_MAX = 1_500_000
CLOCK_JUMP_MS_MAX = 3_600_000
NEWCOMERS_MAX = 4
"""Servers that join in one run."""


class Nemesis:
    """Draws when and where each kind of fault strikes."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self._stopped = False
        ids = sorted(world.servers)
        self._victims = rng.sample(ids, (len(ids) - 1) // 2)
        """Servers whose disks may be damaged: those that remain are always a majority."""
        self.damaged: set[NodeId] = set()
        """Servers on whose disks a bit has flipped. Only they may refuse to start."""
        self.count = 0
        """Faults so far."""

    def begin(self) -> None:
        """Start all faults that the plan has."""
        plan = self._world.plan
        for rate, strike in (
            (plan.partitions, self._partition),
            (plan.coups, self._coup),
            (plan.resets, self._reset),
            (plan.clogs, self._clog),
            (plan.crashes, self._crash),
            (plan.power_losses, self._power_loss),
            (plan.all_down, self._all_down),
            (plan.pauses, self._pause),
            (plan.full_disks, self._full_disk),
            (plan.bit_flips, self._bit_flip),
            (plan.transfers, self._transfer),
            (plan.state_losses, self._lose_state),
            (plan.changes, self._change),
            (plan.clock_jumps, self._clock_jump),
        ):
            if rate:
                self._plan_next(rate, strike)

    def stop(self) -> None:
        """End all faults: repair the network, start and resume every server."""
        self._stopped = True
        self._world.network.heal()
        for server in self._servers():
            server.disk.full = False
            server.disk.failing = 0.0
            self._restart(server)
            server.resume()

    def _servers(self) -> list[Server]:
        return list(self._world.servers.values())

    def _plan_next(self, rate: float, strike: Callable[[], None]) -> None:
        wait = int(self._rng.expovariate(rate / MINUTE_US))
        self._world.scheduler.after(wait, self._strike, rate, strike)

    def _strike(self, rate: float, strike: Callable[[], None]) -> None:
        if not self._stopped:
            self.count += 1
            strike()
            self._plan_next(rate, strike)

    def _later(self, longest_us: int, callback: Callable[..., None], *arguments: object) -> None:
        self._world.scheduler.after(self._rng.randrange(longest_us), callback, *arguments)

    # ------------------------------------------------------------------- network

    def _partition(self) -> None:
        network, ids = self._world.network, sorted(self._world.servers)
        network.heal()
        network.cut(self._draw_cut(ids))
        self._later(CUT_US_MAX, network.heal)

    def _draw_cut(self, ids: list[NodeId]) -> list[tuple[NodeId, NodeId]]:
        rng = self._rng
        shuffled = rng.sample(ids, len(ids))
        pairs = [(a, b) for a in ids for b in ids if a != b]
        match rng.choice(("halves", "one-way", "isolated", "ring", "link", "leader")):
            case "halves":
                part = set(shuffled[: rng.randint(1, max(1, len(ids) - 1))])
                return [(a, b) for a, b in pairs if (a in part) != (b in part)]
            case "one-way":
                part = set(shuffled[: rng.randint(1, max(1, len(ids) - 1))])
                return [(a, b) for a, b in pairs if a in part and b not in part]
            case "isolated":
                return [(a, b) for a, b in pairs if shuffled[0] in (a, b)]
            case "ring":  # each sees only its neighbours: majorities overlap and none is the same
                place = {node: i for i, node in enumerate(shuffled)}
                return [(a, b) for a, b in pairs if (place[a] - place[b]) % len(ids) not in (1, len(ids) - 1)]
            case "leader":
                leaders = {s.replica.node.leader for s in self._servers() if s.replica is not None}
                return [(a, b) for a, b in pairs if a in leaders or b in leaders]
            case _:
                return [rng.choice(pairs)] if pairs else []

    def _coup(self) -> None:
        """Keep whoever leads from the others until they have had time to elect somebody else."""
        leaders = self._world.leaders
        if not leaders:
            return
        leader, network = self._rng.choice(leaders), self._world.network
        links = [link for other in sorted(self._world.servers) for link in ((leader, other), (other, leader))]
        longest = 4 * self._world.plan.election_ticks * TICK_US
        if self._rng.random() < 0.5:
            network.cut(links)
            self._later(longest, network.mend, links)
        else:
            for link in links:
                network.clog(link)
                self._later(longest, network.unclog, link)
        if self._rng.random() < 0.5:
            # The others see their connections break and elect at once, while the leader still trusts its own.
            for other in self._servers():
                if other.id != leader:
                    other.lost(leader)

    def _reset(self) -> None:
        ids = sorted(self._world.servers)
        if len(ids) > 1:
            a, b = self._rng.sample(ids, 2)
            self._world.reset_connection(a, b)

    def _clog(self) -> None:
        ids = sorted(self._world.servers)
        if len(ids) > 1:
            a, b = self._rng.sample(ids, 2)
            self._world.network.clog((a, b))
            self._later(CLOG_US_MAX, self._world.network.unclog, (a, b))

    # ----------------------------------------------------------------- processes

    def _any_up(self) -> Server | None:
        up = [server for server in self._servers() if server.replica is not None]
        return self._rng.choice(up) if up else None

    def _crash(self) -> None:
        self._end(self._any_up(), power_loss=False)

    def _power_loss(self) -> None:
        self._end(self._any_up(), power_loss=True)

    def _all_down(self) -> None:
        for server in self._servers():
            if server.replica is not None:
                self._end(server, power_loss=True)

    def _end(self, server: Server | None, *, power_loss: bool) -> None:
        if server is not None:
            server.end(power_loss=power_loss)

    def ended(self, server: Server) -> None:
        """Plan the restart of a server whose process has ended, for whatever reason."""
        if self._stopped:
            self._restart(server)
        else:
            self._later(self._rng.choice(DOWN_US_MAX), self._restart, server)

    def _restart(self, server: Server) -> None:
        if server.replica is None:
            server.start()
            if not self._stopped and self._rng.random() < self._world.plan.relapses:
                self._later(self._rng.choice(RELAPSE_US_MAX), self._relapse, server, server.starts)

    def _relapse(self, server: Server, start: int) -> None:
        """Lose what was not synced in the first moments of a process: it may rest on its predecessor's."""
        if not self._stopped and server.replica is not None and server.starts == start:
            server.end(power_loss=True)

    def _full_disk(self) -> None:
        server = self._rng.choice(self._servers())
        server.disk.full = True
        self._later(FULL_US_MAX, self._make_room, server)

    def _make_room(self, server: Server) -> None:
        server.disk.full = False

    def _bit_flip(self) -> None:
        if not self._victims:
            return
        server = self._world.servers[self._rng.choice(self._victims)]
        if server.replica is not None:
            server.end(power_loss=self._rng.random() < 0.5)
        where = server.disk.flip_bit()
        self.damaged.add(server.id)
        self._world.note(f"a bit flips on server {server.id}: {where}", server.id)

    def _transfer(self) -> None:
        """Ask a leader to hand over to somebody, who may be dead, or to whom it likes."""
        leaders = [server for server in self._servers() if server.id in self._world.leaders and server.up]
        if leaders:
            server = self._rng.choice(leaders)
            target = self._rng.choice((0, *sorted(self._world.servers)))
            assert server.replica is not None
            taker = server.replica.transfer(target)
            self._world.members.asked += 1
            self._world.note(f"server {server.id} is to hand over to {target}: {taker}", server.id)
            server.wake()

    # ------------------------------------------------------------------- members

    def _change(self) -> None:
        """Ask somebody for other members, or for another leader."""
        rng, world = self._rng, self._world
        asked = [s for s in self._servers() if s.replica is not None and not s.replica.outside and s.up]
        if not asked:
            return
        server = rng.choice(asked)
        assert server.replica is not None
        known = server.replica.configuration
        leaving = [node for node in known.everyone() if self._may_leave(node)]
        words = self._draw_change(known, leaving)
        if words is not None:
            world.note(f"server {server.id} is asked for {b' '.join(words).decode()}", server.id)
            world.ask(server, words)

    def _may_leave(self, node: NodeId) -> bool:
        """Tell whether a server may go: while disks break, those that never break stay a majority."""
        plan = self._world.plan
        fragile = plan.bit_flips or plan.state_losses
        return not fragile or node in self._victims or node > plan.nodes

    def _draw_change(self, known: Configuration, leaving: list[NodeId]) -> list[bytes] | None:
        rng = self._rng
        room = len(self._world.servers) < self._world.plan.nodes + NEWCOMERS_MAX
        new = [*known.learners] if known.learners and rng.random() < 0.5 else []
        match rng.choice(("add", "add", "replace", "replace", "remove", "transfer", "several")):
            case "add" if room or new:
                return [b"RAFT", b"ADD", *self._newcomer(known, new)]
            case "replace" if leaving and (room or new):
                return [b"RAFT", b"REPLACE", b"%d" % rng.choice(leaving), *self._newcomer(known, new)]
            case "several" if leaving and room:
                return [
                    *[b"RAFT", b"ADD", *self._newcomer(known, new)],
                    *(self._newcomer(known, []) if len(leaving) % 2 else []),
                ]
            case "remove" if leaving:
                some = rng.sample(leaving, min(len(leaving), rng.choice((1, 1, 2))))
                return [b"RAFT", b"REMOVE", *[b"%d" % node for node in some]]
            case "transfer":
                return [b"RAFT", b"TRANSFER", *([b"%d" % rng.choice(known.voters)] * rng.randint(0, 1))]
            case _:
                return None

    def _newcomer(self, known: Configuration, learners: list[NodeId]) -> list[bytes]:
        """Return the words for a server that is to be added: one of the learners, or else a new one."""
        node = self._rng.choice(learners) if learners else max(self._world.servers) + 1
        if node not in self._world.servers:
            server = self._world.build(node, known)
            # It may be there before it is added, or long after.
            self._later(self._rng.choice(DOWN_US_MAX), self._restart, server)
        return [b"%d" % node, b"peer:%d" % node, b"client:%d" % node]

    def _lose_state(self) -> None:
        if not self._victims:
            return
        server = self._world.servers[self._rng.choice(self._victims)]
        if server.replica is not None:
            server.end(power_loss=self._rng.random() < 0.5)
        server.state.lose()
        self._world.note(f"server {server.id} loses its state", server.id)

    def _pause(self) -> None:
        server = self._any_up()
        if server is not None and not server.paused:
            server.pause()
            self._later(PAUSE_US_MAX, server.resume)

    def _clock_jump(self) -> None:
        server = self._rng.choice(self._servers())
        server.wall_offset_ms = self._rng.choice(
            (0, self._rng.randint(-CLOCK_JUMP_MS_MAX, CLOCK_JUMP_MS_MAX), self._rng.randint(-500, 500))
        )
