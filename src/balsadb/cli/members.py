"""member and transfer: ask for a change, show how it goes on, and wait for its end.

A change is asked for again until the cluster says that it is done: a repeated request runs once, so lost
answers, elections and slow newcomers need no care here.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from balsadb.address import format_address, format_addresses, parse_address
from balsadb.cli.contact import Contact
from balsadb.client.ask import pairs
from balsadb.client.call import Address
from balsadb.client.words import Word
from balsadb.errors import AuthenticationError, ClientError, CommandError, NoServer, ProtocolError, UsageError

ASK_SECONDS = 5.0
"""How long a server may take for one answer; it finds one within its own request timeout."""
LOOK_SECONDS = 1.0
"""The same for how a change goes on, which is worth less patience."""
PAUSE_SECONDS = 0.2
AGAIN = frozenset({"TRYAGAIN", "CLUSTERDOWN", "UNKNOWN", "LOADING"})
"""Codes of answers after which the same request may succeed, here or elsewhere."""

Facts = dict[str, Any]


def show(contact: Contact, seconds: float, as_json: bool) -> None:
    """Print the members as the leader sees them; without a leader as anybody does."""
    addresses = contact.addresses
    status, members = _look(contact, seconds)
    if not status:
        raise NoServer(f"no server answers at {format_addresses(addresses)}{contact.advice}")
    if as_json:
        _print_json({"members": members, **{n: status[n] for n in ("voters", "learners", "removed")}})
        return
    rows = [("node", "role", "peers at", "clients at", "connected", "matched")]
    for member in members:
        role = "leader" if member["leader"] else member["role"]
        connected = "yes" if member["connected"] else "no"
        matched = str(member["matched_index"] or "")
        rows.append(
            (str(member["id"]), role, member["peer_address"], member["client_address"], connected, matched)
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    if under_way := _stage(status, members):
        print(under_way)


def add(contact: Contact, seconds: float, as_json: bool, nodes: Sequence[str]) -> None:
    """Make new nodes voters."""
    words: list[Word] = ["RAFT", "ADD"]
    for node in nodes:
        words += _new_node(node)
    _change(contact, seconds, as_json, words)


def remove(contact: Contact, seconds: float, as_json: bool, nodes: Sequence[int]) -> None:
    """Remove nodes for good."""
    _change(contact, seconds, as_json, ["RAFT", "REMOVE", *nodes])


def replace(contact: Contact, seconds: float, as_json: bool, old: int, new: str) -> None:
    """Put a new node in the place of another one."""
    _change(contact, seconds, as_json, ["RAFT", "REPLACE", old, *_new_node(new)])


def transfer(contact: Contact, seconds: float, as_json: bool, node: int | None) -> None:
    """Hand leadership over, and print who leads."""
    words: list[Word] = ["RAFT", "TRANSFER"] if node is None else ["RAFT", "TRANSFER", node]
    _insist(contact, words, seconds)
    status, _ = _look(contact, ASK_SECONDS)
    if as_json:
        _print_json({"leader": status.get("leader", 0), "term": status.get("term", 0)})
    else:
        print(f"node {status.get('leader', '?')} leads")


def _change(contact: Contact, seconds: float, as_json: bool, words: Sequence[Word]) -> None:
    with _Progress(contact):
        _insist(contact, words, seconds)
    status, _ = _look(contact, ASK_SECONDS)
    voters = status.get("voters", [])
    if as_json:
        _print_json({"voters": voters, "learners": status.get("learners", [])})
    else:
        print(f"done; the voters are {', '.join(map(str, voters)) or 'unknown'}")


def _insist(contact: Contact, words: Sequence[Word], seconds: float) -> None:
    """Ask one server after another until the answer is OK. Raises the last failure when time is up."""
    addresses = contact.addresses
    deadline = time.monotonic() + seconds
    turn, failures, accepted = 0, 0, ""
    while True:
        address = addresses[turn % len(addresses)]
        problem: ClientError
        try:
            reply = contact.ask(address, words, min(ASK_SECONDS, max(0.1, deadline - time.monotonic())))
            if reply == b"OK":
                return
            failures, accepted = 0, _text(reply)
            problem = CommandError(accepted)
        except CommandError as error:
            if error.code not in AGAIN:
                raise
            problem = error
            turn += 1
        except ClientError as error:
            problem = error
            failures += isinstance(error, NoServer)
            turn += 1
        if failures >= 2 * len(addresses) or time.monotonic() >= deadline:
            if failures >= len(addresses):
                raise NoServer(
                    f"no server answers at {format_addresses(addresses)}{contact.advice}"
                ) from None
            raise CommandError(f"not done within {seconds:g} s: {accepted}") if accepted else problem
        time.sleep(PAUSE_SECONDS)


def _new_node(text: str) -> list[Word]:
    """Read ID=PEER-ADDRESS,CLIENT-ADDRESS."""
    number, equals, addresses = text.partition("=")
    peer, comma, client = addresses.partition(",")
    if not (number.isdecimal() and equals and comma):
        raise UsageError(f"{text!r} is not ID=PEER-ADDRESS,CLIENT-ADDRESS, such as 4=db4:8001,db4:7001")
    return [
        int(number),
        format_address(*parse_address(peer, "the peer address")),
        format_address(*parse_address(client, "the client address")),
    ]


# --------------------------------------------------------------------- how it goes on


class _Progress:
    """Says on standard error how a change goes on, whenever that is something new."""

    def __init__(self, contact: Contact) -> None:
        self._contact = contact
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(2 * LOOK_SECONDS)

    def _watch(self) -> None:
        said = ""
        while not self._stop.wait(PAUSE_SECONDS):
            try:
                status, members = _look(self._contact, LOOK_SECONDS)
            except AuthenticationError:
                return  # whoever asks for the change says so
            stage = _stage(status, members) if status else ""
            if stage and stage != said and not self._stop.is_set():
                sys.stderr.write(stage + "\n")
                said = stage


def _stage(status: Facts, members: Sequence[Facts]) -> str:
    """Say where a change stands; nothing when none is under way."""
    if status["outgoing_voters"]:
        return "joint: the old and the new voters decide together"
    if not status["promote"]:
        return ""
    found = {member["id"]: member for member in members}
    parts = []
    for node in status["promote"]:
        matched = found.get(node, {}).get("matched_index", 0)
        share = 100 * matched // max(1, status["last_index"])
        parts.append(f"node {node} is a learner and has {share} % of the log" if matched else _absent(node))
    return "; ".join(parts)


def _absent(node: int) -> str:
    return f"node {node} is a learner and was not heard yet; start it with balsadb serve --join"


def _look(contact: Contact, seconds: float) -> tuple[Facts, list[Facts]]:
    """Return the status and the members as the leader sees them, or else as the best server does."""
    best: tuple[Facts, list[Facts]] = {}, []
    known = contact.addresses
    for address in known:
        try:
            status = pairs(contact.ask(address, ["RAFT", "STATUS"], seconds))
            members = [_member(row) for row in contact.ask(address, ["RAFT", "MEMBERS"], seconds)]
        except AuthenticationError:
            raise  # the same everywhere
        except (ClientError, ProtocolError, TypeError):
            continue
        if status.get("role") == b"leader":
            return status, members
        if not best[0] or status.get("term", 0) >= best[0].get("term", 0):
            best = status, members
        # The leader may be a server that nobody has named.
        known += [a for a in _leader_address(status, members) if a not in known]
    return best


def _leader_address(status: Facts, members: Sequence[Facts]) -> list[Address]:
    return [
        parse_address(member["client_address"])
        for member in members
        if member["id"] == status.get("leader") and member["client_address"]
    ]


def _member(row: Any) -> Facts:
    return {name: _text(value) if isinstance(value, bytes) else value for name, value in pairs(row).items()}


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))
