"""The course's scenarios of crashes and bad networks (Raft, part C), with their numbers, in simulated time.

Where the testers keep what a server has saved in memory, ours lie on a disk: half of all crashes are power
losses, after which only synced bytes are left.
"""

import pytest

from balsadb.raft.messages import Append, Message
from balsadb.sim.history import Action
from sim.lab.calls import Call, Fate
from sim.lab.cluster import AGREEMENT_MS, ELECTION_MS, KEY, LabCluster


def test_persist_1_all_then_the_leader_then_a_follower_restart(seed):
    """Persist1: 6 commits."""
    with LabCluster(3, seed=seed) as lab:
        lab.one(3)
        lab.restart(*lab.servers)
        lab.one(3)

        leader = lab.check_one_leader()
        lab.restart(leader)
        lab.one(3)

        leader = lab.check_one_leader()
        lab.crash(leader)
        index = lab.one(2)
        lab.restart(leader)
        assert lab.wait(lambda: len(lab.appliers[index]) == 3, AGREEMENT_MS)

        follower = lab.neighbour(lab.check_one_leader(), 1)
        lab.crash(follower)
        lab.one(2)
        lab.restart(follower)
        lab.one(3)


def test_persist_2_parts_of_the_cluster_crash_in_turn(seed):
    """Persist2: 5 rounds in which three of five go on with what two others left behind; 16 commits."""
    with LabCluster(5, seed=seed) as lab:
        for _ in range(5):
            lab.one(5)
            leader = lab.check_one_leader()
            ring = [lab.neighbour(leader, steps) for steps in range(5)]
            lab.cut(ring[1], ring[2])
            lab.one(3)
            lab.cut(ring[0], ring[3], ring[4])
            lab.restart(ring[1], ring[2])
            lab.run(ELECTION_MS)
            lab.restart(ring[3])
            lab.one(3)
            lab.connect(ring[4], ring[0])
        lab.one(5)


def test_persist_3_a_cut_off_follower_and_a_restarted_leader_go_on(seed):
    """Persist3: 4 commits."""
    with LabCluster(3, seed=seed) as lab:
        lab.one(3)
        leader = lab.check_one_leader()
        second, third = lab.neighbour(leader, 1), lab.neighbour(leader, 2)
        lab.cut(third)
        lab.one(2)
        lab.crash(leader, second)
        lab.connect(third)
        lab.restart(leader)
        lab.one(2)
        lab.restart(second)
        lab.one(3)


def test_figure_8_an_old_entry_on_a_majority_is_not_yet_committed(seed):
    """Figure 8 of the Raft paper, step by step: chance as in the next test brings it about too rarely."""
    with LabCluster(5, one_by_one=True, seed=seed) as lab:
        lab.one(5)
        first = lab.check_one_leader()
        second, *others = (lab.neighbour(first, steps) for steps in range(1, 5))

        # (a) A command is on the first two servers only. Then the leader crashes.
        lab.cut(*others)
        call = lab.start(first)
        place = lab.last_index(first) + 1
        assert lab.wait(lambda: lab.last_index(second) == place, 100)
        lab.run(10)
        lab.crash(first)

        # (b) One of the others leads, and is cut off before anybody has its first entry, at the same place.
        lab.partition(others)
        assert lab.wait(lambda: lab.leader() is not None, AGREEMENT_MS)
        rival = lab.leader()
        lab.cut(rival)
        lab.run(10)
        assert lab.last_index(rival) == place
        others.remove(rival)

        # (c) The old command gets onto a majority, but nothing of the new leader's own term does.
        def takes_more(message: Message) -> bool:
            """Tell whether its receiver would get an entry behind the old one."""
            return (
                isinstance(message, Append)
                and min(message.prev_index, lab.last_index(message.target)) >= place
            )

        lab.network.drops = takes_more
        lab.restart(first)
        lab.partition([first, second, *others])
        assert lab.wait(lambda: all(lab.last_index(node) == place for node in others), AGREEMENT_MS)
        lab.run(100)
        assert lab.leader() in (first, second)

        # (d) So the rival's entry may still replace it.
        lab.crash(lab.leader())
        lab.network.drops = None
        lab.partition([rival, *others])
        lab.one(3)
        lab.restart(*(node for node in lab.servers if not lab.is_up(node)))
        lab.heal()
        lab.one(5)
        assert lab.appliers_of(call) == 0


def start_at_leaders(lab: LabCluster) -> tuple[int | None, list[Call]]:
    """Hand a command to everybody who believes to lead; return the last of them that is connected."""
    calls = [lab.start(node) for node in lab.servers if lab.leads(node)]
    leaders = [node for node in lab.connected if lab.leads(node)]
    return max(leaders, default=None), calls


