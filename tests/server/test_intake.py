"""Sorting a piece of input into writes, reads and ready replies."""

from __future__ import annotations

import pytest

from balsadb.kv.reply import OK, Refusal
from balsadb.replica.request import Lane, RequestKind
from balsadb.server.commands.client_state import ClientState
from balsadb.server.intake import QUEUED_COMMANDS_MAX, WATCHED_BYTES_MAX, WATCHED_KEYS_MAX, Intake, names_of
from balsadb.server.telemetry import CommandCounts


@pytest.fixture
def intake():
    return Intake(ClientState(1), None, CommandCounts())


def argv(text: str) -> list[bytes]:
    return text.encode().split()


def sort(intake, *lines):
    return intake.sort([argv(line) for line in lines])


def test_reads_alone_make_a_read(intake):
    piece = sort(intake, "GET a", "MGET a b")
    request = piece.request(Lane(), readonly=False)
    assert request.kind is RequestKind.READ
    assert request.commands == [argv("GET a"), argv("MGET a b")]
    assert request.answers == 2


def test_reads_of_a_readonly_connection_are_stale_reads(intake):
    assert sort(intake, "GET a").request(Lane(), readonly=True).kind is RequestKind.STALE_READ


def test_reads_among_writes_ride_as_local_slots(intake):
    piece = sort(intake, "GET a", "SET a 1", "GET a", "SET b 2", "GET b")
    request = piece.request(Lane(), readonly=False)
    assert request.kind is RequestKind.WRITE
    assert request.commands == [argv("SET a 1"), argv("SET b 2")]
    assert request.reads == [(0, argv("GET a")), (1, argv("GET a")), (2, argv("GET b"))]
    assert request.answers == 5


def test_errors_are_answered_in_their_place(intake):
    piece = sort(intake, "GET a", "NOSUCH x", "GET", "SET a 1")
    assert [count for count, _ in piece.literals] == [1, 1]
    assert piece.literals[0][1].startswith(b"-ERR unknown command 'NOSUCH'")
    assert piece.literals[1][1] == b"-ERR wrong number of arguments for 'get' command\r\n"
    assert piece.answers == 2


def test_a_transaction_with_a_write_is_one_block_in_the_log(intake):
    piece = sort(intake, "MULTI", "SET a 1", "GET a", "EXEC")
    assert [reply for _, reply in piece.literals] == [b"+OK\r\n", b"+QUEUED\r\n", b"+QUEUED\r\n"]
    assert piece.writes == [[b"EXEC", b"2"], argv("SET a 1"), argv("GET a")]
    assert piece.answers == 1


def test_a_transaction_of_reads_alone_is_a_read(intake):
    piece = sort(intake, "MULTI", "GET a", "GET b", "EXEC")
    request = piece.request(Lane(), readonly=False)
    assert request.kind is RequestKind.READ
    assert request.transaction
    assert request.commands == [argv("GET a"), argv("GET b")]
    assert request.answers == 1


def test_a_transaction_of_reads_beside_other_commands_goes_through_the_log(intake):
    piece = sort(intake, "MULTI", "GET a", "EXEC", "GET b", "SET c 1", "GET c")
    request = piece.request(Lane(), readonly=False)
    assert request.commands == [[b"EXEC", b"1"], argv("GET a"), argv("SET c 1")]
    assert request.reads == [(2, argv("GET b")), (3, argv("GET c"))]
    assert request.answers == 4


def test_a_transaction_may_come_in_pieces(intake):
    sort(intake, "MULTI")
    sort(intake, "SET a 1")
    assert sort(intake, "EXEC").writes == [[b"EXEC", b"1"], argv("SET a 1")]
    assert sort(intake, "SET b 1").writes == [argv("SET b 1")]


