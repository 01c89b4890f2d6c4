"""How a script's trace writes messages, entries and the state of nodes: short, complete, and always the same.

An entry is `index@term`, followed by what it carries. A number that is missing from a message is 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from raft_cluster import Server

from balsadb.raft.configuration import decode_configuration
from balsadb.raft.entry import Entry, decode_entry
from balsadb.raft.membership import Verdict
from balsadb.raft.messages import (
    Append,
    AppendResponse,
    ChangeRequest,
    ChangeResponse,
    CommitAdvance,
    Heartbeat,
    Message,
    Propose,
    ProposeRejected,
    ReadIndexRequest,
    ReadIndexResponse,
    RoundAck,
    VoteRequest,
    VoteResponse,
)
from balsadb.raft.progress import Pace
from balsadb.raft.ready import WriteBatch
from balsadb.raft.roles import Candidate, Follower, Leader
from balsadb.raft.types import NOBODY, Configuration, EntryKind, HardState, Index, Term


def configuration_text(configuration: Configuration) -> str:
    names = ("voters", "outgoing", "learners", "promote", "retire", "removed")
    parts = {name: getattr(configuration, name) for name in names}
    return ", ".join(f"{name} {_list(nodes)}" for name, nodes in parts.items() if nodes)


def _list(numbers: Iterable[int]) -> str:
    return " ".join(map(str, numbers))


def position(index: Index, term: Term) -> str:
    return f"{index}@{term}"


def entry_text(entry: Entry) -> str:
    where = position(entry.index, entry.term)
    if entry.kind is EntryKind.NOOP:
        return f"{where} noop"
    if entry.kind is EntryKind.MEMBERSHIP:
        return f"{where} ({configuration_text(decode_configuration(entry.payload))})"
    if entry.kind is EntryKind.CLOCK:
        return f"{where} clock"
    if entry.payload == f"{entry.term}.{entry.index}".encode():
        return where  # one of those that a script gave a log to begin with
    return f"{where} {entry.payload.decode()}"


def entries_text(entries: Iterable[Entry]) -> str:
    return ", ".join(map(entry_text, entries))


def _numbers(**numbers: int) -> str:
    return "".join(f", {name.replace('_', ' ')} {number}" for name, number in numbers.items() if number)


def _append(message: Append) -> str:
    after = position(message.prev_index, message.prev_term)
    entries = entries_text(decode_entry(encoded) for encoded in message.entries) or "nothing"
    numbers = _numbers(commit=message.commit, round=message.round).removeprefix(", ")
    return f"after {after}: {entries}" + (f"; {numbers}" if numbers else "")


def _append_response(message: AppendResponse) -> str:
    if not message.rejected:
        return f"match {message.match}"
    if not message.prev_index:
        return "rejected"
    return f"rejected {message.prev_index}, may agree at {position(message.hint_index, message.hint_term)}"


def _payloads(payloads: Sequence[bytes]) -> str:
    return " ".join(payload.decode() for payload in payloads)


def message_text(message: Message) -> str:
    """Write one message in full, except for clocks: they only ever matter for log time."""
    kind = type(message).__name__
    if isinstance(message, VoteRequest | VoteResponse) and message.pre:
        kind = f"Pre{kind}"
    match message:
        case VoteRequest():
            text = f"log ends at {position(message.last_index, message.last_term)}"
            if message.transfer:
                text += ", ordered by the leader"
        case VoteResponse():
            text = "granted" if message.granted else "refused"
        case Append():
            text = _append(message)
        case AppendResponse():
            text = _append_response(message)
        case Heartbeat():
            text = _numbers(commit=message.commit, round=message.round, sent=message.sent)
        case RoundAck():
            text = _numbers(
                round=message.round, verified=message.verified, match=message.match, sent=message.sent
            )
        case Propose():
            text = _payloads(message.payloads)
        case ProposeRejected():
            text = "busy" if message.busy else "not the leader"
        case ReadIndexRequest():
            text = f"request {message.boot}.{message.counter}"
        case ReadIndexResponse():
            text = f"request {message.boot}.{message.counter}, index {message.index}"
        case CommitAdvance():
            text = f"commit {message.commit}"
        case ChangeRequest():
            text = change_text(message)
        case ChangeResponse():
            text = verdict_text(message)
        case _:
            text = ""
    text = f"{kind} t{message.term} {text.removeprefix(', ')}"
    return f"{message.source}->{message.target} {text.rstrip()}"


def change_text(message: ChangeRequest) -> str:
    """Write what an operator wants."""
    parts = {"add": [member.id for member in message.add], "remove": message.remove}
    text = ", ".join(f"{name} {_list(nodes)}" for name, nodes in parts.items() if nodes)
    return text or "nothing"


def verdict_text(message: ChangeResponse) -> str:
    """Write what became of it."""
    verdict = Verdict(message.verdict).name.lower()
    return f"{verdict}: {message.reason}" if message.reason else verdict


def write_text(batch: WriteBatch) -> str:
    parts = [entry_text(entry) for entry in batch.entries]
    if batch.hard_state is not None:
        parts.append(hard_state_text(batch.hard_state))
    return ", ".join(parts)


def hard_state_text(state: HardState) -> str:
    return f"[term {state.term}, vote {state.vote or 'none'}, commit {state.commit}]"


def role_text(server: Server) -> str:
    """Say what a node is, in which term, whom it follows and whom it voted for."""
    core = server.up.core
    state = core.state
    text = f"{server.id} {state.role.value} t{core.term}"
    if isinstance(state, Follower):
        text += f", leader {state.leader}" if state.leader != NOBODY else ", no leader"
    if isinstance(state, Follower | Candidate) or core.vote != NOBODY:
        text += f", vote {core.vote}" if core.vote != NOBODY else ", no vote"
    return text


def progress_texts(server: Server) -> dict[int, str]:
    """Say for each follower of a leader what the leader knows of it."""
    state = server.up.core.state
    if not isinstance(state, Leader):
        return {}
    return {
        peer.id: f"{peer.pace.value}, match {peer.match}"
        + (f", next {peer.next}" if peer.pace is Pace.PROBE else "")
        for peer in state.peers
    }


def terms_text(server: Server) -> str:
    return _list(server.terms()) or "-"


def status_lines(server: Server) -> list[str]:
    """Write everything of a node that a reader of a script may want to know."""
    if server.node is None:
        return [f"{server.id} down, disk {_list(e.term for e in server.disk.entries) or '-'}"]
    node = server.up
    lines = [
        f"{role_text(server)} | log {terms_text(server)} | "
        f"durable {node.durable_index}, commit {node.commit_index}, applied {node.applied_index}"
    ]
    state = node.core.state
    if isinstance(state, Leader):
        for peer in state.peers:
            window = f", {len(peer.inflight)} in flight" if peer.inflight else ""
            waits = ", probe is out" if peer.probe_sent else ""
            role = "" if peer.votes else " learner"
            lines.append(
                f"  {peer.id}{role} {peer.pace.value}, match {peer.match}, next {peer.next}{window}{waits}"
            )
    return lines
