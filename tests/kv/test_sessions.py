"""Sessions: exactly once, whatever is sent again, late, or too much (rules S1, S2, S6)."""

from __future__ import annotations

import random
import tracemalloc
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balsadb.kv.batch import encode_batch
from balsadb.kv.cut import decode_bookkeeping
from balsadb.kv.limits import (
    EXPIRED_PER_ENTRY_MAX,
    SESSION_BYTES_MAX,
    SESSION_TTL_MS_MAX,
    SESSION_TTL_MS_MIN,
    SESSION_WINDOW,
)
from balsadb.kv.machine import StateMachine
from balsadb.kv.memory import MemoryBase
from balsadb.kv.places import cold_keys
from balsadb.kv.sessions import round_up
from kv.conftest import Fed, plain, words
from kv.delta_model import write

EXPIRED = "-SESSIONEXPIRED there is no such session, or no more; this request did nothing"
BELOW = "-ERR the sequence number is below what the session has acknowledged; this request did nothing"
BEYOND = "-ERR the sequence number is 1024 or more above the session's lowest; nothing was done"
REUSED = "-ERR the sequence number was used for another command; this request did nothing"
DONE = "-DONE the command was done exactly once, and its reply was too large to be kept"
TTL = 10_000


class Timed(Fed):
    """A machine whose log time the test sets."""

    def __init__(self, machine: StateMachine | None = None) -> None:
        super().__init__()
        if machine is not None:
            self.machine = machine
            self.sequence = machine.origins[1].last
        self.now_ms = 1_000
        self.term = 1

    def apply(self, payload, reads=()):
        index = self.machine.applied_index + 1
        return self.machine.apply_commands(index, self.term, self.now_ms, payload, reads)

    def empty(self) -> None:
        self.machine.apply_empty(self.machine.applied_index + 1, self.term, self.now_ms)

    def open(self, nonce: str = "n", ttl: int = TTL) -> str:
        return self.do(f"SESSION OPEN {nonce} {ttl}").decode()


@pytest.fixture
def timed() -> Timed:
    return Timed()


def reborn(machine: StateMachine, base: MemoryBase | None = None) -> StateMachine:
    """The machine that a start makes of a cut of this one."""
    base = MemoryBase() if base is None else base
    cut = machine.freeze()
    while machine.store.count(cut):
        pass
    write(base, cut)
    machine.store.written(cut)
    copy = base.copy()
    return StateMachine([1, 2, 3], copy, decode_bookkeeping(copy.data))


