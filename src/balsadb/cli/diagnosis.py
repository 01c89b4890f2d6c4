"""What is wrong with a cluster, judged from what its servers say of themselves. No I/O.

Each rule looks for one thing and returns a sentence that says what is wrong, and one that says what to do.
The facts have the names of RAFT STATUS and RAFT MEMBERS; what a server does not tell is not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

SYNC_SLOW_US: Final = 50_000
"""A sync that takes longer is felt by everybody who writes."""
SYNC_UNFIT_US: Final = 250_000
"""A node with such a disk hands leadership over (`slow_write_ms`)."""
TURN_SLOW_US: Final = 100_000
LAG_MAX: Final = 20_000
"""Entries."""
SILENT_MS_MAX: Final = 3_000
CLOCKS_MS_MAX: Final = 1_000
LEADER_CHANGES_MAX: Final = 4
"""In ten minutes."""
DISK_FREE_MIN: Final = 0.05
DISK_FREE_BYTES_MIN: Final = 512 * 1024 * 1024
LOG_BYTES_MAX: Final = 1 << 30


class Severity(IntEnum):
    """How bad it is."""

    NOTE = 0
    """Worth knowing; nothing is wrong."""
    WARNING = 1
    """Wrong, but the cluster serves."""
    BROKEN = 2
    """The cluster does not serve, or what it says can't be relied on."""


@dataclass(frozen=True)
class Finding:
    """One thing that is the matter."""

    severity: Severity
    problem: str
    remedy: str


@dataclass
class Answer:
    """What one server said, or why it said nothing."""

    address: str
    facts: Mapping[str, Any] | None = None
    members: Sequence[Mapping[str, Any]] = ()
    error: str = ""
    """In brackets of a sentence, such as `connection refused`."""
    clock_ms: float | None = None
    """Its clock minus ours."""
    clock_doubt_ms: float = 0.0
    """How far that may be off, because the answer took time."""


