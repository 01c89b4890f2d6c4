"""What the Clerk's core decides, played without sockets and clocks.

`Play` is the front: it keeps the time, carries events in, and writes down the actions as short texts.
"""

import pytest

from balsadb.client.call import ClerkOptions, Close, Connect, Kind, Send
from balsadb.client.core import ASK_FOR_MEMBERS, ClerkCore
from balsadb.client.words import command
from balsadb.errors import AuthenticationError, CommandError, NoServer, NotApplied, OutcomeUnknown, UsageError

SERVERS = [("a", 1), ("b", 2), ("c", 3)]
WRITE = command(Kind.PLAIN, "SET", "k", "v")
READ = command(Kind.READ, "GET", "k")
NAMES = {WRITE.encoded(): "write", READ.encoded(): "read", ASK_FOR_MEMBERS: "leader?"}


class Highest:
    """Randomness without chance."""

    def uniform(self, low, high):
        return high

    def getrandbits(self, count):
        return 5


class Play:
    def __init__(self, servers=SERVERS, *, prefer_leader=False, discover=False, **options):
        options = ClerkOptions(prefer_leader=prefer_leader, discover=discover, **options)
        self.core = ClerkCore(servers, options, Highest())
        self.now = 100.0
        self.open = []
        """Numbers of the connections in the order of their making."""

    def submit(self, data=WRITE, timeout=10.0):
        return self.core.submit(data, self.now + timeout)

    def actions(self):
        """Return what is to be done, as texts; a connection is called by its place in the order of making."""
        said = []
        for action in self.core.actions(self.now):
            match action:
                case Connect(number, (host, _)):
                    self.open.append(number)
                    said.append(f"connect {host}")
                case Send(number, data):
                    words = []
                    while data:
                        known = next(k for k in NAMES if data.startswith(k))
                        words.append(NAMES[known])
                        data = data[len(known) :]
                    said.append(f"send {self.open.index(number)} {' '.join(words)}")
                case Close(number):
                    said.append(f"close {self.open.index(number)}")
        return said

    def connected(self, which=-1):
        self.core.connected(self.open[which], self.now)

    def refused(self, which=-1, reason="connection refused"):
        self.core.connect_failed(self.open[which], reason, self.now)

    def reply(self, data, which=-1):
        self.core.received(self.open[which], data, self.now)

    def lost(self, which=-1):
        self.core.lost(self.open[which], "the server closed the connection", self.now)

    def wait(self, seconds):
        self.now += seconds
        self.core.tick(self.now)

    def sent(self, data=WRITE, timeout=10.0):
        """Submit a call and see it sent over a new connection."""
        call = self.submit(data, timeout)
        assert self.actions()[-1].startswith("connect")
        self.connected()
        assert self.actions()[-1].startswith("send")
        return call

    def ended(self):
        """Every call that was finished, in order."""
        return self.core.finished()


def test_a_call_connects_to_the_first_server_and_is_answered():
    play = Play()
    call = play.submit()
    assert play.actions() == ["connect a"]
    assert play.actions() == []
    play.connected()
    assert play.actions() == ["send 0 write"]
    play.reply(b"+OK\r\n")
    assert play.ended() == [call]
    assert call.error is None
    assert play.core.finished() == []


def test_nothing_is_connected_before_somebody_wants_something():
    assert Play().actions() == []
    assert Play().core.wake_at() is None


def test_calls_of_one_turn_go_out_in_one_write_and_are_answered_in_order():
    play = Play()
    first, second, third = play.submit(), play.submit(READ), play.submit()
    play.actions()
    play.connected()
    assert play.actions() == ["send 0 write read write"]
    play.reply(b"+OK\r\n$1\r\n")
    play.reply(b"v\r\n-ERR syntax error\r\n")
    assert play.ended() == [first, second, third]
    assert second.reply == b"v"
    assert isinstance(third.error, CommandError)
    assert third.error.code == "ERR"


# --------------------------------------------------------------------- what one attempt means (rule S3)

