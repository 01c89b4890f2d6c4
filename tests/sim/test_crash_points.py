"""A process ends at every step of its storage, by a kill and by a power loss, and the cluster recovers.

Each run crashes servers at points that were not met often enough yet; then the faults stop, every server
has to serve again, and the checkers judge what the clients saw.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from msgspec import structs

from balsadb.sim.disk import Interrupted
from balsadb.sim.failures import SafetyViolation
from balsadb.sim.faults import FaultPlan
from balsadb.sim.server import Server
from balsadb.sim.world import World
from mutants.planting import Edit, planted
from storage.crash_points import WHAT_MUST_HOLD, name_of

SEEDS_MAX = 80
CRASHES_EACH = 2
"""How often every point is met in every way."""
PAUSE_US = 60_000
"""A server is left alone for so long after a crash, so that it gets further than its start."""
INSTALLS = "install: write the log's beginning"
"""A crash here is followed by the rarest start of all, so it happens more often, and without a pause."""
PLAN = FaultPlan(
    nodes=3,
    padding_bytes=5_000,
    crashes=20.0,
    partitions=10.0,
    coups=30.0,
    state_losses=10.0,
    election_ticks=20,
    small_cuts=True,
)
WAYS = ("kill", "power loss")
SHARES = {"before": 0.0, "in the middle": 0.5}
"""Of a write that were made."""


def targets() -> Counter[tuple[str, str, str]]:
    """How often each (point, moment, way) is still to be met."""
    wanted: Counter[tuple[str, str, str]] = Counter()
    for name in WHAT_MUST_HOLD:
        for moment in SHARES if ": write" in name and not name.startswith("state") else ("before",):
            often = CRASHES_EACH * (4 if name == INSTALLS else 1)
            wanted.update({(name, moment, way): often for way in WAYS})
    return wanted


class Hunter:
    """Ends the processes of a world at the points that are still wanted."""

    def __init__(self, world: World, wanted: Counter[tuple[str, str, str]], seed: int) -> None:
        self._world, self._wanted = world, wanted
        self._rng = random.Random(f"hunter {seed}")
        self._quiet_until = dict.fromkeys(world.servers, 0)
        self.crashes = 0
        for server in world.servers.values():
            server.disk.before = lambda what, path, server=server: self._before(server, what, path)

    def _before(self, server: Server, what: str, path: str) -> None:
        world, now = self._world, self._world.scheduler.now_us
        if world.healthy:
            return
        name = name_of(what, path)
        assert name in WHAT_MUST_HOLD, f"a step without a name: {name}"
        open_targets = [target for target in self._wanted if target[0] == name and self._wanted[target] > 0]
        if not open_targets or now < self._quiet_until[server.id]:
            return
        target = self._rng.choice(open_targets)
        self._wanted[target] -= 1
        self.crashes += 1
        if name != INSTALLS:
            self._quiet_until[server.id] = now + self._rng.randrange(PAUSE_US)
        _, moment, way = target
        world.note(f"server {server.id} ends at: {name}, {moment}, {way}", server.id)
        if way == "power loss":
            # The end of the process is dealt with first, wherever it was; then the machine is as after one.
            end = server.end

            def end_with_the_power(*, power_loss: bool) -> None:
                del server.end
                end(power_loss=True)

            server.end = end_with_the_power
        raise Interrupted(SHARES[moment])


def hunt(seed: int, wanted: Counter[tuple[str, str, str]], plan: FaultPlan = PLAN) -> int:
    """Run one seed; returns the number of crashes."""
    world = World(seed, structs.replace(plan, nodes=random.Random(seed).choice((1, 3, 3))))
    hunter = Hunter(world, wanted, seed)
    world.run()
    return hunter.crashes


def hunt_all(wanted: Counter[tuple[str, str, str]]) -> tuple[int, int]:
    """Run seeds until nothing is wanted any more; returns how many, and the number of crashes."""
    crashes = seed = 0
    while +wanted and seed < SEEDS_MAX:
        crashes += hunt(seed, wanted)
        seed += 1
    return seed, crashes


def test_there_are_many_points_and_each_says_what_must_hold():
    assert len(WHAT_MUST_HOLD) >= 40
    assert all(WHAT_MUST_HOLD.values())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_crash_at_every_step_recovers():
    wanted = targets()
    seed, crashes = hunt_all(wanted)
    print(f"{crashes} crashes at {len(WHAT_MUST_HOLD)} points in {seed} runs")
    missed = sorted(+wanted)
    assert not missed, f"never met: {missed}"


WEAKNESSES = {
    "a batch is not synced": Edit("storage.wal:Wal.execute", "self._file.sync()", "pass"),
    "a segment's header is not synced": Edit("storage.segments:SegmentMaker.make", "file.sync()", "pass"),
    "a segment's name is not synced": Edit(
        "storage.segments:SegmentMaker.make", "self._files.sync_directory(self._directory)", "pass"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("weakness", WEAKNESSES)
def test_a_step_left_out_on_purpose_is_found(weakness):
    wanted = targets()
    with planted((WEAKNESSES[weakness],)), pytest.raises(SafetyViolation):
        hunt_all(wanted)
