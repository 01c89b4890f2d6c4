"""status and digest: the same question to every server, side by side."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from balsadb.address import format_address, format_addresses
from balsadb.cli.contact import Contact
from balsadb.client.ask import pairs
from balsadb.client.call import Address
from balsadb.client.words import Word
from balsadb.errors import BalsaError, ClientError, NoServer, ProtocolError

if TYPE_CHECKING:
    from rich.table import Table

THREADS_MAX = 16
WATCH_SECONDS = 1.0
PIPE_COLUMNS = 200

# Fields of RAFT STATUS that a status shows, in this order. Truth values travel as 1 and 0.
NUMBERS = (
    "id",
    "term",
    "leader",
    "commit_index",
    "applied_index",
    "first_index",
    "last_index",
    "durable_index",
    "snapshot_index",
    "keys",
    "uptime_ms",
    "commit_p99_us",
    "sync_p99_us",
    "turn_p99_us",
    "recent_leader_changes",
    "log_bytes",
    "state_bytes",
    "memory_bytes",
    "disk_free_bytes",
)
TEXTS = ("role", "unready", "cluster_id", "client_address", "peer_address", "version")
LISTS = ("voters", "learners")

Row = dict[str, Any]


def status(contact: Contact, seconds: float, as_json: bool, watch: bool) -> None:
    """Show every server's role and how far it is."""
    if not watch:
        rows = _status_rows(contact, seconds, contact.advice)
        print_json({"servers": rows}) if as_json else _print(_status_table(rows))
        return
    if as_json:
        while True:
            print_json({"servers": _status_rows(contact, seconds, contact.advice)}, indent=None)
            sys.stdout.flush()
            time.sleep(WATCH_SECONDS)
    from rich.live import Live

    with Live(_status_table(_status_rows(contact, seconds, contact.advice)), auto_refresh=False) as live:
        while True:
            time.sleep(WATCH_SECONDS)
            # A cluster that is down for a moment is just what one watches for.
            live.update(_status_table(_status_rows(contact, seconds, None)), refresh=True)


def digest(contact: Contact, seconds: float, as_json: bool) -> bool:
    """Compare the whole state of all servers at one point of the log. False: they differ."""
    addresses = contact.addresses
    first, index, expected = _first_digest(contact, seconds)
    rows: list[Row] = []
    for address, reply in ask_all(contact, addresses, ["RAFT", "DIGEST", index], seconds):
        row: Row = {"address": format_address(*address)}
        if isinstance(reply, BalsaError):
            row["error"] = str(reply)
        else:
            row["digest"] = (
                text_of(reply[1]) if isinstance(reply, list) and len(reply) == 2 else text_of(reply)
            )
        rows.append(row)
    compared = [row for row in rows if "digest" in row]
    differing = [row for row in compared if row["digest"] != expected]
    equal = not differing and (len(compared) > 1 or len(addresses) == 1)
    if as_json:
        print_json({"index": index, "digest": expected, "equal": equal, "servers": rows})
        return equal
    print(f"digest of the state at log index {index}, from {format_address(*first)}: {expected}")
    for row in rows:
        print(f"  {row['address']}  {_verdict(row, expected)}")
    if differing:
        print(
            "The servers differ. This must never happen: stop writing, keep all data directories, report it."
        )
    elif not equal:
        print("There was nothing to compare with: no other server answered.")
    return equal


def _first_digest(contact: Contact, seconds: float) -> tuple[Address, int, str]:
    addresses = contact.addresses
    errors: list[BalsaError] = []
    for address in addresses:
        try:
            reply = contact.ask(address, ["RAFT", "DIGEST"], seconds)
        except (ClientError, ProtocolError) as error:
            errors.append(error)
            continue
        if not (isinstance(reply, list) and len(reply) == 2 and isinstance(reply[0], int)):
            raise ProtocolError(f"{format_address(*address)} answered RAFT DIGEST with {reply!r}")
        return address, reply[0], text_of(reply[1])
    if all(isinstance(error, NoServer) for error in errors):
        raise nobody(addresses, errors, contact.advice)
    raise next(error for error in errors if not isinstance(error, NoServer))


