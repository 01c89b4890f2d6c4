"""Sessions as the core keeps them: opening, numbers, staying alive, coming back, played without sockets."""

import pytest
from test_core import READ as TEST_READ
from test_core import Play

from balsadb.client import operations
from balsadb.client.call import Kind
from balsadb.client.ring import MEMBERS_MAX, Ring, read_members
from balsadb.client.session import RENEWALS, Session
from balsadb.client.words import bulk, command
from balsadb.errors import (
    AuthenticationError,
    CommandError,
    NotApplied,
    OutcomeUnknown,
    ReplyLost,
    SessionExpired,
)
from balsadb.kv.limits import SESSION_WINDOW as WINDOW
from balsadb.resp.parser import CommandParser

WRITE = operations.append("k", "v").command
READ = command(Kind.READ, "GET", "k")
NONCE = b"%032x" % 5


class SessionPlay(Play):
    """Shows what is sent as the commands themselves."""

    def __init__(self, **options):
        super().__init__([("a", 1), ("b", 2)], **options)

    def submit(self, data=WRITE, timeout=10.0, ordered=False):
        return self.core.submit(data, self.now + timeout, None, ordered)

    def sends(self):
        """Return the commands that are sent now; connections are made at once."""
        commands = []
        for _ in range(3):
            for action in self.core.actions(self.now):
                if hasattr(action, "data"):
                    commands += CommandParser().feed(action.data)
                elif hasattr(action, "address"):
                    self.open.append(action.number)
                    self.core.connected(action.number, self.now)
        return [b" ".join(argv).decode() for argv in commands]

    def opened(self, data=WRITE, **options):
        """Submit a write and have its session opened."""
        call = self.submit(data, **options)
        assert self.sends() == [f"SESSION OPEN {NONCE.decode()} 60000"]
        self.reply(bulk(b"id"))
        return call


def test_the_first_write_opens_a_session_and_reads_do_not_wait_for_it():
    play = SessionPlay()
    write, read = play.submit(), play.submit(READ)
    assert play.sends() == ["GET k", f"SESSION OPEN {NONCE.decode()} 60000"]
    play.reply(b"$-1\r\n" + bulk(b"id"))
    assert play.ended() == [read]
    assert play.sends() == ["ONCE id 1 1 APPEND k v"]
    play.reply(b":1\r\n")
    assert play.ended() == [write]


def test_writes_are_numbered_and_tell_the_lowest_number_without_an_answer():
    play = SessionPlay()
    play.opened()
    play.submit(), play.submit()
    assert play.sends() == [f"ONCE id {number} 1 APPEND k v" for number in (1, 2, 3)]
    play.reply(b":1\r\n:2\r\n")
    play.submit()
    assert play.sends() == ["ONCE id 4 3 APPEND k v"]
    play.reply(b":3\r\n:4\r\n")
    play.submit()
    assert play.sends() == ["ONCE id 5 5 APPEND k v"]


def test_no_number_is_further_ahead_than_the_window():
    play = SessionPlay()
    play.opened()
    for _ in range(WINDOW + 5):
        play.submit()
    assert len(play.sends()) == WINDOW
    play.reply(b":1\r\n:2\r\n")
    assert [words.split()[2] for words in play.sends()] == [str(WINDOW + 1), str(WINDOW + 2)]


def test_a_write_that_got_no_answer_is_sent_again_under_its_number():
    play = SessionPlay()
    first = play.opened()
    second = play.submit()
    play.sends()
    play.lost()
    assert play.sends() == ["ONCE id 1 1 APPEND k v", "ONCE id 2 1 APPEND k v"]
    play.reply(b":1\r\n:2\r\n")
    assert play.ended() == [first, second]
    assert play.core.retries == 2


def test_a_number_that_was_given_up_is_never_waited_for_again():
    play = SessionPlay()
    call = play.opened(timeout=1.0)
    play.sends()
    play.wait(1.0)
    assert isinstance(call.error, OutcomeUnknown)
    play.submit()
    assert play.sends() == ["ONCE id 2 2 APPEND k v"]


def test_a_write_that_was_refused_or_never_sent_in_an_ended_session_moves_to_a_new_one():
    play = SessionPlay()
    refused, sent = play.opened(), play.submit()
    play.sends()
    play.reply(b"-SESSIONEXPIRED no such session\r\n" * 2)
    assert play.sends() == [f"SESSION OPEN {NONCE.decode()} 60000"]
    play.reply(bulk(b"new"))
    assert play.sends() == ["ONCE new 1 1 APPEND k v", "ONCE new 2 1 APPEND k v"]
    play.reply(b":1\r\n:2\r\n")
    assert play.ended() == [refused, sent]


def test_a_write_with_an_open_outcome_ends_with_its_session():
    play = SessionPlay()
    first = play.opened()
    second = play.submit()
    play.sends()
    play.lost()
    play.sends()
    play.reply(b"-SESSIONEXPIRED no such session\r\n:5\r\n")
    assert isinstance(first.error, SessionExpired)
    assert second.reply == 5  # answered before it ended


