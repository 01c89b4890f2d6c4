"""The course's scenarios of leader election (Raft, part A), with their numbers, in simulated time."""

from sim.lab.cluster import ELECTION_MS, LabCluster


def test_initial_election_gives_one_leader_and_a_term_that_stays(seed):
    """InitialElection. The original only warns when the term changes without a failure."""
    with LabCluster(3, seed=seed) as lab:
        leader = lab.check_one_leader()
        lab.run(50)
        term = lab.check_terms()
        assert term >= 1
        lab.run(2 * ELECTION_MS)
        assert lab.check_terms() == term
        assert lab.check_one_leader() == leader


def test_re_election_when_the_leader_is_cut_off_and_none_without_a_quorum(seed):
    """ReElection. Ours goes further: a leader without a quorum stops believing that it leads."""
    with LabCluster(3, seed=seed) as lab:
        first = lab.check_one_leader()
        lab.cut(first)
        second = lab.check_one_leader()
        assert second != first

        # The old leader comes back and does not disturb the new one.
        term = lab.term(second)
        lab.connect(first)
        assert lab.check_one_leader() == second
        assert lab.check_terms() == term

        other = lab.neighbour(second, 1)
        lab.cut(second, other)
        lab.run(2 * ELECTION_MS)
        assert not any(lab.leads(node) for node in lab.servers)

        lab.connect(other)
        lab.check_one_leader()
        lab.connect(second)
        lab.check_one_leader()


def test_many_elections_with_three_of_seven_servers_cut_off(seed):
    """ManyElections: 9 rounds, always a leader among those that are left."""
    with LabCluster(7, seed=seed) as lab:
        lab.check_one_leader()
        for _ in range(9):
            gone = lab.rng.sample(sorted(lab.servers), 3)
            lab.cut(*gone)
            assert lab.check_one_leader() not in gone
            lab.connect(*gone)
        lab.check_one_leader()
