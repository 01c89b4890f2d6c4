"""The state that all rules share. The rules themselves are functions in modules per concern.

`Node` (node.py) is the public face of this object; `transitions.py` the only place that changes `state`.
"""

from __future__ import annotations

from random import Random
from typing import TypeAlias

from balsadb.errors import InvariantError
from balsadb.raft.configuration import ConfigurationLog, decode_configuration
from balsadb.raft.durability import Durability
from balsadb.raft.entry import Entry
from balsadb.raft.log import Log
from balsadb.raft.messages import ChangeResponse, Message
from balsadb.raft.options import Options, Recovered
from balsadb.raft.quorum import Halves, halves_of
from balsadb.raft.ready import Fetch, LogStart, ReadState
from balsadb.raft.roles import Candidate, Follower, Leader, PreCandidate
from balsadb.raft.types import NOBODY, Configuration, EntryKind, Index, Millis, NodeId, Term

RoleState: TypeAlias = Follower | PreCandidate | Candidate | Leader


class Core:
    """One node's consensus state, without behaviour of its own beyond keeping it consistent."""

    def __init__(
        self,
        node_id: NodeId,
        initial: Configuration,
        recovered: Recovered,
        options: Options,
        random: Random,
        wall_ms: Millis,
        applied: Index,
        boot: int,
    ) -> None:
        """Build the state of a follower from what storage recovered."""
        options.validate()
        self.id: NodeId = node_id
        self.options = options
        self.random = random
        self.boot = boot
        self.eligible = True
        """False: neither votes, campaigns nor acknowledges as a voter (rule W5). The driver sets it."""
        self.told_removed = False
        """True when another node has said that this one was removed (rule M1)."""
        self.installing = False
        """True while a state of another node takes the place of this one's: no time to lead."""
        self.term: Term = recovered.hard_state.term
        """Latest term seen; perhaps not yet durable."""
        self.vote: NodeId = recovered.hard_state.vote
        """Who got this node's vote in `term`."""
        self.log = Log(recovered, max(applied, recovered.first_index - 1), options.cache_bytes_max)
        self.stateless = applied < self.log.base_index
        """True when the entries between the state and the log are gone: only another node's state helps. The
        log is whole, so the node votes and acknowledges; it neither applies nor campaigns (rule W5)."""
        self.disk = Durability(self.log, recovered.hard_state)
        self.configurations = ConfigurationLog(0, initial)
        self.configuration: Configuration = initial
        """In force: that of the newest MEMBERSHIP entry in the log, committed or not."""
        self.halves: Halves = halves_of(initial)
        self.now = 0
        """Ticks since the start."""
        self.wall_ms = wall_ms
        """The wall clock as last told; only ever a hint for log time (rule S6)."""
        self.steady_ms: Millis = wall_ms
        """A clock that counts time and never jumps, as last told."""
        self.outbox: list[Message] = []
        self.reads_ready: list[ReadState] = []
        self.reads_dropped: list[int] = []
        self.fetches: list[Fetch] = []
        self.snapshots: list[tuple[NodeId, Index]] = []
        """Followers that need the state sent, each with the least index that is of use."""
        self.answers: list[ChangeResponse] = []
        """Answers to requests for other members that were made here."""
        self.read_counter = 0
        """Names read-index requests; never reused within a boot (rule R3)."""
        self.handed_index: Index = self.log.applied_index
        """Committed entries up to here were handed out to be applied."""
        self.apply_fetch: Fetch | None = None
        """Entries asked back from the WAL in order to be applied."""
        self.apply_fetched: tuple[Entry, ...] = ()
        """Entries that came back and were not yet handed out."""
        if self.term < self.log.last_term:
            raise InvariantError(f"recovered term {self.term} is below the log's last {self.log.last_term}")
        for entry in recovered.memberships:
            self.configurations.append(entry.index, decode_configuration(entry.payload))
        self.configurations.committed(self.log.commit_index)
        self.state: RoleState = Follower(
            NOBODY, self.log.commit_index, options.election_ticks + self.random_ticks(), 0
        )
        self.adopt_configuration()

    # ------------------------------------------------------------------- small

    def tell_time(self, wall_ms: Millis, steady_ms: Millis | None) -> None:
        """Note both clocks. Without a steady one the wall clock is taken for steady."""
        self.wall_ms = wall_ms
        self.steady_ms = wall_ms if steady_ms is None else steady_ms

    def random_ticks(self) -> int:
        """Return a random part of an election timeout (Raft paper, 5.2: it keeps votes from splitting)."""
        return self.random.randrange(self.options.election_ticks)

    def short_ticks(self) -> int:
        """Return the short random delay of a fast fail-over (rule M3)."""
        return self.random.randint(1, self.options.lost_ticks_max)

    @property
    def removed(self) -> bool:
        """Tell whether this node's removal is committed. Its id never comes back (rule P5)."""
        return self.told_removed or self.id in self.configurations.gone

    def may_campaign(self) -> bool:
        """Tell whether this node may try to lead. Learners, amnesiacs, the removed may not (M1, M3, W5)."""
        busy = self.installing or self.stateless
        return self.eligible and not busy and not self.removed and self.configurations.may_vote(self.id)

    def may_grant(self) -> bool:
        """Tell whether this node's vote is worth something (rules M1, W5)."""
        return self.eligible and not self.removed

    def may_acknowledge(self) -> bool:
        """Tell whether an answer in this term may go out: the term is durable and the node remembers all.

        A voter that is not eligible may have forgotten a vote for a newer leader. Its acknowledgement
        could complete an old leader's majority, so it sends none (rule W5); a learner's completes nothing.
        Behind an installed state nothing is acknowledged before the log on disk begins there: a log that
        begins at 1 would take a state that is lost afterwards for one that never was.
        """
        disk = self.disk
        return (
            disk.term == self.term
            and not disk.restarting
            and (self.eligible or not self.configurations.may_vote(self.id))
        )

    def hold(self, message: Message) -> None:
        """Send a message as soon as everything that is true now is on this node's disk."""
        if not self.disk.hold(message, self.term, self.vote):
            self.outbox.append(message)

    # --------------------------------------------------------------------- log

    def append(self, entry: Entry) -> None:
        """Append an entry, own or received; a configuration in it is in force from now on."""
        self.log.append(entry)
        if entry.kind is EntryKind.MEMBERSHIP:
            self.configurations.append(entry.index, decode_configuration(entry.payload))
            self.adopt_configuration()

    def truncate(self, first: Index) -> None:
        """Remove a suffix that conflicts with the leader's log."""
        self.log.truncate(first)
        self.disk.truncated()
        if self.configurations.truncate(first):
            self.adopt_configuration()

    def compact(self, index: Index) -> None:
        """Let the log begin behind `index`, which a durable cut of the state includes (thesis 5.1)."""
        term = self.log.term_at(index)
        self.log.compact(index)
        self.disk.start_at(LogStart(index, term, True))

    def restore(self, index: Index, term: Term, time_ms: Millis, configuration: Configuration) -> None:
        """Go on from an installed state, which is newer than what is applied here (rule C4).

        When the log has the state's last entry, its entries stay (Raft paper, figure 13). Otherwise all go:
        they don't continue the state, and up to it nothing is lost.
        """
        log = self.log
        if log.term_at(index) == term:
            if index > log.commit_index:
                self.commit_to(index)
            log.applied_index = index
            self.configurations.rebase(index, configuration)
            self.adopt_configuration()
            if log.base_index < index <= log.durable_index:
                self.compact(index)
        else:
            log.restart(index, term, time_ms)
            self.configurations = ConfigurationLog(index, configuration)
            self.adopt_configuration()
            self.disk.start_at(LogStart(index, term, False))
        self.handed_index = index
        self.apply_fetch, self.apply_fetched = None, ()
        self.installing = self.stateless = False

    def wants(self, index: Index) -> bool:
        """Tell whether a state as of `index` is newer than what this node has."""
        return index >= self.log.base_index if self.stateless else index > self.log.applied_index

    def adopt_configuration(self) -> None:
        """Act by the configuration that is now in force."""
        self.configuration = self.configurations.current
        self.halves = halves_of(self.configuration)
        if isinstance(self.state, Leader):
            self.state.adopt(self.configuration, self.log.last_index + 1, self.now)

    def commit_to(self, index: Index) -> None:
        """Move the commit index on."""
        log = self.log
        if not log.commit_index < index <= log.last_index:
            raise InvariantError(
                f"commit index can't move from {log.commit_index} to {index}; last index {log.last_index}"
            )
        log.commit_index = index
        self.configurations.committed(index)