# What becomes of a call after one event on the connection it was sent over: it ends with an error of this
# type, with an answer (None), or is sent again over a new connection to the next server ("again").
AFTER_ONE_ATTEMPT = [
    # event                                      write            read
    (lambda p: p.reply(b"+OK\r\n"), None, None),
    (lambda p: p.reply(b"-CLUSTERDOWN no leader\r\n"), "again", "again"),
    (lambda p: p.reply(b"-TRYAGAIN later\r\n"), "again", "again"),
    (lambda p: p.reply(b"-LOADING starting\r\n"), "again", "again"),
    (lambda p: p.reply(b"-ERR max number of clients reached\r\n"), "again", "again"),
    (lambda p: p.reply(b"-UNKNOWN the deadline passed\r\n"), OutcomeUnknown, "again"),
    (lambda p: p.reply(b"-WRONGTYPE no\r\n"), CommandError, CommandError),
    (lambda p: p.reply(b"-NOAUTH no\r\n"), AuthenticationError, AuthenticationError),
    (lambda p: p.reply(b"-UNKNOWNX is another word\r\n"), CommandError, CommandError),
    (lambda p: p.lost(), OutcomeUnknown, "again"),
    (lambda p: p.wait(3.0), OutcomeUnknown, "again"),
    (lambda p: p.reply(b"HTTP/1.1 400 Bad Request\r\n"), OutcomeUnknown, "again"),
    (lambda p: p.reply(b"*1000000000\r\n"), OutcomeUnknown, "again"),
    (lambda p: p.core.close(), OutcomeUnknown, NotApplied),
]


@pytest.mark.parametrize("kind", ["write", "read"])
@pytest.mark.parametrize("row", range(len(AFTER_ONE_ATTEMPT)))
def test_what_may_be_repeated_after_one_attempt(row, kind):
    event, *expected = AFTER_ONE_ATTEMPT[row]
    outcome = expected[kind == "read"]
    play = Play()
    call = play.sent(WRITE if kind == "write" else READ)
    event(play)
    if outcome == "again":
        assert not call.done
        assert "connect b" in play.actions()
        play.connected()
        assert play.actions() == [f"send 1 {kind}"]
        play.reply(b"$1\r\nv\r\n")
        assert call.reply == b"v"
    else:
        assert play.ended() == [call]
        assert (call.error is None) if outcome is None else (type(call.error) is outcome)


def test_a_write_with_an_open_outcome_is_unknown_whatever_other_attempts_said():
    play = Play()
    call = play.sent()
    play.reply(b"-CLUSTERDOWN no leader\r\n")
    play.actions()
    play.connected()
    play.actions()
    play.lost()
    assert isinstance(call.error, OutcomeUnknown)


def test_a_write_that_was_refused_by_all_is_certainly_not_applied():
    play = Play()
    call = play.sent(timeout=1.0)
    attempts = 0
    while not call.done:
        attempts += 1
        play.reply(b"-TRYAGAIN later\r\n")
        play.wait(0.1)
        if play.actions():
            play.connected()
            play.actions()
    assert attempts > len(SERVERS)
    assert type(call.error) is NotApplied


def test_a_write_whose_last_attempt_is_under_way_at_the_deadline_is_unknown():
    play = Play()
    call = play.sent(timeout=1.0)
    play.reply(b"-TRYAGAIN later\r\n")
    play.actions()
    play.connected()
    play.actions()
    play.wait(1.0)
    assert type(call.error) is OutcomeUnknown


def test_a_refused_write_whose_deadline_comes_in_a_pause_is_certainly_not_applied():
    play = Play(servers=SERVERS[:1], backoff_min=5.0, backoff_max=5.0)
    call = play.sent(timeout=1.0)
    play.reply(b"-TRYAGAIN later\r\n")
    play.wait(1.0)
    assert type(call.error) is NotApplied
    assert "TRYAGAIN later" in str(call.error)


# --------------------------------------------------------------------- which server, and when


def test_a_server_that_refuses_to_connect_is_passed_over_at_once():
    play = Play()
    play.submit()
    assert play.actions() == ["connect a"]
    play.refused()
    assert play.actions() == ["connect b"]
    play.refused()
    assert play.actions() == ["connect c"]


def test_a_server_that_does_not_accept_in_time_is_passed_over():
    play = Play()
    play.submit()
    play.actions()
    assert play.core.wake_at() == play.now + 1.0
    play.wait(1.0)
    assert play.actions() == ["close 0", "connect b"]


def test_after_a_round_of_failures_it_pauses_and_the_pauses_grow_to_a_limit():
    play = Play()
    play.submit(timeout=1000.0)
    pauses = []
    for _ in range(9):
        for _ in SERVERS:
            assert play.actions()
            play.refused()
        assert play.actions() == []
        pauses.append(round(play.core.wake_at() - play.now, 6))
        play.wait(pauses[-1])
    assert pauses == [0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]


def test_an_answer_ends_the_row_of_failures():
    play = Play(servers=SERVERS[:1])
    play.submit()
    for _ in range(4):
        play.actions()
        play.refused()
        play.wait(play.core.wake_at() - play.now)
    play.actions()
    play.connected()
    play.actions()
    play.reply(b"+OK\r\n")
    play.lost()
    play.submit()
    assert play.actions() == []
    assert play.core.wake_at() == pytest.approx(play.now + 0.025)


