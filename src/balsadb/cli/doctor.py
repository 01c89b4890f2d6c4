"""doctor: ask every server, and say in sentences what is wrong and what to do."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from balsadb.address import format_address, parse_address
from balsadb.cli.contact import Contact
from balsadb.cli.diagnosis import Answer, Cluster, Finding, Severity, diagnose
from balsadb.cli.observe import THREADS_MAX, print_json, reason, text_of
from balsadb.client.ask import pairs
from balsadb.client.call import Address
from balsadb.errors import AuthenticationError, ClientError, ProtocolError, UsageError

STATUS_OF = {Severity.NOTE: 0, Severity.WARNING: 1, Severity.BROKEN: 3}
"""Exit status by the worst finding; 2 stands for wrong usage in all commands."""
_COLOURS = {Severity.NOTE: "2", Severity.WARNING: "33", Severity.BROKEN: "31"}


def doctor(contact: Contact, seconds: float, as_json: bool) -> int:
    """Print what is the matter; return the exit status."""
    answers = _ask_everybody(contact, seconds)
    findings = diagnose(answers)
    worst = max((finding.severity for finding in findings), default=Severity.NOTE)
    if as_json:
        _print_json(answers, findings, worst)
    else:
        _print(Cluster(answers), findings, worst)
    return STATUS_OF[worst]


def _ask_everybody(contact: Contact, seconds: float) -> list[Answer]:
    """Ask the given servers, and then those that they name and that have not answered."""
    addresses = contact.addresses
    answers = _ask_all(contact, addresses, seconds)
    cluster = Cluster(answers)
    further = []
    for node in cluster.missing():
        try:
            address = parse_address(cluster.address_of(node))
        except UsageError:
            continue  # it has not told its address
        if address not in addresses:
            further.append(address)
    return answers + _ask_all(contact, further, seconds)


def _ask_all(contact: Contact, addresses: Sequence[Address], seconds: float) -> list[Answer]:
    if not addresses:
        return []
    with ThreadPoolExecutor(min(THREADS_MAX, len(addresses))) as threads:
        return list(threads.map(lambda address: _ask(contact, address, seconds), addresses))


def _ask(contact: Contact, address: Address, seconds: float) -> Answer:
    answer = Answer(format_address(*address))
    try:
        began, clock = time.monotonic(), time.time()
        facts = {
            name: _plain(value)
            for name, value in pairs(contact.ask(address, ["RAFT", "STATUS"], seconds)).items()
        }
        took = time.monotonic() - began
        members = contact.ask(address, ["RAFT", "MEMBERS"], seconds)
    except AuthenticationError:
        raise  # a password is missing here, and not there
    except (ClientError, ProtocolError) as error:
        answer.error = reason(str(error))
        return answer
    if not isinstance(facts.get("id"), int):
        answer.error = "it is no BalsaDB server"
        return answer
    answer.facts = facts
    answer.members = [
        {name: _plain(value) for name, value in pairs(member).items()} for member in members or ()
    ]
    if "time_ms" in facts:
        answer.clock_ms = facts["time_ms"] - (clock + took / 2) * 1000
        answer.clock_doubt_ms = took * 500
    return answer


def _plain(value: Any) -> Any:
    return text_of(value) if isinstance(value, bytes) else value


def _print(cluster: Cluster, findings: Sequence[Finding], worst: Severity) -> None:
    coloured = sys.stdout.isatty()
    for finding in findings:
        word = finding.severity.name.lower()
        if coloured:
            word = f"\x1b[{_COLOURS[finding.severity]}m{word}\x1b[0m"
        problem = "".join(c if c.isprintable() else "?" for c in finding.problem)
        print(f"{word}: {problem}\n  {finding.remedy}")
    if worst is Severity.NOTE:
        count = len(cluster.nodes)
        who = "the only node" if count == 1 else f"all {count} nodes answer and keep up"
        print(f"nothing is wrong: node {cluster.leader} leads in term {cluster.facts['term']}, {who}")


def _print_json(answers: Sequence[Answer], findings: Sequence[Finding], worst: Severity) -> None:
    print_json(
        {
            "verdict": "well" if worst is Severity.NOTE else worst.name.lower(),
            "findings": [
                {"severity": f.severity.name.lower(), "problem": f.problem, "remedy": f.remedy}
                for f in findings
            ],
            "servers": [
                {"address": answer.address, **(answer.facts or {"error": answer.error})} for answer in answers
            ],
        }
    )
