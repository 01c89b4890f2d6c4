"""backup, and its verification, and restore."""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection, RemoteDisconnected
from typing import Final

from balsadb.address import format_address, is_loopback, parse_addresses
from balsadb.client.credentials import Credentials
from balsadb.client.servers import describe_failure
from balsadb.client.tls import client_context
from balsadb.errors import AuthenticationError, BalsaError, NoServer, ProtocolError, UsageError
from balsadb.storage.backup import Summary, verify_backup, write_backup
from balsadb.storage.files import OsFiles
from balsadb.storage.state import StateStore
from balsadb.storage.transfer import Incoming
from balsadb.wire.frame import FrameDecoder
from balsadb.wire.transfer import Chunk, Offer

DEFAULT_FROM: Final = "127.0.0.1:9001-9003"
"""The HTTP ports of `balsadb demo`."""
READ_BYTES: Final = 256 * 1024
REASON_BYTES_MAX: Final = 500


class _Refused(BalsaError):
    """A server that answers, and gives no backup."""


def backup(
    path: str, sources: str | None, credentials: Credentials | None, seconds: float, as_json: bool
) -> None:
    """Write the state of the first server that gives it into a new file."""
    addresses = parse_addresses(sources or DEFAULT_FROM, "--from")
    if os.path.lexists(path):
        raise UsageError(f"{path} exists already; a backup gets a new file")
    directory, name = os.path.split(os.path.abspath(path))
    if not os.path.isdir(directory):
        raise UsageError(f"{directory} is not a directory; make it before the backup")
    # Beside the file, so that it can be renamed: a file under its own name is always a whole backup.
    work = tempfile.mkdtemp(prefix=f".{name}.", dir=directory)
    try:
        source = _fetch_from_any(addresses, work, credentials, seconds)
        state = StateStore(f"{work}/incoming/files", read_only=True)
        try:
            summary = write_backup(f"{work}/backup", state, int(time.time() * 1000))
        finally:
            state.close()
        if verify_backup(f"{work}/backup") != summary:
            raise ProtocolError(f"{path}: what was written is not what is there; check the disk")
        os.rename(f"{work}/backup", path)
        OsFiles().sync_directory(directory)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _show(path, summary, as_json, f" from {source}")


def verify(path: str, as_json: bool) -> None:
    """Read a whole backup and say what it is."""
    _show(path, verify_backup(path), as_json)


def restore(path: str, settings: Mapping[str, object], config_file: str | None) -> None:
    """Make the data directory of one node of a new cluster."""
    from balsadb.server.config import format_members, make_identity, read_config_file
    from balsadb.storage.restore import restore as run

    os.umask(0o077)
    from_file = read_config_file(config_file) if config_file else {}
    given = {name: value for name, value in settings.items() if value is not None}
    identity = make_identity({**from_file, **given})
    text = format_members(identity.cluster)
    summary = run(OsFiles(), path, identity.data_dir, identity.id, text, list(identity.cluster))
    info = summary.info
    print(
        f"{identity.data_dir} is node {identity.id} of a new cluster, with the {_keys(info.keys)} of {path} "
        f"as of entry {info.index}."
    )
    if others := [str(member) for member in identity.cluster if member != identity.id]:
        print(
            f"Restore the same file for node{'s' * (len(others) > 1)} {', '.join(others)}, then start all of "
            "them with the same --cluster; the first start needs all of them."
        )


def _fetch_from_any(
    addresses: list[tuple[str, int]], work: str, credentials: Credentials | None, seconds: float
) -> str:
    failures: dict[str, str] = {}
    answered = False
    for host, port in addresses:
        address = format_address(host, port)
        try:
            _fetch(host, port, work, _headers(credentials), seconds)
            return address
        except _Refused as error:
            answered = True
            failures[address] = str(error)
        except RemoteDisconnected:
            answered = True
            failures[address] = "closed the connection without an answer; is this its HTTP port?"
        except OSError as error:
            if error.filename is not None:
                raise  # a file of ours, and not the connection
            failures[address] = describe_failure(error)
        except HTTPException as error:
            answered = True
            failures[address] = f"the answer broke off ({type(error).__name__})"
    reasons = "; ".join(f"{address}: {reason}" for address, reason in failures.items())
    if answered:
        raise ProtocolError(f"no server gave a backup ({reasons})")
    hint = "; start one: balsadb demo" if is_loopback(addresses) else ""
    raise NoServer(f"no server answers on its HTTP port ({reasons}){hint}")


def _headers(credentials: Credentials | None) -> dict[str, str]:
    if credentials is None:
        return {}
    user, password = credentials.username or "", credentials.password
    pair = os.fsencode(user) + b":" + (password if isinstance(password, bytes) else password.encode())
    return {"Authorization": "Basic " + base64.b64encode(pair).decode()}


def _fetch(host: str, port: int, work: str, headers: dict[str, str], seconds: float) -> None:
    """Receive the files of a state into `work`, and check them."""
    # As servers do it: the HTTP port speaks TLS when it can be reached from other machines.
    tls = None if is_loopback([(host, port)]) else client_context()
    if tls is None:
        connection = HTTPConnection(host, port, timeout=seconds)
    else:
        connection = HTTPSConnection(host, port, timeout=seconds, context=tls)
    try:
        connection.request("POST", "/backup", headers=headers)
        response = connection.getresponse()
        if response.status != 200:
            reason = response.read(REASON_BYTES_MAX).decode(errors="replace").strip()
            if response.status == 404:
                reason = "this is not the HTTP port of a BalsaDB server that makes backups"
            if response.status == 401:
                raise AuthenticationError(reason or "NOAUTH")
            raise _Refused(reason or f"status {response.status}")
        decoder = FrameDecoder()
        decoder.expect_transfer()
        incoming: Incoming | None = None
        while data := response.read1(READ_BYTES):
            for frame in decoder.feed(data):
                if isinstance(frame, Offer) and incoming is None:
                    incoming = Incoming(OsFiles(), work, frame)
                elif isinstance(frame, Chunk) and incoming is not None:
                    incoming.take(frame)
                else:
                    raise ProtocolError("the server sent something else than a state")
        if incoming is None or not incoming.complete:
            raise HTTPException
        incoming.verify()
    finally:
        connection.close()


def _show(path: str, summary: Summary, as_json: bool, source: str = "") -> None:
    info, checksum = summary.info, summary.checksum.hex()
    if as_json:
        facts = {
            "file": path,
            "cluster_id": info.cluster_id.hex(),
            "index": info.index,
            "term": info.term,
            "log_time_ms": info.log_time_ms,
            "keys": info.keys,
            "bytes": summary.length,
            "created_ms": info.created_ms,
            "sha256": checksum,
        }
        print(json.dumps(facts, indent=2))
        return
    created = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(info.created_ms / 1000))
    print(f"{path}: a sound backup{source}")
    print(f"  state    as of entry {info.index} of term {info.term}, {_keys(info.keys)}")
    print(f"  cluster  {info.cluster_id.hex() or 'not named yet'}")
    print(f"  file     {summary.length:,} bytes, made {created}")
    print(f"  sha256   {checksum}")


def _keys(number: int) -> str:
    return f"{number:,} key{'s' * (number != 1)}"
