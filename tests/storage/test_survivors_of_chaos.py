"""Random clusters lose random nodes at random moments: what a recovery says is not lost is not lost."""

from __future__ import annotations

from random import Random

import pytest
from raft_cluster import FAST
from test_safety import TINY, Chaos

from balsadb.raft.configuration import decode_configuration
from balsadb.storage.survivors import Survivor, judge

SEEDS = 250
SUBSETS = 12
"""Ways to lose nodes that are tried at the end of each run."""


def survivor(server, initial, random):
    """What a directory would say: the disk alone counts, not what the process remembers."""
    entries, state = server.disk.entries, server.disk.hard_state
    memberships = server.disk.recover(0).memberships
    return Survivor(
        place=f"node-{server.id}",
        node=server.id,
        cluster_id=b"x",
        term=state.term,
        vote=state.vote,
        last_index=len(entries),
        last_term=entries[-1].term if entries else 0,
        commit=state.commit,
        configuration=decode_configuration(memberships[-1].payload) if memberships else initial,
        unfit="its state is lost" if random.random() < 0.2 else "",
    )


def lost(judgement, cluster):
    """Which committed entries the chosen log lacks."""
    mine = cluster.servers[judgement.chosen.node].disk.entries
    return [
        entry.index
        for entry in cluster.oracle.committed
        if len(mine) < entry.index or mine[entry.index - 1].encoded != entry.encoded
    ]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_whatever_is_lost_a_recovery_keeps_what_it_promises_to_keep():
    kept, warned, losses = 0, 0, 0
    for seed in range(SEEDS):
        chaos = Chaos(seed, TINY if seed % 2 else FAST)
        cluster, random = chaos.cluster, Random(seed)
        chaos.run(random.randint(20, 600))
        everybody = list(cluster.servers.values())
        for _ in range(SUBSETS):
            some = random.sample(everybody, random.randint(1, len(everybody)))
            judgement = judge([survivor(server, cluster.configuration, random) for server in some])
            if judgement.chosen is None:
                continue
            missing = lost(judgement, cluster)
            if judgement.lossless:
                kept += 1
                assert not missing, f"seed {seed}: of {judgement} entries {missing} are lost"
                assert not judgement.contradicting
            else:
                warned += 1
                losses += bool(missing)
                assert not judgement.majority
    assert kept > 1000, (kept, warned, losses)
    assert losses > 10, "nothing was ever lost, so the warning was never tested"
