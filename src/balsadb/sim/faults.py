"""Which faults a run has, and how strong: drawn from the seed.

Swarm testing (Groce et al. 2012): every run switches a random half of all faults off. A bug that hides
behind one kind of fault, because that fault stops the cluster before it shows, is so found by the runs
without it.
"""

from __future__ import annotations

import random

import msgspec


class FaultPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The faults of one run. Probabilities are per message or per write; rates are per simulated minute."""

    nodes: int = 3
    delay_us_min: int = 100
    delay_us_max: int = 1_000
    loss: float = 0.0
    duplication: float = 0.0
    straggling: float = 0.0
    """Probability that a message is held back for up to a second, so that it arrives out of order."""
    partitions: float = 0.0
    """Cuts of the network a minute: symmetric, one-way, rings and single links."""
    coups: float = 0.0
    """Leaders a minute that are cut off, or clogged, for about as long as an election takes."""
    resets: float = 0.0
    """Connections that break a minute, with `peer_lost` at both ends."""
    clogs: float = 0.0
    """Links a minute that hold everything back for a while and then let it through."""
    crashes: float = 0.0
    """Processes killed a minute. What was written without a sync survives, as the kernel keeps it."""
    crashes_in_writes: float = 0.0
    """Probability that a process ends while it writes to the disk; a hundred times that for a vote."""
    relapses: float = 0.0
    """Probability that a machine loses power right after a process has started on it again."""
    power_losses: float = 0.0
    """Machines that lose power a minute: unsynced bytes are gone or torn."""
    all_down: float = 0.0
    """Power losses of the whole cluster a minute."""
    pauses: float = 0.0
    """Processes stopped for a while a minute."""
    sync_us_min: int = 100
    sync_us_max: int = 500
    slow_sync: float = 0.0
    """Probability that a sync takes up to two seconds."""
    failing_disk: float = 0.0
    """Probability that a file operation fails; the process stops then (rule W4)."""
    interrupted_starts: float = 0.0
    """Probability that a starting process ends while it reads and mends its files."""
    full_disks: float = 0.0
    """Disks a minute that are full for a while."""
    bit_flips: float = 0.0
    """Bits a minute that flip on the disk of a stopped server. Only a minority has such disks."""
    transfers: float = 0.0
    """Leaders a minute that are asked to hand over."""
    changes: float = 0.0
    """Wishes for other members, or another leader, a minute, made anywhere and often in vain."""
    state_losses: float = 0.0
    """States a minute that are gone from a stopped server, whose log is whole. Only of a minority."""
    clock_jumps: float = 0.0
    """Jumps of a node's wall clock a minute, up to an hour in either direction."""
    election_ticks: int = 50
    """Raft's election timeout; a short one makes elections in numbers."""
    padding_bytes: int = 0
    """Length of values that are written beside the clients' own, so that a write has many sectors."""
    small_cuts: bool = False
    """Cuts after a few keys, and a log that is let go after a few entries, so that followers which were away
    need a snapshot."""
    log_bytes_max: int = 0
    """The `snapshot-log-bytes` of all servers, divided up as a server does it; 0: the parts are drawn."""
    small_caches: bool = False
    """Tiny entry caches and batches, so that entries are read back from the log all the time (rule B2)."""


def draw(rng: random.Random, nodes: int | None = None) -> FaultPlan:
    """Draw the faults of a run."""

    def some(strengths: tuple[float, ...]) -> float:
        return rng.choice(strengths) if rng.random() < 0.5 else 0.0

    # Drawn aside: all else stays as it was in runs whose members do not change.
    aside = random.Random()
    aside.setstate(rng.getstate())
    changes = aside.choice((20.0, 60.0)) if aside.random() < 0.25 else 0.0
    slow = rng.random() < 0.3
    return FaultPlan(
        nodes=nodes or rng.choice((1, 3, 3, 3, 3, 5, 5, 7, 2, 4)),
        delay_us_max=rng.choice((300, 1_000, 5_000, 30_000)),
        loss=some((0.01, 0.05, 0.2)),
        duplication=some((0.01, 0.1, 0.5)),
        straggling=some((0.01, 0.05, 0.2)),
        partitions=some((6.0, 20.0, 60.0)),
        coups=some((30.0, 120.0)),
        resets=some((6.0, 30.0)),
        clogs=some((6.0, 30.0)),
        crashes=some((6.0, 20.0, 60.0)),
        crashes_in_writes=some((0.001, 0.005)),
        relapses=some((0.2, 0.5)),
        power_losses=some((6.0, 20.0)),
        all_down=some((3.0, 8.0)),
        pauses=some((6.0, 30.0)),
        sync_us_max=2_000 if slow else 500,
        slow_sync=some((0.01, 0.1)),
        failing_disk=some((0.0005, 0.002)),
        interrupted_starts=some((0.1, 0.5)),
        full_disks=some((3.0, 10.0)),
        bit_flips=some((3.0, 20.0)),
        transfers=some((10.0, 60.0)),
        state_losses=some((3.0, 10.0)),
        clock_jumps=some((10.0, 60.0)),
        election_ticks=rng.choice((50, 20, 10)),
        padding_bytes=int(some((700, 5_000))),
        small_caches=rng.random() < 0.5,
        small_cuts=rng.random() < 0.6,
        changes=changes,
    )