class TestIds:
    """Rule S1: ids are made by the log."""

    def test_an_id_is_made_of_the_nonce_and_its_place_in_the_log(self, timed):
        timed.empty()
        assert timed.batch("GET k", "SESSION OPEN n 5000", "SESSION OPEN m 5000") == [
            None,
            b"n-2-1",
            b"m-2-2",
        ]

    def test_the_nonce_of_a_living_session_gets_its_id_again(self, timed):
        assert timed.open("n") == timed.open("n") == timed.batch("SESSION OPEN n 99000")[0].decode()
        assert len(timed.machine.sessions) == 1

    def test_no_id_is_made_twice_not_even_within_one_entry(self, timed):
        first, _, second = timed.batch("SESSION OPEN x 5000", "SESSION CLOSE x-1-0", "SESSION OPEN x 5000")
        assert first != second
        assert timed.do([b"ONCE", first, b"1", b"1", b"INCR", b"k"]) == EXPIRED

    def test_a_late_copy_of_a_closed_session_runs_nothing(self, timed):
        id = timed.open("x")
        assert timed.do(f"ONCE {id} 1 1 INCR k") == 1
        assert timed.do(f"SESSION CLOSE {id}") == "+OK"
        assert timed.open("x") != id
        assert timed.do(f"ONCE {id} 1 1 INCR k") == EXPIRED
        assert timed.read("GET k") == b"1"

    @pytest.mark.parametrize(
        ("command", "problem"),
        [
            ([b"SESSION", b"OPEN", b"", b"5000"], "-ERR a session's nonce has 1 to 64 bytes"),
            ([b"SESSION", b"OPEN", b"n" * 65, b"5000"], "-ERR a session's nonce has 1 to 64 bytes"),
            ("SESSION OPEN n 999", "-ERR a session's ttl is 1000 to 86400000 milliseconds"),
            ("SESSION OPEN n 86400001", "-ERR a session's ttl is 1000 to 86400000 milliseconds"),
            ("SESSION OPEN n soon", "-ERR a session's ttl is 1000 to 86400000 milliseconds"),
            ("SESSION OPEN n", "-ERR wrong number of arguments for 'session|open' command"),
            ("SESSION NOSUCH", "-ERR unknown subcommand 'NOSUCH'. Try SESSION HELP."),
        ],
    )
    def test_what_makes_no_session_is_refused(self, timed, command, problem):
        assert timed.do(command) == problem
        assert len(timed.machine.sessions) == 0

    def test_a_full_table_opens_none(self, timed, monkeypatch):
        monkeypatch.setattr("balsadb.kv.sessions.SESSIONS_MAX", 2)
        first = timed.open("a")
        timed.open("b")
        full = "-TRYAGAIN there are too many sessions; none was opened"
        assert timed.do("SESSION OPEN c 5000") == full
        assert timed.open("a") == first
        timed.do(f"SESSION CLOSE {first}")
        assert timed.open("c")

    def test_info_tells_what_is_known(self, timed):
        id = timed.open()
        timed.do(f"ONCE {id} 3 2 SET k v")
        timed.now_ms += 1_000
        info = timed.do(f"SESSION INFO {id}")
        ttl = round_up(TTL)
        assert info == {
            b"id": id.encode(),
            b"ttl-ms": ttl,
            b"left-ms": ttl - 1_000,
            b"floor": 2,
            b"kept": 1,
            b"kept-bytes": 218,
        }
        assert timed.do("SESSION INFO nobody") == EXPIRED


