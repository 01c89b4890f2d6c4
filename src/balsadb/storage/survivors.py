"""What is left of a cluster that has lost its majority: the safest log, and what may be missing from it.

The choice is that of an election (Raft paper, 5.4.1): the log whose last entry has the greatest term, and of
those the longest one. Among logs of which every quorum has at least one, it holds every acknowledged entry,
so such a recovery loses nothing. Where the nodes that can't be read are a quorum by themselves, they may have
acknowledged entries that nobody else has ever seen.

A log only counts when it certainly holds all that its node had acknowledged: a damaged one, one that ends
before its noted end, and that of a directory which was never admitted to vote do not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec

from balsadb.errors import UsageError
from balsadb.raft.types import NOBODY, Configuration, Index, Member, NodeId, Term
from balsadb.storage.inspect import Report, Start
from balsadb.storage.meta import Meta

NEVER_ADMITTED: Final = (
    "this directory was never admitted to vote: another one may have acknowledged under its id"
)


class Survivor(msgspec.Struct, frozen=True):
    """What one node of the cluster still has."""

    place: str
    """Its directory, or the address of its server."""
    node: NodeId = NOBODY
    """`NOBODY` when not even that can be read."""
    cluster_id: bytes = b""
    beginning: str = ""
    """The `--cluster` text; tells clusters apart that have no id yet."""
    term: Term = 0
    vote: NodeId = NOBODY
    last_index: Index = 0
    last_term: Term = 0
    commit: Index = 0
    """Known to be committed."""
    applied: Index = 0
    configuration: Configuration | None = None
    """In force here: the newest in the log, committed or not."""
    process: int | None = None
    """Process that uses the directory now."""
    whole: bool = True
    """Its log certainly holds all that the node had acknowledged."""
    unfit: str = ""
    """Why the cluster can't go on from it; empty when it can."""

    @property
    def end(self) -> tuple[Term, Index]:
        """What elections compare."""
        return self.last_term, self.last_index


class Judgement(msgspec.Struct, frozen=True):
    """What can be done with the survivors."""

    survivors: list[Survivor]
    chosen: Survivor | None
    """The safest one; None when none is fit."""
    configuration: Configuration
    """In force there."""
    missing: list[NodeId]
    """Voters whose log was not read, or does not count."""
    term: Term
    """The greatest that any of the survivors knows."""

    @property
    def majority(self) -> bool:
        """Tell whether the logs that count are those of a quorum: started again, they elect a leader."""
        read = self._read
        quorum = all(_is_majority(half & read, half) for half in _halves(self.configuration))
        return quorum and self._longest

    @property
    def lossless(self) -> bool:
        """Tell whether the chosen log certainly holds every entry that was ever acknowledged."""
        return self._longest and not (self.contradicting or self.silent_majority)

    @property
    def silent_majority(self) -> bool:
        """Tell whether nodes that were not read may have decided without any of those that were."""
        # A joint configuration may never have been committed. Then either half was enough by itself.
        read = self._read
        return any(_is_majority(half - read, half) for half in _halves(self.configuration))

    @property
    def contradicting(self) -> list[Survivor]:
        """Survivors that know entries to be committed which the chosen log lacks: some disk has lost data."""
        chosen = self.chosen
        if chosen is None:
            return []
        return [s for s in self.survivors if s.whole and s.commit > chosen.last_index]

    @property
    def unconfirmed(self) -> range:
        """Entries of the chosen log that nobody here knows to be committed."""
        if self.chosen is None:
            return range(0)
        known = max(s.commit for s in self.survivors if s.whole or s is self.chosen)
        return range(min(known, self.chosen.last_index) + 1, self.chosen.last_index + 1)

    @property
    def longer(self) -> list[Survivor]:
        """Survivors with a longer log than the chosen one, which can't be used."""
        chosen = self.chosen
        return [] if chosen is None else [s for s in self.survivors if s.end > chosen.end]

    @property
    def _longest(self) -> bool:
        """Tell whether the chosen log is the safest one of all, and not just of those that can be used.

        A node without its state votes, and gives its vote to nobody with less, but can't be elected itself.
        """
        return not any(survivor.whole for survivor in self.longer)

    @property
    def _read(self) -> set[NodeId]:
        return {survivor.node for survivor in self.survivors if survivor.whole}


def _halves(configuration: Configuration) -> list[set[NodeId]]:
    return [set(half) for half in (configuration.voters, configuration.outgoing) if half]


def _is_majority(part: Collection[NodeId], half: Collection[NodeId]) -> bool:
    return len(part) > len(half) // 2


