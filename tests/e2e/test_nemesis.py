"""Random faults on real processes: whatever dies, stops or is cut off, clients see one correct copy.

BALSADB_NEMESIS_ROUNDS makes the runs longer, BALSADB_NEMESIS_SEED chooses another one.
"""

from __future__ import annotations

import os
import sys

import pytest

from balsadb.sim.history import Action, certain
from e2e import mutant_server
from e2e.link_proxy import cluster_behind_proxies
from e2e.nemesis import FAULTS, SETTINGS, Nemesis

ROUNDS = int(os.environ.get("BALSADB_NEMESIS_ROUNDS", "5"))
SEEDS = [int(os.environ["BALSADB_NEMESIS_SEED"])] if "BALSADB_NEMESIS_SEED" in os.environ else [1, 2]


@pytest.mark.timeout(90 + 60 * ROUNDS)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("nodes", [3, 5])
def test_clients_see_one_correct_copy_through_kills_pauses_and_cut_links(nodes, seed, tmp_path):
    with cluster_behind_proxies(nodes, directory=tmp_path, settings=SETTINGS) as (cluster, links):
        nemesis = Nemesis(cluster, links, seed)
        nemesis.run(ROUNDS)
    print(*nemesis.schedule, sep="\n")
    history = nemesis.load.history
    assert {operation.action for operation in history} == set(Action)
    assert certain(history) > 200 * ROUNDS


BUGS = {
    "a leader reads without asking anybody": ("depose the leader", "not linearizable"),
    "a follower reads what it has": ("isolate one", "not linearizable"),
    "the boot counter is not raised": ("kill one", "event=stopped .*own payload"),
}
"""Bugs on purpose, with the fault that brings them to light and what is then found."""


@pytest.mark.timeout(150)
@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_on_purpose_is_found(bug, tmp_path):
    fault, finding = BUGS[bug]
    command = [sys.executable, mutant_server.__file__, bug, "serve"]
    with (
        cluster_behind_proxies(3, directory=tmp_path, settings=SETTINGS, command=command) as (cluster, links),
        pytest.raises(AssertionError, match=finding),
    ):
        Nemesis(cluster, links, seed=1, faults=[FAULTS[fault]]).run(rounds=4)