class TestOnce:
    """Rule S2."""

    def test_a_repeated_sequence_gets_the_first_reply_and_runs_once(self, timed):
        id = timed.open()
        assert [timed.do(f"ONCE {id} 1 1 APPEND k x") for _ in range(3)] == [1, 1, 1]
        assert timed.batch(f"once {id} 2 1 APPEND k x", f"Once {id} 2 1 APPEND k x") == [2, 2]
        assert timed.read("GET k") == b"xx"

    def test_all_kinds_of_replies_are_kept(self, timed):
        id = timed.open()
        timed.do("SET s text")
        commands = ["SET a 1", "GET a", "GET none", "INCR s", "MGET a none", "NOSUCH 1", "GET"]
        replies = [timed.do(f"ONCE {id} {n} 1 {command}") for n, command in enumerate(commands, 1)]
        assert replies[:5] == [
            "+OK",
            b"1",
            None,
            "-ERR value is not an integer or out of range",
            [b"1", None],
        ]
        timed.batch("SET a 7", "SET s 1", "SET none 3")
        again = Timed(reborn(timed.machine))
        for machine in (timed, again):
            assert [
                machine.do(f"ONCE {id} {n} 1 {command}") for n, command in enumerate(commands, 1)
            ] == replies

    def test_sequences_come_in_any_order(self, timed):
        id = timed.open()
        assert [timed.do(f"ONCE {id} {n} 1 INCR k") for n in (3, 1, 2, 3, 1)] == [1, 2, 3, 1, 2]

    def test_the_floor_is_the_largest_ack_and_never_lowered(self, timed):
        id = timed.open()
        timed.do(f"ONCE {id} 1 1 INCR k")
        assert timed.do(f"ONCE {id} 5 4 INCR k") == 2
        for sequence in (1, 2, 3):
            assert timed.do(f"ONCE {id} {sequence} 1 INCR k") == BELOW
        assert timed.do(f"ONCE {id} 4 1 INCR k") == 3
        assert timed.do(f"ONCE {id} 3 9 INCR k") == BELOW  # a refused request acknowledges, too
        assert timed.do(f"ONCE {id} 5 1 INCR k") == BELOW
        assert timed.read("GET k") == b"3"

    def test_what_is_acknowledged_is_forgotten(self, timed):
        id = timed.open()
        for n in range(1, 6):
            timed.do(f"ONCE {id} {n} 1 INCR k")
        timed.do(f"ONCE {id} 6 6 INCR k")
        info = timed.do(f"SESSION INFO {id}")
        assert (info[b"kept"], info[b"floor"]) == (1, 6)
        assert timed.machine.sessions.bytes == info[b"kept-bytes"] == 216

    def test_beyond_the_window_nothing_runs(self, timed):
        id = timed.open()
        assert timed.do(f"ONCE {id} {SESSION_WINDOW} 1 INCR k") == 1
        assert timed.do(f"ONCE {id} {SESSION_WINDOW + 1} 1 INCR k") == BEYOND
        assert timed.do(f"ONCE {id} {SESSION_WINDOW + 1} 2 INCR k") == 2
        assert timed.do(f"ONCE {id} {2**62} {2**62} INCR k") == 3

    def test_the_same_sequence_with_another_command_is_refused(self, timed):
        id = timed.open()
        timed.do(f"ONCE {id} 1 1 SET k ab")
        for other in ("SET k a b", "SET ka b", "SET k ac", "GET k"):
            assert timed.do(f"ONCE {id} 1 1 {other}") == REUSED
        assert timed.do(f"ONCE {id} 1 1 SET k ab") == "+OK"

    def test_a_reply_too_large_to_keep_is_noted_as_done_and_never_runs_again(self, timed):
        id = timed.open()
        timed.do([b"SET", b"k", b"v" * SESSION_BYTES_MAX])
        command = f"ONCE {id} 1 1 SET k x GET"
        assert timed.do(command) == b"v" * SESSION_BYTES_MAX
        timed.do("SET k y")
        assert timed.do(command) == DONE
        assert Timed(reborn(timed.machine)).do(command) == DONE
        assert timed.read("GET k") == b"y"

    def test_one_session_keeps_a_bounded_number_of_bytes(self, timed):
        id = timed.open()
        timed.do([b"SET", b"k", b"v" * 100_000])
        replies = [timed.do(f"ONCE {id} {n} 1 GET k") for n in (1, 2, 3)]
        assert replies == [b"v" * 100_000] * 3
        assert [timed.do(f"ONCE {id} {n} 1 GET k") for n in (1, 2, 3)] == [*replies[:2], DONE]

    def test_all_sessions_keep_a_bounded_number_of_bytes(self, timed, monkeypatch):
        monkeypatch.setattr("balsadb.kv.sessions.REPLIES_BYTES_MAX", 2_000)
        monkeypatch.setattr("balsadb.kv.sessions.SESSIONS_BYTES_MAX", 2_400)
        timed.do([b"SET", b"k", b"v" * 600])
        ids = [timed.open(name) for name in "abcdefg"]
        for id in ids:
            timed.do(f"ONCE {id} 1 1 GET k")
        full = "-TRYAGAIN the sessions hold too many unacknowledged commands; nothing was done"
        assert [timed.do(f"ONCE {id} 1 1 GET k") for id in ids] == [b"v" * 600] * 2 + [DONE] * 4 + [full]
        timed.do(f"ONCE {ids[0]} 2 2 INCR n")
        assert timed.do(f"ONCE {ids[-1]} 1 1 INCR n") == 2

    def test_what_an_entry_has_no_room_for_leaves_its_number_free(self, timed, monkeypatch):
        for module in ("keyspace", "execution"):
            monkeypatch.setattr(f"balsadb.kv.{module}.CHANGE_BYTES_MAX", 1_000)
        id = timed.open()
        first, second = timed.batch(
            [b"SET", b"k", b"v" * 900], [b"ONCE", id.encode(), b"1", b"1", b"APPEND", b"k", b"w" * 99]
        )
        assert (first, second.split()[0]) == ("+OK", "-TRYAGAIN")
        assert timed.do([b"ONCE", id.encode(), b"1", b"1", b"SET", b"k", b"w"]) == "+OK"

    @pytest.mark.parametrize(
        "inner", ["PING", "TIME", "RAFT.DIGEST", "MULTI", "SESSION OPEN x 5000", "ONCE i 1 1 GET k"]
    )
    def test_what_belongs_to_one_node_or_nests_is_refused_inside(self, timed, inner):
        id = timed.open()
        assert timed.do(f"ONCE {id} 1 1 {inner}") == "-ERR Command not allowed inside ONCE"

    def test_exec_without_a_multi_is_refused(self, timed):
        id = timed.open()
        assert timed.do(f"ONCE {id} 1 1 exec") == "-ERR EXEC without MULTI"

    @pytest.mark.parametrize(
        "numbers", ["0 1", "1 0", "-1 1", "x 1", "1 x", f"{2**62 + 1} 1", f"1 {2**62 + 1}"]
    )
    def test_nonsense_for_numbers_is_refused(self, timed, numbers):
        id = timed.open()
        problem = "-ERR sequence numbers and acknowledgements are integers from 1 on"
        assert timed.do(f"ONCE {id} {numbers} INCR k") == problem

    def test_sessions_inside_a_transaction_are_refused(self, timed):
        id = timed.open()
        inside = "-ERR Command not allowed inside a transaction"
        assert timed.batch("EXEC 2", f"ONCE {id} 1 1 INCR k", "SESSION OPEN y 5000") == [[inside, inside]]


