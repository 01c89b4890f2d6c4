"""Configurations in the log: their encoding, which one is in force, and which change is legal.

A configuration takes effect as soon as it is appended (thesis 4.1). So when a suffix of the log is
truncated, the node returns to the configuration that was in force before it (rule M2).
"""

from __future__ import annotations

import google_crc32c
import msgspec

from balsadb.errors import InvariantError, ProtocolError
from balsadb.raft.types import Configuration, Index, NodeId

_DECODER = msgspec.msgpack.Decoder(Configuration)


def encode_configuration(configuration: Configuration) -> bytes:
    """Encode a configuration as the payload of a MEMBERSHIP entry."""
    return msgspec.msgpack.encode(configuration)


def fingerprint(configuration: Configuration) -> int:
    """Return a number by which two nodes know whether they speak of the same configuration.

    The index of its entry would not do: a node that began with a state does not know it. No configuration
    comes twice, but for a client address that moves there and back, since removed ids stay in it.
    """
    return int(google_crc32c.value(encode_configuration(configuration)))


def decode_configuration(payload: bytes) -> Configuration:
    """Decode the payload of a MEMBERSHIP entry. Raises ProtocolError when it is malformed."""
    try:
        return _DECODER.decode(payload)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"a MEMBERSHIP entry holds no configuration: {error}") from error


def change_fault(old: Configuration, new: Configuration) -> str | None:
    """Say why `new` must not follow `old`, or return None when it may.

    Voters change only through a joint configuration (thesis 4.3): a step enters it, and a second one
    leaves it. Any other step could let two disjoint majorities decide.
    """
    if not new.voters:
        return "a configuration without voters can decide nothing"
    if set(new.learners) & {*new.voters, *new.outgoing}:
        return "a learner can't vote at the same time"
    if set(new.removed) & set(new.everyone()):
        return "a removed node id can't come back (rule P5)"
    if not (set(new.promote) <= set(new.learners) and set(new.retire) <= set(new.voters)):
        return "only learners can be promoted, and only voters can retire for them"
    if new.outgoing and new.promote:
        return "a joint configuration is finished before the next change begins (rule M2)"
    if not set(old.removed) <= set(new.removed):
        return "a removed node id can't be forgotten (rule P5)"
    same_voters = new.voters == old.voters
    if old.outgoing:
        legal = same_voters and new.outgoing in ((), old.outgoing)
    else:
        legal = (same_voters and not new.outgoing) or new.outgoing == old.voters
    if not legal:
        return (
            f"voters {old.voters} (outgoing {old.outgoing}) can't become {new.voters} "
            f"(outgoing {new.outgoing}) in one step"
        )
    return None


class ConfigurationLog:
    """The configurations of all uncommitted entries, over the newest committed one."""

    __slots__ = ("_steps", "current", "gone", "index")

    def __init__(self, index: Index, configuration: Configuration) -> None:
        """Begin with the configuration in force at `index` (0: the initial one)."""
        self._steps: list[tuple[Index, Configuration]] = [(index, configuration)]
        self.current = configuration
        """In force now."""
        self.index = index
        """Index of the entry that brought `current`."""
        self.gone = configuration.removed
        """Ids whose removal is committed, so that no truncation can undo it."""

    def append(self, index: Index, configuration: Configuration) -> None:
        """Take the configuration of an appended entry."""
        if index <= self.index:
            raise InvariantError(f"configuration of entry {index} appended after that of {self.index}")
        self._steps.append((index, configuration))
        self.current, self.index = configuration, index

    def rebase(self, index: Index, configuration: Configuration) -> None:
        """Take the configuration inside an installed state of `index`, behind which the log is kept.

        Nothing of before counts any more: a node that had lost its state may not have known of it at all.
        """
        later = [step for step in self._steps if step[0] > index]
        self._steps = [(index, configuration), *later]
        self.index, self.current = self._steps[-1]
        self.gone = configuration.removed

    def truncate(self, first: Index) -> bool:
        """Forget configurations at `first` and above; tell whether the one in force changed."""
        if self.index < first:
            return False
        while self._steps and self._steps[-1][0] >= first:
            self._steps.pop()
        if not self._steps:
            raise InvariantError(f"truncation at {first} removes the only known configuration")
        self.index, self.current = self._steps[-1]
        return True

    @property
    def settled(self) -> Configuration:
        """The newest configuration that is known to be committed, so that no truncation can undo it."""
        return self._steps[0][1]

    def may_vote(self, node: NodeId) -> bool:
        """Tell whether `node` votes in the configuration in force, or in one that might come back.

        A leader may append the configuration that removes it and crash; the entry then lies on it alone.
        As nobody else has a log that long, nobody else can be elected by its vote: it must campaign until
        that configuration is committed (thesis 4.2.2).
        """
        return any(configuration.is_voter(node) for _, configuration in self._steps)

    def committed(self, commit: Index) -> None:
        """Forget what can't be returned to any more, because a newer configuration is committed."""
        steps = self._steps
        while len(steps) > 1 and steps[1][0] <= commit:
            del steps[0]
        self.gone = steps[0][1].removed