def test_many_refusals_on_one_connection_count_as_one_failure():
    play = Play(servers=SERVERS[:2])
    calls = [play.submit() for _ in range(64)]
    play.actions()
    play.connected()
    play.actions()
    play.reply(b"-TRYAGAIN later\r\n" * 64)
    assert play.actions() == ["close 0", "connect b"]
    play.connected()
    play.actions()
    play.reply(b"+OK\r\n" * 64)
    assert play.ended() == calls


def test_calls_already_sent_keep_their_connection_while_new_ones_go_elsewhere():
    play = Play()
    refused, slow = play.submit(), play.submit()
    play.actions()
    play.connected()
    play.actions()
    play.reply(b"-CLUSTERDOWN no leader\r\n")
    assert play.actions() == ["connect b"]
    play.connected()
    assert play.actions() == ["send 1 write"]
    play.reply(b"+OK\r\n", which=0)
    assert play.actions() == ["close 0"]
    assert play.ended() == [slow]
    play.reply(b"+OK\r\n")
    assert play.ended() == [refused]


def test_coming_back_to_a_server_uses_the_connection_that_is_still_open():
    play = Play(servers=SERVERS[:1])
    play.submit(), play.submit()
    play.actions()
    play.connected()
    play.actions()
    play.reply(b"-TRYAGAIN later\r\n")
    play.wait(0.025)
    assert play.actions() == ["send 0 write"]
    play.reply(b"+OK\r\n+OK\r\n")
    assert len(play.ended()) == 2


def test_a_busy_connection_is_not_given_up_while_answers_come():
    play = Play()
    calls = [play.submit(), play.submit()]
    play.actions()
    play.connected()
    play.actions()
    play.wait(2.0)
    play.reply(b"+OK\r\n")
    play.wait(2.0)
    play.reply(b"+OK\r\n")
    assert play.ended() == calls


def test_late_events_of_a_former_connection_are_ignored():
    play = Play()
    call = play.sent(READ)
    play.wait(3.0)
    assert play.actions() == ["close 0", "connect b"]
    play.reply(b"+OK\r\n", which=0)
    play.lost(which=0)
    play.core.connected(play.open[0], play.now)
    assert not call.done
    assert play.actions() == []


def test_an_answer_to_no_question_breaks_the_connection():
    play = Play()
    play.sent()
    play.reply(b"+OK\r\n+OK\r\n")
    play.submit()
    assert play.actions() == ["close 0", "connect b"]


# --------------------------------------------------------------------- deadlines


def test_when_nobody_can_be_reached_the_error_says_where_and_why():
    play = Play([("127.0.0.1", 7001), ("127.0.0.1", 7002), ("127.0.0.1", 7003)])
    call = play.submit(timeout=1.0)
    while not call.done:
        play.actions()
        if len(play.open) and play.core.wake_at():
            play.refused()
        play.wait(0.05)
    assert type(call.error) is NoServer
    assert str(call.error) == "no server answers at 127.0.0.1:7001-7003 (connection refused)"


def test_fail_fast_gives_up_after_one_round():
    play = Play(fail_fast=True)
    call = play.submit()
    for _ in SERVERS:
        assert not call.done
        play.actions()
        play.refused()
    assert type(call.error) is NoServer


def test_fail_fast_keeps_trying_where_a_server_lives():
    play = Play(SERVERS[:2], fail_fast=True)
    call = play.submit()
    play.actions()
    play.refused()
    play.actions()
    play.connected()
    play.actions()
    play.reply(b"-CLUSTERDOWN no leader\r\n")
    play.wait(0.1)
    play.actions()
    play.refused()
    assert not call.done


@pytest.mark.parametrize(("data", "error"), [(WRITE, OutcomeUnknown), (READ, NotApplied)])
def test_a_deadline_that_comes_while_the_answer_is_due(data, error):
    play = Play()
    call = play.sent(data, timeout=1.0)
    assert play.core.wake_at() == play.now + 1.0
    play.wait(1.0)
    assert type(call.error) is error


def test_the_answer_to_a_call_given_up_does_not_go_to_the_next_one():
    play = Play()
    play.sent(READ, timeout=1.0)
    play.wait(1.0)
    call = play.submit(READ)
    assert play.actions() == ["send 0 read"]
    play.reply(b"$3\r\nold\r\n")
    assert not call.done
    play.reply(b"$3\r\nnew\r\n")
    assert call.reply == b"new"