class TestTransactions:
    def test_a_transaction_runs_once_and_gives_its_reply_again(self, timed):
        id = timed.open()
        block = [f"ONCE.EXEC {id} 1 1 3", "INCR a", "APPEND b x", "GET a"]
        assert timed.batch(*block, "INCR z") == [[1, 1, b"1"], 1]
        assert timed.batch(*block, *block, "INCR z") == [[1, 1, b"1"], [1, 1, b"1"], 2]
        again = Timed(reborn(timed.machine))
        assert again.batch(*block) == [[1, 1, b"1"]]
        assert again.read("GET b") == b"x"

    def test_another_transaction_under_the_number_is_refused_as_a_whole(self, timed):
        id = timed.open()
        timed.batch(f"ONCE.EXEC {id} 1 1 1", "INCR a")
        assert timed.batch(f"ONCE.EXEC {id} 1 1 2", "INCR a", "INCR b", "GET b") == [REUSED, None]
        assert timed.do(f"ONCE {id} 1 1 INCR a") == REUSED

    def test_one_without_a_session_changes_nothing(self, timed):
        assert timed.batch("ONCE.EXEC x 1 1 1", "INCR a", "GET a") == [EXPIRED, None]

    def test_one_that_watched_keys_gets_its_reply_again_though_they_have_changed_since(self, timed):
        """It has most often changed them by itself."""
        id = timed.open()
        block = [f"ONCE.EXEC {id} 1 1 1 a 0", "INCR a"]
        assert timed.batch(*block) == [[1]]
        assert timed.batch(*block) == [[1]]
        assert timed.batch(f"ONCE.EXEC {id} 1 1 1 a changed", "INCR a") == [[1]]

    def test_one_whose_keys_had_changed_did_nothing_and_does_nothing_later(self, timed):
        id = timed.open()
        timed.do("SET a 5")
        block = [f"ONCE.EXEC {id} 1 1 1 a 0", "INCR b"]
        assert timed.batch(*block) == ["null array"]
        timed.do("DEL a")
        assert timed.batch(*block, "GET b") == ["null array", None]

    def test_an_empty_one_is_kept_too(self, timed):
        id = timed.open()
        assert timed.batch(f"ONCE.EXEC {id} 1 1 0", f"ONCE {id} 1 1 INCR a") == [[], REUSED]

    @pytest.mark.parametrize(
        "header", ["ONCE.EXEC", "ONCE.EXEC i 1 1", "ONCE.EXEC i 1 1 2", "ONCE.EXEC i 1 1 -1"]
    )
    def test_a_malformed_header_takes_the_rest_with_it(self, timed, header):
        assert timed.batch(header, "INCR a") == ["-ERR malformed transaction"]
        assert timed.read("GET a") is None