@pytest.mark.parametrize(
    ("lines", "last"),
    [
        (["EXEC"], b"-ERR EXEC without MULTI\r\n"),
        (["DISCARD"], b"-ERR DISCARD without MULTI\r\n"),
        (["MULTI", "MULTI"], b"-ERR MULTI calls can not be nested\r\n"),
        (["MULTI", "DISCARD"], b"+OK\r\n"),
        (["MULTI", "DISCARD", "EXEC"], b"-ERR EXEC without MULTI\r\n"),
        (["MULTI", "EXEC"], b"*0\r\n"),
        (["MULTI", "NOSUCH", "EXEC"], b"-EXECABORT Transaction discarded because of previous errors.\r\n"),
        (["MULTI", "GET", "EXEC"], b"-EXECABORT Transaction discarded because of previous errors.\r\n"),
        (["MULTI", "TIME", "EXEC"], b"-EXECABORT Transaction discarded because of previous errors.\r\n"),
        (["MULTI", "RESET", "EXEC"], b"-ERR EXEC without MULTI\r\n"),
    ],
)
def test_multi_says_what_redis_says(intake, lines, last):
    piece = sort(intake, *lines)
    assert piece.literals[-1][1] == last
    assert not piece.answers


def test_a_transaction_has_a_bound(intake):
    sort(intake, "MULTI")
    piece = intake.sort([argv("SET a 1")] * (QUEUED_COMMANDS_MAX + 1))
    assert piece.literals[-1][1] == b"-ERR transaction is too large\r\n"
    assert sort(intake, "EXEC").literals[-1][1].startswith(b"-EXECABORT")


def test_quit_ends_the_piece(intake):
    piece = sort(intake, "SET a 1", "QUIT", "SET b 1")
    assert piece.closing
    assert piece.writes == [argv("SET a 1")]
    assert piece.literals == [(1, b"+OK\r\n")]


def test_the_digest_goes_through_the_log(intake):
    assert sort(intake, "RAFT DIGEST").writes == [[b"RAFT.DIGEST"]]
    assert sort(intake, "raft digest 7").reads == [(0, [b"RAFT.DIGESTAT", b"7"])]


# ------------------------------------------------------------------------- WATCH


def watch(intake, versions, *keys):
    """Send a WATCH and let it find versions."""
    piece = sort(intake, " ".join(["WATCH", *keys]))
    assert piece.reads == [(0, [b"RAFT.VERSIONS", *map(str.encode, keys)])]
    return intake.watched(piece.watching, versions)


def test_a_watch_ends_its_piece_so_that_its_versions_are_known_to_what_follows(intake):
    """Rule S7."""
    piece = sort(intake, "SET a 1", "WATCH a b a", "MULTI", "SET a 2", "EXEC")
    assert (piece.taken, piece.answers, piece.watching) == (2, 2, [b"a", b"b"])
    assert piece.reads == [(1, [b"RAFT.VERSIONS", b"a", b"b"])]


def test_an_exec_carries_what_is_watched_as_conditions(intake):
    assert watch(intake, [b"7:0", b"0"], "a", "b") == OK
    piece = sort(intake, "MULTI", "SET a 2", "EXEC", "MULTI", "SET a 3", "EXEC")
    assert piece.writes == [
        [b"EXEC", b"1", b"a", b"7:0", b"b", b"0"],
        argv("SET a 2"),
        [b"EXEC", b"1"],
        argv("SET a 3"),
    ]


def test_a_watched_exec_of_reads_or_of_nothing_is_compared_too(intake):
    watch(intake, [b"7:0"], "a")
    assert sort(intake, "MULTI", "GET b", "EXEC").writes == [[b"EXEC", b"1", b"a", b"7:0"], argv("GET b")]
    watch(intake, [b"7:0"], "a")
    assert sort(intake, "MULTI", "EXEC").writes == [[b"EXEC", b"0", b"a", b"7:0"]]


@pytest.mark.parametrize("end", [["UNWATCH"], ["MULTI", "DISCARD"], ["MULTI", "NOSUCH", "EXEC"], ["RESET"]])
def test_what_ends_watching(intake, end):
    watch(intake, [b"7:0"], "a")
    sort(intake, *end)
    assert sort(intake, "MULTI", "SET a 2", "EXEC").writes == [[b"EXEC", b"1"], argv("SET a 2")]


def test_a_key_that_changed_between_two_watches_lets_exec_do_nothing(intake):
    watch(intake, [b"7:0"], "a")
    watch(intake, [b"8:0", b"1:1"], "a", "b")
    piece = sort(intake, "MULTI", "SET a 2", "EXEC", "MULTI", "SET a 3", "EXEC")
    assert piece.literals[2][1] == b"*-1\r\n"
    assert piece.writes == [[b"EXEC", b"1"], argv("SET a 3")]


