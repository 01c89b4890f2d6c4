"""Passwords are checked beside the event loop, few at a time, and not as often as one likes."""

from __future__ import annotations

import asyncio
import threading

import pytest

from balsadb.server import logins, passwords
from balsadb.server.logins import Logins
from balsadb.server.passwords import hash_password

WRONG = b"WRONGPASS invalid username-password pair or user is disabled."


class Accounts:
    """Two users, whose passwords a test may change."""

    open = False

    def __init__(self) -> None:
        self.kept = {b"default": (hash_password(b"secret"),), b"alice": (hash_password(b"wonder"),)}

    def hashes(self, user):
        return self.kept.get(user, ())

    def unrestricted(self, user):
        return True

    def refuse(self, user, argv):
        return None


class Threads:
    """Counts what is really checked, and can hold it up."""

    def __init__(self) -> None:
        self.checked = []
        self.go = threading.Event()
        self.go.set()

    def matching(self, password, hashes):
        self.checked.append(password)
        assert self.go.wait(10)
        return passwords.matching(password, hashes)


@pytest.fixture
def threads(monkeypatch):
    monkeypatch.setattr(passwords, "SCRYPT_N", 16)
    monkeypatch.setattr(logins, "FAILURE_SECONDS", 0.0)
    threads = Threads()
    monkeypatch.setattr(logins, "matching", threads.matching)
    yield threads
    threads.go.set()


def play(test):
    """Run a test with `Logins` in an event loop."""

    async def run():
        desk = Logins(Accounts())
        try:
            async with asyncio.timeout(20):
                await test(desk)
        finally:
            desk.close()

    asyncio.run(run())


