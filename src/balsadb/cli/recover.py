"""recover: what is left of a cluster without a majority, and how one of its nodes goes on alone (rule M4).

Nothing happens without the word that the report ends with. It names the node, the end of its log and the
cluster, so a line from the history of a shell does nothing on other data, nor a second time on the same.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from balsadb.address import format_address
from balsadb.cli.contact import Contact
from balsadb.cli.observe import ask_all, nobody, reason
from balsadb.client.ask import pairs
from balsadb.errors import AuthenticationError, BalsaError, UsageError
from balsadb.raft.types import Configuration, NodeId
from balsadb.storage.files import OsFiles
from balsadb.storage.inspect import inspect
from balsadb.storage.sole_voter import make_sole_voter
from balsadb.storage.survivors import NEVER_ADMITTED, Judgement, Survivor, judge, survivor

ID_BYTES = 16
"""Of a cluster's id, as of the one that a first leader draws."""


def from_directories(directories: Sequence[str], confirm: str | None, force: bool, as_json: bool) -> bool:
    """Report on the data directories of stopped nodes; with the right word, recover the safest one.

    False: none of them is fit.
    """
    os.umask(0o077)
    for directory in directories:
        if not os.path.isdir(directory):
            raise UsageError(f"{directory} is not a directory")
    places = list(dict.fromkeys(os.path.normpath(directory) for directory in directories))
    judgement = judge([survivor(inspect(place)) for place in places])
    if confirm is None:
        command = shlex.join(["balsadb", "recover", *places, *(["--force"] if force else [])])
        return _report(judgement, as_json, _next_step(judgement, command, force))
    chosen = _confirmed(judgement, confirm, force)
    new = make_sole_voter(OsFiles(), chosen, judgement.term + 1, secrets.token_bytes(ID_BYTES))
    if as_json:
        facts = {"node": chosen.node, "cluster_id": new.cluster_id.hex(), "removed": list(new.removed)}
        print(json.dumps({"recovered": facts}, indent=2))
        return True
    print(
        f"{chosen.place}: node {chosen.node} is the only voter of its cluster from now on; "
        f"this is recovery {len(new.former)}."
    )
    print(f"The cluster has the id {new.cluster_id.hex()} now, and was {chosen.cluster_id.hex()}.")
    print(
        f"Start node {chosen.node} with the command line that it always had, and let new nodes join it: on "
        "empty directories and under new ids (balsadb serve --join)."
    )
    if new.removed:
        print(f"Never start {_nodes(new.removed)} again; the data of these ids counts no more.")
    return True


def from_servers(contact: Contact, confirm: str | None, seconds: float, as_json: bool) -> bool:
    """Report on the servers that answer; False: none of them is fit. Nothing is changed over the network."""
    if confirm is not None:
        raise UsageError("--confirm needs the data directory: stop the node, and name its directory")
    addresses = contact.addresses
    found = []
    failures: list[BalsaError] = []
    for address, reply in ask_all(contact, addresses, ["RAFT", "STATUS"], seconds):
        if isinstance(reply, AuthenticationError):
            raise reply
        place = format_address(*address)
        if isinstance(reply, BalsaError):
            failures.append(reply)
            found.append(Survivor(place, whole=False, unfit=reason(str(reply))))
        else:
            found.append(_live(place, pairs(reply)))
    if len(failures) == len(found):
        raise nobody(addresses, failures, contact.advice)
    judgement = judge(found)
    return _report(judgement, as_json, _live_step(judgement))


def _live(place: str, status: dict[str, Any]) -> Survivor:
    """Read RAFT STATUS. An entry counts when it is on the server's disk."""

    def ids(name: str) -> tuple[NodeId, ...]:
        value = status.get(name)
        return tuple(value) if isinstance(value, list) else ()

    def number(name: str) -> int:
        value = status.get(name)
        return value if isinstance(value, int) else 0

    text = status.get("cluster_id", b"")
    cluster_id = bytes.fromhex(text.decode()) if isinstance(text, bytes) else b""
    node = number("id")
    configuration = Configuration(
        voters=ids("voters"),
        outgoing=ids("outgoing_voters"),
        learners=ids("learners"),
        removed=ids("removed"),
        cluster_id=cluster_id,
    )
    unfit = "" if node in configuration.everyone() else "it is not a member, as far as it knows"
    admitted = status.get("admitted") != 0
    if not admitted:
        unfit = NEVER_ADMITTED
    return Survivor(
        place=place,
        node=node,
        cluster_id=cluster_id,
        term=number("term"),
        last_index=number("last_index"),
        last_term=number("last_term"),
        commit=number("commit_index"),
        applied=number("applied_index"),
        configuration=configuration,
        whole=admitted,
        unfit=unfit,
    )


