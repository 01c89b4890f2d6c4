"""Makes the fixture of the present version: what it writes to disk, to a backup, and to other servers.

    python tests/compatibility/make.py v0.1.0

A fixture that is there is not replaced: those of versions that are out are facts.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from balsadb.address import parse_address  # noqa: E402
from balsadb.cli.backup import backup  # noqa: E402
from balsadb.client.ask import ask  # noqa: E402
from balsadb.server.node import Node  # noqa: E402
from balsadb.version import __version__  # noqa: E402
from balsadb.wire.frame import Refused, Welcome, encode_handshake, encode_messages  # noqa: E402
from server.lone_node import lone_node  # noqa: E402
from wire.test_wire_frame import HELLO, MESSAGES  # noqa: E402

MEMBER = "db1.test:8001"
"""The only member, by a name that nobody looks up: so the directory can be served at any port."""
LOG_BYTES = 4 * 1024 * 1024
"""The least log, so that its segments are small."""
FAR_MS = 4_102_444_800_000
"""A deadline in the year 2100."""
TTL_MS = 24 * 60 * 60 * 1000
NOT_DATA = {"LOCK", "LOG", "META.tmp", "spare.tmp", "END.tmp"}
"""Made anew by every start: locks, RocksDB's own notes, files in the making."""


def main() -> None:
    """Make `tests/compatibility/<name>/`."""
    target = HERE / sys.argv[1]
    target.mkdir(exist_ok=True)
    if any(target.iterdir()):
        raise SystemExit(f"{target} holds a fixture; it is never made again")
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        expected = asyncio.run(_fill(data, target / "backup.balsa"))
        _pack(data, target / "node.tar.xz")
    (target / "expected.json").write_text(json.dumps({"version": __version__, **expected}, indent=2) + "\n")
    (target / "greetings.json").write_text(json.dumps(_greetings(), indent=2) + "\n")


async def _fill(data: Path, backup_file: Path) -> dict[str, Any]:
    async with lone_node(data, cluster={1: MEMBER}, snapshot_log_bytes=LOG_BYTES) as node:
        do = _asker(node)
        for number in range(20):
            await do("SET", f"key-{number:02}", f"value-{number}")
        await do("SET", "far", "away", "PXAT", FAR_MS)
        session = await do("SESSION", "OPEN", "a nonce", TTL_MS)
        length = await do("ONCE", session, 1, 1, "APPEND", "once", "x")
        await do("RAFT", "SNAPSHOT")
        while not node.status().snapshot_index:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        # What follows is in the log alone, and a later version must apply it.
        await do("SET", "key-03", "changed")
        await do("DEL", "key-04")
        await do("INCRBY", "counter", 41)
        total = await do("ONCE", session, 2, 1, "INCR", "counter")
        index, digest = await do("RAFT", "DIGEST")
        with contextlib.redirect_stdout(io.StringIO()):
            await asyncio.to_thread(backup, str(backup_file), node.config.http_listen, 30, False)
        keys = {f"key-{number:02}": f"value-{number}" for number in range(20) if number != 4}
        return {
            "member": MEMBER,
            "keys": keys | {"key-03": "changed", "far": "away", "once": "x", "counter": "42"},
            "deadlines": {"far": FAR_MS},
            "session": session.decode(),
            "replies": [[1, ["APPEND", "once", "x"], length], [2, ["INCR", "counter"], total]],
            "digest": [index, digest.decode()],
        }


def _asker(node: Node) -> Callable[..., Any]:
    address = parse_address(node.config.listen)

    async def do(*words: str | bytes | int) -> Any:
        return await asyncio.to_thread(ask, address, words, 10.0)

    return do


def _pack(data: Path, file: Path) -> None:
    """Archive the directory; the zeros of the log weigh nothing then."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        name = Path(entry.name).name
        if name in NOT_DATA or name.startswith("LOG.old"):
            return None
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(file, "w:xz", preset=9) as archive:
        archive.add(data, "data", filter=plain)


def _greetings() -> dict[str, Any]:
    """Return frames as this version sends them, each with the fields that its body has."""
    greetings = (HELLO, Welcome(2, b"s" * 16, b"c" * 16, "db2:7001", True), Refused("a reason", b"c" * 16))
    return {
        "greetings": [
            {"frame": encode_handshake(greeting).hex(), "fields": msgspec.to_builtins(greeting)}
            for greeting in greetings
        ],
        "messages": [
            {"frame": encode_messages([message]).hex(), "fields": msgspec.to_builtins(message)}
            for message in MESSAGES
        ],
    }


if __name__ == "__main__":
    main()