async def until(condition):
    """Wait for a condition; `play` has the deadline."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def answer(desk, user=b"default", password=b"secret", address="1.2.3.4"):
    refusal = await desk.check(address, user, password)
    return None if refusal is None else refusal.text


def test_only_the_right_pair_is_let_in(threads):
    async def test(desk):
        assert await answer(desk) is None
        assert await answer(desk, b"alice", b"wonder") is None
        assert await answer(desk, b"alice", b"secret") == WRONG
        assert await answer(desk, b"default", b"wonder") == WRONG
        assert await answer(desk, b"bob", b"secret") == WRONG
        assert await answer(desk, b"default", b"") == WRONG

    play(test)


def test_the_loop_goes_on_while_a_password_is_checked(threads):
    async def test(desk):
        threads.go.clear()
        waiting = asyncio.ensure_future(answer(desk))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not waiting.done()
        threads.go.set()
        assert await waiting is None

    play(test)


def test_a_right_pair_is_checked_once_and_a_wrong_one_each_time(threads):
    async def test(desk):
        for _ in range(5):
            assert await answer(desk) is None
        assert threads.checked == [b"secret"]
        for _ in range(3):
            assert await answer(desk, password=b"guess") == WRONG
        assert threads.checked == [b"secret", b"guess", b"guess", b"guess"]

    play(test)


def test_user_and_password_can_not_be_shifted_into_each_other(threads):
    async def test(desk):
        desk.accounts.kept[b"a"] = (hash_password(b"b:c"),)
        assert await answer(desk, b"a", b"b:c") is None
        assert await answer(desk, b"a:b", b"c") == WRONG

    play(test)


def test_a_password_that_was_changed_is_not_known_any_more(threads):
    async def test(desk):
        assert await answer(desk) is None
        desk.accounts.kept[b"default"] = (hash_password(b"new"),)
        assert await answer(desk) == WRONG
        assert await answer(desk, password=b"new") is None

    play(test)


def test_a_password_that_is_changed_while_it_is_checked_lets_nobody_in(threads):
    async def test(desk):
        threads.go.clear()
        waiting = asyncio.ensure_future(answer(desk))
        await until(lambda: threads.checked)
        desk.accounts.kept[b"default"] = ()
        threads.go.set()
        assert await waiting == WRONG

    play(test)


def test_a_crowd_with_the_same_password_costs_one_check(threads):
    async def test(desk):
        threads.go.clear()
        crowd = [asyncio.ensure_future(answer(desk)) for _ in range(500)]
        await asyncio.sleep(0)  # now all have asked
        threads.go.set()
        assert set(await asyncio.gather(*crowd)) == {None}
        assert threads.checked == [b"secret"]

    play(test)


def test_few_passwords_wait_and_more_are_told_to_come_again(threads):
    async def test(desk):
        threads.go.clear()
        room = logins.CHECKS_MAX + logins.WAITING_MAX
        crowd = [
            asyncio.ensure_future(answer(desk, password=b"%d" % n, address=f"10.0.{n}.1"))
            for n in range(room)
        ]
        await asyncio.sleep(0.01)
        assert len(threads.checked) == logins.CHECKS_MAX
        late = await answer(desk, password=b"late", address="10.1.0.1")
        assert late == b"TRYAGAIN too many passwords are being checked; nothing was done"
        threads.go.set()
        assert set(await asyncio.gather(*crowd)) == {WRONG}
        assert await answer(desk, address="10.1.0.1") is None

    play(test)


@pytest.mark.parametrize(
    ("address", "neighbour", "stranger"),
    [
        ("1.2.3.4", "1.2.3.4", "1.2.3.5"),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1"),
        ("::ffff:1.2.3.4", "1.2.3.4", "::ffff:1.2.3.5"),
        ("fe80::1%eth0", "fe80::2%eth1", "fe80:0:0:1::1"),
    ],
)
def test_one_address_takes_few_of_the_places(threads, address, neighbour, stranger):
    async def test(desk):
        threads.go.clear()
        crowd = [
            asyncio.ensure_future(answer(desk, password=b"%d" % n, address=address))
            for n in range(logins.WAITING_PER_ADDRESS_MAX)
        ]
        await asyncio.sleep(0)
        assert (await answer(desk, password=b"one more", address=neighbour)).startswith(b"TRYAGAIN")
        other = asyncio.ensure_future(answer(desk, address=stranger))
        threads.go.set()
        assert await other is None
        await asyncio.gather(*crowd)

    play(test)


def test_an_address_that_guesses_has_to_pause_and_everybody_known_gets_in(threads, monkeypatch):
    async def test(desk):
        assert await answer(desk) is None
        for number in range(logins.FAILURES_PER_ADDRESS_MAX):
            assert await answer(desk, password=b"%d" % number) == WRONG
        refused = b"TRYAGAIN too many wrong passwords came from this address; nothing was done"
        assert await answer(desk, password=b"more") == refused
        assert await answer(desk, b"alice", b"wonder") == refused  # good, but not known yet
        assert b"more" not in threads.checked
        assert await answer(desk) is None
        assert await answer(desk, b"alice", b"wonder", address="4.3.2.1") is None
        monkeypatch.setattr(desk, "_failures", {"1.2.3.4": (99, desk._loop.time())})  # time goes by
        assert await answer(desk, password=b"more") == WRONG

    play(test)


def test_failures_of_few_addresses_are_remembered(threads, monkeypatch):
    monkeypatch.setattr(logins, "ADDRESSES_MAX", 3)

    async def test(desk):
        for number in range(6):
            assert await answer(desk, password=b"guess", address=f"1.1.1.{number}") == WRONG
        assert list(desk._failures) == ["1.1.1.3", "1.1.1.4", "1.1.1.5"]

    play(test)


def test_few_right_pairs_are_remembered(threads, monkeypatch):
    monkeypatch.setattr(logins, "KNOWN_MAX", 1)

    async def test(desk):
        for _ in range(2):
            assert await answer(desk) is None
            assert await answer(desk, b"alice", b"wonder") is None
        assert len(threads.checked) == 4
        assert len(desk._known) == 1

    play(test)


def test_a_wrong_password_is_answered_late(threads, monkeypatch):
    monkeypatch.setattr(logins, "FAILURE_SECONDS", 0.2)

    async def test(desk):
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await answer(desk, password=b"guess") == WRONG
        assert loop.time() - began >= 0.19

    play(test)


def test_nobody_is_checked_who_has_gone(threads):
    async def test(desk):
        threads.go.clear()
        busy = [asyncio.ensure_future(answer(desk, password=b"%d" % n)) for n in range(logins.CHECKS_MAX)]
        await until(lambda: len(threads.checked) == logins.CHECKS_MAX)
        told = []
        desk.log_in("9.9.9.9", b"default", b"gone", told.append).cancel()
        threads.go.set()
        await asyncio.gather(*busy)
        assert await answer(desk) is None
        assert b"gone" not in threads.checked
        assert told == []

    play(test)


def test_a_check_that_breaks_off_is_no_answer_about_the_password(threads, monkeypatch, capsys):
    def broken(password, hashes):
        raise MemoryError(password)

    monkeypatch.setattr(logins, "matching", broken)

    async def test(desk):
        assert (await answer(desk)).startswith(b"TRYAGAIN the password could not be checked")
        assert desk._failures == {}

    play(test)
    assert capsys.readouterr().err.endswith(" event=login-unchecked message=MemoryError\n")


def test_the_operator_is_told_of_wrong_passwords_and_never_of_names_or_passwords(threads, capsys):
    async def test(desk):
        for _ in range(3):
            await answer(desk, b"hunter1", b"hunter2")
        desk._say()

    play(test)
    err = capsys.readouterr().err
    assert "event=login-refused count=1 last_remote=1.2.3.4\n" in err
    assert "event=login-refused count=2 " in err
    assert "hunter" not in err
