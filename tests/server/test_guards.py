"""What stands before the commands of a user who may not do everything."""

from __future__ import annotations

import pytest

from balsadb.kv.reply import Refusal
from balsadb.server import guards
from balsadb.server.commands.client_state import ClientState
from balsadb.server.guards import Guard, Lock, sorter
from balsadb.server.intake import Intake
from balsadb.server.telemetry import CommandCounts

NO = Refusal(b"NOPERM no")


class Accounts:
    """`reader` may not write, `default` may do everything."""

    open = False

    def __init__(self) -> None:
        self.asked = 0

    def hashes(self, user):
        return ()

    def unrestricted(self, user):
        return user == b"default"

    def refuse(self, user, argv):
        self.asked += 1
        return NO if argv[0] in (b"SET", b"EXEC.NOT") else None


class Client:
    def __init__(self, user):
        self.accounts = Accounts()
        self.state = ClientState(1)
        self.state.user = user
        self.counts = CommandCounts()
        self.intake = Intake(self.state, None, self.counts)

    @property
    def sort(self):
        return sorter(self.accounts, self.state, self.intake, self.counts)

    def pieces(self, *commands):
        """Sort all of these, as a connection does, and return the pieces."""
        left = [command.split() for command in commands]
        pieces = []
        while left:
            pieces.append(self.sort(left))
            assert pieces[-1].taken > 0
            del left[: pieces[-1].taken]
        return pieces


def test_each_user_has_what_stands_before_him():
    assert isinstance(Client(b"").sort.__self__, Lock)
    assert isinstance(Client(b"default").sort.__self__, Intake)
    assert isinstance(Client(b"reader").sort.__self__, Guard)


def test_a_user_who_may_do_everything_is_asked_nothing():
    client = Client(b"default")
    client.pieces(b"SET a 1", b"GET a")
    assert client.accounts.asked == 0


def test_what_is_refused_keeps_its_place_among_what_is_not():
    commands = b"GET a", b"GET b", b"SET a 1", b"SET b 1", b"GET c"
    first, refused, again, last = Client(b"reader").pieces(*commands)
    assert [argv for _, argv in first.reads] == [[b"GET", b"a"], [b"GET", b"b"]]
    assert [literal for _, literal in refused.literals + again.literals] == [b"-NOPERM no\r\n"] * 2
    assert not refused.writes
    assert [argv for _, argv in last.reads] == [[b"GET", b"c"]]


def test_a_refused_command_makes_its_transaction_fail():
    *_, end = Client(b"reader").pieces(b"MULTI", b"GET a", b"SET a 1", b"EXEC")
    assert [literal for _, literal in end.literals] == [
        b"-EXECABORT Transaction discarded because of previous errors.\r\n"
    ]
    assert not end.answers


def test_a_transaction_and_watched_keys_stay_when_the_user_changes():
    client = Client(b"default")
    client.pieces(b"MULTI", b"GET a")
    client.state.user = b"reader"
    (piece,) = client.pieces(b"EXEC")
    assert piece.answers == 1


def test_refused_commands_are_counted():
    client = Client(b"reader")
    client.pieces(b"SET a 1", b"GET a")
    assert client.counts.received[b"SET"] == client.counts.received[b"GET"] == 1
    assert client.counts.failed == {(b"SET", b"NOPERM"): 1}


def test_a_guard_does_not_look_at_the_same_commands_over_and_over(monkeypatch):
    """A piece may end after each command that the node answers by itself; the rest is sorted again."""
    monkeypatch.setattr(guards, "GUARDED_COMMANDS_MAX", 10)
    monkeypatch.setattr("balsadb.server.intake.LOCAL_NS_MAX", 0)
    client = Client(b"reader")
    client.pieces(*[b"ECHO x"] * 300)
    assert client.accounts.asked <= 300 * 10


@pytest.mark.parametrize(
    "command", [b"GET a", b"SET a 1", b"NOSUCH", b"GET", b"MULTI", b"EXEC", b"CLIENT ID"]
)
def test_a_lock_lets_nothing_through(command):
    client = Client(b"")
    (piece,) = client.pieces(command)
    assert piece.literals == [(0, b"-NOAUTH Authentication required.\r\n")]
    assert not piece.answers
    assert not client.intake.in_multi


@pytest.mark.parametrize("command", [b"AUTH x", b"AUTH a x", b"HELLO 3 AUTH a x"])
def test_a_lock_takes_one_command_and_what_it_asks_for(command):
    piece, rest = Client(b"").pieces(command, b"QUIT")
    assert piece.login is not None
    assert piece.login.password == b"x"
    assert rest.closing