# ----------------------------------------------------------------------------------- may it be done?


def word_for(chosen: Survivor) -> str:
    """Return the word that lets the cluster go on from a survivor."""
    cluster = chosen.cluster_id.hex()[:8]
    return f"node-{chosen.node}-entry-{chosen.last_index}-term-{chosen.last_term}-of-{cluster}"


def _confirmed(judgement: Judgement, confirm: str, force: bool) -> Survivor:
    """Return the survivor that the cluster is to go on from. Raises UsageError when it must not."""
    chosen = judgement.chosen
    if chosen is None:
        raise UsageError(f"nothing is recovered: {'; '.join(_unfit(judgement.survivors))}")
    if former := _recovered(judgement):
        raise UsageError(
            f"nothing is left to do: node {chosen.node} is the only voter since recovery {former}; start it"
        )
    if judgement.majority and not force:
        raise UsageError(f"nothing is recovered: {_needless(judgement)}")
    if confirm != word_for(chosen):
        # The right word is not told here: who is to read the report must not be spared it.
        raise UsageError(
            f"nothing is recovered: {confirm!r} is not the word with which the report on these very data "
            "ends; read it again, without --confirm"
        )
    for one in judgement.survivors:
        if one.process is not None:
            raise UsageError(
                f"nothing is recovered: process {one.process} uses {one.place}; stop every node of the "
                "cluster, and never start another one than the recovered one again"
            )
    return chosen


def _recovered(judgement: Judgement) -> int:
    """Return the number of the recovery that has led to the present, lone voter; 0 when there was none."""
    configuration, chosen = judgement.configuration, judgement.chosen
    # Another node may be the only voter by now, or on its way to be: it may be lost in its turn.
    alone = chosen is not None and {*configuration.voters, *configuration.outgoing} == {chosen.node}
    return len(configuration.former) if alone else 0


def _needless(judgement: Judgement) -> str:
    voters = _nodes({*judgement.configuration.voters, *judgement.configuration.outgoing})
    return (
        f"the voters are {voters}, and the logs of a majority are here. Start those nodes: they elect a "
        "leader, and nothing is lost. Replace the others with balsadb member replace"
    )


# ----------------------------------------------------------------------------------------- the report


def _next_step(judgement: Judgement, command: str, force: bool) -> tuple[str, str]:
    """Return what an operator should do now, and the word for --confirm if there is something to confirm."""
    chosen = judgement.chosen
    if chosen is None:
        return "None of these directories can carry the cluster on. Restore the newest backup.", ""
    if former := _recovered(judgement):
        return f"Node {chosen.node} is the only voter since recovery {former}: start it.", ""
    if judgement.majority and not force:
        return f"A recovery is not needed: {_needless(judgement)}.", ""
    word = word_for(chosen)
    lines = [
        "Nothing has been changed, and what comes now can't be undone. The newest backup may be the better "
        "choice.",
        "To go on from that log: stop every node of the cluster that still runs, make sure that no other one "
        "ever starts again, copy the directory, and give",
        f"  {command} --confirm {word}",
    ]
    return "\n".join(lines), word


def _live_step(judgement: Judgement) -> tuple[str, str]:
    chosen = judgement.chosen
    if chosen is None:
        return "None of these servers can carry the cluster on. Restore the newest backup.", ""
    if judgement.majority:
        return (
            "A recovery is not needed: a majority of the voters answers. If there is no leader, see whether "
            "they reach each other (balsadb status, and their logs).",
            "",
        )
    return (
        f"If the others are lost for ever: stop node {chosen.node} at {chosen.place} and every other server "
        "of this cluster, and run on the machine of that node, with its --data-dir\n"
        "  balsadb recover DIR\n"
        "Nothing is ever changed over the network.",
        "",
    )


