"""How the Clerk writes commands, and which it lets through."""

import pytest

from balsadb.client.call import Kind
from balsadb.client.words import (
    ARGUMENT_BYTES_MAX,
    ARGUMENTS_MAX,
    COMMAND_BYTES_MAX,
    CONNECTION_STATE,
    NODE_COMMANDS,
    ONCE_BYTES,
    ONCE_WORDS,
    READS,
    classify,
    encode,
    to_python,
)
from balsadb.errors import CommandError, UsageError
from balsadb.kv.reply import Mapping, NullArray, Refusal, Status
from balsadb.kv.table import COMMANDS, lookup


def test_texts_bytes_and_whole_numbers_are_encoded():
    assert encode("SET", b"\x00\r\n", "ü", 5) == (
        b"*4\r\n$3\r\nSET\r\n$3\r\n\x00\r\n\r\n$2\r\n\xc3\xbc\r\n$1\r\n5\r\n"
    )
    assert encode(bytearray(b"A"), memoryview(b"B")) == b"*2\r\n$1\r\nA\r\n$1\r\nB\r\n"


@pytest.mark.parametrize("word", [None, 1.5, True, ["a"]])
def test_other_types_are_refused(word):
    with pytest.raises(UsageError, match="must be str, bytes or int"):
        encode("SET", "k", word)


def test_what_would_make_the_server_close_the_connection_is_refused_before_it_is_sent():
    encode("SET", "k", bytes(ARGUMENT_BYTES_MAX))
    with pytest.raises(UsageError, match="has at most 8,388,608 bytes"):
        encode("SET", "k", bytes(ARGUMENT_BYTES_MAX + 1))
    with pytest.raises(UsageError, match=f"a command has at most {COMMAND_BYTES_MAX - ONCE_BYTES:,} bytes"):
        encode("MSET", "a", bytes(ARGUMENT_BYTES_MAX), "b", bytes(ARGUMENT_BYTES_MAX))
    with pytest.raises(UsageError, match=f"at most {ARGUMENTS_MAX - ONCE_WORDS:,} arguments"):
        encode("DEL", *["k"] * ARGUMENTS_MAX)


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (("GET", "k"), Kind.READ),
        ((b"get", "k"), Kind.READ),
        (("SET", "k", "v"), Kind.ONCE),
        (("SOMETHING", "NEW"), Kind.ONCE),
        (("RAFT", "STATUS"), Kind.READ),
        (("raft", "digest"), Kind.READ),
        (("RAFT", "REMOVE", 3), Kind.PLAIN),
        (("RAFT",), Kind.PLAIN),
        (("CONFIG", "SET", "a", "b"), Kind.PLAIN),
    ],
)
def test_only_known_reads_are_taken_for_reads(command, kind):
    assert classify(command) is kind


def test_commands_that_change_a_connection_are_refused():
    for name in CONNECTION_STATE:
        with pytest.raises(UsageError, match="shares its connection"):
            classify((name.lower(),))
    with pytest.raises(UsageError):
        classify(())


def test_no_read_of_ours_is_a_write_of_the_servers():
    for name in READS:
        command = lookup(name)
        assert command is None or command.kind.name in ("READ", "LOCAL"), name


def test_every_command_that_no_session_can_hold_is_known():
    for name, command in COMMANDS.items():
        if b"." in name:
            continue  # not for clients
        if command.kind.name in ("LOCAL", "TRANSACTION"):
            assert name in READS | NODE_COMMANDS | CONNECTION_STATE, name
        elif command.kind.name == "WRITE" and b"no_multi" in command.flags:
            assert name in NODE_COMMANDS, name
        elif command.kind.name == "WRITE":
            assert name not in READS | NODE_COMMANDS | CONNECTION_STATE, name


def test_answers_come_in_pythons_own_types():
    assert to_python([Status(b"OK"), 1, None, NullArray(), [b"x"]]) == [b"OK", 1, None, None, [b"x"]]
    assert to_python(Mapping([(b"a", Status(b"b"))])) == {b"a": b"b"}
    (error,) = to_python([Refusal(b"WRONGTYPE no")])
    assert isinstance(error, CommandError)
    assert error.code == "WRONGTYPE"
