"""The four roles, each with only its own data (Raft paper, Figure 4).

    follower -> pre-candidate -> candidate -> leader
        ^____________|______________|__________|

Leaving a role drops its object: no stale vote, progress or read can outlive it. `transitions.py` holds the
only ways from one to another.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from balsadb.raft.progress import Progress
from balsadb.raft.types import NOBODY, NUMBER_MAX, Configuration, Index, NodeId, Round


class Role(Enum):
    """Which role a node has."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Follower:
    """Takes entries from a leader, if it knows one."""

    __slots__ = (
        "ack_due",
        "acked",
        "deadline",
        "elapsed",
        "hurry_until",
        "leader",
        "leader_commit",
        "reads_sent",
        "reads_unsent",
        "round_acked",
        "round_due",
        "round_echo",
        "round_seen",
        "verified",
    )
    role = Role.FOLLOWER

    def __init__(self, leader: NodeId, verified: Index, deadline: int, hurry_until: int) -> None:
        """Begin. `verified` is the commit index: the committed prefix equals every leader's."""
        self.leader = leader
        """`NOBODY` when unknown."""
        self.elapsed = 0
        """Ticks since the leader was heard, or since a vote was granted."""
        self.deadline = deadline
        """Campaign when `elapsed` reaches it."""
        self.hurry_until = hurry_until
        """Until this tick a refused pre-vote is repeated after a short delay (rule M3); 0 for never."""
        self.verified: Index = verified
        """The log equals the leader's up to here; in memory, perhaps not yet on disk."""
        self.leader_commit: Index = 0
        """Highest commit index that this term's leader has told."""
        self.acked: Index = -1
        """Highest index acknowledged to this leader; -1 for none."""
        self.ack_due = False
        """An `AppendResponse` is owed."""
        self.round_seen: Round = 0
        """Newest round received from this leader."""
        self.round_acked: Round = 0
        """Newest round acknowledged."""
        self.round_due = False
        """A `RoundAck` is owed."""
        self.round_echo: Index = 0
        """`Heartbeat.sent` to be echoed."""
        self.reads_unsent: list[int] = []
        """Contexts that join the next `ReadIndexRequest`."""
        self.reads_sent: dict[int, tuple[int, list[int]]] = {}
        """By counter: (tick when sent, contexts)."""


class PreCandidate:
    """Asks whether it would be elected, without disturbing anybody (thesis 9.6)."""

    __slots__ = ("deadline", "elapsed", "hurry_until", "votes")
    role = Role.PRE_CANDIDATE
    leader: NodeId = NOBODY

    def __init__(self, deadline: int, hurry_until: int) -> None:
        """Begin without votes."""
        self.elapsed = 0
        self.deadline = deadline
        """Ask again when `elapsed` reaches it."""
        self.hurry_until = hurry_until
        self.votes: dict[NodeId, bool] = {}
        """Who answered, and what."""


class Candidate:
    """Asks for votes in its own term (Raft paper, 5.2)."""

    __slots__ = ("deadline", "elapsed", "hurry_until", "offsets", "votes")
    role = Role.CANDIDATE
    leader: NodeId = NOBODY

    def __init__(self, deadline: int, hurry_until: int) -> None:
        """Begin without votes; the own one counts once it is on disk."""
        self.elapsed = 0
        self.deadline = deadline
        """Give up and pre-vote again when `elapsed` reaches it."""
        self.hurry_until = hurry_until
        self.votes: dict[NodeId, bool] = {}
        """Who answered, and what."""
        self.offsets: dict[NodeId, int] = {}
        """Clock offsets that came with the votes (rule S6)."""


class PendingRead:
    """One read that waits for leadership to be confirmed."""

    __slots__ = ("boot", "counter", "index", "source")

    def __init__(self, source: NodeId, boot: int, counter: int, index: Index) -> None:
        """Name it."""
        self.source = source
        """Who asked. Its request counts as its acknowledgement for this read (rule R4)."""
        self.boot = boot
        self.counter = counter
        """For the leader's own reads the context."""
        self.index = index
        """The read index, fixed at arrival (rule R1)."""


class Leader:
    """Replicates its log and confirms reads."""

    __slots__ = (
        "_id",
        "clock_offset",
        "dirty",
        "elapsed",
        "first_index",
        "handovers",
        "leader",
        "matches",
        "notify",
        "origins",
        "outstanding",
        "outstanding_bytes",
        "peers",
        "progress",
        "reads_count",
        "reads_pending",
        "reads_unsent",
        "round",
        "rounds",
        "transfer_to",
        "transfer_until",
    )
    role = Role.LEADER

    def __init__(self, node: NodeId, first_index: Index, origins_max: int) -> None:
        """Begin in a term whose first entry, the no-op, will be at `first_index`."""
        self._id = node
        self.leader = node
        self.first_index = first_index
        """Index of the no-op: no read is served below it (rule R1)."""
        self.elapsed = 0
        """Ticks since the last heartbeat."""
        self.dirty = True
        """Something may have to be sent."""
        self.progress: dict[NodeId, Progress] = {}
        """All other members."""
        self.peers: list[Progress] = []
        """The same, sorted by id."""
        self.matches: dict[NodeId, Index] = {node: 0}
        """Match index of every member; this node's is its durable index."""
        self.rounds: dict[NodeId, Round] = {node: NUMBER_MAX}
        """Newest round acknowledged by every member; this node follows itself in any round."""
        self.round: Round = 0
        """Newest round in any message of this term (rule R2)."""
        self.reads_unsent: list[PendingRead] = []
        """Reads that wait for the next round to begin."""
        self.reads_pending: deque[tuple[Round, list[PendingRead]]] = deque()
        """Reads by the round that confirms them, in order."""
        self.reads_count = 0
        """Reads in both."""
        self.origins: deque[tuple[Index, NodeId]] = deque(maxlen=origins_max)
        """(index, node that proposed it), uncommitted, for rule P7. Ascending."""
        self.notify: set[NodeId] = set()
        """Nodes that must hear of the commit index at once."""
        self.outstanding: deque[tuple[Index, int]] = deque()
        """(index, bytes) of proposals not yet committed, durable and applied (rule B1)."""
        self.outstanding_bytes = 0
        self.transfer_to: NodeId = NOBODY
        """Who is to lead next; `NOBODY` when no transfer is under way. Nothing is proposed meanwhile."""
        self.transfer_until = 0
        """Tick at which the transfer is given up."""
        self.handovers = 0
        """How often it tried to hand over because it is to leave the cluster."""
        self.clock_offset = 0
        """Log time minus this node's steady clock (rule S6)."""

    def adopt(self, configuration: Configuration, next_index: Index, now: int) -> None:
        """Track exactly the members of `configuration`; newcomers are probed at `next_index`."""
        members = [node for node in configuration.everyone() if node != self._id]
        progress: dict[NodeId, Progress] = {}
        for node in members:
            known = self.progress.get(node) or Progress(node, next_index, now, False)
            known.votes = configuration.is_voter(node)
            progress[node] = known
        self.progress = progress
        self.peers = list(progress.values())
        for numbers in (self.matches, self.rounds):
            for node in set(numbers) - {self._id, *members}:
                del numbers[node]
        self.dirty = True

    def release(self, floor: Index) -> None:
        """Forget proposals that are committed, durable and applied (rule B1)."""
        outstanding = self.outstanding
        while outstanding and outstanding[0][0] <= floor:
            self.outstanding_bytes -= outstanding.popleft()[1]