def _status_rows(contact: Contact, seconds: float, hint: str | None) -> list[Row]:
    """Return a row per server; with a hint, raise `NoServer` when not a single one answers."""
    addresses = contact.addresses
    answers = ask_all(contact, addresses, ["RAFT", "STATUS"], seconds)
    errors = [reply for _, reply in answers if isinstance(reply, BalsaError)]
    if hint is not None and len(errors) == len(answers):
        if all(isinstance(error, NoServer) for error in errors):
            raise nobody(addresses, errors, hint)
        raise next(error for error in errors if not isinstance(error, NoServer))
    rows = [_status_row(address, reply) for address, reply in answers]
    commit = max((row["commit_index"] for row in rows if "commit_index" in row), default=0)
    for row in rows:
        if "applied_index" in row:
            row["lag"] = max(0, commit - row["applied_index"])
    return rows


def _status_row(address: Address, reply: Any) -> Row:
    row: Row = {"address": format_address(*address)}
    if isinstance(reply, BalsaError):
        row["error"] = str(reply)
        return row
    fields = pairs(reply)
    row |= {name: fields[name] for name in NUMBERS if isinstance(fields.get(name), int)}
    row |= {name: text_of(fields[name]) for name in TEXTS if name in fields}
    row |= {name: fields[name] for name in LISTS if isinstance(fields.get(name), list)}
    row["ready"] = bool(fields.get("ready", 1))
    return row


def _status_table(rows: Sequence[Row]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("node", justify="right")
    table.add_column("clients at")
    table.add_column("role")
    for name in ("term", "leader", "commit", "applied", "lag", "keys"):
        table.add_column(name, justify="right")
    for row in rows:
        if "error" in row:
            table.add_row("?", row["address"], f"[red]{reason(row['error'])}[/red]", *[""] * 6)
            continue
        role = row.get("role", "?")
        shown = f"[green]{role}[/green]" if role == "leader" else role
        table.add_row(
            str(row.get("id", "?")),
            row["address"],
            shown if row["ready"] else f"{shown} [yellow](not ready)[/yellow]",
            *(
                str(row.get(n, ""))
                for n in ("term", "leader", "commit_index", "applied_index", "lag", "keys")
            ),
        )
    return table


def ask_all(
    contact: Contact, addresses: Sequence[Address], command: Sequence[Word], seconds: float
) -> list[tuple[Address, Any]]:
    """Ask every server at the same time, so that one that is silent costs its time only once."""

    def one(address: Address) -> Any:
        try:
            return contact.ask(address, command, seconds)
        except (ClientError, ProtocolError) as error:
            return error

    with ThreadPoolExecutor(min(THREADS_MAX, len(addresses))) as threads:
        return list(zip(addresses, threads.map(one, addresses), strict=True))


def nobody(addresses: Sequence[Address], errors: Sequence[BaseException], hint: str) -> NoServer:
    reasons = dict.fromkeys(reason(str(error)) for error in errors)
    return NoServer(f"no server answers at {format_addresses(addresses)} ({'; '.join(reasons)}){hint}")


def reason(error: str) -> str:
    """Return what stands in the brackets of "no server answers at ... (reason)", or else all of it."""
    return error.rpartition("(")[2].removesuffix(")")


def _verdict(row: Row, expected: str) -> str:
    if "error" in row:
        return f"not compared: {reason(row['error'])}"
    return "equal" if row["digest"] == expected else f"DIFFERENT: {row['digest']}"


def text_of(value: Any) -> str:
    """Return what a server sent as text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _print(table: Table) -> None:
    from rich.console import Console

    # In a pipe or a file a row must stay one line.
    Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS).print(table)


def print_json(value: object, indent: int | None = 2) -> None:
    """Print a value for programs."""
    print(json.dumps(value, indent=indent))