class TestExpiry:
    """Rule S6: by log time, at the same entry everywhere."""

    def test_a_session_ends_one_ttl_after_its_last_sign_of_life(self, timed):
        a, b, c = (timed.open(name) for name in "abc")
        timed.now_ms += TTL - 1
        timed.batch(f"ONCE {a} 1 1 INCR k", f"SESSION KEEPALIVE {b}")
        timed.now_ms += round_up(TTL) - TTL + 1
        assert timed.do(f"SESSION KEEPALIVE {c}") == EXPIRED
        assert timed.batch(f"SESSION KEEPALIVE {b}", f"ONCE {a} 2 1 INCR k") == ["+OK", 2]
        assert len(timed.machine.sessions) == 2

    def test_the_ttl_is_rounded_up_by_a_sixteenth_at_most(self):
        seen = set()
        for ttl in range(SESSION_TTL_MS_MIN, SESSION_TTL_MS_MAX + 1, 997):
            assert ttl <= round_up(ttl) <= ttl + ttl // 16 + 1
            seen.add(round_up(ttl))
        assert len(seen) < 300

    def test_no_session_ends_within_one_ttl_after_the_begin_of_a_term(self, timed):
        id, other = timed.open(), timed.open("o", 2 * TTL)
        timed.now_ms += 100 * TTL
        timed.term = 2
        timed.empty()
        assert timed.machine.next_deadline_ms == timed.now_ms + round_up(TTL)
        assert timed.do(f"SESSION INFO {id}")[b"left-ms"] == round_up(TTL)
        timed.now_ms += round_up(TTL) - 1
        timed.empty()
        assert len(timed.machine.sessions) == 2
        timed.now_ms += 1
        timed.empty()
        assert len(timed.machine.sessions) == 1
        assert timed.do(f"SESSION KEEPALIVE {other}") == "+OK"

    def test_a_start_and_an_install_know_when_the_term_began(self, timed):
        timed.open()
        timed.now_ms += 5_000
        timed.term = 2
        timed.empty()
        timed.now_ms += 2_000
        timed.empty()
        again = Timed(reborn(timed.machine))
        assert again.machine.next_deadline_ms == timed.machine.next_deadline_ms
        assert again.machine.digest() == timed.machine.digest()

    def test_what_is_due_is_absent_before_its_turn_to_be_removed(self, timed):
        count = 2 * EXPIRED_PER_ENTRY_MAX + 500
        ids = timed.batch(*(f"SESSION OPEN n{n} {TTL}" for n in range(count)))
        timed.now_ms += round_up(TTL)
        timed.empty()
        sessions = timed.machine.sessions
        assert len(sessions) == count - EXPIRED_PER_ENTRY_MAX
        last = ids[-1].decode()
        assert timed.machine.next_deadline_ms <= timed.now_ms
        assert timed.do(f"ONCE {last} 1 1 INCR k") == EXPIRED
        assert timed.open(f"n{count - 1}") != last
        timed.empty()
        assert len(sessions) == 1
        assert timed.machine.next_deadline_ms == timed.now_ms + round_up(TTL)

    def test_a_machine_put_together_from_a_cut_removes_the_same_at_the_same_entries(self, timed):
        draw = random.Random(3)
        ids = timed.batch(*(f"SESSION OPEN n{n} {draw.choice((5_000, 5_100, 9_000))}" for n in range(3_000)))
        for id in draw.sample(ids, 1_500):
            timed.do([b"SESSION", b"KEEPALIVE", id])
        timed.now_ms += 9_500
        timed.empty()
        again = Timed(reborn(timed.machine))
        again.now_ms = timed.now_ms
        for _ in range(4):
            assert again.machine.digest() == timed.machine.digest()
            timed.empty()
            again.empty()
        assert len(timed.machine.sessions) == 0


