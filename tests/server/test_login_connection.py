"""What a client may do before it has logged in, asked over real connections of a node with a password."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace

import pytest

from balsadb.errors import UsageError
from balsadb.server import login_connection, logins, passwords
from balsadb.server.login_connection import LoginConnection
from server.lone_node import lone_node

WRONG = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
NOAUTH = b"-NOAUTH Authentication required.\r\n"
HELLO = (
    b"-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH "
)
PROTOCOL = b"-NOPROTO unsupported protocol version\r\n"
NO_NUMBER = b"-ERR Protocol version is not an integer or out of range\r\n"
LONG = b"-ERR Protocol error: unauthenticated "
SECONDS = 20


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(passwords, "SCRYPT_N", 16)
    monkeypatch.setattr(logins, "FAILURE_SECONDS", 0.0)


@pytest.fixture(params=["asyncio", "uvloop"])
def play(request, tmp_path):
    """Run a test against a node with a password, on either event loop."""
    path = tmp_path / "password"
    path.write_text("secret\n")
    path.chmod(0o600)

    def play(test):
        async def run():
            async with (
                asyncio.timeout(SECONDS),
                lone_node(tmp_path / "data", password_file=str(path)) as node,
            ):
                await test(node)

        factory = None
        if request.param == "uvloop":
            factory = pytest.importorskip("uvloop").new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(run())

    return play


@contextlib.asynccontextmanager
async def client(node):
    host, port = node.config.listen.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def until(condition):
    """Wait for a condition; `play` has the deadline."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def said(node, *pieces, end=True):
    """Send pieces of input, close the sending side unless told not to, and return all that is answered."""
    async with client(node) as (reader, writer):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if end:
            writer.write_eof()
        return await reader.read()


