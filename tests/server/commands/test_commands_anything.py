"""Whatever bytes come, there is a reply, it can be encoded, and it stays one reply."""

from __future__ import annotations

import hiredis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from balsadb.kv.table import COMMANDS
from balsadb.resp.encode import encode_reply
from balsadb.server.commands import HANDLERS, run

FAMILY_WORDS = sorted({sub.name for command in COMMANDS.values() for sub in command.subcommands})
OPTION_WORDS = [
    b"AUTH",
    b"SETNAME",
    b"TYPE",
    b"ID",
    b"FILTERBY",
    b"PATTERN",
    b"LIB-NAME",
    b"ON",
    b"3",
    b"0",
    b"-1",
    b"*",
]

any_case = st.sampled_from(sorted(HANDLERS)).flatmap(
    lambda name: st.sampled_from([name, name.lower(), name.title()])
)
argument = st.one_of(
    st.sampled_from(FAMILY_WORDS),
    st.sampled_from(OPTION_WORDS),
    st.sampled_from(sorted(HANDLERS)),
    st.binary(max_size=70),
)
anything = st.one_of(
    st.builds(lambda name, rest: [name, *rest], any_case, st.lists(argument, max_size=6)),
    st.lists(st.binary(max_size=300), min_size=1, max_size=6),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(argvs=st.lists(anything, min_size=1, max_size=5), resp3=st.booleans())
def test_every_argv_gets_exactly_one_reply(client, node, argvs, resp3):
    for argv in argvs:
        before = list(argv)
        encoded = encode_reply(run(client, node, argv), resp3)
        assert argv == before
        reader = hiredis.Reader()
        reader.feed(encoded)
        assert reader.gets() is not False
        assert not reader.has_data()
    assert client.id == 5
    assert len(client.name) <= 1024


def test_commands_of_the_largest_size_are_answered(client, node):
    huge = b"x" * 8_000_000
    for name in HANDLERS:
        for argv in (
            [name, huge],
            [name, b"GET", huge],
            [name, b"INFO", huge],
            [huge],
            [name, *[b"x"] * 65_000],
        ):
            encode_reply(run(client, node, argv), False)