class TestCuts:
    def test_a_cut_holds_the_sessions_as_of_its_index(self, timed):
        id = timed.open()
        timed.do(f"ONCE {id} 1 1 INCR k")
        digest = timed.machine.digest()
        cut = timed.machine.freeze()
        timed.do(f"ONCE {id} 2 2 INCR k")
        timed.do(f"SESSION CLOSE {id}")
        base = MemoryBase()
        while timed.machine.store.count(cut):
            pass
        write(base, cut)
        assert StateMachine([1], base, decode_bookkeeping(base.data)).digest() == digest

    def test_a_cut_writes_only_what_changed(self, timed):
        base = MemoryBase()
        ids = [timed.open(f"n{n}") for n in range(50)]
        reborn(timed.machine, base)
        timed.do(f"ONCE {ids[7]} 1 1 INCR k")
        timed.do(f"SESSION CLOSE {ids[8]}")
        assert timed.machine.changed_keys == 3
        cut = timed.machine.freeze()
        assert {id: session is None for id, session in cut.sessions.items()} == {
            ids[7].encode(): False,
            ids[8].encode(): True,
        }
        assert timed.machine.changed_keys == timed.machine.changed_bytes == 0
        assert len(base.stored_sessions) == 50

    def test_sessions_make_a_cut_due_as_keys_do(self, timed):
        id = timed.open()
        before = timed.machine.changed_bytes
        timed.do([b"SET", b"k", b"v" * 10_000])
        timed.do(f"ONCE {id} 1 1 GET k")
        assert timed.machine.changed_bytes > before + 20_000

    def test_a_session_that_can_not_be_read_stops_the_start(self, timed):
        id = timed.open()
        base = MemoryBase()
        reborn(timed.machine, base)
        for data in (b"", b"\x93\x01\x02\x03", base.stored_sessions[id.encode()][:-1]):
            base.stored_sessions[id.encode()] = data
            with pytest.raises(Exception, match="can't be read"):
                StateMachine([1], base, decode_bookkeeping(base.data))


class TestColdKeys:
    """Rule R5: what a command in a session needs is read before it runs, as without one."""

    @pytest.mark.parametrize(
        ("commands", "keys"),
        [
            (["ONCE i 1 1 APPEND a x", "once i 2 1 mget b c"], [b"a", b"b", b"c"]),
            (["ONCE i 1 1 SET a x"], []),
            (["ONCE i 1 1 SET a x NX"], [b"a"]),
            (["ONCE.EXEC i 1 1 2", "INCR a", "GET b"], [b"a", b"b"]),
            (["ONCE.EXEC i 1 1 1 w 0 x 5:1", "INCR a"], [b"w", b"x", b"a"]),
            (["ONCE i 1 1 NOSUCH a", "SESSION OPEN n 5000"], []),
        ],
    )
    def test_a_command_in_a_session_names_its_keys(self, commands, keys):
        store = SimpleNamespace(complete=False, is_resident=lambda key: False)
        assert list(cold_keys(store, [words(command) for command in commands])) == keys


# ------------------------------------------------------------------ against a model

STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("once"), st.integers(0, 2), st.integers(1, 8), st.integers(1, 8), st.integers(0, 1)
        ),
        st.tuples(st.just("open"), st.integers(0, 2)),
        st.tuples(st.just("close"), st.integers(0, 2)),
        st.tuples(st.just("wait"), st.integers(1, TTL)),
        st.tuples(st.just("term")),
        st.tuples(st.just("cut")),
    ),
    max_size=60,
)


class Model:
    """Exactly once in the plainest words."""

    def __init__(self) -> None:
        self.sessions: dict[str, dict] = {}
        self.began = 0
        self.counter = 0

    def living(self, id: str, now: int) -> dict | None:
        session = self.sessions.get(id)
        if session is None or max(session["heard"], self.began) + round_up(TTL) <= now:
            self.sessions.pop(id, None)
            return None
        return session

    def once(self, id: str, sequence: int, ack: int, amount: int, now: int):
        session = self.living(id, now)
        if session is None:
            return EXPIRED
        session["heard"] = now
        session["floor"] = max(session["floor"], ack)
        if sequence < session["floor"]:
            return BELOW
        if sequence not in session["done"]:
            self.counter += amount
            session["done"][sequence] = (amount, self.counter)
        same, reply = session["done"][sequence]
        return reply if same == amount else REUSED


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_whatever_is_sent_runs_as_in_the_model(steps):
    timed, twin, model, base = Timed(), Timed(), Model(), MemoryBase()
    model.began = 1_000
    ids = dict.fromkeys(range(3), "nobody")
    timed.batch(), twin.batch()
    for step in steps:
        match step:
            case ("once", n, sequence, ack, amount):
                command = f"ONCE {ids[n]} {sequence} {ack} INCRBY k {amount + 1}"
                expected = model.once(ids[n], sequence, ack, amount + 1, timed.now_ms)
            case ("open", n):
                command = f"SESSION OPEN n{n} {TTL}"
                if (session := model.living(ids[n], timed.now_ms)) is None:
                    ids[n] = f"n{n}-{timed.machine.applied_index + 1}-0"
                    session = model.sessions[ids[n]] = {"heard": 0, "floor": 1, "done": {}}
                session["heard"] = timed.now_ms
                expected = ids[n].encode()
            case ("close", n):
                command, expected = f"SESSION CLOSE {ids[n]}", "+OK"
                model.sessions.pop(ids[n], None)
            case ("wait", time):
                timed.now_ms += time
                continue
            case ("term",):
                timed.term += 1
                timed.empty()
                twin.term, twin.now_ms = timed.term, timed.now_ms
                twin.empty()
                model.began = timed.now_ms
                continue
            case _:
                now, term = timed.now_ms, timed.term
                timed = Timed(reborn(timed.machine, base))
                timed.now_ms, timed.term = now, term
                continue
        twin.now_ms = timed.now_ms
        assert timed.do(command) == expected
        assert twin.do(command) == expected
    assert timed.machine.digest() == twin.machine.digest()
    assert timed.machine.sessions.bytes == sum(s.bytes for s in timed.machine.sessions._by_id.values())