def test_each_call_has_its_own_deadline():
    play = Play()
    late, early = play.submit(timeout=2.0), play.submit(timeout=1.0)
    play.actions()
    play.connected()
    play.actions()
    play.wait(1.0)
    assert (late.done, early.done) == (False, True)
    play.wait(1.0)
    assert late.done


# --------------------------------------------------------------------- callers who leave, limits


def test_a_call_abandoned_before_it_was_sent_is_never_sent():
    play = Play()
    gone, stays = play.submit(WRITE), play.submit(READ)
    play.actions()
    play.core.abandon(gone)
    play.connected()
    assert play.actions() == ["send 0 read"]
    play.reply(b"$-1\r\n")
    assert play.ended() == [stays]


def test_a_call_abandoned_after_it_was_sent_keeps_its_place_in_the_queue():
    play = Play()
    gone, stays = play.submit(READ), play.submit(READ)
    play.actions()
    play.connected()
    play.actions()
    play.core.abandon(gone)
    play.reply(b"$1\r\n1\r\n$1\r\n2\r\n")
    assert play.ended() == [stays]
    assert stays.reply == b"2"


def test_calls_and_bytes_under_way_are_bounded():
    play = Play(calls_max=2)
    play.submit()
    play.submit()
    with pytest.raises(NotApplied, match="2 calls"):
        play.submit()
    small = Play(bytes_max=10)
    call = small.submit()  # one is always admitted
    with pytest.raises(NotApplied):
        small.submit()
    small.core.abandon(call)
    small.submit()


def test_a_closed_clerk_refuses_calls():
    play = Play()
    waiting = play.submit()
    play.core.close()
    assert type(waiting.error) is NotApplied
    with pytest.raises(NotApplied, match="closed"):
        play.submit()


def test_a_clerk_needs_servers():
    with pytest.raises(UsageError):
        Play([])


# --------------------------------------------------------------------- the leader


def slots(host, port):
    return b"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$%d\r\n%b\r\n:%d\r\n$2\r\nid\r\n" % (len(host), host, port)


def test_it_moves_to_the_leader_without_disturbing_what_is_under_way():
    play = Play(prefer_leader=True)
    call = play.submit()
    play.actions()
    play.connected()
    assert play.actions() == ["send 0 leader? write"]
    play.reply(slots(b"c", 3))
    assert play.actions() == ["connect c"]
    play.submit()
    assert play.actions() == ["send 0 write"]
    play.connected()
    third = play.submit(READ)
    assert play.actions() == ["send 1 read"]
    play.reply(b"+OK\r\n+OK\r\n", which=0)
    assert play.actions() == ["close 0"]
    assert call.done
    assert not third.done


@pytest.mark.parametrize(
    "answer",
    [
        slots(b"a", 1),  # connected to it already
        slots(b"elsewhere", 9),  # not one of the servers that were given
        b"-ERR This instance has cluster support disabled\r\n",
        b"*0\r\n",
        b"*1\r\n*0\r\n",
        b":5\r\n",
    ],
)
def test_any_other_answer_to_who_leads_changes_nothing(answer):
    play = Play(prefer_leader=True)
    call = play.sent()
    play.reply(answer)
    assert play.actions() == []
    play.reply(b"+OK\r\n")
    assert play.ended() == [call]


def test_a_leader_that_can_not_be_reached_is_left_alone():
    play = Play(prefer_leader=True)
    play.sent()
    play.reply(slots(b"b", 2))
    assert play.actions() == ["connect b"]
    play.refused()
    play.submit()
    assert play.actions() == ["send 0 write"]


def test_the_connection_to_the_leader_takes_over_when_the_other_breaks_first():
    play = Play(prefer_leader=True)
    call = play.sent(READ)
    play.reply(slots(b"b", 2))
    play.actions()
    play.lost(which=0)
    assert play.actions() == []
    play.connected(which=1)
    assert play.actions() == ["send 1 leader? read"]
    play.reply(slots(b"b", 2) + b"$1\r\nv\r\n", which=1)
    assert call.reply == b"v"


def test_it_asks_who_leads_only_now_and_then_so_that_servers_who_disagree_do_not_make_it_jump():
    play = Play(prefer_leader=True)
    play.sent()
    play.reply(b"+OK\r\n")  # the answer about the leader; the write's own follows
    play.reply(b"+OK\r\n")
    play.submit()
    assert play.actions() == ["send 0 write"]
    play.reply(b"+OK\r\n")
    play.wait(5.0)
    play.submit()
    assert play.actions() == ["send 0 leader? write"]
