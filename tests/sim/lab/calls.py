"""What the scripts ask the cluster, and what became of it: the one client that the world sees.

There are no remote procedure calls here. A call is a request that is handed to a server's process, each as if
on a connection of its own. It ends as one of three things, and the history for the checkers says which.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from balsadb.kv.reply import Refusal, Reply
from balsadb.raft.types import NodeId
from balsadb.replica.request import Lane, Request, RequestKind
from balsadb.sim.clients import DEFINITE
from balsadb.sim.failures import SafetyViolation
from balsadb.sim.history import Action, Operation
from sim.lab.network import DELAY_US_MAX, LOSS

if TYPE_CHECKING:
    from sim.lab.cluster import LabCluster

COMMANDS = {
    Action.GET: lambda key, argument: [b"GET", key],
    Action.PUT: lambda key, argument: [b"SET", key, argument],
    Action.APPEND: lambda key, argument: [b"APPEND", key, argument],
}


class Fate(Enum):
    """What became of a call."""

    FLYING = "under way"
    DONE = "answered"
    REFUSED = "certainly not done"
    OPEN = "perhaps done"


class Call:
    """One operation, asked of one server once."""

    def __init__(self, action: Action, key: bytes, argument: bytes, called: float) -> None:
        self.action = action
        self.key = key
        self.argument = argument
        self.called = called
        self.fate = Fate.FLYING
        self.reply: Reply = None
        """The answer, or the refusal."""
        self.then: Callable[[Call], None] | None = None
        """Called once the fate is known."""

    @property
    def over(self) -> bool:
        """Tell whether the fate is known."""
        return self.fate is not Fate.FLYING


class Calls:
    """All calls of a scenario."""

    def __init__(self, cluster: LabCluster) -> None:
        self.history: list[Operation] = []
        self.stopped = False
        self._cluster = cluster
        self._flying: dict[Call, NodeId] = {}
        """Calls under way, with the server that was asked."""
        self._remote: set[Call] = set()

    def start(
        self,
        node: NodeId,
        action: Action,
        key: bytes,
        argument: bytes = b"",
        *,
        remote: bool = False,
        then: Callable[[Call], None] | None = None,
    ) -> Call:
        """Ask a server. With `remote` the way to it and back is as bad as the servers' own network."""
        scheduler = self._cluster.scheduler
        call = Call(action, key, argument, scheduler.now_us / 1e6)
        call.then = then
        self._flying[call] = node
        if remote and self._cluster.network.unreliable:
            self._remote.add(call)
            scheduler.after(self._delay_us(), self._lose if self._is_lost() else self._submit, call)
        else:
            self._submit(call)
        return call

    def _is_lost(self) -> bool:
        return self._cluster.rng.random() < LOSS

    def _delay_us(self) -> int:
        return self._cluster.rng.randrange(DELAY_US_MAX)

    def _submit(self, call: Call) -> None:
        if call.over:
            return  # the server's process has ended meanwhile
        server = self._cluster.servers[self._flying[call]]
        if server.replica is None:
            self._lose(call)
            return
        command = COMMANDS[call.action](call.key, call.argument)
        kind = RequestKind.READ if call.action is Action.GET else RequestKind.WRITE
        request = Request(Lane(self), kind, [command], [], 1, sum(map(len, command)))
        request.context = call
        server.replica.submit(request)
        server.wake()

    # ------------------------------------------------------------ what the world tells

    @property
    def waiting(self) -> bool:
        """Tell whether a call is under way."""
        return bool(self._flying)

    def answered(self, request: Request) -> None:
        """Take an answer, if it does not get lost on the way."""
        assert request.replies is not None
        call, (reply,) = request.context, request.replies
        if call not in self._remote:
            self._take(call, reply)
        elif self._is_lost():
            self._cluster.scheduler.after(self._delay_us(), self._lose, call)
        else:
            self._cluster.scheduler.after(self._delay_us(), self._take, call, reply)

    def disconnected(self, node: NodeId) -> None:
        """Give up everything that was asked of a process that has ended."""
        for call in [call for call, asked in self._flying.items() if asked == node]:
            self._lose(call)

    def finish(self) -> None:
        """Leave what is still under way open."""
        for call in list(self._flying):
            self._lose(call)

    # --------------------------------------------------------------------- fates

    def _take(self, call: Call, reply: Reply) -> None:
        if call.over:
            return
        call.reply = reply
        if not isinstance(reply, Refusal):
            result = None if call.action is Action.PUT else reply
            assert result is None or isinstance(result, (bytes, int))
            self._note(call, result, self._cluster.scheduler.now_us / 1e6)
            self._end(call, Fate.DONE)
        elif reply.text.startswith(DEFINITE):
            self._end(call, Fate.REFUSED)  # if it did happen, the ledger finds a value of nobody
        elif reply.text.startswith(b"UNKNOWN"):
            self._lose(call)
        else:
            raise SafetyViolation("answers", f"{call.action.value} was answered {reply.text!r}")

    def _lose(self, call: Call) -> None:
        if not call.over:
            self._note(call, None, None)
            self._end(call, Fate.OPEN)

    def _note(self, call: Call, result: bytes | int | None, returned: float | None) -> None:
        if returned is not None or call.action is not Action.GET:
            self.history.append(
                Operation(1, call.action, call.key, call.argument, result, call.called, returned)
            )

    def _end(self, call: Call, fate: Fate) -> None:
        call.fate = fate
        del self._flying[call]
        self._remote.discard(call)
        if call.then is not None:
            call.then(call)