def pause(lab: LabCluster) -> None:
    """Wait 0 to 12 ms, and one time of ten up to half an election."""
    lab.run(lab.rng.random() * (ELECTION_MS / 2 if lab.rng.random() < 0.1 else 13))


@pytest.mark.slow
def test_figure_8_leaders_crash_after_every_command(seed):
    """Figure8: 1,000 times, one is started again when fewer than three are up; then all five agree.

    That no committed entry is ever replaced is what the checker of the log says in every step.
    """
    with LabCluster(5, seed=seed) as lab:
        lab.one(1)
        crashes, calls = 0, []
        for _ in range(1_000):
            leader, started = start_at_leaders(lab)
            calls += started
            pause(lab)
            if leader is not None and lab.is_up(leader):
                lab.crash(leader)
                crashes += 1
            down = [node for node in lab.servers if not lab.is_up(node)]
            if len(down) > 2:
                lab.restart(lab.rng.choice(down))
        lab.restart(*(node for node in lab.servers if not lab.is_up(node)))
        lab.one(5)
        assert crashes > 100
        assert any(call.fate is Fate.DONE for call in calls)


def test_unreliable_agree(seed):
    """UnreliableAgree: 49 times four commands at any servers and one at the leader; 246 commits on all."""
    with LabCluster(5, unreliable=True, seed=seed) as lab:
        started: list[Call] = []
        for _ in range(49):
            started += [lab.start(node) for node in lab.rng.sample(sorted(lab.servers), 4)]
            lab.one(1)
        # A command whose fate stayed open may come late or never: it is given once more.
        assert lab.wait(lambda: all(call.over for call in started), AGREEMENT_MS)
        again = [call for call in started if call.fate is not Fate.DONE]
        lab.network.set_unreliable(False)
        for _ in again:
            lab.one(1)
        lab.one(5)
        assert len(lab.landed) >= 246


@pytest.mark.slow
def test_figure_8_on_an_unreliable_network(seed):
    """Figure8Unreliable: leaders are cut off, and from the 200th of 1,000 rounds answers come in any order.

    The final agreement of all five is demanded on that same network.
    """
    with LabCluster(5, unreliable=True, seed=seed) as lab:
        lab.one(1)
        cuts = 0
        for round_ in range(1_000):
            lab.network.reordering = round_ >= 200
            leader, _ = start_at_leaders(lab)
            pause(lab)
            if leader is not None and lab.rng.random() < 0.5:
                lab.cut(leader)
                cuts += 1
            away = sorted(set(lab.servers) - lab.connected)
            if len(away) > 2:
                lab.connect(lab.rng.choice(away))
        lab.heal()
        lab.one(5)
        assert cuts > 1  # with most answers held back a new leader takes seconds


class Churner:
    """A client that gives one command after the other to any server, as long as it may."""

    def __init__(self, lab: LabCluster) -> None:
        self.done = 0
        self._lab = lab

    def go(self) -> None:
        """Give the next command."""
        lab = self._lab
        up = [node for node in lab.servers if lab.is_up(node)]
        if lab.calls.stopped:
            return
        if up:
            node = lab.rng.choice(up)
            lab.calls.start(node, Action.APPEND, KEY, lab.new_value(), then=self._ended)
        else:
            lab.scheduler.after(20_000, self.go)

    def _ended(self, call: Call) -> None:
        self.done += call.fate is Fate.DONE
        self._lab.scheduler.after(self._lab.rng.randrange(20_000), self.go)


@pytest.mark.slow
@pytest.mark.parametrize("unreliable", [False, True], ids=["reliable", "unreliable"])
def test_churn_loses_nothing_that_a_client_saw_committed(seed, unreliable):
    """ReliableChurn, UnreliableChurn: 3 clients, 20 rounds of 700 ms with cuts, crashes and restarts.

    Every value that a client saw committed is in the final log: the ledger demands that of every scenario.
    """
    with LabCluster(5, unreliable=unreliable, seed=seed) as lab:
        clients = [Churner(lab) for _ in range(3)]
        for client in clients:
            client.go()
        for _ in range(20):
            node = lab.rng.randint(1, 5)
            if lab.rng.random() < 0.2:
                lab.cut(node)
            node = lab.rng.randint(1, 5)
            if lab.rng.random() < 0.5:
                if not lab.is_up(node):
                    lab.restart(node)
                lab.connect(node)
            node = lab.rng.randint(1, 5)
            if lab.rng.random() < 0.2 and lab.is_up(node):
                lab.crash(node)
            lab.run(ELECTION_MS * 7 / 10)
        lab.run(ELECTION_MS)
        lab.network.set_unreliable(False)
        lab.restart(*(node for node in lab.servers if not lab.is_up(node)))
        lab.heal()
        lab.one(5)
        assert all(client.done for client in clients)
        assert sum(client.done for client in clients) > 10
