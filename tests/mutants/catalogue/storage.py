"""The write-ahead log and the data directory (rules W2-W5)."""

from mutants.catalogue.mutant import COUPS, FLIPS, RELAPSES, mutant, scripted

STORAGE = (
    mutant(
        "nothing is synced",
        "W3",
        40,
        ("storage.wal:Wal.execute", "self._file.sync()", "pass"),
    ),
    mutant(
        "a batch is noted as durable before it is",
        "W5",
        100,
        (
            "storage.wal:Wal.note_end",
            "LogEnd(self._sequence, self._batch, lost)",
            "LogEnd(self._sequence, self._batch + (self._flying is not None), lost)",
        ),
        focus={"crashes": 60.0, "nodes": 3},
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
        300,
        ("storage.wal:Wal._make_certain", "file.sync()", "pass"),
        focus=RELAPSES,
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
    mutant(
        "an overwritten suffix comes back at a start",
        "W2",
        200,
        ("storage.recovery:Replay._take_entries", "self._drop(first)", "pass"),
        focus=COUPS,
    ),
    mutant(
        "the hard state is written before the entries",
        "W2",
        40,
        (
            "storage.wal:Wal.plan",
            "buffers.append(self._codec.hard_state(state))",
            "buffers.insert(0, self._codec.hard_state(state))",
        ),
    ),
    scripted(
        "a later term in an entry keeps the old vote",
        "W2",
        "storage/test_recovery.py::test_a_later_term_in_an_entry_empties_the_vote",
        (
            "storage.recovery:in_force",
            "HardState(term, NOBODY, state.commit)",
            "HardState(term, state.vote, state.commit)",
        ),
    ),
    mutant(
        "damage is taken for a torn batch",
        "W3",
        400,
        (
            "storage.recovery:Replay._bad_batch",
            "if body[-1] != 0 and records.count_zero_sectors(body) <= batch.zero_sectors:",
            "if False:",
        ),
        # The noted end of the log is a second line of defence behind it.
        ("storage.log_end:check_reached", "replay.batch < end.batch", "False"),
        focus=FLIPS,
    ),
    scripted(
        "a torn batch is not zeroed",
        "W3",
        "storage/test_recovery.py::test_newest_batch_with_missing_sectors_is_torn_and_goes_as_a_whole",
        ("storage.wal:Wal._make_certain", "segments.write_zeros(file, replay.end, len(data))", "pass"),
    ),
    scripted(
        "a log that ends below its commit index is believed",
        "W3",
        "storage/test_recovery.py::test_a_cut_below_the_recorded_commit_is_damage",
        ("storage.recovery:Replay.finish", "if state.commit > last:", "if False:"),
    ),
    scripted(
        "a missing segment is passed over",
        "W3",
        "storage/test_recovery.py::test_a_missing_segment_in_the_middle_is_named",
        ("storage.wal:segment_names", "if after.sequence != before.sequence + 1:", "if False:"),
    ),
    scripted(
        "after a failed sync the log goes on",
        "W4",
        "storage/test_wal.py::test_after_a_failure_everything_is_refused",
        ("storage.wal:Wal.execute", "self._failure = str(error)", "pass"),
    ),
    scripted(
        "a short write is taken for a whole one",
        "W4",
        "storage/test_wal.py::test_a_short_write_is_a_failed_one",
        ("storage.files:_OsFile.write", "if written != expected:", "if False:"),
    ),
    scripted(
        "a write has more buffers than the system takes",
        "W4",
        "storage/test_files.py::test_more_buffers_than_one_call_takes_are_still_one_write",
        ("storage.files:_OsFile.write", "if len(buffers) > IOV_MAX:", "if False:"),
    ),
    scripted(
        "what the kernel could not sync counts",
        "W4",
        "server/test_disk.py::test_nothing_counts_after_a_sync_that_failed",
        ("server.disk:LogDisk._synced", "if error:", "if False:"),
    ),
    scripted(
        "what the kernel was told to sync counts at once",
        "W4",
        "server/test_disk.py::test_a_write_counts_only_when_the_kernel_has_synced_it",
        ("server.disk:LogDisk._begin", "self._idle.clear()", "self._done(write)"),
    ),
    scripted(
        "a recovery keeps the old cluster's id",
        "M4",
        "storage/test_sole_voter.py::test_the_node_is_the_only_voter_of_a_new_cluster_and_has_every_entry_of_its_log",
        ("storage.sole_voter:successor", "cluster_id=cluster_id", "cluster_id=old.cluster_id"),
    ),
    scripted(
        "a recovery forgets who was a member",
        "M4",
        "storage/test_sole_voter.py::test_the_node_is_the_only_voter_of_a_new_cluster_and_has_every_entry_of_its_log",
        ("storage.sole_voter:successor", "{*old.removed, *old.everyone()}", "{*old.removed}"),
    ),
    scripted(
        "a recovery drops what is not known to be committed",
        "M4",
        "storage/test_sole_voter.py::test_the_node_is_the_only_voter_of_a_new_cluster_and_has_every_entry_of_its_log",
        ("storage.sole_voter:_advance", "last = recovered.last_index", "last = recovered.hard_state.commit"),
    ),
    scripted(
        "a recovered state does not replace the log that it was made of",
        "M4",
        "storage/test_sole_voter.py::test_the_node_is_the_only_voter_of_a_new_cluster_and_has_every_entry_of_its_log",
        (
            "storage.sole_voter:make_sole_voter",
            "os.path.basename(fresh), held.index",
            "os.path.basename(fresh), 0",
        ),
    ),
    scripted(
        "the longest log is taken for the safest one",
        "M4",
        "storage/test_survivors.py",
        (
            "storage.survivors:_rank",
            "*survivor.end,",
            "survivor.last_index, survivor.last_term,",
        ),
    ),
    scripted(
        "a damaged log counts as read",
        "M4",
        "storage/test_survivors.py",
        (
            "storage.survivors:judge",
            "for survivor in survivors if survivor.whole}",
            "for survivor in survivors}",
        ),
    ),
)
