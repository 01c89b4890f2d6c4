"""Rules 3 and 4 of docs/compatibility.md: who talks to whom, and what is read of another version's words."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import msgspec
import pytest

from balsadb.address import parse_address
from balsadb.server.journal import journal
from balsadb.wire import frame
from balsadb.wire.frame import (
    PROTOCOL_VERSION,
    FrameDecoder,
    Hello,
    Refused,
    Welcome,
    encode_handshake,
)
from server.lone_node import lone_node

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs/compatibility.md").read_text()
GREETINGS = {path.parent.name: json.loads(path.read_text()) for path in HERE.glob("*/greetings.json")}


def recorded(kind: str) -> list:
    return [
        pytest.param(row, id=f"{version}-{kind}-{number}")
        for version, rows in sorted(GREETINGS.items())
        for number, row in enumerate(rows[kind])
    ]


def hello(version: int) -> Hello:
    return Hello(version, b"", b"d" * 16, 2, 1, b"s" * 16, 1, "127.0.0.1:1", False)


async def greet(node, greeting: bytes) -> list:
    """Send a greeting to a node's port for peers; return what it answers before it closes."""
    host, port = parse_address(node.config.peer_listen)
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(greeting)
        return FrameDecoder().feed(await asyncio.wait_for(reader.read(), 10))
    finally:
        writer.close()


@pytest.mark.parametrize("version", [PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1, 1000])
def test_a_node_of_another_protocol_is_refused_with_both_numbers_and_a_line_in_the_journal(
    version, tmp_path, monkeypatch
):
    lines: list[str] = []

    async def scenario() -> list:
        async with lone_node(tmp_path / "data") as node:
            monkeypatch.setattr(journal, "_write", lambda line: lines.append(line) or True)
            return await greet(node, encode_handshake(hello(version)))

    (answer,) = asyncio.run(scenario())
    assert isinstance(answer, Refused)
    assert re.search(rf"speaks peer protocol {PROTOCOL_VERSION}\b.*\b{version}\b", answer.reason)
    assert "docs/compatibility.md" in answer.reason
    (line,) = [line for line in lines if "event=peer-refused" in line]
    assert answer.reason in line


def test_a_hello_with_more_fields_than_this_version_knows_is_judged_by_its_number(tmp_path):
    """So a newer node learns why it is refused, however its hello has grown."""
    body = msgspec.msgpack.encode([*msgspec.structs.astuple(hello(PROTOCOL_VERSION + 1)), "new", {"a": 1}])
    greeting = frame._encode_frame(0, frame._GREETING_TYPES[Hello], body)

    async def scenario() -> list:
        async with lone_node(tmp_path / "data") as node:
            return await greet(node, greeting)

    (answer,) = asyncio.run(scenario())
    assert isinstance(answer, Refused)
    assert f"{PROTOCOL_VERSION + 1}" in answer.reason


def fields_of(said: object) -> list:
    """Return the fields as they are written down in a fixture."""
    return msgspec.json.decode(msgspec.json.encode(said))


def same_beginning(now: list, then: list) -> bool:
    """Tell whether what was said is understood as it was meant; this version may know more fields."""
    return now[: len(then)] == then


@pytest.mark.parametrize("row", recorded("greetings"))
def test_greetings_of_every_version_can_be_read(row):
    (greeting,) = FrameDecoder().feed(bytes.fromhex(row["frame"]))
    assert isinstance(greeting, Hello | Welcome | Refused)
    assert same_beginning(fields_of(greeting), row["fields"])


@pytest.mark.parametrize("row", recorded("messages"))
def test_messages_of_every_version_of_this_protocol_can_be_read(row):
    ((message,),) = FrameDecoder(handshake=False).feed(bytes.fromhex(row["frame"]))
    assert same_beginning(fields_of(message), row["fields"])


def test_the_numbers_of_the_page_are_those_of_the_program():
    from balsadb.kv.batch import FORMAT_VERSION as BATCH
    from balsadb.kv.cut import RECORDS_VERSION, STATE_VERSION
    from balsadb.storage import backup, log_end, meta, records

    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in PAGE.splitlines() if "|" in line]
    told = {what: int(number.split(";")[0]) for what, _, number in rows if re.match(r"\d", number)}
    assert told == {
        "peer protocol": PROTOCOL_VERSION,
        "`META`": meta.FORMAT_VERSION,
        "log segment": records.FORMAT_VERSION,
        "`END`": log_end.FORMAT_VERSION,
        "state on disk": STATE_VERSION,
        "batch of commands": BATCH,
        "backup file": backup.FORMAT_VERSION,
        "records in a backup": RECORDS_VERSION,
    }