# ------------------------------------------------------------------------- many


@pytest.mark.slow
def test_a_hundred_thousand_sessions_take_bounded_memory_and_their_cuts_bounded_work(capsys):
    machine, count = StateMachine([1]), 100_000
    tracemalloc.start()
    ids = []
    for number in range(100):
        commands = [words(f"SESSION OPEN {number:016x}{n:016x} 60000") for n in range(count // 100)]
        outcome = machine.apply_commands(
            2 * number + 1, 1, 1_000, encode_batch(1, 1, 2 * number + 1, commands)
        )
        ids = [plain(reply) for reply in outcome.replies]
        commands = [[b"ONCE", id, b"1", b"1", b"INCR", b"k"] for id in ids]
        machine.apply_commands(2 * number + 2, 1, 1_000, encode_batch(1, 1, 2 * number + 2, commands))
    changed = machine.changed_keys
    copy = machine.sessions.freeze()
    each = tracemalloc.get_traced_memory()[0] / count
    tracemalloc.stop()
    with capsys.disabled():
        print(f"\n{count:,} sessions with a kept reply take {each:.0f} bytes each")
    assert len(machine.sessions) == len(copy) == count
    assert changed == count + 1
    assert each < 2_000
    outcome = machine.apply_commands(
        201, 1, 1_000, encode_batch(1, 1, 201, [[b"ONCE", id, b"1", b"1", b"INCR", b"k"] for id in ids[:10]])
    )
    assert outcome.replies == list(range(count - 999, count - 989))
    assert len(machine.sessions.freeze()) == 10


def test_a_session_whose_time_was_over_does_not_come_back_with_a_new_term(timed):
    """More of them are due than one entry removes; clients were told of the last one, too."""
    ids = [timed.open(f"n{number}", SESSION_TTL_MS_MIN) for number in range(EXPIRED_PER_ENTRY_MAX + 5)]
    timed.now_ms += 2 * SESSION_TTL_MS_MIN
    assert timed.do(f"ONCE {ids[-1]} 1 1 INCR k") == EXPIRED
    timed.term += 1
    assert timed.do(f"ONCE {ids[-1]} 1 1 INCR k") == EXPIRED
    assert timed.do("GET k") is None


def test_a_refusal_is_repeated_word_for_word_where_nothing_else_is_kept_any_more(timed):
    session = timed.open()
    timed.do(f"SET big {'x' * (SESSION_BYTES_MAX - 1_000)}")
    timed.do(f"ONCE {session} 1 1 GET big")
    for sequence in range(2, 6):
        timed.do(f"ONCE {session} {sequence} 1 SET a 1")
    refused = timed.do(f"ONCE {session} 6 1 SET {'k' * 70_000} v")
    assert refused.startswith("-ERR key exceeds")
    assert timed.do(f"ONCE {session} 6 1 SET {'k' * 70_000} v") == refused
    timed.do(f"SET big {'y' * 10_000}")
    timed.do(f"ONCE {session} 7 1 GET big")
    assert timed.do(f"ONCE {session} 7 1 GET big") == DONE