EXCHANGES = {
    "a command": (b"PING\r\n", NOAUTH),
    "a command in RESP": (b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", NOAUTH),
    "something unknown": (b"NOSUCH a b\r\n", NOAUTH),
    "several": (b"PING\r\nGET a\r\nMULTI\r\nEXEC\r\n", NOAUTH * 4),
    "COMMAND": (b"COMMAND\r\n", NOAUTH),
    "INFO": (b"INFO\r\n", NOAUTH),
    "QUIT": (b"QUIT\r\nAUTH secret\r\n", b"+OK\r\n"),
    "RESET": (b"RESET\r\nPING\r\n", b"+RESET\r\n" + NOAUTH),
    "the password": (b"AUTH secret\r\nPING\r\n", b"+OK\r\n+PONG\r\n"),
    "the user and the password": (b"AUTH default secret\r\nPING\r\n", b"+OK\r\n+PONG\r\n"),
    "a wrong password": (b"AUTH Secret\r\nPING\r\n", WRONG + NOAUTH),
    "a wrong user": (b"AUTH alice secret\r\nPING\r\n", WRONG + NOAUTH),
    "an empty password": (b'AUTH ""\r\n', WRONG),
    "a binary one": (b"*2\r\n$4\r\nAUTH\r\n$5\r\n\0\xff\r\n$\r\n", WRONG),
    "a huge one": (b"*2\r\n$4\r\nAUTH\r\n$16000\r\n" + b"x" * 16000 + b"\r\n", WRONG),
    "no password": (b"AUTH\r\n", b"-ERR wrong number of arguments for 'auth' command\r\n"),
    "too many": (b"AUTH a b c\r\n", b"-ERR syntax error\r\n"),
    "HELLO with a bad version": (
        b"HELLO 4\r\nHELLO x\r\nAUTH secret\r\nPING\r\n", PROTOCOL + NO_NUMBER + b"+OK\r\n+PONG\r\n"
    ),
    "HELLO with a bad version and the password": (
        b"HELLO 4 AUTH default secret\r\nPING\r\n", PROTOCOL + NOAUTH
    ),
    "HELLO with a wrong password": (b"HELLO 3 AUTH default no\r\nPING\r\n", WRONG + NOAUTH),
    "HELLO with nonsense": (b"HELLO 3 FOO\r\n", b"-ERR Syntax error in HELLO option 'FOO'\r\n"),
    "eleven arguments": (b"*11\r\n", LONG + b"multibulk length\r\n"),
    "a long argument": (b"*2\r\n$3\r\nGET\r\n$16385\r\n", LONG + b"bulk length\r\n"),
    "a long command": (
        b"*3\r\n$3\r\nSET\r\n$9000\r\n" + b"x" * 9000 + b"\r\n$9000\r\n", LONG + b"bulk length\r\n"
    ),
    "a long line": (b"AUTH " + b"x" * 17_000 + b"\r\n", LONG + b"inline request\r\n"),
    "many words": (b"GET" + b" a" * 10 + b"\r\n", LONG + b"inline request\r\n"),
    "nonsense": (b"*1\r\nfoo\r\n", b"-ERR Protocol error: expected '$', got 'f'\r\n"),
    "HTTP": (b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", b""),
    "nothing": (b"\r\n\r\n*0\r\n*-1\r\n", b""),
}  # fmt: skip


def test_what_is_answered_before_a_log_in(play):
    async def test(node):
        for name, (sent, answered) in EXCHANGES.items():
            assert await said(node, sent) == answered, name
            node._logins._failures.clear()

    play(test)


def test_the_answer_does_not_depend_on_how_the_input_is_cut(play):
    sent = (
        b"*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\nSET a 1\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n"
    )

    async def test(node):
        for size in (1, 7, 20, len(sent)):
            pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
            async with client(node) as (reader, writer):
                for piece in pieces:
                    writer.write(piece)
                    await asyncio.sleep(0)
                answer = NOAUTH + b"+OK\r\n+OK\r\n$1\r\n1\r\n"
                assert await reader.readexactly(len(answer)) == answer

    play(test)


def test_hello_logs_in_and_changes_the_protocol_at_once(play):
    async def test(node):
        answer = await said(
            node, b"HELLO 3\r\nHELLO 3 AUTH default secret SETNAME me\r\nCLIENT GETNAME\r\nGET a\r\n"
        )
        refusal, _, rest = answer.partition(b"\r\n")
        assert refusal.startswith(HELLO)
        assert rest.startswith(b"%7\r\n$6\r\nserver\r\n")
        assert rest.endswith(b"$2\r\nme\r\n_\r\n")

    play(test)


def test_what_follows_the_password_in_the_same_segment_has_no_small_limits(play):
    value = b"v" * 300_000
    many = b"".join(b"$2\r\nk%d\r\n" % (n % 10) for n in range(50))
    sent = b"AUTH secret\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$300000\r\n%b\r\n*51\r\n$3\r\nDEL\r\n%bSTRLEN a\r\n"

    async def test(node):
        assert await said(node, sent % (value, many)) == b"+OK\r\n+OK\r\n:0\r\n:300000\r\n"

    play(test)


@pytest.mark.slow
def test_commands_behind_a_password_wait_while_it_is_checked_and_are_not_read(play, monkeypatch):
    monkeypatch.setattr(login_connection, "LOGIN_SECONDS_MAX", 1.0)

    async def test(node):
        held = []
        monkeypatch.setattr(
            node._logins, "log_in", lambda *given: held.append(given) or logins.Attempt("", given[-1])
        )
        async with client(node) as (_, writer):
            writer.write(b"AUTH secret\r\n")
            await until(lambda: held)
            flood = b"SET a 1\r\n" * 3_000_000
            writer.write(flood)
            drained = asyncio.ensure_future(writer.drain())
            await asyncio.sleep(0.2)
            assert not drained.done(), "the node has read all of it"
            (stranger,) = node._listener.strangers._connections
            assert len(stranger._data) <= 1024 * 1024
            drained.cancel()
            writer.transport.abort()
        await until(lambda: not len(node._listener.strangers))
        held[0][-1](None)  # an answer that is late meets nobody

    play(test)


def test_after_some_wrong_passwords_the_connection_is_closed(play):
    async def test(node):
        attempts = b"AUTH no\r\n" * 50 + b"AUTH secret\r\n"
        assert await said(node, attempts, end=False) == WRONG * logins.FAILURES_PER_CONNECTION_MAX

    play(test)


def test_one_who_has_logged_in_has_few_guesses_as_well(play):
    async def test(node):
        attempts = b"AUTH secret\r\n" + b"AUTH no\r\nPING\r\n" * 50
        expected = b"+OK\r\n" + (WRONG + b"+PONG\r\n") * logins.FAILURES_PER_CONNECTION_MAX
        answer = await said(node, attempts, end=False)
        assert answer == expected.removesuffix(b"+PONG\r\n")

    play(test)


def test_many_attempts_that_are_not_even_checked_do_not_pile_up(play):
    async def test(node):
        node._logins._failures["127.0.0.1"] = (99, 1e12)
        answer = await said(node, b"AUTH no\r\n" * 3000, end=False)
        assert set(answer.split(b"\r\n")) <= {
            b"-TRYAGAIN too many wrong passwords came from this address; nothing was done", b""
        }  # fmt: skip
        assert 0 < len(answer) <= login_connection.OUTPUT_BYTES_MAX

    play(test)


async def answered_until_closed(node, sent):
    """Return what is answered to input that the node may not want to read to its end."""
    answer = b""
    async with client(node) as (reader, writer):
        with contextlib.suppress(OSError):
            writer.write(sent)
            while piece := await reader.read(1000):
                answer += piece
    return answer


def test_who_says_too_much_before_a_log_in_is_closed(play):
    async def test(node):
        answer = await answered_until_closed(node, b"PING\r\n" * 50_000)
        assert len(answer) <= login_connection.OUTPUT_BYTES_MAX
        assert await answered_until_closed(node, b"\r\n" * 600_000) == b""

    play(test)


@pytest.mark.slow
def test_who_does_not_log_in_is_closed_after_a_while(play, monkeypatch):
    monkeypatch.setattr(login_connection, "LOGIN_SECONDS_MAX", 0.2)

    async def test(node):
        for sent in (b"", b"PI", b"PING\r\n"):
            with contextlib.suppress(ConnectionResetError):
                await said(node, sent, end=False)
        async with client(node) as (reader, writer):
            writer.write(b"AUTH secret\r\n")
            assert await reader.readline() == b"+OK\r\n"
            await asyncio.sleep(0.5)
            writer.write(b"PING\r\n")
            assert await reader.readline() == b"+PONG\r\n"

    play(test)


def test_those_who_say_nothing_take_a_share_of_the_places_and_make_room(play, monkeypatch):
    async def test(node):
        node._listener.strangers._max = 3
        async with contextlib.AsyncExitStack() as stack:
            silent = [await stack.enter_async_context(client(node)) for _ in range(5)]
            await until(lambda: len(node._listener.strangers) == 3)
            for reader, _ in silent[:2]:
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
            assert await said(node, b"AUTH secret\r\nPING\r\n") == b"+OK\r\n+PONG\r\n"

    play(test)


def test_all_places_together_have_a_bound(play):
    async def test(node):
        node._listener._clients_max = 2
        async with client(node) as (one, first), client(node) as (other, second):
            first.write(b"AUTH secret\r\n")
            second.write(b"AUTH secret\r\n")
            assert await one.readline() == await other.readline() == b"+OK\r\n"
            assert await said(node, b"", end=False) == b"-ERR max number of clients reached\r\n"

    play(test)


def test_one_that_is_closed_keeps_its_place_until_it_is_gone(play):
    async def test(node):
        strangers = node._listener.strangers
        async with client(node) as (reader, writer):
            await until(lambda: len(strangers) == 1)
            [stranger] = strangers._connections
            real = stranger._transport
            # As with TLS, where the other end is waited for.
            stranger._transport = SimpleNamespace(write=real.write, close=lambda: None, abort=real.abort)
            writer.write(b"QUIT\r\nPING\r\n")
            assert await reader.readline() == b"+OK\r\n"
            assert len(strangers) == 1
            stranger.drop()
            assert await reader.read() == b""
            await until(lambda: len(strangers) == 0)

    play(test)


def test_one_that_leaves_while_its_password_is_checked_is_nowhere_afterwards(play, monkeypatch):
    real = LoginConnection._checked

    def late(connection, login, refusal):
        connection._transport.abort()  # in the same round of the loop in which the answer comes
        real(connection, login, refusal)

    monkeypatch.setattr(LoginConnection, "_checked", late)

    async def test(node):
        strangers = node._listener.strangers
        async with client(node) as (_, writer):
            await until(lambda: len(strangers) == 1)
            writer.write(b"AUTH secret\r\n")
            await until(lambda: len(strangers) == 0)
        assert not node._listener._connections

    play(test)


def test_reset_logs_out(play):
    async def test(node):
        sent = b"AUTH secret\r\nPING\r\nRESET\r\nPING\r\nAUTH no\r\nAUTH secret\r\nPING\r\n"
        assert await said(node, sent) == b"+OK\r\n+PONG\r\n+RESET\r\n" + NOAUTH + WRONG + b"+OK\r\n+PONG\r\n"

    play(test)


def test_a_wrong_password_later_changes_nothing(play):
    async def test(node):
        sent = b"AUTH secret\r\nAUTH no\r\nPING\r\nHELLO 3 AUTH default no\r\nGET a\r\nPING\r\n"
        answer = await said(node, sent)
        assert answer == b"+OK\r\n" + WRONG + b"+PONG\r\n" + WRONG + b"$-1\r\n+PONG\r\n"

    play(test)


def test_a_log_in_is_no_part_of_a_transaction_and_leaves_watched_keys_alone(play):
    async def test(node):
        inside = await said(node, b"AUTH secret\r\nMULTI\r\nAUTH secret\r\nSET a 1\r\nEXEC\r\n")
        assert inside == (
            b"+OK\r\n+OK\r\n-ERR Command not allowed inside a transaction\r\n+QUEUED\r\n"
            b"-EXECABORT Transaction discarded because of previous errors.\r\n"
        )
        async with client(node) as (reader, writer):
            writer.write(b"AUTH secret\r\nWATCH a\r\nAUTH secret\r\n")
            assert await reader.readexactly(15) == b"+OK\r\n+OK\r\n+OK\r\n"
            assert await said(node, b"AUTH secret\r\nSET a other\r\n") == b"+OK\r\n+OK\r\n"
            writer.write(b"MULTI\r\nSET a mine\r\nEXEC\r\nGET a\r\n")
            answer = b"+OK\r\n+QUEUED\r\n*-1\r\n$5\r\nother\r\n"
            assert await reader.readexactly(len(answer)) == answer

    play(test)


def test_commands_around_a_later_log_in_keep_their_order(play):
    async def test(node):
        round = b"INCR n\r\nAUTH secret\r\nECHO x\r\nGET n\r\nHELLO 2 SETNAME a AUTH default secret\r\n"
        answer = await said(node, b"AUTH secret\r\n" + round * 20)
        greeting = answer[answer.index(b"*14") :].partition(b"*0\r\n")[0] + b"*0\r\n"
        expected = [b":%d\r\n+OK\r\n$1\r\nx\r\n$%d\r\n%d\r\n" % (n, len(str(n)), n) for n in range(1, 21)]
        assert answer == b"+OK\r\n" + b"".join(one + greeting for one in expected)

    play(test)


def test_client_list_says_who_somebody_is(play):
    async def test(node):
        answer = await said(node, b"AUTH secret\r\nCLIENT LIST\r\n")
        assert b" user=default " in answer

    play(test)


def test_the_password_is_in_nothing_that_the_node_says_or_keeps(play, tmp_path, capfd):
    async def test(node):
        answer = await said(
            node, b"AUTH secret\r\nAUTH hunter2\r\nINFO\r\nCONFIG GET *\r\nCLIENT LIST\r\nRAFT STATUS\r\n"
        )
        assert b"raft_role" in answer
        assert b"secret" not in answer
        assert b"hunter2" not in answer
        assert "secret" not in repr(node._insight.status())
        kept = repr(vars(node._logins)) + repr(vars(node._logins.accounts))
        kept += repr(node.config).replace("peer_secret_file", "")  # a name of a setting
        assert "scrypt:" in kept
        assert "secret" not in kept

    play(test)
    out, err = capfd.readouterr()
    assert "hunter2" not in out + err


def test_metrics_count_who_was_refused(play):
    async def test(node):
        await said(node, b"PING\r\nAUTH no\r\n")
        codes = node._listener.counts.codes
        assert codes[b"NOAUTH"] == 1
        assert codes[b"WRONGPASS"] == 1

    play(test)


def test_a_bad_password_file_stops_the_start_before_the_data_is_touched(tmp_path):
    path = tmp_path / "password"
    path.write_text("secret\n")
    path.chmod(0o644)

    async def run():
        async with lone_node(tmp_path / "data", password_file=str(path)):
            pass

    with pytest.raises(UsageError, match="chmod 600"):
        asyncio.run(run())
    assert not (tmp_path / "data").exists()
