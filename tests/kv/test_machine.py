"""Which payloads run (rules P2, P5), what an entry may change (S5), and what stands between (P6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balsadb.errors import InvariantError
from balsadb.kv.batch import UnknownFormat, encode_batch
from balsadb.kv.limits import CHANGE_BYTES_MAX, DIGESTS_KEPT, VALUE_BYTES_MAX
from balsadb.kv.machine import Origin, StateMachine

BIG = b"v" * VALUE_BYTES_MAX
TRY_AGAIN = "-TRYAGAIN one log entry can change no more, and others came first; nothing was done"
TOO_LARGE = f"-EXECABORT Transaction discarded because it would change more than {CHANGE_BYTES_MAX} bytes."
NOT_INSIDE = "-ERR Command not allowed inside a transaction"


def note(node: int, boot: int, sequence: int) -> bytes:
    """Return a payload that writes down its own name."""
    return encode_batch(node, boot, sequence, [[b"APPEND", b"%d" % node, b"%d.%d " % (boot, sequence)]])


class TestOriginOrder:
    """Rule P2: the payloads of a node run in the order in which it made them, each once."""

    def test_duplicates_are_skipped(self, fed):
        assert fed.apply(note(1, 1, 1)).ran
        assert not fed.apply(note(1, 1, 1)).ran
        assert fed.apply(note(1, 1, 2)).ran
        assert not fed.apply(note(1, 1, 1)).ran
        assert fed.read("GET 1") == b"1.1 1.2 "

    def test_a_skipped_payload_has_a_name_and_no_replies(self, fed):
        outcome = fed.apply(note(2, 7, 5))
        assert (outcome.node, outcome.boot, outcome.sequence, outcome.ran) == (2, 7, 5, False)
        assert outcome.replies == []
        assert fed.machine.origins == {}

    def test_gaps_are_not_jumped(self, fed):
        assert not fed.apply(note(1, 1, 2)).ran
        assert fed.apply(note(1, 1, 1)).ran
        assert not fed.apply(note(1, 1, 3)).ran

    def test_a_newer_boot_begins_at_one_and_ends_the_older(self, fed):
        fed.apply(note(1, 1, 1))
        assert not fed.apply(note(1, 3, 2)).ran
        assert fed.apply(note(1, 3, 1)).ran
        assert not fed.apply(note(1, 1, 2)).ran
        assert not fed.apply(note(1, 2, 1)).ran
        assert fed.machine.origins == {1: Origin(3, 1)}

    def test_origins_do_not_mix(self, fed):
        assert fed.apply(note(1, 1, 1)).ran
        assert fed.apply(note(2, 1, 1)).ran

    @given(st.lists(st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 4)), max_size=60))
    def test_whatever_arrives_each_boot_runs_a_prefix_in_order(self, arrivals):
        machine = StateMachine([1, 2])
        for index, arrival in enumerate(arrivals, 1):
            machine.apply_commands(index, 1, 0, note(*arrival))
        for node in (1, 2):
            ran = [
                tuple(map(int, word.split(b".")))
                for word in (machine.read([b"GET", b"%d" % node]) or b"").split()
            ]
            assert ran == sorted(set(ran))
            for boot in {boot for boot, _ in ran}:
                numbers = [sequence for b, sequence in ran if b == boot]
                assert numbers == list(range(1, len(numbers) + 1))


class TestMembers:
    """Rule P5: only members are origins."""

    def test_a_strangers_payload_is_skipped(self, fed):
        assert not fed.apply(note(4, 1, 1)).ran

    def test_a_new_members_payloads_run_and_a_removed_ones_do_not(self, fed):
        machine = fed.machine
        fed.apply(note(3, 1, 1))
        machine.apply_membership(2, 1, 5, (1, 2, 4), (3,), b"configuration")
        assert fed.apply(note(4, 1, 1)).ran
        assert not fed.apply(note(3, 1, 2)).ran
        assert set(machine.origins) == {4}


class TestOrderOfEntries:
    def test_entries_must_come_in_order(self, fed):
        fed.machine.apply_empty(1, 5, 10)
        for index, term in ((1, 5), (3, 5), (2, 4)):
            with pytest.raises(InvariantError, match=f"entry {index} of term {term}"):
                fed.machine.apply_empty(index, term, 10)
        fed.machine.apply_empty(2, 6, 10)
        assert (fed.machine.applied_index, fed.machine.applied_term) == (2, 6)

    def test_log_time_never_goes_back(self, fed):
        fed.machine.apply_empty(1, 1, 10)
        fed.machine.apply_empty(2, 1, 7)
        assert fed.machine.log_time_ms == 10

    def test_a_malformed_payload_is_a_no_op_with_an_alarm(self, fed):
        fed.do("SET a 1")
        before = fed.data()
        assert not fed.apply(b"\x01nonsense").ran
        assert (fed.data(), fed.machine.alarms, fed.machine.applied_index) == (before, 1, 2)

    def test_an_unknown_version_stops_before_anything_changes(self, fed):
        with pytest.raises(UnknownFormat):
            fed.apply(b"\x09")
        assert fed.machine.applied_index == 0


class TestRevisions:
    def test_a_key_carries_index_and_position_of_its_last_change(self, fed):
        fed.batch("SET a 1", "SET b 1", "EXEC 2", "SET c 1", "MSET d 1 a 2", "APPEND b x", "GET b")
        fed.batch("SET c 2 NX")
        assert {key: record[1:] for key, record in fed.data().items()} == {
            b"a": (1, 4),
            b"b": (1, 5),
            b"c": (1, 3),
            b"d": (1, 4),
        }


class TestLocalSlots:
    """Rule P6: reads between the writes of their connection."""

    def test_a_read_sees_what_stands_before_it(self, fed):
        reads = [(0, "GET a"), (1, "GET a"), (1, "EXISTS a"), (2, "MGET a b")]
        assert fed.batch("SET a 1", "SET a 2", reads=reads) == [
            None, "+OK", b"1", 1, "+OK", [b"2", None]
        ]  # fmt: skip

    def test_a_read_after_a_transaction_sees_all_of_it(self, fed):
        reads = [(0, "GET n"), (3, "GET n")]
        assert fed.batch("EXEC 2", "INCR n", "INCR n", "INCR n", reads=reads) == [None, [1, 2], b"2", 3]

    def test_a_read_never_stands_inside_a_transaction(self, fed):
        assert fed.batch("EXEC 2", "INCR n", "INCR n", reads=[(1, "GET n")]) == [[1, 2], b"2"]

    def test_a_write_can_not_hide_in_a_slot(self, fed):
        replies = fed.batch("SET a 1", reads=[(0, "SET b 1"), (1, "NOSUCH"), (9, "GET")])
        assert replies[0].startswith("-ERR command changes data")
        assert replies[1] == "+OK"
        assert replies[2].startswith("-ERR unknown command 'NOSUCH'")
        assert replies[3] == "-ERR wrong number of arguments for 'get' command"
        assert fed.read("EXISTS b") == 0

    def test_slots_do_not_touch_the_state(self, fed):
        other = StateMachine([1, 2, 3])
        payload = encode_batch(1, 1, 1, [[b"INCR", b"n"], [b"SET", b"a", b"1"]])
        fed.apply(payload, [(0, [b"GET", b"n"]), (1, [b"GET", b"n"]), (2, [b"DBSIZE"])])
        other.apply_commands(1, 1, 1000, payload)
        assert fed.machine.digest() == other.digest()


class TestTransactions:
    def test_commands_that_fail_do_not_stop_the_others(self, fed):
        fed.do("SET text x")
        assert fed.batch("EXEC 3", "INCR a", "INCR text", "INCR a", "GET a") == [
            [1, "-ERR value is not an integer or out of range", 2],
            b"2",
        ]

    def test_reads_see_the_writes_before_them(self, fed):
        fed.do("MSET a 1 b 1")
        block = ["DEL a", "GET a", "SET c 1", "DBSIZE", "SET a 2", "MGET a b c", "DEL c", "DBSIZE"]
        assert fed.batch("EXEC 8", *block) == [[1, None, "+OK", 2, "+OK", [b"2", b"1", b"1"], 1, 2]]
        assert fed.read("MGET a b c") == [b"2", b"1", None]
        assert fed.read("DBSIZE") == 2

    def test_what_one_node_alone_knows_stays_outside(self, fed):
        for command in ("TIME", "PING", "MULTI", "EXEC", "EXEC 1", "RAFT.DIGEST", "RAFT STATUS"):
            [[reply]] = fed.batch("EXEC 1", command)
            expected = "-ERR wrong number" if command == "EXEC 1" else NOT_INSIDE
            assert reply.startswith(expected)

    @pytest.mark.parametrize("header", ["EXEC", "EXEC x", "EXEC -1", "EXEC 3", "EXEC 1 1", "EXEC 01"])
    def test_a_malformed_one_takes_everything_behind_it_along(self, fed, header):
        assert fed.batch("SET a 1", header, "SET a 2", "SET a 3") == ["+OK", "-ERR malformed transaction"]
        assert fed.read("GET a") == b"1"

    def test_an_empty_one_answers_an_empty_list(self, fed):
        assert fed.batch("EXEC 0", "SET a 1") == [[], "+OK"]

    def test_of_reads_alone(self, fed):
        fed.do("SET a 1")
        reads = [[b"GET", b"a"], [b"DBSIZE"], [b"SET", b"a", b"2"], [b"raft.digestat", b"1"]]
        replies = fed.machine.read_transaction(reads)
        assert replies[:2] == [b"1", 1]
        assert replies[2].text.startswith(b"ERR command changes data")
        assert replies[3].text == NOT_INSIDE[1:].encode()


class TestBudget:
    """Rule S5: an entry changes at most 64 MiB."""

    def test_what_follows_the_command_without_room_is_refused_too(self, fed):
        commands = [[b"SET", b"%d" % number, BIG] for number in range(9)]
        replies = fed.batch(*commands, "SET small 1", "GET 0", "eXISTS 0", reads=[(12, "GET small")])
        assert replies == ["+OK"] * 7 + [TRY_AGAIN] * 5 + [None]
        assert fed.do("SET small 1") == "+OK"

    def test_growth_counts_with_every_change(self, fed):
        fed.do([b"SET", b"a", BIG[:-100]])
        assert fed.batch(*["APPEND a x"] * 10).count(TRY_AGAIN) == 2

    def test_a_transaction_has_room_as_a_whole_or_not_at_all(self, fed):
        fill = [[b"SET", b"%d" % number, BIG] for number in range(6)]
        block = [[b"EXEC", b"2"], [b"SET", b"a", BIG], [b"SET", b"b", BIG]]
        assert fed.batch(*fill, *block, "SET c 1") == ["+OK"] * 6 + [TRY_AGAIN] * 2
        assert fed.read("EXISTS a b c") == 0
        assert fed.batch(*block, "SET c 1") == [["+OK", "+OK"], "+OK"]

    def test_one_too_large_for_any_entry_is_told_so_and_is_tried_once_an_entry(self, fed):
        fed.do([b"SET", b"a", BIG[:-100]])
        block = ["EXEC 10", *["APPEND a x"] * 10]
        assert fed.batch(*block, *block, "EXEC 1", "GET a") == [TOO_LARGE, TRY_AGAIN, TRY_AGAIN]
        assert fed.read("STRLEN a") == VALUE_BYTES_MAX - 100

    def test_deletions_count_their_keys(self, fed):
        fill = [[b"SET", b"%d" % number, BIG] for number in range(7)]
        rest = CHANGE_BYTES_MAX - 7 * (VALUE_BYTES_MAX + 1) - 2
        fed.do("MSET long 1 x 1")
        filling = [b"SET", b"f", BIG[: rest - 3]]
        assert fed.batch(*fill, filling, "DEL x", "DEL x", "DEL long", "DEL x") == (
            ["+OK"] * 8 + [1, 0, TRY_AGAIN, TRY_AGAIN]
        )
        assert fed.read("EXISTS long") == 1


class TestDigest:
    """Rule S8."""

    def test_it_covers_its_whole_entry(self, fed):
        [[index, digest], reply] = fed.batch("RAFT.DIGEST", "SET a 1")
        other = StateMachine([1, 2, 3])
        other.apply_commands(1, 1, 1000, encode_batch(1, 1, 1, [[b"NOSUCH"], [b"SET", b"a", b"1"]]))
        # The other machine's key has the same revision and its origin the same row.
        assert (index, digest, reply) == (1, other.digest(), "+OK")

    def test_it_can_be_asked_for_later_as_long_as_it_is_kept(self, fed):
        digests = [fed.do("RAFT.DIGEST") for _ in range(DIGESTS_KEPT + 1)]
        assert len({digest for _, digest in digests}) == DIGESTS_KEPT + 1
        for index, digest in digests[1:]:
            assert fed.read(f"RAFT.DIGESTAT {index}") == [index, digest]
        assert fed.read("RAFT.DIGESTAT 1") == "-ERR no digest of index 1 is kept, only the last 16"
        assert fed.read("RAFT.DIGESTAT x") == "-ERR value is not an integer or out of range"

    def test_every_part_of_the_state_is_in_it(self):
        def state(members=(1, 2), node=1, boot=1, key=b"k", value=b"v", term=1, time=5, before=()):
            machine = StateMachine(members)
            commands = [*before, [b"SET", key, value]]
            machine.apply_commands(1, term, time, encode_batch(node, boot, 1, commands))
            return machine

        changed = state()
        changed.apply_membership(2, 1, 5, (1, 2), (), b"configuration")
        later = state()
        later.apply_empty(2, 1, 5)
        emptied = state()
        emptied.apply_membership(2, 1, 5, (1, 2), (1,), b"configuration")
        machines = [
            state(), state(members=(1, 2, 3)), state(node=2), state(boot=2), state(key=b"kv", value=b""),
            state(value=b"w"), state(term=2), state(time=6), state(before=[[b"GET", b"k"]]), changed, later,
            emptied,
        ]  # fmt: skip
        assert len({machine.digest() for machine in machines}) == len(machines)

    def test_the_order_in_which_members_were_named_is_not(self):
        # 1, 9 and 17 share a bucket of a small hash table, so a set yields them in the order they came.
        assert StateMachine([1, 9, 17]).digest() == StateMachine([17, 9, 1]).digest()


def test_reads_between_entries_refuse_what_is_no_read(fed):
    assert fed.read("SET a 1").startswith("-ERR command changes data")
    assert fed.read("PING").startswith("-ERR command changes data")
    assert fed.read("NOSUCH").startswith("-ERR unknown command")
    assert fed.read("GET") == "-ERR wrong number of arguments for 'get' command"
    assert fed.read([]).startswith("-ERR unknown command ''")
    assert fed.read("gEt a") is None


def test_local_commands_do_not_go_through_the_log(fed):
    assert fed.do("PING").startswith("-ERR command belongs to one node")
    assert fed.do("eXEC").startswith("-ERR command belongs to one node")


def test_it_counts_and_lists_its_keys(fed):
    fed.do("MSET a 1 b 2")
    assert len(fed.machine) == 2
    assert sorted(fed.machine.keys()) == [b"a", b"b"]


def test_replies_count_against_what_one_entry_may_do(fed):
    """Rule S5: a few bytes of log that ask for gigabytes would fill the memory of every replica."""
    fed.do("SETRANGE k 8388607 x")
    replies = fed.batch(*["GETRANGE k 1 -1"] * 12)
    assert [len(reply) for reply in replies[:9]] == [VALUE_BYTES_MAX - 1] * 9, "64 MiB are passed by the last"
    assert replies[9:] == [TRY_AGAIN] * 3
    assert len(fed.do("GETRANGE k 1 -1")) == VALUE_BYTES_MAX - 1


def test_sums_of_enormous_numbers_count_against_what_one_entry_may_do(fed):
    """Each takes milliseconds, and an entry full of them would stop all nodes for longer than that."""
    replies = fed.batch(*["INCRBYFLOAT k 1e4900", "DEL k"] * 200)
    assert replies[0] != TRY_AGAIN
    assert replies[-1] == TRY_AGAIN