def test_a_watch_without_an_answer_lets_exec_do_nothing(intake):
    """A client that does not look at errors must not lose an update."""
    refusal = Refusal(b"TRYAGAIN not now")
    assert watch(intake, refusal, "a") is refusal
    piece = sort(intake, "MULTI", "SET a 2", "EXEC")
    assert (piece.writes, piece.literals[-1][1]) == ([], b"*-1\r\n")


def test_a_watch_inside_multi_is_refused_and_the_transaction_goes_on(intake):
    piece = sort(intake, "MULTI", "WATCH a", "SET a 1", "EXEC")
    assert piece.literals[1][1] == b"-ERR WATCH inside MULTI is not allowed\r\n"
    assert piece.writes == [[b"EXEC", b"1"], argv("SET a 1")]


def test_watched_keys_are_bounded(intake):
    piece = intake.sort([[b"WATCH", *[b"%d" % number for number in range(WATCHED_KEYS_MAX + 1)]]])
    assert piece.literals[0][1].startswith(b"-ERR too many keys are watched")
    piece = intake.sort([[b"WATCH", b"x" * (WATCHED_BYTES_MAX + 1)]])
    assert piece.literals[0][1].startswith(b"-ERR too many keys are watched")
    assert sort(intake, "MULTI", "SET a 1", "EXEC").literals[-1][1] == b"*-1\r\n"


def test_a_random_key_is_drawn_by_chance_of_the_node(intake):
    piece = sort(intake, "RANDOMKEY", "RANDOMKEY")
    [(_, first), (_, second)] = piece.reads
    assert first[0] == b"RAFT.RANDOMKEY"
    assert len(first[1]) == 8
    assert first != second


def test_what_only_one_node_can_answer_is_refused_inside_multi(intake):
    for line in ("SCAN 0", "KEYS *", "RANDOMKEY", "UNWATCH"):
        piece = sort(intake, "MULTI", line, "EXEC")
        assert piece.literals[1][1] == b"-ERR Command not allowed inside a transaction\r\n"
        assert piece.literals[2][1].startswith(b"-EXECABORT")


def test_a_command_to_run_once_is_a_write(intake):
    piece = sort(intake, "ONCE id 1 1 GET a", "SESSION OPEN n 5000", "GET a")
    assert piece.writes == [argv("ONCE id 1 1 GET a"), argv("SESSION OPEN n 5000")]
    assert piece.reads == [(2, argv("GET a"))]


@pytest.mark.parametrize("word", ["EXEC", "exec"])
def test_a_transaction_may_end_by_an_exec_that_runs_once(intake, word):
    piece = sort(intake, "MULTI", "SET a 1", "GET a", f"ONCE id 7 5 {word}", "GET b")
    assert [reply for _, reply in piece.literals] == [b"+OK\r\n", b"+QUEUED\r\n", b"+QUEUED\r\n"]
    assert piece.writes == [argv("ONCE.EXEC id 7 5 2"), argv("SET a 1"), argv("GET a")]
    assert piece.answers == 2


def test_reads_and_nothing_at_all_run_once_through_the_log_too(intake):
    assert sort(intake, "MULTI", "GET a", "ONCE i 1 1 EXEC").writes == [
        argv("ONCE.EXEC i 1 1 1"),
        argv("GET a"),
    ]
    assert sort(intake, "MULTI", "ONCE i 1 1 EXEC").writes == [argv("ONCE.EXEC i 1 1 0")]


@pytest.mark.parametrize("command", ["ONCE i 1 1 SET a 1", "ONCE i 1 1 EXEC x", "SESSION OPEN n 5000"])
def test_sessions_inside_a_transaction_are_refused_and_abort_it(intake, command):
    for end in ("EXEC", "ONCE i 2 1 EXEC"):
        piece = sort(intake, "MULTI", command, "SET a 1", end)
        replies = [reply for _, reply in piece.literals]
        assert replies[1] == b"-ERR Command not allowed inside a transaction\r\n"
        assert replies[3].startswith(b"-EXECABORT")
        assert not piece.answers