def judge(survivors: Sequence[Survivor]) -> Judgement:
    """Choose the safest log. Raises UsageError when the survivors are not of one cluster."""
    survivors = _without_former(survivors)
    _check_one_cluster([survivor for survivor in survivors if survivor.whole])
    fit = [survivor for survivor in survivors if not survivor.unfit]
    chosen = max(fit, key=_rank, default=None)
    configuration = Configuration(())
    if chosen is not None and chosen.configuration is not None:
        configuration = chosen.configuration
    read = {survivor.node for survivor in survivors if survivor.whole}
    voters = {*configuration.voters, *configuration.outgoing}
    return Judgement(
        survivors=survivors,
        chosen=chosen,
        configuration=configuration,
        missing=sorted(voters - read),
        term=max((survivor.term for survivor in survivors), default=0),
    )


def _rank(survivor: Survivor) -> tuple[Term, Index, bool, Index, NodeId]:
    configuration = survivor.configuration
    votes = configuration is not None and configuration.is_voter(survivor.node)
    return (*survivor.end, votes, survivor.commit, -survivor.node)


def _without_former(survivors: Iterable[Survivor]) -> list[Survivor]:
    """Set survivors apart that missed a recovery: their cluster is no more (rule M4)."""
    survivors = list(survivors)
    former = {id for s in survivors if s.configuration is not None for id in s.configuration.former}
    reason = "it belongs to the cluster as it was before a recovery, and counts no more"
    return [
        msgspec.structs.replace(survivor, unfit=reason, whole=False)
        if survivor.cluster_id in former
        else survivor
        for survivor in survivors
    ]


def _check_one_cluster(survivors: Sequence[Survivor]) -> None:
    # Those with an id first: one without could belong to the cluster of either of two others.
    survivors = sorted(survivors, key=lambda survivor: not survivor.cluster_id)
    for survivor in survivors[1:]:
        first = survivors[0]
        if survivor.cluster_id and first.cluster_id:
            same = survivor.cluster_id == first.cluster_id
        else:
            same = survivor.beginning == first.beginning
        if not same:
            raise UsageError(f"{first.place} and {survivor.place} belong to different clusters")
    places: dict[NodeId, str] = {}
    for survivor in survivors:
        other = places.setdefault(survivor.node, survivor.place)
        if other != survivor.place:
            raise UsageError(f"{other} and {survivor.place} are both of node {survivor.node}; name one")


# --------------------------------------------------------------------------- of a data directory


def survivor(report: Report) -> Survivor:
    """Say what a data directory is worth."""
    meta, start = report.meta, report.start
    if meta is None or start is None or not report.sound:
        finding = next((finding for finding in report.findings if finding.damage), None)
        reason = f"a node would not start on it: {finding.problem}" if finding else "no node has started here"
        node = NOBODY if meta is None else meta.node_id
        return Survivor(report.directory, node, process=report.process, whole=False, unfit=reason)
    configuration = start.configuration or initial(meta)
    hard_state = report.log.hard_state if report.log is not None else None
    held = report.state.bookkeeping if report.state is not None else None
    return Survivor(
        place=report.directory,
        node=meta.node_id,
        cluster_id=configuration.cluster_id or meta.cluster_id,
        beginning=meta.cluster_text,
        term=max(start.last_term, hard_state.term if hard_state else 0),
        vote=hard_state.vote if hard_state else NOBODY,
        last_index=start.last_index,
        last_term=start.last_term,
        commit=start.commit,
        applied=held.index if held is not None else 0,
        configuration=configuration,
        process=report.process,
        whole=meta.admitted,
        unfit=_unfit(meta, start, configuration),
    )


def initial(meta: Meta) -> Configuration:
    """Return the configuration before the first one in the log, as far as the node knows it."""
    if meta.joined:
        return Configuration((), cluster_id=meta.cluster_id)
    parts = [part.partition("=") for part in meta.cluster_text.split(",")]
    members = tuple(Member(int(node), address) for node, _, address in parts)
    return Configuration(voters=tuple(member.id for member in members), members=members)


def _unfit(meta: Meta, start: Start, configuration: Configuration) -> str:
    if not meta.admitted:
        return NEVER_ADMITTED
    if start.stateless:
        return "the state that its log continues is lost, and only another node has it"
    if meta.node_id not in configuration.everyone():
        return "it is not a member, as far as its own log says"
    if not configuration.cluster_id:
        return "its cluster had no id yet, so it holds next to nothing: begin a new cluster"
    return ""
