"""The same commands to a real Redis and to the state machine: every reply must be the same, byte for byte."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from time import time_ns
from typing import Any

import hiredis
import pytest

from balsadb.kv.batch import encode_batch
from balsadb.kv.describe import describe
from balsadb.kv.machine import StateMachine
from balsadb.kv.reply import OK, QUEUED, Reply
from balsadb.kv.table import COMMANDS, Kind, lookup
from balsadb.resp.decode import encode_command
from balsadb.resp.encode import encode_reply

pytestmark = pytest.mark.slow

COMMANDS_A_SEED = 3000
MARK = b"$12\r\nend-of-batch\r\n"

KEYS = [b"a", b"b", b"c", b"n", b"m", b"", b"\r\n", b"\x00\xff", b"{tag}x", b"k" * 300]
INTEGERS = [b"0", b"1", b"-1", b"10", b"-0", b"+5", b"05", b" 5", b"5 ", b"1e3", b"", b"-", b"abc", b"0x10"]
INTEGERS += [b"%d" % (sign * 2**63 + more) for sign in (1, -1) for more in (-1, 0, 1)]
INTEGERS += [b"9" * 30, b"1_0", b"3.0", b"-00", b"\x005", b"5\x00", b"7\n"]
VALUES = [*INTEGERS, b"text", b"x" * 1000, bytes(range(256)), b"+OK\r\n", b"$-1\r\n"]
FLOATS = [b"0.1", b"3.0e3", b"-2.5", b"1e17", b"1e-5", b".5", b"5.", b"inf", b"-Infinity", b"nan", b"0x1.8p1"]
FLOATS += [
    b"1e400",
    b"1e5000",
    b"1e-5000",
    b"+3",
    b" 1",
    b"1 ",
    b"e5",
    b"1e",
    b"0x",
    b"123456789.123456789",
    b"-0.0",
]
FAR_SECONDS = [b"4000000000", b"4000000001", b"4102444800"]
"""Moments that neither clock reaches while a test runs, and that are alike on both."""
FAR_MILLIS = [second + b"123" for second in FAR_SECONDS] + [second + b"500" for second in FAR_SECONDS]
ODD_TIMES = [b"0", b"-1", b"1", b"abc", b"", b"1.5", b"9223372036854775807", b"-9223372036854775808"]
ODD_TIMES += [b"9223372036854775", b"-9223372036854775", b"9223372036854775808"]
EXPIRE_OPTIONS = [b"NX", b"XX", b"GT", b"LT", b"nx", b"gt", b"FOO", b"", b"NXX"]
OFFSETS = [b"0", b"1", b"3", b"-1", b"-2", b"-100", b"100", b"5000000000", b"9223372036854775807", b"x", b""]
OPTIONS = [b"NX", b"XX", b"GET", b"nx", b"Xx", b"get", b"FOO", b"", b"NX ", b"\x00"]
NONSENSE = [b"NOSUCH", b"", b"GE", b"get ", b"se\r\nt", b"s\x00et", b"\xff\xfe", b"z" * 200]


class Redis:
    """A raw connection to a real Redis."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 20)

    def close(self) -> None:
        self._socket.close()

    def ask(self, commands: list[list[bytes]]) -> bytes:
        """Send commands in one go and return all their replies as they came."""
        marked = [*commands, [b"ECHO", b"end-of-batch"]]
        self._socket.sendall(b"".join(map(encode_command, marked)))
        got = b""
        while not got.endswith(MARK):
            piece = self._socket.recv(1 << 20)
            assert piece, got[-200:]
            got += piece
        return got.removesuffix(MARK)


@pytest.fixture
def redis(redis_port: int) -> Iterator[Redis]:
    connection = Redis(redis_port)
    connection.ask([[b"FLUSHALL"]])
    yield connection
    connection.close()