@pytest.mark.parametrize("text", ["RAFT ADD 4 h:1 h:2", "raft remove 3", "RAFT TRANSFER"])
def test_what_the_whole_cluster_decides_has_a_piece_of_its_own(intake, text):
    piece = sort(intake, text, "GET a")
    assert piece.taken == 1
    request = piece.request(Lane(), readonly=False)
    assert (request.kind, request.commands, request.answers) == (RequestKind.CHANGE, [argv(text)], 1)
    before = sort(intake, "GET a", "NOSUCH", text)
    assert (before.taken, before.change) == (2, None)


def test_the_members_are_not_changed_inside_a_transaction(intake):
    piece = sort(intake, "MULTI", "RAFT REMOVE 3")
    assert piece.change is None
    assert piece.literals[-1][1] == b"-ERR Command not allowed inside a transaction\r\n"


def test_what_looks_at_many_keys_ends_its_piece(intake):
    """One connection may ask for thousands of them at once; between two others get their turn."""
    piece = sort(intake, "GET a", "KEYS *", "KEYS *")
    assert (piece.taken, piece.costly) == (2, True)
    assert piece.request(Lane(), readonly=False).costly
    assert not sort(intake, "GET a", "GET b").costly


def test_an_exec_once_whose_watch_failed_still_asks_the_session(intake):
    """An earlier attempt may have run, and then the retry must be told what that one was told."""
    watch(intake, [b"7:0"], "a")
    watch(intake, [b"8:0"], "a")
    piece = sort(intake, "MULTI", "SET a 2", "ONCE id 7 7 EXEC")
    assert piece.writes == [[b"ONCE.EXEC", b"id", b"7", b"7", b"1", b"", b"-"], argv("SET a 2")]


def counted(*lines) -> dict[bytes, int]:
    """Return what is counted of a connection's input, however many pieces it takes."""
    counts = CommandCounts()
    intake = Intake(ClientState(1), None, counts)
    left = [argv(line) for line in lines]
    while left:
        left = left[intake.sort(left).taken :]
    return {name: number for name, number in counts.received.items() if number}


def test_every_command_counts_once_under_its_name():
    assert counted("SET a 1", "set a 2", "GET a", "SET b 1") == {b"SET": 3, b"GET": 1}
    assert counted("GET a") == {b"GET": 1}


def test_a_command_of_the_wrong_form_counts_too_and_an_unknown_one_has_no_name_of_its_own():
    assert counted("GET", "NONSENSE a", "OTHER b", "GET a") == {b"GET": 2, b"unknown": 2}


def test_commands_inside_multi_count_when_they_are_queued():
    assert counted("MULTI", "SET a 1", "GET a", "EXEC") == {b"MULTI": 1, b"SET": 1, b"GET": 1, b"EXEC": 1}


def test_a_command_that_ends_a_piece_counts_once_though_its_successors_wait():
    lines = ["SET a 1", "WATCH a", "GET a", "SET b 1", "RAFT TRANSFER 2", "RAFT TRANSFER 3", "GET a", "QUIT"]
    assert counted(*lines) == {b"SET": 2, b"WATCH": 1, b"GET": 2, b"RAFT": 2, b"QUIT": 1}


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (["GET a", "MGET a b"], "GET MGET"),
        (["SET a 1", "APPEND a 1"], "SET APPEND"),
        (["GET a", "SET a 1", "STRLEN a", "EXISTS a", "SET b 2", "GET b"], "GET SET STRLEN EXISTS SET GET"),
        (["SET x 1", "MULTI", "SET a 1", "GET a", "EXEC", "INCR b"], "SET EXEC INCR"),
        (["MULTI", "SET a 1", "EXEC", "GET b"], "EXEC GET"),
        (["MULTI", "GET a", "GET b", "EXEC"], "EXEC"),
        (["MULTI", "GET a", "GET b", "EXEC", "SET b 1", "GET a"], "EXEC SET GET"),
        (["MULTI", "SET a 1", "ONCE s 1 1 EXEC", "INCR b"], "ONCE.EXEC INCR"),
        (["RAFT TRANSFER 2"], "RAFT"),
        (["GET a", "WATCH a"], "GET RAFT.VERSIONS"),
        (["RAFT DIGEST", "RAFT DIGEST 7"], "RAFT.DIGEST RAFT.DIGESTAT"),
    ],
)
def test_every_reply_of_a_request_belongs_to_a_command(intake, lines, names):
    request = sort(intake, *lines).request(Lane(), readonly=False)
    assert names_of(request) == argv(names)
    assert len(names_of(request)) == request.answers
