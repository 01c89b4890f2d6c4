"""The vocabulary of the scripts in `tests/raft/scripts`.

Setting the stage
    nodes N [voters=1,2] [learners=4,5] [tail=N] [OPTION=VALUE ...]
                            nodes 1..N with empty logs; voters are those named, or all who are not learners;
                            tail says how many entries a restarted node finds in its memory; OPTION is a
                            field of `balsadb.raft.node.Options`
    log N [terms=1,1,4] [term=T] [vote=N] [commit=I]
                            what node N has on its disk to begin with

Time and processes
    tick N [COUNT]          ticks pass for node N (N may be 1,2,3); nothing is delivered
    campaign N              ticks pass for node N until it asks for votes
    elect N                 let node N win an election and tell everybody; only the outcome is written down
    lost N PEER / up N PEER node N notices that its connection to PEER closed / is open again
    crash N [kept]          node N dies; `kept`: the write it was at is on its disk all the same
    start N                 it comes back with what its disk holds
    eligible N no|yes       whether node N remembers all its votes

Messages: nothing arrives unless the script says so
    deliver [WHICH]         deliver what is under way now, in order, and not what is sent because of it
    drop [WHICH]            lose it instead
    copy [WHICH]            deliver it and let it arrive again later
                            WHICH: [A->B | ->B | A->] [KIND] [#K]; #K is the K-th that fits
    settle                  deliver everything until nothing is under way
    cut A B / cut A->B      what is sent on this link is lost when it should arrive
    heal                    no link is cut any more
    network                 show what is under way

Disks and state machines: prompt unless the script says otherwise
    disk N slow|prompt      whether writes and fetches of node N end at once
    persist N               the write under way on node N is on its disk
    fetch N                 entries that node N wanted back from its disk arrive
    applier N slow|prompt   whether the state machine of node N applies at once
    apply N                 it has applied the oldest of what it was handed

Clients
    propose N X [Y ...]     propose X, Y, ... on node N in one turn
    read N [COUNT]          begin a linearizable read on node N
    config N [voters=..] [outgoing=..] [learners=..] [removed=..]
                            propose a configuration on node N; what is not named stays, `none` empties it
    change N [add=..] [remove=..] [again]
                            an operator asks node N for other members; `again`: what was asked last is sent
                            once more. A leader takes the next step of a change by itself when `nodes` was
                            given change_ticks=1

Looking
    status [N]              the state of all nodes or one
    logs                    the terms of all logs, as the Raft paper draws them
    quietly COMMAND ...     do it and write nothing down
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from raft_cluster import FAST
from script_stage import Stage
from script_text import hard_state_text, message_text, terms_text

from balsadb.errors import InvariantError
from balsadb.raft.configuration import encode_configuration, fingerprint
from balsadb.raft.messages import Message
from balsadb.raft.types import Configuration, EntryKind, HardState, Member, NodeId


class CommandError(Exception):
    """A line of a script that makes no sense, said in a sentence."""


class Words:
    """The arguments of a command: every one of them must be taken."""

    def __init__(self, text: str) -> None:
        words = text.split()
        self.positional = [word for word in words if "=" not in word]
        self.named = dict(word.split("=", 1) for word in words if "=" in word)

    def more(self) -> bool:
        return bool(self.positional)

    def word(self, what: str) -> str:
        if not self.positional:
            raise CommandError(f"{what} is missing")
        return self.positional.pop(0)

    def choice(self, what: str, *choices: str) -> str:
        word = self.word(what)
        if word not in choices:
            raise CommandError(f"{what} is {word!r} and must be one of {', '.join(choices)}")
        return word

    def number(self, what: str, default: int | None = None) -> int:
        if default is not None and not self.positional:
            return default
        return to_number(what, self.word(what))

    def numbers(self, name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """A list given as `name=1,2,3`; `name=none` is the empty one."""
        text = self.named.pop(name, None)
        if text is None:
            return default
        return () if text == "none" else tuple(to_number(name, part) for part in text.split(","))

    def named_number(self, name: str, default: int) -> int:
        return to_number(name, self.named.pop(name, str(default)))

    def end(self) -> None:
        left = [*self.positional, *(f"{name}={value}" for name, value in self.named.items())]
        if left:
            raise CommandError(f"nothing is known of {' '.join(left)!r} here")


def to_number(what: str, text: str) -> int:
    if not text.isdecimal():
        raise CommandError(f"{what} is {text!r} and must be a number")
    return int(text)


class Script:
    """Carries out the commands of one script on one stage."""

    def __init__(self) -> None:
        self._stage: Stage | None = None
        self._asked: tuple[int, Sequence[Member], Sequence[NodeId]] = (0, (), ())
        prefix = "do_"
        self.commands: dict[str, Callable[[Words], list[str] | None]] = {
            name.removeprefix(prefix): getattr(self, name) for name in dir(self) if name.startswith(prefix)
        }

    def run(self, line: str) -> list[str]:
        """Carry out one line and return its trace."""
        name, _, rest = line.partition(" ")
        if name == "quietly":
            self.run(rest)
            return []
        command = self.commands.get(name)
        if command is None:
            raise CommandError(f"unknown command {name!r}; known are {', '.join(sorted(self.commands))}")
        words = Words(rest)
        outcome = command(words)
        words.end()
        trace = self.stage.trace
        self.stage.trace = []
        for server in self.stage.running():
            self.stage.check(server)
        self.stage.oracle.log_matching(self.stage.servers.values())
        return trace if outcome is None else outcome

    @property
    def stage(self) -> Stage:
        if self._stage is None:
            raise CommandError("a script begins with `nodes`")
        return self._stage

    # ------------------------------------------------------------------- arguments

    def node_id(self, words: Words, what: str = "the node", up: bool | None = True) -> NodeId:
        node = words.number(what)
        server = self.stage.servers.get(node)
        if server is None:
            raise CommandError(f"there is no node {node}")
        if up is not None and (server.node is not None) is not up:
            raise CommandError(f"node {node} is {'down' if up else 'up'}")
        return node

    def pump(self, node: NodeId) -> None:
        self.stage.check(self.stage.servers[node])
        self.stage.pump(self.stage.servers[node])

    def under_way(self, words: Words) -> list[Message]:
        """The messages that WHICH means; a script that means none is wrong."""
        which = " ".join(words.positional)
        source = target = kind = ""
        number = 0
        while words.more():
            word = words.word("which")
            if "->" in word:
                source, target = word.split("->")
            elif word.startswith("#"):
                number = to_number("the place", word[1:])
            else:
                kind = word
        found = [
            message
            for message in self.stage.network
            if source in ("", str(message.source))
            and target in ("", str(message.target))
            and (not kind or message_text(message).split()[1] == kind)
        ]
        if number:
            found = found[number - 1 : number]
        if not found:
            raise CommandError(f"no message {which or 'at all'} is under way")
        return found

    # ----------------------------------------------------------- setting the stage

    def do_nodes(self, words: Words) -> list[str]:
        if self._stage is not None:
            raise CommandError("the stage is set already")
        size = words.number("the number of nodes")
        learners, tail = words.numbers("learners"), words.named_number("tail", 1_000_000)
        others = tuple(node for node in range(1, size + 1) if node not in learners)
        configuration = Configuration(voters=words.numbers("voters", others), learners=learners)
        fields = set(FAST.__struct_fields__) & set(words.named)
        options = {name: words.named_number(name, 0) for name in sorted(fields)}
        self._stage = Stage(size, configuration, msgspec.structs.replace(FAST, **options), tail)
        return self.stage.states()

    def do_log(self, words: Words) -> list[str]:
        node = self.node_id(words)
        terms = words.numbers("terms")
        state = HardState(
            term=words.named_number("term", terms[-1] if terms else 0),
            vote=words.named_number("vote", 0),
            commit=words.named_number("commit", 0),
        )
        self.stage.given(node, terms, state)
        return [f"{node}: {' '.join(map(str, terms)) or '-'}  {hard_state_text(state)}"]

    # ---------------------------------------------------------- time and processes

    def do_tick(self, words: Words) -> None:
        nodes = [to_number("the node", part) for part in words.word("the node").split(",")]
        for _ in range(words.number("the number of ticks", 1)):
            for node in nodes:
                self.node_id(Words(str(node)))
                self.stage.tick_one(node)

    def do_campaign(self, words: Words) -> None:
        node = self.node_id(words)
        if not self.stage.campaign(node):
            raise CommandError(f"node {node} does not campaign")

    def do_elect(self, words: Words) -> list[str]:
        node = self.node_id(words)
        stage = self.stage
        stage.elect(node)
        stage.tick_one(node)
        while stage.node(node).core.state.elapsed:  # to its next heartbeat: all hear of the commit
            stage.tick_one(node)
        stage.settle()
        return stage.states()

    def do_lost(self, words: Words) -> None:
        node, peer = self.node_id(words), self.node_id(words, "the peer", up=None)
        self.stage.node(node).peer_lost(peer)
        self.pump(node)

    def do_up(self, words: Words) -> None:
        node, peer = self.node_id(words), self.node_id(words, "the peer", up=None)
        self.stage.node(node).peer_up(peer)
        self.pump(node)

    def do_crash(self, words: Words) -> None:
        node = self.node_id(words)
        kept = words.more() and words.choice("the fate of its write", "kept") == "kept"
        if kept and self.stage.servers[node].writing is None:
            raise CommandError(f"node {node} writes nothing")
        self.stage.crash(node, write_survives=kept)
        state = self.stage.servers[node].disk.hard_state
        terms = " ".join(str(entry.term) for entry in self.stage.servers[node].disk.entries) or "-"
        self.stage.note(f"  {node} is down; its disk holds {terms} {hard_state_text(state)}")

    def do_start(self, words: Words) -> list[str] | None:
        node = self.node_id(words, up=False)
        self.stage.start(node)
        self.stage.note(f"  {self.stage.states([node])[0]}")
        self.pump(node)
        return None

    def do_eligible(self, words: Words) -> None:
        node = self.node_id(words)
        self.stage.node(node).eligible = words.choice("the answer", "yes", "no") == "yes"
        self.pump(node)

    # -------------------------------------------------------------------- messages

    def do_deliver(self, words: Words) -> None:
        for message in self.under_way(words):
            self._take(message)
            self.stage.arrive(message)

    def do_drop(self, words: Words) -> None:
        for message in self.under_way(words):
            self._take(message)
            self.stage.note(f"{message_text(message)} (dropped)")

    def do_copy(self, words: Words) -> None:
        for message in self.under_way(words):
            self.stage.arrive(message)

    def _take(self, message: Message) -> None:
        """Take exactly this object out of the network: an equal one may be under way, too."""
        network = self.stage.network
        del network[next(place for place, other in enumerate(network) if other is message)]

    def do_settle(self, words: Words) -> None:
        self.stage.settle()

    def do_cut(self, words: Words) -> None:
        word = words.word("the link")
        if "->" in word:
            one, other = word.split("->")
            self.stage.cut(to_number("the node", one), to_number("the node", other), both=False)
        else:
            self.stage.cut(to_number("the node", word), self.node_id(words, up=None))

    def do_heal(self, words: Words) -> None:
        self.stage.heal()

    def do_network(self, words: Words) -> list[str]:
        return [message_text(message) for message in self.stage.network]

    # ------------------------------------------------------ disks and state machines

    def do_disk(self, words: Words) -> None:
        node = self.node_id(words)
        if words.choice("the speed", "slow", "prompt") == "slow":
            self.stage.slow_disks.add(node)
            return
        self.stage.slow_disks.discard(node)
        server = self.stage.servers[node]
        while server.writing is not None or server.fetches:
            if server.writing is not None:
                self.stage.end_write(node)
            else:
                self.stage.complete_fetch(server)
                self.pump(node)

    def do_persist(self, words: Words) -> None:
        node = self.node_id(words)
        if self.stage.servers[node].writing is None:
            raise CommandError(f"node {node} writes nothing")
        self.stage.end_write(node)

    def do_fetch(self, words: Words) -> None:
        node = self.node_id(words)
        if not self.stage.servers[node].fetches:
            raise CommandError(f"node {node} wants nothing back from its disk")
        self.stage.complete_fetch(self.stage.servers[node])
        self.pump(node)

    def do_applier(self, words: Words) -> None:
        node = self.node_id(words)
        if words.choice("the speed", "slow", "prompt") == "slow":
            self.stage.slow_appliers.add(node)
            return
        self.stage.slow_appliers.discard(node)
        while self.stage.applying[node]:
            self.stage.end_apply(node)

    def do_apply(self, words: Words) -> None:
        node = self.node_id(words)
        if not self.stage.applying[node]:
            raise CommandError(f"node {node} applies nothing")
        self.stage.end_apply(node)

    # --------------------------------------------------------------------- clients

    def do_propose(self, words: Words) -> None:
        node = self.node_id(words)
        payloads = [words.word("the payload")]
        while words.more():
            payloads.append(words.word("the payload"))
        for payload in payloads:
            if not self.stage.propose(node, payload.encode()):
                self.stage.note(f"  {node} refuses {payload}")
        self.pump(node)

    def do_read(self, words: Words) -> None:
        node = self.node_id(words)
        for _ in range(words.number("the number of reads", 1)):
            context = self.stage.read(node)
            self.stage.note(f"  {node} takes read {context}" if context else f"  {node} refuses a read")
        self.pump(node)

    def do_config(self, words: Words) -> None:
        node = self.node_id(words)
        old = self.stage.node(node).configuration
        new = msgspec.structs.replace(
            old,
            **{
                name: words.numbers(name, getattr(old, name))
                for name in ("voters", "outgoing", "learners", "removed")
            },
        )
        try:
            index = self.stage.node(node).propose_entry(EntryKind.MEMBERSHIP, encode_configuration(new))
        except InvariantError as error:
            self.stage.note(f"  {node} refuses: {error}")
            return
        if index is None:
            self.stage.note(f"  {node} refuses the configuration")
        self.pump(node)

    def do_change(self, words: Words) -> None:
        node = self.node_id(words)
        asked = self.stage.node(node)
        if not (words.more() and words.choice("the wish", "again")):
            add = [Member(new, f"peer:{new}") for new in words.numbers("add")]
            self._asked = fingerprint(asked.configuration), add, words.numbers("remove")
        if not asked.request_change(1, *self._asked):
            self.stage.note(f"  {node} knows no leader")
        self.pump(node)

    # --------------------------------------------------------------------- looking

    def do_status(self, words: Words) -> list[str]:
        return self.stage.states([self.node_id(words, up=None)] if words.more() else ())

    def do_logs(self, words: Words) -> list[str]:
        return [f"{server.id}: {terms_text(server)}" for server in self.stage.running()]
