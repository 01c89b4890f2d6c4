"""Reads: rounds, read indexes and the names of requests (rules R1-R4)."""

from mutants.catalogue.mutant import LONG_REIGNS, SLOW_LINKS, mutant, scripted

READS = (
    mutant(
        "a new leader reads before its first commit",
        "R1",
        200,
        (
            "raft.reads:_fixed_index",
            "max(core.log.commit_index, leader.first_index)",
            "core.log.commit_index",
        ),
    ),
    mutant(
        "a leader reads without asking anybody",
        "R2",
        150,
        ("raft.reads:_arrive", "if is_quorum_of(core.halves, (core.id, read.source)):", "if True:"),
        focus=LONG_REIGNS,
    ),
    scripted(
        "a read joins a round that is under way",
        "R2",
        "raft/test_reads.py::test_rule_r2_a_round_already_under_way_does_not_confirm_a_later_read",
        ("raft.reads:begin_round", "leader.round += 1", "leader.round += not leader.reads_pending"),
    ),
    mutant(
        "a follower reads what it has",
        "R1",
        20,
        (
            "replica.reads:Reads.flush",
            "if self._node.read_index(self._context):",
            "if self._node.leader != self._node.id:\n"
            "        self._confirmed.append((0, self._node.term, Question(requests, now_ms)))\n"
            "    elif self._node.read_index(self._context):",
        ),
    ),
    mutant(
        "a confirmed read does not wait for its index",
        "R1",
        20,
        ("replica.reads:Reads.runnable", "confirmed[0][0] <= applied", "True"),
    ),
    mutant(
        "a read joins a request that has left",
        "R3",
        200,
        (
            "raft.reads:read_index",
            "state.reads_unsent.append(context)",
            "(next(reversed(state.reads_sent.values()))[1] if state.reads_sent else state.reads_unsent)"
            ".append(context)",
        ),
        focus=SLOW_LINKS,
    ),
    mutant(
        "a leader that steps down answers the reads that wait",
        "R3",
        200,
        (
            "raft.transitions:_leave",
            "core.reads_dropped += waiting_contexts(core)",
            "read_state = __import__('balsadb.raft.ready').raft.ready.ReadState\n"
            "    core.reads_ready += [\n"
            "        read_state(context, core.log.commit_index, core.wall_ms, core.term)\n"
            "        for context in waiting_contexts(core)\n"
            "    ]",
        ),
    ),
    scripted(
        "the answer to a former process confirms today's read",
        "R3",
        "raft/test_scenarios.py::test_26_an_answer_to_a_former_process_confirms_nothing",
        ("raft.reads:handle_response", " or message.boot != core.boot", ""),
    ),
    scripted(
        "reads survive a change of leader",
        "R3",
        "raft/test_scenarios.py::test_26_a_change_of_leader_drops_reads_instead_of_answering_them",
        ("raft.transitions:_leave", "core.reads_dropped += waiting_contexts(core)", "pass"),
    ),
    scripted(
        "a request is repeated under its old name",
        "R3",
        "raft/test_scenarios.py::test_26_a_late_answer_to_an_earlier_name_confirms_nothing",
        (
            "raft.reads:retry_requests",
            "follower.reads_unsent[:0] = follower.reads_sent.pop(counter)[1]",
            "core.read_counter -= 1\n        follower.reads_unsent[:0] = follower.reads_sent.pop(counter)[1]",
        ),
    ),
    scripted(
        "reads that a lost leader has confirmed wait for ever",
        "R3",
        "replica/test_reads.py::test_a_read_confirmed_at_an_entry_that_a_later_term_lost_asks_again",
        ("replica.reads:Reads.flush", "self._confirm_anew()", "pass"),
    ),
    scripted(
        "a round is acknowledged only when the disk is done",
        "R4",
        "raft/test_reads.py::test_rule_r4_a_round_is_acknowledged_before_the_disk_is_done",
        (
            "raft.following:flush",
            "if follower.round_due:",
            "if follower.round_due and not (core.disk.inflight or core.disk.dirty(core.term, core.vote)):",
        ),
    ),
    scripted(
        "a round is acknowledged in a term that is not on disk",
        "R4",
        "raft/test_reads.py::test_rule_r4_no_round_is_acknowledged_in_a_term_that_is_not_on_disk",
        ("raft.core:Core.may_acknowledge", "disk.term == self.term", "True"),
    ),
    scripted(
        "heartbeats wait for the append window",
        "R4",
        "raft/test_replication.py::test_the_window_is_bounded_by_count_and_heartbeats_pass_it",
        (
            "raft.replication:tick",
            "for peer in leader.peers:\n        _send",
            "for peer in [p for p in leader.peers if p.window_open(core.options)]:\n        _send",
        ),
        (
            "raft.replication:flush",
            "if peer.round_sent < round_ and",
            "if peer.round_sent < round_ and peer.window_open(core.options) and",
        ),
    ),
    scripted(
        "the state is as old as the newest question, answered or not",
        "R4",
        "replica/test_reads.py::test_the_state_is_as_old_as_the_newest_question_whose_answer_is_applied",
        (
            "replica.reads:Reads.runnable",
            "max(self._fresh_ms or 0, question.asked_ms)",
            "self._asked_last_ms",
        ),
    ),
    scripted(
        "nobody asks how old the state is while nobody reads",
        "R4",
        "sim/test_staleness.py::"
        "test_a_follower_cut_off_from_the_leader_reports_a_growing_bound_and_then_refuses",
        ("replica.reads:Reads.flush", "if not (self._waiting or due):", "if not self._waiting:"),
    ),
    scripted(
        "a follower's request is not its acknowledgement",
        "R4",
        "raft/test_scenarios.py::test_25_a_follower_asks_the_leader_and_answers_in_one_round_trip",
        ("raft.reads:_arrive", "(core.id, read.source)", "(core.id,)"),
    ),
    scripted(
        "a learner's read counts as an acknowledgement",
        "R2",
        "raft/test_reads.py::test_a_learners_read_counts_as_no_acknowledgement",
        (
            "raft.reads:_arrive",
            "if is_quorum_of(core.halves, (core.id, read.source)):",
            "if len({core.id, read.source}) * 2 > len(core.halves[0]) - 1:",
        ),
    ),
)
