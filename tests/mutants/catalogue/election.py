"""Elections: votes, campaigns, and who may take part (Raft paper, 5.2 and 5.4.1; rules M1, M3, W5)."""

from mutants.catalogue.mutant import COUPS, SPLIT_VOTES, mutant, scripted

ELECTION = (
    mutant(
        "a vote is given twice in a term",
        "paper 5.2",
        40,
        ("raft.election:handle_vote_request", "or core.vote not in (NOBODY, message.source)", "or False"),
    ),
    mutant(
        "a vote is given to a log that is behind",
        "paper 5.4.1",
        40,
        (
            "raft.log:Log.up_to_date",
            "return (last_term, last_index) >= (self.last_term, self.last_index)",
            "return True",
        ),
    ),
    mutant(
        "logs are compared by length before term",
        "paper 5.4.1",
        200,
        (
            "raft.log:Log.up_to_date",
            "return (last_term, last_index) >= (self.last_term, self.last_index)",
            "return (last_index, last_term) >= (self.last_index, self.last_term)",
        ),
        focus=COUPS | {"nodes": 3, "loss": 0.2},
    ),
    mutant(
        "the vote is not persisted",
        "paper, figure 2",
        200,
        (
            "storage.records:Codec.hard_state",
            "state.term, state.vote, state.commit",
            "state.term, 0, state.commit",
        ),
    ),
    mutant(
        "a vote is given before it is durable",
        "paper, figure 2",
        400,
        (
            "raft.election:handle_vote_request",
            "core.hold(VoteResponse(core.id, message.source, core.term, True, False, core.wall_ms))",
            "core.outbox.append(VoteResponse(core.id, message.source, core.term, True, False, core.wall_ms))",
        ),
        focus=SPLIT_VOTES | {"delay_us_max": 30_000},
    ),
    mutant(
        "a candidate asks before its own vote is durable",
        "paper, figure 2",
        400,
        ("raft.election:_stand", "core.hold(request)", "core.outbox.append(request)"),
        (
            "raft.election:_stand",
            "core.hold(VoteResponse(core.id, core.id, core.term, True))",
            "core.state.votes[core.id] = True\n    _count(core, core.state)",
        ),
        ("raft.transitions:become_leader", "or core.disk.term != core.term", ""),
        (
            "raft.invariants:_check_leader",
            "if core.disk.term != core.term:",
            "if False:",
        ),
    ),
    mutant(
        "an append clears the vote",
        "paper 5.2",
        20,
        ("raft.following:handle_append", "log = core.log\n", "log = core.log\n    core.vote = 0\n"),
    ),
    mutant(
        "half of an even number of voters is a majority",
        "paper 5.2",
        40,
        ("raft.quorum:is_quorum", "* 2 > len(half)", "* 2 >= len(half)"),
        ("raft.quorum:agreed_number", "(len(reached) - 1) // 2", "len(reached) // 2"),
    ),
    mutant(
        "a message of an earlier term is taken",
        "paper 5.1",
        40,
        (
            "raft.node:Node.step",
            "if message.term == core.term or _reconcile_term(core, message):",
            "if message.term <= core.term or _reconcile_term(core, message):",
        ),
    ),
    scripted(
        "a vote is refused to a candidate that the voter does not know",
        "M1",
        "raft/test_election.py::test_a_candidate_that_this_node_does_not_know_gets_its_vote",
        (
            "raft.election:handle_vote_request",
            "or not core.may_grant()",
            "or not core.may_grant() or message.source not in core.configuration.everyone()",
        ),
    ),
    scripted(
        "a removed node is heard",
        "M1",
        "raft/test_election.py::test_a_removed_node_is_not_heard",
        ("raft.node:Node.step", "if message.source in core.configurations.gone:", "if False:"),
    ),
    scripted(
        "a node with amnesia votes",
        "W5",
        "raft/test_election.py::test_a_node_with_amnesia_neither_votes_nor_campaigns_nor_acknowledges",
        ("raft.election:handle_vote_request", "or not core.may_grant()", ""),
        ("raft.election:_handle_pre_vote_request", "or not core.may_grant()", ""),
    ),
    scripted(
        "a node with amnesia acknowledges",
        "W5",
        "raft/test_election.py::test_a_node_with_amnesia_neither_votes_nor_campaigns_nor_acknowledges",
        (
            "raft.core:Core.may_acknowledge",
            "(self.eligible or not self.configurations.may_vote(self.id))",
            "True",
        ),
    ),
    scripted(
        "a node with amnesia campaigns",
        "W5",
        "raft/test_election.py::test_a_node_with_amnesia_neither_votes_nor_campaigns_nor_acknowledges",
        ("raft.core:Core.may_campaign", "self.eligible and ", ""),
    ),
    scripted(
        "a learner campaigns",
        "M3",
        "raft/test_paper.py::test_4_2_1_a_learner_gets_the_log_and_neither_votes_nor_campaigns",
        ("raft.core:Core.may_campaign", " and self.configurations.may_vote(self.id)", ""),
    ),
    scripted(
        "the loss of the leader's connection means nothing",
        "M3",
        "raft/test_election.py::test_a_crashed_leader_is_replaced_in_a_few_ticks",
        ("raft.node:Node.peer_lost", "election.leader_lost(core, state)", "pass"),
    ),
    scripted(
        "a refused pre-vote is not repeated soon",
        "M3",
        "raft/test_election.py::test_a_refused_pre_vote_is_repeated_until_the_other_survivor_notices_too",
        ("raft.election:_hurry", "if core.now < state.hurry_until:", "if False:"),
    ),
    scripted(
        "a fast fail-over has no end",
        "M3",
        "raft/test_election.py::test_the_hurry_ends_after_an_election_timeout",
        ("raft.election:_hurry", "if core.now < state.hurry_until:", "if state.hurry_until:"),
    ),
    scripted(
        "a campaign that the leader has ordered is refused",
        "M3",
        "raft/test_election.py::test_a_campaign_ordered_by_the_leader_is_answered_although_it_is_heard",
        ("raft.election:handle_vote_request", " and not message.transfer", ""),
    ),
    scripted(
        "a live leader is deposed by a node that does not hear it",
        "thesis 9.6",
        "raft/test_election.py::test_a_pre_vote_is_refused_while_a_leader_is_heard_even_to_a_better_log",
        ("raft.election:hears_leader", "return state.leader != NOBODY and", "return False and"),
    ),
    scripted(
        "a returning node raises its term without asking",
        "thesis 9.6",
        "raft/test_paper.py::test_9_6_an_isolated_server_does_not_raise_its_term_and_disturbs_nobody_on_return",
        ("raft.election:campaign", "if is_quorum_of(core.halves, (core.id,)):", "if True:"),
    ),
    scripted(
        "a refusal carries the candidate's term",
        "scenario 15",
        "raft/test_scenarios.py::test_15_a_refusal_carries_the_voters_own_term",
        (
            "raft.election:_refuse",
            "core.id, message.source, core.term,",
            "core.id, message.source, message.term,",
        ),
    ),
    scripted(
        "a leader that hears nobody stays one",
        "scenario 11",
        "raft/test_scenarios.py::test_11_a_leader_in_the_minority_acknowledges_nothing_and_steps_down",
        ("raft.replication:tick", "if not is_quorum(core.halves, live):", "if False:"),
    ),
    mutant(
        "the vote is forgotten in a restart",
        "paper, figure 2",
        40,
        (
            "storage.recovery:Replay.finish",
            "hard_state=state,",
            "hard_state=HardState(state.term, 0, state.commit),",
        ),
    ),
)
