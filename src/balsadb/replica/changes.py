"""What operators ask of the cluster itself: other members, or another leader (rule M2).

A request is put to the leader by a Raft message, wherever it is, and again when no answer comes. Whether it
was carried out is seen in the configurations that this node applies and not in the answer: that may be lost,
and a leader may lose what it has begun. So every outcome is certain in the end, or said to be open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from balsadb.address import format_address, parse_address
from balsadb.errors import UsageError
from balsadb.kv.reply import OK, Refusal, Reply, Status
from balsadb.raft.configuration import fingerprint
from balsadb.raft.membership import Verdict
from balsadb.raft.messages import ChangeResponse
from balsadb.raft.node import Node
from balsadb.raft.types import NOBODY, Configuration, Member, NodeId
from balsadb.replica.request import Command, Request

PAUSE_MS: Final = 50
"""Pause before a request that could not begin is put again."""
LAST_WORD_MS: Final = 200
"""So shortly before its deadline a request is not put again: its outcome would be open."""
NODES_MAX: Final = 16
"""Nodes in one change; more are a typing error."""
NODE_ID_MAX: Final = 65_535
"""As `server.config` has it."""

SYNTAX: Final = Refusal(
    b"ERR syntax: RAFT ADD id peer-address client-address | REMOVE id | "
    b"REPLACE old-id new-id peer-address client-address | TRANSFER [id]"
)
ACCEPTED: Final = Status(
    b"ACCEPTED the change has begun and goes on by itself; RAFT MEMBERS shows how far it is"
)
GIVEN_UP: Final = Refusal(b"ERR another change has taken the place of this one")
OPEN: Final = Refusal(b"UNKNOWN the deadline passed with the outcome open; look at RAFT MEMBERS")
NO_LEADER: Final = Refusal(b"CLUSTERDOWN no leader was found within the deadline; nothing was done")
SAME_LEADER: Final = "the same node still leads"


class Wish(msgspec.Struct, frozen=True):
    """What is to be."""

    add: tuple[Member, ...] = ()
    remove: tuple[NodeId, ...] = ()
    transfer: bool = False
    successor: NodeId = NOBODY

    def done(self, now: Configuration) -> bool:
        """Tell whether the members are as wished, and nothing is under way any more."""
        entered = all(member.id in now.voters for member in self.add)
        return entered and set(self.remove) <= set(now.removed) and not now.outgoing

    def led_by(self, leader: NodeId, former: NodeId) -> bool:
        """Tell whether a handover from `former` has led to what was wished."""
        return leader == self.successor if self.successor else leader != former

    def begun(self, now: Configuration) -> bool:
        """Tell whether it is under way."""
        coming, going = {*now.promote, *now.voters}, {*now.retire, *now.removed}
        if now.outgoing:
            going |= set(now.outgoing) - set(now.voters)
        return all(member.id in coming for member in self.add) and set(self.remove) <= going


def parse(argv: Command) -> Wish | Refusal:
    """Read `RAFT ADD ...`, `REMOVE`, `REPLACE` or `TRANSFER`. Several nodes may be named at once."""
    words = argv[2:]
    try:
        match argv[1].upper():
            case b"ADD":
                return _wish([], _groups(words, 3))
            case b"REMOVE":
                return _wish([_id(word) for word in words], [])
            case b"REPLACE":
                groups = _groups(words, 4)
                return _wish([_id(group[0]) for group in groups], [group[1:] for group in groups])
            case b"TRANSFER" if len(words) <= 1:
                return Wish(transfer=True, successor=_id(words[0]) if words else NOBODY)
    except UsageError as error:
        return Refusal(b"ERR " + str(error).encode())
    return SYNTAX


def _groups(words: Sequence[bytes], size: int) -> list[Sequence[bytes]]:
    if len(words) % size:
        raise UsageError(SYNTAX.text.decode().removeprefix("ERR "))
    return [words[first : first + size] for first in range(0, len(words), size)]


def _wish(remove: list[NodeId], add: Sequence[Sequence[bytes]]) -> Wish | Refusal:
    members = [Member(_id(node), _address(peer), _address(client)) for node, peer, client in add]
    if not 0 < len(remove) + len(members) <= NODES_MAX:
        return SYNTAX
    if len({*remove}) < len(remove) or len({m.id for m in members}) < len(members):
        raise UsageError("a node is named twice")
    return Wish(tuple(sorted(members, key=lambda member: member.id)), tuple(sorted(remove)))


def _id(word: bytes) -> NodeId:
    if not word.isdigit() or len(word) > 5 or not 1 <= int(word) <= NODE_ID_MAX:
        raise UsageError(
            f"{word[:20].decode(errors='replace')!r} is no node id; ids are 1 to {NODE_ID_MAX:,}"
        )
    return int(word)


def _address(word: bytes) -> str:
    return format_address(*parse_address(word.decode(errors="replace"), "an address"))


class _Pending:
    """A wish that has no outcome yet."""

    def __init__(self, request: Request, wish: Wish, leader: NodeId) -> None:
        self.request = request
        self.wish = wish
        self.leader = leader
        """Who led when it came: a handover has succeeded when another node leads."""
        self.next_ms = 0
        """When it is put to the leader (again)."""
        self.open: set[int] = set()
        """Numbers of the times it was put to a leader that may have begun it, for all we know. The answer to
        one says nothing about the others (rule P1): it may be the change itself that is in the way of its
        repetition."""
        self.begun = False
        """True once a committed configuration shows it."""
        self.reason = ""
        """Why the leader could not begin it."""


class Changes:
    """The wishes that were made on this node."""

    def __init__(self, node: Node, resend_ms: int) -> None:
        self._node = node
        self._resend_ms = resend_ms
        self._pending: list[_Pending] = []
        self._number = 0

    @property
    def idle(self) -> bool:
        """Tell whether nobody waits."""
        return not self._pending

    def add(self, request: Request) -> Refusal | None:
        """Take a request; returns at once why it makes no sense, or None."""
        wish = parse(request.commands[0])
        if isinstance(wish, Refusal):
            return wish
        self._pending.append(_Pending(request, wish, self._node.leader))
        return None

    def go_on(self, now_ms: int, configuration: Configuration) -> Iterator[tuple[Request, Reply]]:
        """Put to the leader what has to be put, and return what has an outcome."""
        for pending in self._pending.copy():
            reply = self._look(pending, now_ms, configuration)
            if reply is None and pending.request.deadline_ms <= now_ms:
                reply = _last_word(pending, self._node.leader)
            if reply is not None:
                self._pending.remove(pending)
                yield pending.request, reply

    def _look(self, pending: _Pending, now_ms: int, configuration: Configuration) -> Reply | None:
        wish, node = pending.wish, self._node
        if wish.transfer:
            pending.leader = pending.leader or node.leader
            if node.leader and wish.led_by(node.leader, pending.leader):
                return OK
        elif wish.done(configuration):
            return OK
        elif wish.begun(configuration):
            pending.begun = True
            return None
        elif pending.begun:
            return GIVEN_UP
        settled = pending.reason and pending.request.deadline_ms - now_ms < LAST_WORD_MS
        if now_ms >= pending.next_ms and configuration.cluster_id and not settled:
            self._number += 1
            asked = node.request_change(
                self._number,
                fingerprint(configuration),
                wish.add,
                wish.remove,
                transfer=wish.transfer,
                successor=wish.successor,
            )
            if asked:
                pending.open.add(self._number)
            pending.next_ms = now_ms + (self._resend_ms if asked else PAUSE_MS)
        return None

    def answered(self, response: ChangeResponse, now_ms: int) -> tuple[Request, Reply] | None:
        """Take the leader's answer; returns an outcome when it is one."""
        number = response.number
        pending = next((one for one in self._pending if number in one.open), None)
        if pending is None or response.verdict == Verdict.BEGUN:
            return None
        pending.open.discard(number)
        if response.verdict == Verdict.REFUSED and not pending.open:
            self._pending.remove(pending)
            return pending.request, Refusal(b"ERR " + response.reason.encode())
        pending.reason = response.reason
        pending.next_ms = now_ms + PAUSE_MS
        return None

    def everything(self, removed: NodeId = NOBODY) -> list[tuple[Request, Reply]]:
        """Return all open requests with what is certain about them, for this node stops or was `removed`."""
        pending, self._pending = self._pending, []
        return [
            (one.request, OK if removed in one.wish.remove else _last_word(one, NOBODY)) for one in pending
        ]


def _last_word(pending: _Pending, leader: NodeId) -> Reply:
    if pending.begun:
        return ACCEPTED
    if pending.wish.transfer and leader:
        return Refusal(f"TRYAGAIN {pending.reason or SAME_LEADER}".encode())
    if pending.open:
        return OPEN
    if pending.reason:
        return Refusal(f"TRYAGAIN {pending.reason}; nothing was done".encode())
    return NO_LEADER
