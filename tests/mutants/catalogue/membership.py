"""Other members: how a change begins, goes on and ends (thesis 4.1-4.3; rules M1, M2, P5)."""

from mutants.catalogue.mutant import CHANGES, mutant, scripted

SCRIPTS = "raft/test_scripts.py::test_a_scenario_goes_as_it_is_written"

MEMBERSHIP = (
    scripted(
        "a change moves the voters without a joint configuration",
        "M2",
        "raft/test_membership.py::test_a_change_goes_from_step_to_step_and_each_step_is_legal",
        ("raft.membership:joint", "outgoing=old.voters,", "outgoing=(),"),
    ),
    scripted(
        "a second change begins while one is under way",
        "M2",
        f"{SCRIPTS}[change_is_refused_while_another_is_under_way]",
        (
            "raft.membership:planned",
            "if old.promote and (entering or (retiring and not amends)):",
            "if False:",
        ),
    ),
    scripted(
        "a repeated request runs again",
        "M2",
        "raft/test_membership.py::test_rule_m2_a_change_that_was_made_for_another_configuration_does_nothing",
        ("raft.membership:_begin", "if message.based_on != fingerprint(core.configuration):", "if False:"),
    ),
    scripted(
        "a change begins before the leader's first commit",
        "M2",
        f"{SCRIPTS}[change_is_refused_when_it_would_lose_the_quorum]",
        ("raft.membership:_check_settled", "if core.log.commit_index < leader.first_index:", "if False:"),
    ),
    mutant(
        "only who began a change ends it",
        "M2",
        100,
        (
            "raft.membership:tick",
            "if configuration.outgoing:",
            "if configuration.outgoing and core.configurations.index < leader.first_index:\n        return\n"
            "    if configuration.outgoing:",
        ),
        focus=CHANGES,
    ),
    scripted(
        "a change may leave fewer live voters than a quorum",
        "scenario 65",
        f"{SCRIPTS}[change_is_refused_when_it_would_lose_the_quorum]",
        ("raft.membership:lacking", "if len(voters) - len(silent) >= quorum:", "if True:"),
    ),
    scripted(
        "who was not heard in this term counts as alive",
        "scenario 65",
        "raft/test_membership.py::test_a_voter_that_a_new_leader_has_not_heard_yet_does_not_count_as_alive",
        ("raft.membership:_alive", "peer.clock_offset is not None and ", ""),
    ),
    scripted(
        "a learner votes before it has caught up",
        "thesis 4.2.1",
        "raft/test_membership.py::test_a_learner_that_can_not_keep_up_is_not_promoted",
        ("raft.membership:tick", "if all(ready):", "if True:"),
    ),
    scripted(
        "a learner votes before its directory is bound",
        "W5",
        "raft/test_membership.py::test_rule_w5_a_learner_is_promoted_only_when_the_log_knows_its_directory",
        ("raft.membership:_caught_up", "return caught_up and bound and", "return caught_up and"),
    ),
    scripted(
        "who left is not told",
        "M1",
        f"{SCRIPTS}[change_removes_a_node]",
        ("raft.replication:maybe_commit", "if core.configurations.gone != gone:", "if False:"),
    ),
    scripted(
        "who was removed goes on to campaign",
        "M1",
        f"{SCRIPTS}[change_removes_a_node]",
        ("raft.core:Core.may_campaign", " and not self.removed", ""),
    ),
    scripted(
        "who was removed votes",
        "M1",
        "raft/test_membership.py::test_a_node_that_was_told_of_its_removal_neither_votes_nor_campaigns",
        ("raft.core:Core.may_grant", " and not self.removed", ""),
    ),
    scripted(
        "a leader that is to leave hands over to another one that is",
        "thesis 4.2.2",
        "raft/test_membership.py::test_a_leader_that_leaves_hands_over_to_one_who_stays",
        ("raft.handover:_best", "if peer.id in core.configuration.voters and", "if peer.votes and"),
    ),
    scripted(
        "a removed id may be added again",
        "P5",
        f"{SCRIPTS}[change_is_refused_while_another_is_under_way]",
        ("raft.membership:_check_names", "if member.id in old.removed:", "if False:"),
    ),
)