@dataclass
class Cluster:
    """All answers together, and what follows from them."""

    answers: Sequence[Answer]
    nodes: dict[int, Answer] = field(default_factory=dict)
    """Those that answered, by id."""
    best: Answer | None = None
    """The leader of the newest term, or else who knows most: its view of the members counts."""

    def __post_init__(self) -> None:
        there = [answer for answer in self.answers if answer.facts is not None]
        self.nodes = {int(answer.facts["id"]): answer for answer in there if answer.facts}
        self.best = max(there, key=_knowledge, default=None)

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the best informed node says."""
        return self.best.facts if self.best is not None and self.best.facts is not None else {}

    @property
    def voters(self) -> set[int]:
        """Who votes, in both halves of a change."""
        return {*self.facts.get("voters", ()), *self.facts.get("outgoing_voters", ())}

    @property
    def leader(self) -> int:
        """Who leads, among those that answered; 0 for nobody."""
        return int(self.facts["id"]) if self.facts.get("role") == "leader" else 0

    @property
    def majority(self) -> int:
        """How many voters are needed."""
        return len(self.voters) // 2 + 1

    def missing(self) -> list[int]:
        """Return the members that did not answer."""
        members = {*self.voters, *self.facts.get("learners", ())}
        return sorted(members - set(self.nodes))

    def address_of(self, node: int) -> str:
        """Return where clients reach a member, as the others say."""
        told = self.best.members if self.best else ()
        return next((str(m["client_address"]) for m in told if m["id"] == node), "")

    def node_at(self, address: str) -> int:
        """Return which member that does not answer is at an address; 0: nobody knows."""
        return next((node for node in self.missing() if self.address_of(node) == address), 0)


def _knowledge(answer: Answer) -> tuple[bool, int, int]:
    facts = answer.facts or {}
    return facts.get("role") == "leader", facts.get("term", 0), facts.get("commit_index", 0)


def diagnose(answers: Sequence[Answer]) -> list[Finding]:
    """Return what is the matter, the worst first."""
    cluster = Cluster(answers)
    if not cluster.nodes:
        return [_nobody(answers)]
    ids = {str(a.facts["cluster_id"]) for a in answers if a.facts and a.facts.get("cluster_id")}
    if len(ids) > 1:
        return [_mixed(answers)]
    findings = [finding for rule in RULES for finding in rule(cluster)]
    return sorted(findings, key=lambda finding: -finding.severity)


def _nobody(answers: Sequence[Answer]) -> Finding:
    reasons = "; ".join(f"{answer.address}: {answer.error}" for answer in answers)
    remedy = "Start the servers, or say with --servers where they are."
    return Finding(Severity.BROKEN, f"no server answers ({reasons})", remedy)


def _mixed(answers: Sequence[Answer]) -> Finding:
    parts = [f"{a.address} to {str(a.facts.get('cluster_id', ''))[:8]}" for a in answers if a.facts]
    return Finding(
        Severity.BROKEN,
        f"the servers belong to different clusters: {', '.join(parts)}",
        "Ask the servers of one cluster only; if they should be one, a node runs on a wrong directory.",
    )


def _leadership(cluster: Cluster) -> Iterator[Finding]:
    claims = [node for node, facts in _facts(cluster) if facts.get("role") == "leader"]
    if len(claims) > 1:
        yield Finding(
            Severity.WARNING,
            f"{_nodes(claims)} all say that they lead",
            "At most one can commit anything, and the others step down when they hear no majority; "
            "if it lasts, look at the network between the nodes.",
        )
    if claims:
        return
    there = sorted(cluster.voters & set(cluster.nodes))
    named = {facts["leader"] for _, facts in _facts(cluster)} - {0}
    if len(there) < cluster.majority:
        if not named:
            yield Finding(
                Severity.BROKEN,
                f"nobody leads: {len(there)} of {len(cluster.voters)} voters "
                f"{'answers' if len(there) == 1 else 'answer'}, and {cluster.majority} are needed",
                f"Start {_nodes(sorted(cluster.voters - set(there)))}; the log of each says why it stopped. "
                "If a majority is lost for good: balsadb recover.",
            )
    elif not named:
        yield Finding(
            Severity.BROKEN,
            "nobody leads, though enough voters answer here",
            "Ask again; if it lasts, the nodes can't reach each other on their peer ports: check addresses "
            "and firewalls, and what the nodes log.",
        )
    for leader in sorted(named - set(cluster.nodes)):
        yield Finding(
            Severity.WARNING,
            f"node {leader} leads and does not answer here",
            "If clients don't reach it either, check its client port and the address that it advertises.",
        )


def _absent(cluster: Cluster) -> Iterator[Finding]:
    spare = len(cluster.voters & set(cluster.nodes)) - cluster.majority
    known = {cluster.node_at(answer.address) for answer in cluster.answers if answer.facts is None}
    for answer in cluster.answers:
        if answer.facts is None:
            node = cluster.node_at(answer.address)
            who = f"node {node} at {answer.address}" if node else f"{answer.address}"
            yield Finding(
                Severity.WARNING,
                f"{who} does not answer ({answer.error})" + _consequence(cluster, node, spare),
                _revive(answer.error)
                if node
                else "No member that the others know is there; check the address.",
            )
    for node in cluster.missing():
        if node not in known:
            yield Finding(
                Severity.WARNING,
                f"node {node} is a member and could not be asked" + _consequence(cluster, node, spare),
                "It has never told its client address, so it may never have started; "
                "balsadb member list says more.",
            )


def _revive(error: str) -> str:
    if error == "connection refused":  # its machine is there, its process is not
        return "Start it again; its log says why it stopped. If it is lost for good: balsadb member replace."
    return "Its process hangs, or its machine or the network is gone. If it is lost: balsadb member replace."


def _consequence(cluster: Cluster, node: int, spare: int) -> str:
    if node in cluster.voters and cluster.leader and spare == 0:
        return "; with one more loss the cluster stops"
    return ""


def _silent(cluster: Cluster) -> Iterator[Finding]:
    if not cluster.leader or cluster.best is None:
        return
    for member in cluster.best.members:
        node, silent_ms = member["id"], member.get("silent_ms", 0)
        if node in cluster.nodes and (silent_ms is None or silent_ms > SILENT_MS_MAX):
            since = "since it leads" if silent_ms is None else f"for {_seconds(silent_ms)}"
            yield Finding(
                Severity.WARNING,
                f"node {node} answers here, but its leader, node {cluster.leader}, has not heard it {since}",
                f"Check the network between the two: the peer address is {member['peer_address']}.",
            )


def _unready(cluster: Cluster) -> Iterator[Finding]:
    for node, facts in _facts(cluster):
        if not facts.get("ready", 1) and facts.get("leader"):
            reason = facts.get("unready") or "it does not say why"
            yield Finding(
                Severity.WARNING,
                f"node {node} runs and can't serve: {reason}",
                "It goes on by itself when it can; a node that was removed can be stopped for good.",
            )


def _alarms(cluster: Cluster) -> Iterator[Finding]:
    for node, facts in _facts(cluster):
        if facts.get("alarms"):
            yield Finding(
                Severity.BROKEN,
                f"node {node} skipped {facts['alarms']} entries of the log that it could not read",
                "This must never happen. Compare the nodes by balsadb digest, keep their data, report it.",
            )


def _disks(cluster: Cluster) -> Iterator[Finding]:
    for node, facts in _facts(cluster):
        sync_us = facts.get("sync_p99_us", 0)
        if sync_us >= SYNC_SLOW_US:
            effect = "it can't lead" if sync_us >= SYNC_UNFIT_US else "every write that needs it waits"
            yield Finding(
                Severity.WARNING,
                f"node {node}'s disk takes {sync_us / 1000:.0f} ms for a sync; {effect}",
                "See what else uses the disk, whether it is full or fails (dmesg); "
                "or replace the node: balsadb member replace.",
            )
        free, whole = facts.get("disk_free_bytes"), facts.get("disk_bytes")
        if free is not None and whole and (free < DISK_FREE_MIN * whole or free < DISK_FREE_BYTES_MIN):
            yield Finding(
                Severity.WARNING,
                f"node {node}'s disk is nearly full: {_bytes(free)} of {_bytes(whole)} are free",
                "Make room. A node that can't write stops, and a restart does not help it.",
            )
        if facts.get("log_bytes", 0) > LOG_BYTES_MAX:
            yield Finding(
                Severity.WARNING,
                f"node {node}'s log takes {_bytes(facts['log_bytes'])}",
                "It gets shorter when the state is on disk and no follower is being sent it; "
                "balsadb_cuts_waiting and balsadb_transfer_* of /metrics say what it waits for.",
            )


def _turns(cluster: Cluster) -> Iterator[Finding]:
    for node, facts in _facts(cluster):
        if facts.get("turn_p99_us", 0) >= TURN_SLOW_US:
            yield Finding(
                Severity.WARNING,
                f"node {node} is held up: turns of its loop take {facts['turn_p99_us'] / 1000:.0f} ms",
                "It has too little of a processor, or clients send commands that look at very many keys.",
            )


def _lags(cluster: Cluster) -> Iterator[Finding]:
    newest = max((facts.get("commit_index", 0) for _, facts in _facts(cluster)), default=0)
    for node, facts in _facts(cluster):
        lag = newest - facts.get("applied_index", newest)
        if lag > LAG_MAX and not facts.get("loading"):
            yield Finding(
                Severity.WARNING,
                f"node {node} is {lag:,} entries behind",
                "It catches up by itself if its disk, its processor and the network allow.",
            )


def _elections(cluster: Cluster) -> Iterator[Finding]:
    changes = max((facts.get("recent_leader_changes", 0) for _, facts in _facts(cluster)), default=0)
    if changes > LEADER_CHANGES_MAX:
        yield Finding(
            Severity.WARNING,
            f"the leader changed {changes} times in the last ten minutes",
            "/status and the dashboard give the reasons: slow disks, busy machines or a bad network.",
        )


def _clocks(cluster: Cluster) -> Iterator[Finding]:
    read = [
        (answer.clock_ms, answer.clock_doubt_ms, node)
        for node, answer in sorted(cluster.nodes.items())
        if answer.clock_ms is not None
    ]
    if len(read) < 2:
        return
    (behind, doubt, slow), (ahead, more_doubt, fast) = min(read), max(read)
    apart = ahead - behind
    if apart - doubt - more_doubt > CLOCKS_MS_MAX:
        yield Finding(
            Severity.WARNING,
            f"the clocks of nodes {slow} and {fast} are {_seconds(apart)} apart",
            "No promise depends on them, but expiry times that clients compute do. Let NTP run everywhere.",
        )


def _versions(cluster: Cluster) -> Iterator[Finding]:
    versions = {str(facts["version"]) for _, facts in _facts(cluster) if facts.get("version")}
    if len(versions) > 1:
        remedy = "Fine for the time of an upgrade; finish it."
        yield Finding(
            Severity.NOTE, f"the nodes run different versions: {', '.join(sorted(versions))}", remedy
        )


def _shape(cluster: Cluster) -> Iterator[Finding]:
    facts, voters = cluster.facts, len(cluster.voters)
    if facts.get("outgoing_voters") or facts.get("promote"):
        yield Finding(
            Severity.NOTE, "a change of the members is under way", "balsadb member list says how far it is."
        )
    elif voters == 1:
        yield Finding(
            Severity.NOTE,
            "there is one voter: the loss of its disk is the loss of everything",
            "Three are the least that survive one: balsadb member add.",
        )
    elif voters % 2 == 0:
        yield Finding(
            Severity.NOTE,
            f"{voters} voters survive no more losses than {voters - 1}",
            "Add one or remove one: balsadb member.",
        )
    for learner in sorted(set(facts.get("learners", ())) - set(facts.get("promote", ()))):
        remedy = "As intended, or balsadb member remove."
        yield Finding(Severity.NOTE, f"node {learner} listens and does not vote", remedy)


RULES: Final[Sequence[Callable[[Cluster], Iterator[Finding]]]] = (
    _leadership,
    _alarms,
    _absent,
    _silent,
    _unready,
    _disks,
    _turns,
    _lags,
    _elections,
    _clocks,
    _versions,
    _shape,
)


def _facts(cluster: Cluster) -> list[tuple[int, Mapping[str, Any]]]:
    return [(node, answer.facts) for node, answer in sorted(cluster.nodes.items()) if answer.facts]


def _nodes(ids: Sequence[int]) -> str:
    return f"node {ids[0]}" if len(ids) == 1 else f"nodes {', '.join(map(str, ids))}"


def _seconds(ms: float) -> str:
    return f"{ms / 1000:.1f} s" if ms < 10_000 else f"{ms / 1000:.0f} s"


def _bytes(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"
