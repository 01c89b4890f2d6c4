"""Bugs on purpose. Each is small, plausible, and was once a real bug of some database, or of ours.

`seeds` is how many seeds of the simulator the suite may need to find it; the first that fails counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mutants.planting import Edit


class Mutant(NamedTuple):
    """A bug on purpose."""

    name: str
    rule: str
    """The rule, or section of the Raft paper, that it breaks."""
    edits: tuple[Edit, ...]
    seeds: int
    focus: Mapping[str, float | bool]
    """Fields of the fault plan that are fixed, for bugs that need a rare mixture of faults."""
    scenario: tuple[object, ...] | None
    """Module, function and arguments of the scenario that finds it, where chance does not in time."""


def mutant(
    name: str,
    rule: str,
    seeds: int,
    *edits: tuple[str, str, str],
    focus: Mapping[str, float | bool] | None = None,
    scenario: tuple[object, ...] | None = None,
) -> Mutant:
    return Mutant(name, rule, tuple(Edit(*edit) for edit in edits), seeds, focus or {}, scenario)


COUPS = {"nodes": 5, "election_ticks": 10, "coups": 300.0, "crashes": 60.0, "small_caches": True}
"""Leader after leader, none of which finishes what it began."""
SPLIT_VOTES = {"nodes": 3, "election_ticks": 10, "coups": 200.0, "crashes_in_writes": 0.005, "slow_sync": 0.1}
"""Candidates that meet in a term, on disks that take their time."""
QUICK_RESTARTS = {
    "nodes": 3,
    "duplication": 0.5,
    "straggling": 0.2,
    "crashes": 60.0,
    "relapses": 0.5,
    "coups": 0.0,
}
"""Processes that live shorter than their messages."""


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
        focus=COUPS | {"delay_us_max": 5_000, "sync_us_max": 2_000},
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
)

REPLICATION = (
    mutant(
        "entries of earlier terms are committed by counting",
        "paper 5.4.2, figure 8",
        0,
        ("raft.replication:maybe_commit", " or log.term_at(agreed) != core.term", ""),
        scenario=("test_paper", "test_5_4_2_figure_8_an_entry_of_a_former_term_is_not_committed_by_counting"),
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
        400,
        (
            "raft.durability:Durability.truncated",
            "self._inflight_last = min(self._inflight_last, self._log.last_index)",
            "pass",
        ),
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
        ("raft.clock:stamp", "return max(last_ms, wall_ms + offset_ms)", "return wall_ms"),
    ),
)

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
        40,
        ("raft.reads:_arrive", "if is_quorum_of(core.halves, (core.id, read.source)):", "if True:"),
    ),
    mutant(
        "a read joins a round that is under way",
        "R2",
        0,
        ("raft.reads:begin_round", "leader.round += 1", "leader.round += not leader.reads_pending"),
        scenario=("test_reads", "test_rule_r2_a_round_already_under_way_does_not_confirm_a_later_read", True),
    ),
    mutant(
        "a follower reads what it has",
        "R1",
        20,
        (
            "replica.reads:Reads.flush",
            "if self._node.read_index(self._context):",
            "if self._node.leader != self._node.id:\n"
            "        self._confirmed.append((0, self._node.term, requests))\n"
            "    elif self._node.read_index(self._context):",
        ),
    ),
    mutant(
        "a confirmed read does not wait for its index",
        "R1",
        20,
        ("replica.reads:Reads.runnable", "confirmed[0][0] <= applied", "True"),
    ),
)

REPLICA = (
    mutant(
        "a payload is made anew before the old one is dead",
        "P1",
        40,
        (
            "replica.proposals:Proposals.flush",
            "if self._window[-1].term != node.term or",
            "if self._window[-1].term != node.term:\n"
            "                self.bury(node.term)\n"
            "                continue\n"
            "            if",
        ),
    ),
    mutant(
        "payloads of the present term are taken for dead",
        "P1",
        20,
        ("replica.proposals:Proposals.bury", "window[0].term >= term", "window[0].term > term"),
    ),
    mutant(
        "a payload that ran runs again",
        "P2",
        20,
        ("kv.machine:StateMachine._admit", "if not (follows or begins):", "if False:"),
    ),
    mutant(
        "payloads run with gaps before them",
        "P2",
        400,
        (
            "kv.machine:StateMachine._admit",
            "batch.sequence == origin.last + 1",
            "batch.sequence > origin.last",
        ),
    ),
    mutant(
        "any other boot begins anew",
        "P2",
        400,
        (
            "kv.machine:StateMachine._admit",
            "begins = batch.boot > origin.boot and",
            "begins = batch.boot != origin.boot and",
        ),
        focus=QUICK_RESTARTS | {"election_ticks": 50, "partitions": 0.0},
    ),
    mutant(
        "the boot counter is not raised",
        "P2",
        40,
        ("storage.datadir:DataDirectory.open", "boot=meta.boot + 1", "boot=max(meta.boot, 1)"),
    ),
    mutant(
        "the raised boot counter is not synced",
        "P2",
        400,
        (
            "storage.datadir:DataDirectory.update_meta",
            "file.sync()",
            "pass",
        ),
        ("storage.datadir:DataDirectory.update_meta", "files.sync_directory(self.path)", "pass"),
    ),
    mutant(
        "a waiter is answered by whatever runs next",
        "scenario 33",
        40,
        (
            "replica.replica:Replica._apply_commands",
            "if outcome.ran and outcome.node == self.node.id and outcome.boot == self.boot:",
            "window = self._proposals._window\n"
            "    due = sum(request.answers for request in window[0].requests) if window else 0\n"
            "    if outcome.ran and window and due == len(outcome.replies):\n"
            "        outcome = __import__('msgspec').structs.replace(outcome, sequence=window[0].sequence)",
        ),
    ),
    mutant(
        "an open outcome is told as not applied",
        "P1",
        40,
        (
            "replica.replica:Replica.tick",
            "self._refuse(request, UNKNOWN)",
            "self._refuse(request, NOT_APPLIED)",
        ),
    ),
    mutant(
        "reads and writes of a connection overtake each other",
        "P6",
        40,
        (
            "replica.request:Lane.admits",
            "return not self.backlog and (self.flying == 0 or self.kind is kind)",
            "return True",
        ),
    ),
    mutant(
        "reads that ride on a payload run before it",
        "P6",
        20,
        (
            "replica.proposals:Proposals._take",
            "(base + position, command) for position, command in request.reads",
            "(base, command) for position, command in request.reads",
        ),
    ),
)

STORAGE = (
    mutant(
        "nothing is synced",
        "W3",
        40,
        ("storage.wal:Wal.execute", "self._file.sync()", "pass"),
    ),
    mutant(
        "a failed sync is ignored",
        "W4",
        400,
        (
            "storage.wal:Wal.execute",
            "self._file.sync()",
            "with __import__('contextlib').suppress(StorageError):\n                self._file.sync()",
        ),
    ),
    mutant(
        "a start believes what no sync has confirmed",
        "W4",
        400,
        ("storage.wal:Wal._make_certain", "file.sync()", "pass"),
    ),
    mutant(
        "the hard state is missing from a segment's header",
        "W2",
        40,
        ("storage.wal:Wal._wish", "hard_state=self._hard_state", "hard_state=HardState()"),
    ),
    mutant(
        "a segment's name is not synced",
        "W3",
        100,
        ("storage.segments:SegmentMaker.make", "self._files.sync_directory(self._directory)", "pass"),
    ),
    mutant(
        "a segment gets its name before its header is durable",
        "W3",
        200,
        ("storage.segments:SegmentMaker.make", "file.sync()", "pass"),
    ),
    mutant(
        "a segment is not filled with zeros",
        "W3",
        400,
        (
            "storage.segments:SegmentMaker._fill",
            "write_zeros(file, at, min(at + FILL_BYTES, length))",
            "file.write([b'\\xff' * length], 0)",
        ),
    ),
    mutant(
        "a torn batch is taken for damage",
        "W3",
        200,
        (
            "storage.recovery:Replay._bad_batch",
            "if body[-1] != 0 and records.count_zero_sectors(body) <= batch.zero_sectors:",
            "if True:",
        ),
    ),
    mutant(
        "checksums of the log are not checked",
        "W3",
        400,
        (
            "storage.records:Codec.sound",
            "return bool(google_crc32c.extend(start, body) == checksum)",
            "return True",
        ),
        (
            "raft.entry:decode_entry",
            "if google_crc32c.value(encoded[_FRAME.size :]) != checksum:",
            "if False:",
        ),
    ),
)

MUTANTS = (*ELECTION, *REPLICATION, *READS, *REPLICA, *STORAGE)