def _report(judgement: Judgement, as_json: bool, step: tuple[str, str]) -> bool:
    advised, word = step
    if as_json:
        print(json.dumps(_facts(judgement, word), indent=2))
        return judgement.chosen is not None
    for line in _table(judgement.survivors):
        print(line)
    print()
    for line in [*_unfit(judgement.survivors), *_findings(judgement)]:
        print(line)
    print()
    print(advised)
    return judgement.chosen is not None


def _facts(judgement: Judgement, word: str) -> dict[str, Any]:
    chosen = judgement.chosen
    rows = [
        {
            "place": one.place,
            "node": one.node,
            "cluster_id": one.cluster_id.hex(),
            "term": one.term,
            "vote": one.vote,
            "last_index": one.last_index,
            "last_term": one.last_term,
            "commit_index": one.commit,
            "applied_index": one.applied,
            "voters": list(one.configuration.voters) if one.configuration is not None else [],
            "process": one.process,
            "unfit": one.unfit,
        }
        for one in judgement.survivors
    ]
    unconfirmed = judgement.unconfirmed
    return {
        "survivors": rows,
        "chosen": None if chosen is None else chosen.node,
        "majority": chosen is not None and judgement.majority,
        "lossless": chosen is not None and judgement.lossless,
        "missing": judgement.missing,
        "unconfirmed": [unconfirmed.start, unconfirmed.stop - 1] if unconfirmed else [],
        "findings": [*_unfit(judgement.survivors), *_findings(judgement)],
        "confirm": word,
    }


def _table(survivors: Sequence[Survivor]) -> Iterable[str]:
    rows: list[tuple[str, ...]] = [
        ("node", "at", "term", "vote", "last entry", "of term", "committed", "applied", "voters")
    ]
    for one in survivors:
        if not one.node or one.configuration is None:
            rows.append((str(one.node or "?"), one.place, *["?"] * 7))
            continue
        voters = " ".join(map(str, one.configuration.voters))
        if one.configuration.outgoing:
            voters += f" (and {' '.join(map(str, one.configuration.outgoing))})"
        numbers = (one.term, one.vote or "-", one.last_index, one.last_term, one.commit, one.applied)
        rows.append((str(one.node), one.place, *map(str, numbers), voters))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _unfit(survivors: Iterable[Survivor]) -> list[str]:
    return [f"{one.place} can't be chosen: {one.unfit}" for one in survivors if one.unfit]


def _findings(judgement: Judgement) -> Iterable[str]:
    """Say which log is the safest one, and what may be lost."""
    chosen = judgement.chosen
    if chosen is None:
        return
    yield (
        f"The longest safe log is that of node {chosen.node} at {chosen.place}. It ends with entry "
        f"{chosen.last_index} of term {chosen.last_term}."
    )
    if _recovered(judgement):
        return
    if judgement.lossless:
        yield "Nothing that was acknowledged is lost: every majority has a node whose log is here."
    elif judgement.silent_majority:
        yield (
            f"ACKNOWLEDGED WRITES MAY BE LOST: {_nodes(judgement.missing)} could be a majority without the "
            "logs that are here, and may have acknowledged what lies behind that end. How much that is can't "
            "be known from here."
        )
    for one in judgement.contradicting:
        yield (
            f"{one.place} knows that entries up to {one.commit} are committed, and that log lacks them: the "
            "disk of some node has lost what it had acknowledged. Look at all of them before you choose."
        )
    for one in judgement.longer:
        yield (
            f"What {one.place} has behind that end, up to entry {one.last_index}, is lost, acknowledged or "
            "not."
        )
    if unconfirmed := judgement.unconfirmed:
        first, last = unconfirmed.start, unconfirmed.stop - 1
        which = f"entry {first}" if first == last else f"entries {first} to {last}"
        yield (
            f"No disk here says that {which} ever got committed. The recovery commits them all: a client may "
            "find a write done whose outcome it never learned."
        )


def _nodes(nodes: Iterable[NodeId]) -> str:
    ordered = [str(node) for node in sorted(nodes)]
    if len(ordered) == 1:
        return f"node {ordered[0]}"
    return f"nodes {', '.join(ordered[:-1])} and {ordered[-1]}" if ordered else "no node"
