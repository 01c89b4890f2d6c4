"""The log: what is appended, acknowledged and committed (Raft paper, 5.3 and 5.4; rules W1, P7, B1, M2)."""

from mutants.catalogue.mutant import COUPS, STRAGGLING_COUPS, mutant, scripted

REPLICATION = (
    scripted(
        "entries of earlier terms are committed by counting",
        "paper 5.4.2, figure 8",
        "raft/test_paper.py::test_5_4_2_figure_8_an_entry_of_a_former_term_is_not_committed_by_counting",
        ("raft.replication:maybe_commit", " or log.term_at(agreed) != core.term", ""),
    ),
    mutant(
        "a leader counts itself before its disk is done",
        "W1",
        20,
        (
            "raft.replication:durable_moved",
            "durable = core.log.durable_index",
            "durable = core.log.last_index",
        ),
    ),
    mutant(
        "a follower acknowledges before its disk is done",
        "W1",
        40,
        (
            "raft.following:_match",
            "return min(follower.verified, core.log.durable_index)",
            "return follower.verified",
        ),
    ),
    mutant(
        "a follower acknowledges what it has not verified",
        "paper 5.3",
        100,
        (
            "raft.following:_match",
            "return min(follower.verified, core.log.durable_index)",
            "return core.log.durable_index",
        ),
    ),
    mutant(
        "any overlap truncates the log",
        "paper 5.3",
        40,
        (
            "raft.following:_merge",
            "if here == entry.term:\n                continue",
            "if here == entry.term and entry.index <= log.commit_index:\n                continue",
        ),
    ),
    mutant(
        "an entry that conflicts stays",
        "paper 5.3",
        100,
        ("raft.following:_merge", "if here == entry.term:\n", "if True:\n"),
    ),
    mutant(
        "the log before an append is not compared",
        "paper 5.3",
        200,
        (
            "raft.following:handle_append",
            "if prev >= log.base_index and log.term_at(prev) != message.prev_term:",
            "if prev > log.last_index:",
        ),
    ),
    mutant(
        "a heartbeat's commit index is taken without a bound",
        "paper 5.3",
        100,
        (
            "raft.following:_take_commit",
            "min(follower.leader_commit, follower.verified)",
            "min(follower.leader_commit, core.log.last_index)",
        ),
    ),
    mutant(
        "a truncation does not take back what the write in flight proves",
        "W1",
        200,
        (
            "raft.durability:Durability.truncated",
            "self._inflight_last = min(self._inflight_last, self._log.last_index)",
            "pass",
        ),
        focus=COUPS,
    ),
    mutant(
        "the end of a write makes later entries durable too",
        "W1",
        20,
        (
            "raft.durability:Durability.persisted",
            "max(log.durable_index, self._inflight_last)",
            "log.last_index",
        ),
    ),
    mutant(
        "entries that are not durable leave the cache",
        "B2",
        20,
        (
            "raft.log:Log._evict",
            "self.durable_index - self.cache_first + 1",
            "self.last_index - self.cache_first",
        ),
    ),
    mutant(
        "log time follows the leader's own clock",
        "S6",
        40,
        (
            "raft.replication:stamp_now",
            "stamp(core.log.last_time_ms, core.steady_ms, leader.clock_offset)",
            "core.wall_ms",
        ),
    ),
    mutant(
        "a repeated append is acknowledged while the first is being written",
        "W1",
        100,
        (
            "raft.following:handle_append",
            "if end <= log.durable_index:\n",
            "if entries and entries[-1].index < log.last_index:\n"
            "        core.outbox.append(AppendResponse(core.id, message.source, core.term, end))\n"
            "    if end <= log.durable_index:\n",
        ),
    ),
    mutant(
        "a lost append is not noticed",
        "scenario 22",
        100,
        ("raft.replication:handle_round_ack", "if message.sent:", "if False:"),
    ),
    mutant(
        "a leader appends what was addressed to another term",
        "P1",
        100,
        (
            "raft.node:_reconcile_term",
            "core.outbox.append(ProposeRejected(core.id, message.source, core.term, False))",
            "return True",
        ),
        focus=STRAGGLING_COUPS,
    ),
    scripted(
        "a truncation keeps the configuration that it removes",
        "M2",
        "raft/test_paper.py::test_4_1_a_configuration_is_in_force_as_soon_as_it_is_appended",
        ("raft.core:Core.truncate", "if self.configurations.truncate(first):", "if False:"),
    ),
    scripted(
        "two changes of the configuration at a time",
        "M2",
        "raft/test_replication.py::test_rule_m2_one_configuration_change_at_a_time_after_the_first_own_commit",
        ("raft.replication:propose_membership", " or core.configurations.index > commit", ""),
    ),
    scripted(
        "a configuration changes before the leader's first commit",
        "M2",
        "raft/test_replication.py::test_rule_m2_one_configuration_change_at_a_time_after_the_first_own_commit",
        ("raft.replication:propose_membership", "commit < leader.first_index or ", ""),
    ),
    scripted(
        "voters change in one step",
        "M2",
        "raft/test_replication.py::test_a_change_that_could_split_the_quorum_stops_the_one_who_asks_for_it",
        ("raft.configuration:change_fault", "if not legal:", "if False:"),
    ),
    scripted(
        "a majority of one half of a joint configuration is enough",
        "M2",
        "raft/test_quorum.py::test_both_halves_must_agree_while_joint_and_learners_never_count",
        ("raft.quorum:is_quorum", "return all(", "return any("),
    ),
    scripted(
        "a removed node id comes back",
        "P5",
        "raft/test_configuration.py::test_steps_that_could_let_two_majorities_decide_or_revive_an_id",
        ("raft.configuration:change_fault", "if not set(old.removed) <= set(new.removed):", "if False:"),
    ),
    scripted(
        "a follower does not look into the entries that it writes",
        "W4",
        "raft/test_replication.py::test_a_malformed_append_is_refused_and_leaves_no_trace",
        (
            "raft.following:_checked",
            "if entry.index != index or not term <= entry.term <= message.term:",
            "if False:",
        ),
    ),
    scripted(
        "the origin of an entry hears of its commit by heartbeat",
        "P7",
        "raft/test_replication.py::test_rule_p7_the_origin_hears_of_the_commit_at_once_and_the_others_later",
        ("raft.replication:maybe_commit", "leader.notify.add(origins.popleft()[1])", "origins.popleft()"),
    ),
    scripted(
        "a commit index is written by itself",
        "P7",
        "raft/test_replication.py::test_rule_p7_a_commit_causes_no_write",
        (
            "raft.durability:Durability.dirty",
            "state.vote != vote",
            "state.vote != vote or state.commit != self._log.commit_index",
        ),
    ),
    scripted(
        "one wrong clock moves log time",
        "S6",
        "raft/test_clock.py",
        ("raft.clock:median_offset", "return lower_median(known)", "return max(known)"),
    ),
)