class Draw:
    """Random commands: mostly sensible ones, and everything around them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def command(self) -> list[bytes]:
        pick = self.random.choice
        if self.random.random() < 0.05:
            return [pick(NONSENSE), *self.random.choices(VALUES, k=self.random.randrange(8))]
        name = pick(DRAWN)
        argv = [name, *self.arguments(name)]
        argv[0] = pick([name, name, name.lower(), name.title()])
        if self.random.random() < 0.05:  # an argument too many or too few
            argv = argv[:-1] if self.random.random() < 0.5 and len(argv) > 1 else [*argv, pick(VALUES)]
        return argv

    def arguments(self, name: bytes) -> list[bytes]:
        pick, some = self.random.choice, self.random.randrange(1, 5)
        match name:
            case b"SET":
                options = self.random.choices(OPTIONS[:6] * 4 + OPTIONS, k=pick([0, 0, 0, 1, 2, 3]))
                options += pick([[], [], [b"KEEPTTL"], self.time(), self.time()])
                return [pick(KEYS), pick(VALUES), *options]
            case b"GETEX":
                return [
                    pick(KEYS),
                    *pick([[], [b"PERSIST"], [b"KEEPTTL"], self.time(), self.time() + self.time()]),
                ]
            case b"SETEX" | b"PSETEX":
                return [pick(KEYS), pick([b"0", b"-1", b"abc", b"", b"9223372036854775807"]), pick(VALUES)]
            case b"EXPIRE" | b"PEXPIRE":
                past = [b"0", b"-1", b"-100", b"abc", b"9223372036854775807", b"-9223372036854775808"]
                return [pick(KEYS), pick(past), *self.random.choices(EXPIRE_OPTIONS, k=pick([0, 0, 1, 2]))]
            case b"EXPIREAT" | b"PEXPIREAT":
                far = FAR_SECONDS if name == b"EXPIREAT" else FAR_MILLIS
                when = pick(far * 3 + ODD_TIMES)
                return [pick(KEYS), when, *self.random.choices(EXPIRE_OPTIONS, k=pick([0, 0, 1, 1, 2]))]
            case b"GETRANGE" | b"SUBSTR":
                return [pick(KEYS), pick(OFFSETS), pick(OFFSETS)]
            case b"SETRANGE":
                return [pick(KEYS), pick(OFFSETS), pick([b"", b"x", b"piece"])]
            case b"INCRBYFLOAT":
                return [pick(KEYS), pick(FLOATS + INTEGERS)]
            case b"RENAME" | b"RENAMENX":
                return [pick(KEYS), pick(KEYS)]
            case b"FLUSHALL" | b"FLUSHDB":
                return (
                    pick([[], [b"SYNC"], [b"async"], [b"FOO"], [b""]])
                    if self.random.random() < 0.2
                    else [b"FOO"]
                )
            case b"APPEND" | b"SETNX" | b"GETSET":
                return [pick(KEYS), pick(VALUES)]
            case b"INCRBY" | b"DECRBY":
                return [pick(KEYS), pick(INTEGERS)]
            case b"MSET" | b"MSETNX":
                return [word for _ in range(some) for word in (pick(KEYS), pick(VALUES))]
            case b"DEL" | b"EXISTS" | b"MGET" | b"UNLINK" | b"TOUCH":
                return self.random.choices(KEYS, k=some)
            case b"DBSIZE":
                return []
            case _:
                return [pick(KEYS)]

    def time(self) -> list[bytes]:
        """Return an option about expiry whose effect is the same whatever the time is."""
        pick = self.random.choice
        option = pick([b"EXAT", b"PXAT", b"exat", b"EX", b"PX"])
        # Redis sets a key whose time has passed, and counts it until somebody looks: DBSIZE would differ.
        odd = [time for time in ODD_TIMES if time != b"1"]
        if option.upper() == b"EXAT":
            return [option, pick(FAR_SECONDS * 4 + odd)]
        if option == b"PXAT":
            return [option, pick(FAR_MILLIS * 4 + odd)]
        return [option, pick([b"0", b"-1", b"abc", b"9223372036854775807"])]

    def block(self) -> list[list[bytes]]:
        """Return commands that a MULTI would queue."""
        drawn = [self.command() for _ in range(self.random.randrange(6))]
        return [argv for argv in drawn if fits(argv)]


# The answers of these depend on the time, or on the order of keys: see further below.
ELSEWHERE = {b"TTL", b"PTTL", b"SCAN", b"KEYS"}
DRAWN = [
    name
    for name, command in COMMANDS.items()
    if command.handler and b"." not in name and name not in ELSEWHERE and command.group != b"sessions"
]


def fits(argv: list[bytes]) -> bool:
    command = lookup(argv[0])
    return command is not None and command.check_arity(len(argv))


class Ours:
    """A state machine behind the same question: commands in, reply bytes out."""

    def __init__(self) -> None:
        self.machine = StateMachine([1])

    def ask(self, commands: list[list[bytes]], reads: list[tuple[int, list[bytes]]]) -> list[Reply]:
        index = self.machine.applied_index + 1
        now_ms = time_ns() // 1_000_000
        outcome = self.machine.apply_commands(index, 1, now_ms, encode_batch(1, 1, index, commands), reads)
        assert outcome.ran
        return outcome.replies


def is_read(argv: list[bytes]) -> bool:
    command = lookup(argv[0])
    return command is not None and command.kind is Kind.READ


@pytest.mark.parametrize("seed", range(6))
def test_random_batches_get_the_replies_of_redis(redis, seed):
    """Reads take all three ways: in the log, between commands as local slots, and between entries."""
    draw, ours, done = Draw(seed), Ours(), 0
    while done < COMMANDS_A_SEED:
        commands = [draw.command() for _ in range(draw.random.randrange(1, 40))]
        writes: list[list[bytes]] = []
        slots: list[tuple[int, list[bytes]]] = []
        for argv in commands:
            if is_read(argv) and draw.random.random() < 0.7:
                slots.append((len(writes), argv))
            else:
                writes.append(argv)
        expected = redis.ask(commands)
        replies = ours.ask(writes, slots)
        assert len(replies) == len(commands)
        for argv, reply, part in zip(commands, replies, cut(expected), strict=True):
            assert encode_reply(reply, False) == part, argv
        question = [argv for argv in commands if is_read(argv)]
        answers = [ours.machine.read(argv) for argv in question]
        assert b"".join(encode_reply(answer, False) for answer in answers) == redis.ask(question)
        done += len(commands)


@pytest.mark.parametrize("seed", range(3))
def test_random_transactions_get_the_replies_of_redis(redis, seed):
    draw, ours = Draw(1000 + seed), Ours()
    for _ in range(200):
        before, block, after = draw.block(), draw.block(), draw.block()
        multi = [[b"MULTI"], *block, [b"EXEC"]]
        expected = redis.ask([*before, *multi, *after])
        logged = [*before, [b"EXEC", b"%d" % len(block)], *block, *after]
        replies = ours.ask(logged, [])
        queued: list[Reply] = [OK, *[QUEUED] * len(block)]
        replies[len(before) : len(before)] = queued
        assert b"".join(encode_reply(reply, False) for reply in replies) == expected, logged
        reads = [argv for argv in block if is_read(argv)]
        answer = encode_reply(ours.machine.read_transaction(reads), False)
        assert redis.ask([[b"MULTI"], *reads, [b"EXEC"]]).endswith(answer)


def numbers(data: bytes) -> list[int]:
    return [int(part) for part in data.decode().replace(":", "").split()]


@pytest.mark.parametrize("seed", range(3))
def test_keys_that_expire_after_a_time_do_so_as_in_redis(redis, seed):
    """Both clocks run while the test does, so what is left of a time is compared within two seconds."""
    draw, ours = Draw(2000 + seed), Ours()
    for _ in range(150):
        time = draw.random.randrange(100, 10_000)
        key = draw.random.choice(KEYS[:4])
        seconds, millis = b"%d" % time, b"%d" % (time * 1000 + draw.random.randrange(1000))
        option = draw.random.choice([[], [b"GT"], [b"LT"], [b"NX"], [b"XX"], [b"XX", b"GT"]])
        command = draw.random.choice(
            [
                [b"SET", key, b"v", b"EX", seconds],
                [b"SET", key, b"v", b"PX", millis],
                [b"SET", key, b"w", b"KEEPTTL"],
                [b"SET", key, b"w"],
                [b"SETEX", key, seconds, b"v"],
                [b"PSETEX", key, millis, b"v"],
                [b"GETEX", key, b"EX", seconds],
                [b"GETEX", key, b"PX", millis],
                [b"GETEX", key, b"PERSIST"],
                [b"EXPIRE", key, seconds, *option],
                [b"PEXPIRE", key, millis, *option],
                [b"PERSIST", key],
                [b"APPEND", key, b"x"],
                [b"RENAME", key, draw.random.choice(KEYS[:4])],
                [b"DEL", key],
            ]
        )
        [reply] = ours.ask([command], [])
        assert encode_reply(reply, False) == redis.ask([command]), command
        for name, tolerance in ((b"TTL", 2), (b"PTTL", 2000), (b"EXPIRETIME", 2), (b"PEXPIRETIME", 2000)):
            question = [[name, key] for key in KEYS[:4]]
            theirs = numbers(redis.ask(question))
            mine = numbers(b"".join(encode_reply(ours.machine.read(ask), False) for ask in question))
            for left, right in zip(mine, theirs, strict=True):
                assert left == right if right < 0 else abs(left - right) <= tolerance, (command, name)


@pytest.mark.parametrize(
    "pattern", [b"*", b"k?y", b"k*", b"[a-c]*", b"*[^y]", rb"\*x", b"", b"[", b"k[", b"a\\", b"[a-"]
)
def test_keys_and_scan_find_what_redis_finds(redis, pattern):
    ours = Ours()
    names = [b"key", b"kay", b"a", b"b1", b"", b"*x", b"k", b"[", b"k[", b"a\\", b"z" * 200]
    commands = [[b"SET", name, b"v"] for name in names]
    ours.ask(commands, [])
    redis.ask(commands)
    expected = sorted(parse(redis.ask([[b"KEYS", pattern]])))
    assert ours.machine.read([b"KEYS", pattern]) == expected
    question = [b"SCAN", b"0", b"MATCH", pattern, b"COUNT", b"100", b"TYPE", b"string"]
    assert ours.machine.read(question)[1] == expected
    cursor, found = parse(redis.ask([question]))
    assert (cursor, sorted(found)) == (b"0", expected)


@pytest.mark.parametrize(
    "words",
    [
        "abc",
        "0 COUNT 0",
        "0 COUNT x",
        "0 COUNT",
        "0 FOO",
        "0 MATCH",
        "0 TYPE",
        "0 COUNT 1 FOO 1",
        "1x",
        "",
        " 1",
    ],
)
def test_scan_refuses_what_redis_refuses(redis, words):
    command = [b"SCAN", *(words.encode().split(b" "))]
    assert encode_reply(Ours().machine.read(command), False) == redis.ask([command])


def test_floats_are_added_as_redis_adds_them(redis):
    draw, ours = random.Random(3), Ours()
    for number in range(2_000):
        first = b"%de%d" % (draw.randrange(-(10**18), 10**18), draw.randrange(-30, 12))
        second = draw.choice(FLOATS) if draw.random() < 0.1 else repr(draw.uniform(-1e9, 1e9)).encode()
        commands = [[b"SET", b"f", first], [b"INCRBYFLOAT", b"f", second], [b"INCRBYFLOAT", b"f", b"0.1"]]
        got = b"".join(encode_reply(reply, False) for reply in ours.ask(commands, []))
        assert got == redis.ask(commands), (number, first, second)


def cut(replies: bytes) -> Iterator[bytes]:
    """Yield the bytes of each reply. None of them is nested deeper than a list of strings."""
    position = 0
    while position < len(replies):
        start = position
        left = 1
        while left:
            end = replies.index(b"\r\n", position) + 2
            head, number = replies[position : position + 1], replies[position + 1 : end - 2]
            position, left = end, left - 1
            if head == b"*":
                left += int(number)
            elif head == b"$" and number != b"-1":
                position += int(number) + 2
        yield replies[start:position]


# ------------------------------------------------------------------ the table

SHARED = [name for name, command in COMMANDS.items() if command.group not in (b"raft", b"sessions")]
YOUNGER_THAN_REDIS_7_0 = {b"client|no-touch", b"client|setinfo"}


def normal(entry: list[Any]) -> dict[str, Any]:
    """Return a COMMAND INFO entry in a form that does not depend on the order of flags."""
    name, arity, flags, first, last, step, categories, _tips, keys, subcommands = entry
    return {
        "name": name,
        "arity": arity,
        "flags": sorted(flags),
        "keys": (first, last, step),
        "categories": sorted(categories),
        "specifications": [{k: v for k, v in unfold(key).items() if k != b"notes"} for key in keys],
        "subcommands": {sub[0]: normal(sub) for sub in subcommands},
    }


def unfold(value: Any) -> Any:
    """Make maps of the flat lists of a key specification."""
    if isinstance(value, list) and value and value[0] in (b"flags", b"notes", b"type", b"index", b"lastkey"):
        return {key: unfold(item) for key, item in zip(value[::2], value[1::2], strict=True)}
    return value


def parse(data: bytes) -> Any:
    reader = hiredis.Reader()
    reader.feed(data)
    return reader.gets()


@pytest.mark.parametrize("name", SHARED, ids=bytes.decode)
def test_commands_are_described_as_redis_describes_them(redis, name):
    [theirs] = parse(redis.ask([[b"COMMAND", b"INFO", name]]))
    expected = normal(theirs)
    described = normal(parse(encode_reply(describe(COMMANDS[name]), False)))
    subcommands = described.pop("subcommands")
    their_subcommands = expected.pop("subcommands")
    assert described == expected
    assert set(subcommands) - set(their_subcommands) <= YOUNGER_THAN_REDIS_7_0
    for full_name in set(subcommands) & set(their_subcommands):
        assert subcommands[full_name] == their_subcommands[full_name]


@pytest.mark.parametrize("name", SHARED, ids=bytes.decode)
def test_group_and_age_are_those_of_redis(redis, name):
    _, flat = parse(redis.ask([[b"COMMAND", b"DOCS", name]]))
    docs = dict(zip(flat[::2], flat[1::2], strict=True))
    assert (docs[b"group"], docs[b"since"]) == (COMMANDS[name].group, COMMANDS[name].since)