def test_all_waiting_writes_with_an_open_outcome_end_when_the_session_turns_out_to_be_over():
    play = SessionPlay()
    first, second = play.opened(), play.submit()
    play.sends()
    play.lost()
    play.sends()
    play.reply(b"-SESSIONEXPIRED no such session\r\n")
    play.lost()
    play.sends()
    assert isinstance(first.error, SessionExpired)
    assert isinstance(second.error, SessionExpired)


@pytest.mark.parametrize(
    ("refusal", "after_one", "after_an_open_one"),
    [
        (b"-NOAUTH no\r\n", AuthenticationError, OutcomeUnknown),
        (b"-ERR wrong number of arguments for 'append' command\r\n", CommandError, OutcomeUnknown),
        (b"-SOMETHING new\r\n", CommandError, OutcomeUnknown),
        (b"-WRONGTYPE no\r\n", CommandError, CommandError),
        (b"-ERR value is not an integer or out of range\r\n", CommandError, CommandError),
        (b"-DONE not kept\r\n", ReplyLost, ReplyLost),
    ],
)
def test_an_open_outcome_is_settled_only_by_what_the_session_answers(refusal, after_one, after_an_open_one):
    play = SessionPlay()
    call = play.opened()
    play.sends()
    play.reply(refusal)
    assert type(call.error) is after_one
    play = SessionPlay()
    call = play.opened()
    play.sends()
    play.lost()
    play.sends()
    play.reply(refusal)
    assert type(call.error) is after_an_open_one


def test_a_deadline_after_definite_refusals_only_says_not_applied_and_after_an_open_one_unknown():
    for event, error in [
        (lambda play: play.reply(b"-TRYAGAIN busy\r\n"), NotApplied),
        (lambda play: play.lost(), OutcomeUnknown),
        (lambda play: play.reply(b"-UNKNOWN open\r\n"), OutcomeUnknown),
    ]:
        play = SessionPlay(backoff_min=50.0, backoff_max=50.0)
        call = play.opened(timeout=1.0)
        play.sends()
        event(play)
        play.sends()
        play.reply(b"-TRYAGAIN busy\r\n")
        play.wait(1.0)
        assert type(call.error) is error


def test_opening_is_repeated_with_the_same_nonce():
    play = SessionPlay()
    play.submit()
    play.sends()
    play.lost()
    assert play.sends() == [f"SESSION OPEN {NONCE.decode()} 60000"]


def test_a_database_that_refuses_to_open_a_session_is_told_to_every_waiting_write():
    play = SessionPlay()
    calls = [play.submit(), play.submit()]
    play.sends()
    play.reply(b"-ERR unknown command 'SESSION'\r\n")
    assert [type(call.error) for call in calls] == [CommandError] * 2


def test_a_session_that_can_not_be_opened_in_time_is_the_reason_given():
    play = SessionPlay(backoff_min=50.0, backoff_max=50.0)
    call = play.submit(timeout=1.0)
    play.sends()
    play.reply(b"-TRYAGAIN the table of sessions is full\r\n")
    play.wait(1.0)
    assert type(call.error) is NotApplied
    assert "the table of sessions is full" in str(call.error)


def test_the_session_is_renewed_several_times_within_its_time_to_live():
    play = SessionPlay()
    play.opened()
    play.sends()
    play.reply(b":1\r\n")
    for _ in range(5):
        assert play.core.wake_at() == pytest.approx(play.now + 60.0 / RENEWALS)
        play.wait(60.0 / RENEWALS)
        assert play.sends() == ["SESSION KEEPALIVE id"]
        play.reply(b"+OK\r\n")
    assert play.sends() == []


def test_every_answered_write_renews_the_session_too():
    play = SessionPlay()
    play.opened()
    play.sends()
    play.reply(b":1\r\n")
    play.wait(15.0)
    play.submit()
    play.sends()
    play.reply(b":2\r\n")
    assert play.core.wake_at() == pytest.approx(play.now + 60.0 / RENEWALS)


def test_a_renewal_that_says_the_session_is_over_makes_the_next_write_open_another():
    play = SessionPlay()
    play.opened()
    play.sends()
    play.reply(b":1\r\n")
    play.wait(20.0)
    play.sends()
    play.reply(b"-SESSIONEXPIRED no such session\r\n")
    play.submit()
    assert play.sends() == [f"SESSION OPEN {NONCE.decode()} 60000"]


def test_a_session_that_may_have_ended_while_nothing_was_asked_is_not_used():
    play = SessionPlay()
    play.opened()
    play.sends()
    play.reply(b":1\r\n")
    play.now += 60.0  # nobody called tick, as in a blocking Clerk between two calls
    play.submit()
    assert play.sends() == [f"SESSION OPEN {NONCE.decode()} 60000"]


def test_closing_closes_an_idle_session_over_an_open_connection_and_never_waits_for_another():
    play = SessionPlay()
    assert play.core.end_session(play.now) is None
    play.opened()
    play.sends()
    assert play.core.end_session(play.now) is None  # a write is under way
    play.reply(b":1\r\n")
    closing = play.core.end_session(play.now)
    assert play.sends() == ["SESSION CLOSE id"]
    play.lost()
    assert closing.done
    assert play.core.end_session(play.now) is None


