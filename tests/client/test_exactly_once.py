"""The Clerk's core against servers that lose, delay, double and reorder: nothing twice, every error true."""

import pytest
from model_network import World

from balsadb.client import operations
from balsadb.client.call import Kind
from balsadb.client.words import command, transaction
from balsadb.errors import ClientError, CommandError, NotApplied, OutcomeUnknown, SessionExpired

SEEDS = 400
CALLS = 60


def play(seed, *, sessions=True, trouble=1.0, timeout=6.0):
    """Append tokens until all calls ended. Returns the world and each token's call."""
    world = World(seed, trouble=trouble, sessions=sessions, session_ttl=3.0)
    calls, at_the_end = {}, {}
    for number in range(CALLS):
        token = b"%d;" % number
        append = operations.append("k", token).command
        if number % 5 == 4:  # one of five as a transaction with a counter
            append = transaction([append, operations.increment("n").command])
        calls[token] = world.core.submit(append, world.now + world.random.choice([0.5, timeout]), token)
        for _ in range(world.random.randrange(12)):
            world.step()
        for call in world.finished:
            # A caller that is told now must not be told wrong by what comes later.
            if isinstance(call.error, SessionExpired):
                at_the_end.setdefault(call.owner, count(world, call.owner))
        world.finished.clear()
    world.settle()
    return world, calls, at_the_end


def count(world, token):
    return (b";" + world.database.data.get(b"k", b"")).count(b";" + token)


def wrong(world, calls, expired):
    """Return every contradiction between what callers were told and what is in the database."""
    found = []
    for token, call in calls.items():
        there = count(world, token)
        match call.error:
            case None:
                allowed = (1,)
            case NotApplied() | CommandError():
                allowed = (0,)
            case SessionExpired() if token in expired:
                allowed = (expired[token],)  # what had not happened by then never will
            case OutcomeUnknown():
                allowed = (0, 1)
        if there not in allowed:
            found.append(f"{token!r} is there {there} times after {call.error!r}")
        if call.error is None:
            length = call.reply if isinstance(call.reply, int) else call.reply[0]
            data = world.database.data[b"k"]
            if not data[:length].endswith(token) or len(data) < length:
                found.append(f"{token!r} was answered {call.reply}")
    in_transactions = [token for token in calls if int(token[:-1]) % 5 == 4]
    increments = int(world.database.data.get(b"n", b"0"))
    if increments != sum(count(world, token) for token in in_transactions):
        found.append(f"{increments} increments are not those of the transactions")
    return found


@pytest.mark.parametrize("first", range(0, SEEDS, 40))
def test_nothing_is_lost_or_doubled_and_every_error_tells_the_truth(first):
    for seed in range(first, first + 40):
        world, calls, expired = play(seed)
        assert wrong(world, calls, expired) == [], seed
        assert all(call.done for call in calls.values())


def test_the_runs_see_what_they_are_for():
    retries = successes = 0
    errors = set()
    for seed in range(40):
        world, calls, _ = play(seed)
        retries += world.core.retries
        successes += sum(call.error is None for call in calls.values())
        errors |= {type(call.error) for call in calls.values()}
    assert retries > 200
    assert successes > 1200
    assert {NotApplied, OutcomeUnknown, SessionExpired} <= errors


def test_a_database_that_forgets_its_sessions_replies_is_found_out():
    for seed in range(30):
        world = World(seed, trouble=1.0, session_ttl=3.0)
        once = world.database._once

        def forgetful(id, *arguments, world=world, once=once):
            if id in world.database.sessions:
                world.database.sessions[id].replies.clear()
                world.database.sessions[id].floor = 1
            return once(id, *arguments)

        world.database._once = forgetful
        calls = {}
        for number in range(CALLS):
            token = b"%d;" % number
            calls[token] = world.core.submit(operations.append("k", token).command, world.now + 6.0, token)
            world.step()
        world.settle()
        if wrong(world, calls, {}):
            return
    pytest.fail("no run saw that replies were forgotten")


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_without_sessions_no_write_is_repeated_once_its_outcome_is_open(first):
    for seed in range(first, first + 10):
        world, calls, _ = play(seed, sessions=False)
        plain = {token: call for token, call in calls.items() if not call.command.led}
        assert wrong_counts(world, plain) == [], seed


def wrong_counts(world, calls):
    return [token for token, call in calls.items() if count(world, token) > (not is_definite(call.error))]


def is_definite(error):
    return isinstance(error, ClientError) and not isinstance(error, OutcomeUnknown)


def test_in_peace_every_call_succeeds_in_one_session_without_a_retry():
    for seed in range(20):
        world, calls, _ = play(seed, trouble=0.0, timeout=60.0)
        late = [call for call in calls.values() if call.error is not None]
        assert all(call.deadline <= world.now for call in late)
        assert len(world.database.ever_opened) == 1


def test_an_idle_clerk_keeps_its_session_alive():
    world = World(1, trouble=0.0, session_ttl=3.0)
    world.core.submit(operations.append("k", "1;").command, world.now + 60.0)
    world.settle()
    for _ in range(3000):
        world.step()
    assert world.now > 30
    world.core.submit(operations.append("k", "2;").command, world.now + 60.0)
    world.settle()
    assert world.database.data == {b"k": b"1;2;"}
    assert len(world.database.ever_opened) == 1


def test_reads_are_asked_until_they_are_answered():
    world = World(3, trouble=1.0)
    calls = [world.core.submit(command(Kind.READ, "GET", "k"), world.now + 1000.0) for _ in range(50)]
    for _ in range(400):
        world.step()
    world.settle()
    assert [call.error for call in calls] == [None] * 50
