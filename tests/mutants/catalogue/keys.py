"""Keys that expire, WATCH, and removing everything (rules S5, S6, S7)."""

from mutants.catalogue.mutant import scripted

_EXPIRING = "kv/test_expiring_keys.py"

KEYS = (
    scripted(
        "a read's clock decides whether a key is there",
        "S6",
        f"{_EXPIRING}::test_reads_neither_move_time_nor_remove_anything",
        (
            "kv.machine:StateMachine.tell_time",
            "self._space.now_ms = max(clock_ms, self.log_time_ms)",
            "self._space.pass_time(max(clock_ms, self.log_time_ms), True)",
        ),
    ),
    scripted(
        "a read removes a key that is due",
        "S6",
        f"{_EXPIRING}::test_more_than_an_entry_removes_reads_as_absent_at_once_and_goes_with_the_next_ones",
        (
            "kv.keyspace:Keyspace._get_unless_due",
            "record = self.records.get(key)\n",
            "record = self.records.get(key)\n"
            "    if record is not None and self.is_due(deadline_of(record)):\n"
            "        self.records.remove(key)\n"
            "        return None\n",
        ),
    ),
    scripted(
        "what is due and not removed yet is still there",
        "S5",
        f"{_EXPIRING}::test_more_than_an_entry_removes_reads_as_absent_at_once_and_goes_with_the_next_ones",
        ("kv.keyspace:Keyspace.pass_time", "self._get_unless_due if overdue else", ""),
    ),
    scripted(
        "a hint is believed without a look at the key",
        "C1",
        f"{_EXPIRING}::test_an_overwritten_key_does_not_go_at_its_former_deadline",
        ("kv.machine:_ExpiringKeys.expire", " and deadline_of(record) == deadline", ""),
    ),
    scripted(
        "KEEPTTL is ignored",
        "S6",
        f"{_EXPIRING}::test_what_becomes_of_a_deadline",
        ("kv.commands.options:parse_options", "options.keep = True", "options.keep = False"),
    ),
    scripted(
        "WATCH is ignored",
        "S7",
        "kv/test_watching.py",
        ("kv.execution:_run_transaction", "if any(", "if False and any("),
    ),
    scripted(
        "an EXEC leaves before the versions of its WATCH are known",
        "S7",
        "server/test_connection.py::"
        "test_what_follows_a_watch_waits_for_its_versions_whether_it_comes_with_it_or_later",
        ("server.connection:ClientConnection._advance", "if self._watching is not None:", "if False:"),
    ),
    scripted(
        "removed keys come back from the disk",
        "S5",
        "kv/test_delta_slices.py::test_all_keys_are_removed_by_a_mark_and_those_on_disk_with_the_next_cut",
        ("kv.cut:Cut.build", "if self.cleared:", "if False:"),
    ),
    scripted(
        "a scan goes on behind keys that it never returned",
        "S4",
        "kv/test_scans.py::test_an_unknown_cursor_never_leaves_out_a_key",
        ("kv.cursors:Cursors.position", '.rstrip(b"\\0")', ""),
    ),
)
