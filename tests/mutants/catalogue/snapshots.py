"""The state on disk: cuts, compaction, and states that come from another node (rules C1-C5, P4, R5, W5)."""

from mutants.catalogue.mutant import mutant, scripted

CUTS = {"small_cuts": True, "nodes": 3, "crashes": 60.0}
"""Many cuts, and processes that begin with them."""
LATE = {"small_cuts": True, "nodes": 3, "partitions": 60.0, "crashes": 30.0}
"""Followers that come back too late for the log."""
ALL_DOWN = {"small_cuts": True, "all_down": 30.0, "nodes": 3}
"""Nobody is left who remembers more than what is on disk."""

SNAPSHOTS = (
    mutant(
        "the applied index on disk is ahead of the data",
        "C1, scenario 57",
        60,
        (
            "kv.cut:Cut.build",
            "encode_bookkeeping(self.bookkeeping)",
            "encode_bookkeeping(msgspec.structs.replace(self.bookkeeping, index=self.index + 1))",
        ),
        focus=CUTS,
    ),
    mutant(
        "the applied index on disk is behind the data",
        "C1, scenario 57",
        60,
        (
            "kv.cut:Cut.build",
            "encode_bookkeeping(self.bookkeeping)",
            "encode_bookkeeping(msgspec.structs.replace(self.bookkeeping, index=max(0, self.index - 1)))",
        ),
        focus=CUTS,
    ),
    mutant(
        "removed keys stay on disk",
        "C1",
        60,
        ("kv.cut:Cut.build", "batch.remove(key)", "pass"),
        focus=CUTS,
    ),
    mutant(
        "the origins are left out of the state",
        "C1, P2",
        60,
        (
            "kv.machine:StateMachine.freeze",
            "tuple(sorted((node, row.boot, row.last) for node, row in self.origins.items()))",
            "()",
        ),
        focus=CUTS,
    ),
    mutant(
        "log time is left out of the state",
        "C2, S6",
        60,
        ("kv.machine:StateMachine.freeze", "log_time_ms=self.log_time_ms", "log_time_ms=0"),
        focus=CUTS,
    ),
    mutant(
        "a cut is made before the own disk has its entries",
        "C3",
        100,
        ("replica.replica:Replica._freeze", "or applied > self.node.durable_index", ""),
        focus={"small_cuts": True, "power_losses": 60.0, "slow_sync": 0.1},
    ),
    mutant(
        "a cut that is not durable lets the log go",
        "C1",
        60,
        ("replica.replica:Replica.cut_written", "if cut.release:", "if True:"),
        focus=ALL_DOWN,
    ),
    mutant(
        "the log goes further than the state on disk",
        "C1, scenario 58",
        60,
        (
            "replica.replica:Replica.cut_written",
            "min([cut.index, tail_first - 1, *kept])",
            "min(self.node.applied_index, self.node.durable_index)",
        ),
        focus=ALL_DOWN,
    ),
    scripted(
        "the oldest file of the log is removed last",
        "W2",
        "storage/test_wal_compaction.py::test_files_go_oldest_first_each_durably",
        (
            "storage.wal:Wal.collect",
            "self._files.remove(self._obsolete[0])",
            "self._files.remove(self._obsolete[-1])",
        ),
        ("storage.wal:Wal.collect", "self._obsolete.pop(0)", "self._obsolete.pop()"),
    ),
    scripted(
        "the configuration inside a state is forgotten when the log is kept",
        "C2",
        "raft/test_snapshots.py"
        "::test_a_node_that_had_lost_its_state_acts_by_the_configuration_inside_the_one_it_gets",
        ("raft.core:Core.restore", "self.configurations.rebase(index, configuration)", "pass"),
    ),
    scripted(
        "a log that does not lead to an installed state is kept",
        "C4",
        "raft/test_snapshots.py",
        ("raft.core:Core.restore", "if log.term_at(index) == term:", "if index <= log.last_index:"),
    ),
    mutant(
        "a state that is not newer is installed",
        "C4, scenario 61",
        200,
        ("raft.core:Core.wants", "index > self.log.applied_index", "True"),
        ("replica.replica:Replica.begin_install", "self.machine.store.cuts", "False"),
        focus=LATE,
    ),
    scripted(
        "the log behind a state that is being sent goes",
        "C5",
        "replica/test_snapshots.py::test_what_a_follower_is_being_sent_keeps_the_log_behind_it",
        ("replica.replica:Replica.cut_written", "tail_first - 1, *kept", "tail_first - 1"),
    ),
    scripted(
        "the log behind a state that is being sent stays for ever",
        "C5",
        "replica/test_snapshots.py::test_a_follower_that_takes_the_state_too_slowly_does_not_keep_the_log_for_ever",
        (
            "replica.replica:Replica.cut_written",
            "if self._logged_bytes - logged <= max(bound, size)",
            "if True",
        ),
    ),
    scripted(
        "payloads whose replies an install has skipped are forgotten",
        "P4",
        "replica/test_snapshots.py",
        ("replica.replica:Replica.install", "self._refuse(request, UNKNOWN)", "pass"),
    ),
    scripted(
        "payloads that ran unseen are told as not applied",
        "P4",
        "replica/test_snapshots.py",
        (
            "replica.replica:Replica.install",
            "self._refuse(request, UNKNOWN)",
            "self._refuse(request, NOT_APPLIED)",
        ),
    ),
    mutant(
        "a node without a state campaigns",
        "W5",
        100,
        ("raft.core:Core.may_campaign", "busy = self.installing or self.stateless", "busy = self.installing"),
        focus={"small_cuts": True, "nodes": 3, "state_losses": 60.0, "crashes": 60.0},
    ),
    mutant(
        "a node without a state applies what it has of the log",
        "W5",
        100,
        (
            "replica.replica:Replica.turn",
            "not (self._handed or self._installing or node.stateless)",
            "not (self._handed or self._installing)",
        ),
        focus={"small_cuts": True, "nodes": 3, "state_losses": 60.0, "crashes": 60.0},
    ),
    scripted(
        "a record that was read before it was forgotten is believed",
        "R5",
        "kv/test_delta.py",
        ("kv.delta:DeltaStore.warm", "forgotten != self.forgotten", "False"),
    ),
    scripted(
        "a record that was read ahead is believed whose key left memory for those before it",
        "R5",
        "kv/test_delta.py",
        (
            "kv.delta:DeltaStore.warm",
            "for key, record in missing:",
            "for key, record in (found for found in zip(keys, records) if found[0] not in resident):",
        ),
    ),
    scripted(
        "a key is taken for present that was removed while a group with its absence was being forgotten",
        "R5",
        "kv/test_delta.py",
        ("kv.delta:DeltaStore.trim", "lately = True", "pass"),
    ),
    scripted(
        "a key that was removed is still known to be on disk",
        "C2",
        "kv/test_delta.py",
        ("kv.presence:Presence.discard", "place >= 0", "False"),
    ),
    scripted(
        "keys are known to be on disk that were cleared away",
        "C2",
        "kv/test_delta.py",
        ("kv.presence:Presence.clear", "self._table =", "self._table = getattr(self, '_table', None) or"),
    ),
    scripted(
        "a read does not wait for the reads before it",
        "R5, P6",
        "replica/test_warming.py",
        ("replica.replica:Replica._answer_reads", "request = due.popleft()", "request = due.pop()"),
    ),
    scripted(
        "an entry does not wait for its keys",
        "R5",
        "replica/test_warming.py",
        ("replica.replica:Replica._warm_entries", "return self._warm(keys, effects)", "return True"),
    ),
    scripted(
        "an installed state is acknowledged before the log begins behind it",
        "C4",
        "raft/test_snapshots.py::"
        "test_an_installed_state_is_acknowledged_once_the_log_begins_behind_it_and_its_entries_only_from_disk",
        ("raft.core:Core.may_acknowledge", "and not disk.restarting", ""),
    ),
)
