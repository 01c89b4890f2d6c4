"""RAFT: what an operator asks a node about consensus.

STATUS answers a map with the names of `facts.node_facts` and `insight.Insight.figures`, MEMBERS a list of
maps with those of `facts.member_facts`. `matched_index` is known to the leader alone, and 0 when unknown.
`docs/operations.md` explains all names. Truth values are 1 and 0, in RESP2 and RESP3 alike.
ADD, REMOVE, REPLACE and TRANSFER are answered by `replica.changes`: +OK when all is done.
"""

from __future__ import annotations

from typing import Final

from balsadb.kv.reply import OK, Mapping, Refusal, Reply
from balsadb.server.commands.client_state import ClientState
from balsadb.server.commands.facts import Facts, member_facts, node_facts
from balsadb.server.commands.subcommands import Family
from balsadb.server.commands.view import NodeView


def _status(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    return _mapping({**node_facts(view.status()), **view.figures()})


def _snapshot(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    view.take_snapshot()
    return OK


def _members(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    status, silent = view.status(), view.silent_ms()
    return [
        _mapping(member_facts(status, node, silent.get(node))) for node in status.configuration.everyone()
    ]


def _mapping(facts: Facts) -> Mapping:
    return Mapping([(name.encode(), _reply(value)) for name, value in facts.items()])


def _reply(value: int | str | tuple[int, ...] | None) -> Reply:
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    return list(value) if isinstance(value, tuple) else int(value)


def _elsewhere(client: ClientState, view: NodeView, argv: list[bytes]) -> Reply:
    # The connection brings these to the replica, so they never come here but by mistake.
    return Refusal(b"ERR RAFT %b can only be answered by the whole cluster" % argv[1].upper())


RAFT: Final = Family(
    b"RAFT",
    {
        b"ADD": _elsewhere,
        b"DIGEST": _elsewhere,
        b"MEMBERS": _members,
        b"REMOVE": _elsewhere,
        b"REPLACE": _elsewhere,
        b"SNAPSHOT": _snapshot,
        b"STATUS": _status,
        b"TRANSFER": _elsewhere,
    },
)