def test_ordered_calls_do_not_overtake_those_that_wait_for_the_session():
    play = SessionPlay()
    play.submit(), play.submit(READ, ordered=True), play.submit(READ)
    assert play.sends() == ["GET k", f"SESSION OPEN {NONCE.decode()} 60000"]
    play.reply(b"$-1\r\n" + bulk(b"id"))
    assert play.sends() == ["ONCE id 1 1 APPEND k v", "GET k"]


# --------------------------------------------------------------------- transactions

TRANSACTION_SENT = ["MULTI", "APPEND k v", "GET k", "ONCE id 1 1 EXEC"]


def transaction(play):
    from balsadb.client.words import transaction as make

    call = play.opened(make([WRITE, READ]))
    assert play.sends() == TRANSACTION_SENT
    return call


def test_a_transaction_is_one_numbered_write_with_one_answer():
    play = SessionPlay()
    call = transaction(play)
    play.reply(b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n$1\r\nv\r\n")
    assert call.reply == [1, b"v"]


def test_a_transaction_whose_answers_broke_off_is_sent_again_as_a_whole():
    play = SessionPlay()
    call = transaction(play)
    play.reply(b"+OK\r\n+QUEUED\r\n")
    play.lost()
    assert play.sends() == TRANSACTION_SENT
    play.reply(b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n$1\r\nv\r\n")
    assert call.reply == [1, b"v"]


def test_a_discarded_transaction_says_which_command_was_to_blame():
    play = SessionPlay()
    call = transaction(play)
    play.reply(b"+OK\r\n-ERR unknown command 'X'\r\n+QUEUED\r\n")
    play.reply(b"-EXECABORT Transaction discarded because of previous errors.\r\n")
    assert str(call.error) == "ERR unknown command 'X'"
    play.submit(READ)
    assert play.sends() == ["GET k"]


def test_after_any_other_refusal_of_exec_the_connection_is_not_used_again():
    play = SessionPlay()
    call = transaction(play)
    play.reply(b"+OK\r\n+QUEUED\r\n+QUEUED\r\n-ERR unknown command 'ONCE'\r\n")
    assert isinstance(call.error, CommandError)
    play.submit(READ)
    assert play.core.actions(play.now)[0].number == play.open[0]  # closed


def test_commands_that_were_run_instead_of_queued_make_the_outcome_unknown():
    play = SessionPlay()
    call = transaction(play)
    play.reply(b"+OK\r\n:1\r\n")
    assert isinstance(call.error, OutcomeUnknown)


# --------------------------------------------------------------------- members


def test_a_connection_that_worked_is_made_again_to_the_same_server_and_one_that_did_not_to_the_next():
    play = Play()
    play.sent(TEST_READ)
    play.reply(b"$-1\r\n")
    play.submit(TEST_READ)
    play.actions()
    play.lost()
    assert play.actions() == ["connect a"]
    play.connected()
    play.actions()
    play.lost()
    assert play.actions() == ["connect b"]


def ring(*given, **options):
    from balsadb.client.call import ClerkOptions

    class Highest:
        def uniform(self, low, high):
            return high

    return Ring([(host, 1) for host in given], ClerkOptions(**options), Highest())


def learn(ring, *hosts):
    ring.learn([(host, 1) for host in hosts])
    return [host for host, _ in ring.servers]


def test_members_are_added_to_the_given_servers_and_go_when_the_cluster_drops_them():
    servers = ring("a", "b")
    assert learn(servers, "b", "c") == ["a", "b", "c"]
    assert learn(servers, "c", "d") == ["a", "c", "d"]
    assert learn(servers, "c", "b") == ["a", "b", "c"]


def test_a_given_server_that_was_never_named_as_a_member_stays():
    servers = ring("proxy")
    assert learn(servers, "a", "b") == ["proxy", "a", "b"]
    assert learn(servers, "b", "c") == ["proxy", "b", "c"]


def test_when_the_candidate_is_dropped_another_one_takes_its_place():
    servers = ring("a", "b")
    learn(servers, "a", "b", "c")
    servers.candidate = ("a", 1)
    assert learn(servers, "c", "b") == ["b", "c"]
    assert servers.candidate == ("b", 1)


def test_nonsense_about_members_changes_nothing():
    servers = ring("a")
    assert learn(servers) == ["a"]
    assert learn(servers, *[f"h{number}" for number in range(MEMBERS_MAX + 1)]) == ["a"]
    assert read_members([[0, 16383, [b"a", 1, b"id"], [b"", 0], [b"b", 70000], [b"c", 3], 5]]) == [
        ("a", 1),
        ("c", 3),
    ]
    assert read_members(5) == read_members([]) == read_members([[1]]) == []


def test_a_session_has_no_numbers_below_its_lowest():
    session = Session(NONCE, 60.0)
    session.opened(b"id", 1.0)
    assert session.is_idle
    assert session.lowest == 1
