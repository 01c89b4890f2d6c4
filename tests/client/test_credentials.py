"""How a Clerk logs in: before anything else, on every connection, and what it says when it is not let in."""

import pytest
from test_core import NAMES, READ, SERVERS, WRITE, Highest, Play

from balsadb import BlockingClerk, Clerk
from balsadb.client.call import ClerkOptions, Connect, Send
from balsadb.client.core import ClerkCore
from balsadb.client.credentials import Credentials, make_credentials
from balsadb.errors import AuthenticationError, NoServer, OutcomeUnknown, UsageError

WRONG = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
SECRET = Credentials("secret")
NAMES[SECRET.encoded()] = "login"


class LoginPlay(Play):
    def __init__(self, servers=SERVERS, **options):
        super().__init__(servers, **options)
        self.core = ClerkCore(servers, self.core.options, Highest(), SECRET)


def test_the_password_goes_first_and_everything_else_waits_for_its_answer():
    play = LoginPlay()
    call = play.submit()
    assert play.actions() == ["connect a"]
    play.connected()
    assert play.actions() == ["send 0 login"]
    play.submit(READ)
    assert play.actions() == []
    play.reply(b"+O")
    assert play.actions() == []
    play.reply(b"K\r\n")
    assert play.actions() == ["send 0 write read"]
    play.reply(b"+OK\r\n")
    assert play.ended() == [call]


def let_in(play):
    play.connected()
    assert play.actions()[-1].endswith("login")
    play.reply(b"+OK\r\n")


def test_every_new_connection_logs_in():
    play = LoginPlay()
    play.submit(READ)
    play.actions()
    let_in(play)
    assert play.actions() == ["send 0 read"]
    play.lost()
    assert play.actions() == ["connect a"]
    let_in(play)
    assert play.actions() == ["send 1 read"]


def test_a_server_that_does_not_let_it_in_is_passed_over():
    """While a cluster is told a new password some servers know it and others do not."""
    play = LoginPlay()
    call = play.submit()
    play.actions()
    play.connected()
    play.actions()
    play.reply(WRONG)
    assert play.actions() == ["close 0", "connect b"]
    let_in(play)
    assert play.actions() == ["send 1 write"]
    play.reply(b"+OK\r\n")
    assert play.ended() == [call]
    assert call.error is None


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (WRONG, "WRONGPASS"),
        (b"-ERR AUTH <password> called without any password configured for the default user. Are\r\n", "ERR"),
        (b"-NOPERM no\r\n", "NOPERM"),
    ],
)
def test_when_none_lets_it_in_the_caller_is_told_at_once(refusal, code):
    play = LoginPlay()
    calls = [play.submit(), play.submit(READ)]
    for _ in SERVERS:
        play.actions()
        play.connected()
        play.actions()
        play.reply(refusal)
    assert play.ended() == calls
    assert [type(call.error) for call in calls] == [AuthenticationError] * 2
    assert calls[0].error.code == code
    assert "secret" not in str(calls[0].error)


def test_servers_that_are_down_do_not_hide_that_the_password_is_wrong():
    play = LoginPlay()
    call = play.submit()
    play.actions()
    play.refused()
    play.actions()
    play.connected()
    play.actions()
    play.reply(WRONG)
    play.actions()
    play.refused()
    assert play.ended() == [call]
    assert isinstance(call.error, AuthenticationError)


@pytest.mark.parametrize(
    "refusal", [b"-TRYAGAIN later\r\n", b"-LOADING\r\n", b"-ERR max number of clients reached\r\n"]
)
def test_a_server_that_can_not_say_now_is_asked_again(refusal):
    play = LoginPlay(SERVERS[:1])
    call = play.submit()
    play.actions()
    play.connected()
    play.actions()
    play.reply(refusal)
    play.actions()
    play.wait(1.0)
    assert not call.done
    assert play.actions() == ["connect a"]
    let_in(play)
    assert play.actions() == ["send 1 write"]


@pytest.mark.parametrize(
    "event", [lambda p: p.lost(), lambda p: p.wait(3.0), lambda p: p.reply(b"HTTP/1.1 400\r\n")]
)
def test_a_log_in_without_an_answer_leaves_nothing_open(event):
    play = LoginPlay()
    call = play.submit()
    play.actions()
    play.connected()
    play.actions()
    event(play)
    assert not call.done
    assert not call.is_open
    assert "connect b" in play.actions()


def test_a_write_that_may_have_happened_stays_unknown_when_it_is_shut_out_later():
    play = LoginPlay()
    play.core.desk.options = play.core.options
    call = play.submit(WRITE)
    play.actions()
    let_in(play)
    play.actions()
    call.is_open = True  # as after an attempt in a session whose answer was lost
    play.core.desk.requeue([call])
    play.core.desk.shut_out("WRONGPASS no")
    assert isinstance(call.error, OutcomeUnknown)


def test_nobody_there_is_still_nobody_there():
    play = LoginPlay(fail_fast=True)
    call = play.submit()
    for _ in SERVERS:
        play.actions()
        play.refused()
    assert isinstance(call.error, NoServer)


def test_no_text_shows_the_password():
    core = ClerkCore(SERVERS, ClerkOptions(), Highest(), SECRET)
    core.submit(READ, 10.0)
    (connect,) = core.actions(0.0)
    assert isinstance(connect, Connect)
    core.connected(connect.number, 0.0)
    (send,) = core.actions(0.0)
    assert isinstance(send, Send)
    shown = [
        send,
        SECRET,
        Credentials("secret", "alice"),
        core,
        BlockingClerk(password="secret"),
        Clerk(password="secret"),
    ]
    assert not any("secret" in repr(one) or "secret" in str(one) for one in shown)


@pytest.mark.parametrize(
    ("username", "password", "words"),
    [
        (None, "secret", b"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n"),
        ("alice", b"\xff", b"*3\r\n$4\r\nAUTH\r\n$5\r\nalice\r\n$1\r\n\xff\r\n"),
        (None, "pä", b"*2\r\n$4\r\nAUTH\r\n$3\r\np\xc3\xa4\r\n"),
    ],
)
def test_how_a_log_in_is_written(username, password, words):
    credentials = make_credentials(username, password)
    assert credentials is not None
    assert credentials.encoded() == words


def test_half_of_what_is_needed_is_refused():
    with pytest.raises(UsageError, match="a password is missing for the user 'alice'"):
        Clerk(username="alice")
    with pytest.raises(UsageError, match="the password is empty"):
        BlockingClerk(password="")
    assert make_credentials(None, None) is None
