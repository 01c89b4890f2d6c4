"""A state goes from one directory to another in pieces, through breaks and damage (rule C4)."""

from __future__ import annotations

import os
import shutil

import msgspec
import pytest

from balsadb.errors import DataError, ProtocolError, StorageError
from balsadb.kv.machine import StateMachine
from balsadb.storage import transfer
from balsadb.storage.files import OsFiles
from balsadb.storage.state import StateDirectory, StateStore
from balsadb.storage.transfer import Incoming, Outgoing
from balsadb.wire.transfer import Chunk, Offer, Resume, StateFile
from kv.delta_model import write
from kv.some_log import MEMBERS, SomeLog

LOG = SomeLog(60)
INDEX = 40
CHUNK = 700


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """A state of a few files in many pieces."""
    monkeypatch.setattr(transfer, "CHUNK_BYTES_MAX", CHUNK)


def cut_to(store: StateStore, machine: StateMachine, index: int) -> None:
    cut = LOG.apply(machine, index).freeze()
    while machine.store.count(cut):
        pass
    write(store, cut)
    machine.store.written(cut)


@pytest.fixture
def sender(tmp_path):
    """A state with several files, the newest cut not flushed."""
    store = StateStore(str(tmp_path / "sender"))
    machine = StateMachine(MEMBERS, store)
    for index in (10, 25):
        cut_to(store, machine, index)
        store.flush()
    cut_to(store, machine, INDEX)
    yield store
    store.close()


@pytest.fixture
def outgoing(sender, tmp_path):
    return Outgoing.make(sender, str(tmp_path / "out" / "40"))


class Receiver:
    """A node's directory that has no state of its own to speak of."""

    def __init__(self, path: str) -> None:
        self.group = path
        self.files = OsFiles()
        self.states = StateDirectory(self.files, f"{path}/state")
        os.makedirs(self.states.current().path)

    def begin(self, offer: Offer) -> Incoming:
        return Incoming(self.files, self.group, offer)

    @property
    def names(self) -> list[str]:
        return sorted(os.listdir(f"{self.group}/state"))


@pytest.fixture
def receiver(tmp_path):
    return Receiver(str(tmp_path / "receiver"))


def send(outgoing: Outgoing, incoming: Incoming, pieces: int = 1_000_000) -> int:
    """Send what is missing, at most so many pieces; returns how many there were."""
    sent = 0
    while not incoming.complete and sent < pieces:
        incoming.take(outgoing.chunk(incoming.resume.file, incoming.resume.offset))
        sent += 1
    return sent


def installed(receiver: Receiver) -> bytes:
    """The digest of the state that counts."""
    store = StateStore(receiver.states.current().path)
    try:
        return StateMachine((), store, store.bookkeeping).digest()
    finally:
        store.close()


# ------------------------------------------------------------------------------ offering


def test_an_offer_is_read_from_inside_the_copy_and_not_from_the_node(sender, tmp_path):
    """Rule C2: the node goes on meanwhile."""
    outgoing = Outgoing.make(sender, str(tmp_path / "out" / "1"))
    machine = LOG.apply(StateMachine((), sender, sender.bookkeeping), INDEX)
    cut_to(sender, machine, 50)
    sender.flush()
    assert (outgoing.offer.index, outgoing.offer.term) == (INDEX, 1 + INDEX // 10)
    names = {file.name for file in outgoing.offer.files}
    assert "CURRENT" in names
    assert not names & {"LOCK", "LOG", "IDENTITY"}
    assert outgoing.offer.length == sum(os.path.getsize(f"{outgoing.path}/{name}") for name in names)


def test_an_offer_can_be_sent(outgoing):
    """Its names are names to the other side, too."""
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(outgoing.offer), type=Offer) == outgoing.offer


def test_a_copy_takes_the_place_of_one_left_behind(sender, tmp_path):
    path = tmp_path / "out" / "40"
    path.mkdir(parents=True)
    (path / "left-over").write_bytes(b"x")
    outgoing = Outgoing.make(sender, str(path))
    assert "left-over" not in {file.name for file in outgoing.offer.files}
    outgoing.remove()
    assert not path.exists()


def test_a_state_without_a_cut_is_not_offered(tmp_path):
    store = StateStore(str(tmp_path / "empty"))
    with pytest.raises(StorageError, match="no state to be sent yet"):
        Outgoing.make(store, str(tmp_path / "out" / "0"))
    store.close()


# ----------------------------------------------------------------------------- receiving


def test_a_received_state_is_the_one_that_was_sent(outgoing, receiver):
    incoming = receiver.begin(outgoing.offer)
    assert incoming.resume == Resume(0, 0)
    assert send(outgoing, incoming) > 10
    incoming.verify()
    store = incoming.put_in_place(receiver.states)
    assert store.bookkeeping.index == INDEX
    store.close()
    assert receiver.states.current().installed == INDEX
    assert installed(receiver) == LOG.digest(INDEX)
    assert not os.path.exists(f"{receiver.group}/incoming")
    receiver.states.clean()
    assert receiver.names == ["2", "CURRENT"]


@pytest.mark.parametrize("pieces", [0, 1, 2, 7, 11])
def test_a_transfer_goes_on_where_it_broke(outgoing, receiver, pieces):
    total = send(outgoing, receiver.begin(outgoing.offer))
    shutil.rmtree(f"{receiver.group}/incoming")
    first = receiver.begin(outgoing.offer)
    assert send(outgoing, first, pieces) == pieces
    again = receiver.begin(outgoing.offer)
    assert again.resume == first.resume
    assert send(outgoing, again) == total - pieces
    again.verify()


def test_what_is_complete_needs_nothing_more(outgoing, receiver):
    send(outgoing, receiver.begin(outgoing.offer))
    again = receiver.begin(outgoing.offer)
    assert again.complete
    assert again.resume == Resume(len(outgoing.offer.files), 0)
    again.verify()


def test_another_offer_starts_over(sender, outgoing, receiver, tmp_path):
    send(outgoing, receiver.begin(outgoing.offer), 9)
    machine = StateMachine((), sender, sender.bookkeeping)
    cut_to(sender, machine, 50)
    later = Outgoing.make(sender, str(tmp_path / "out" / "50"))
    incoming = receiver.begin(later.offer)
    assert incoming.resume == Resume(0, 0)
    send(later, incoming)
    incoming.verify()
    incoming.put_in_place(receiver.states).close()
    assert installed(receiver) == LOG.digest(50)


def changed(offer: Offer, position: int, **fields: object) -> Offer:
    files = list(offer.files)
    files[position] = msgspec.structs.replace(files[position], **fields)
    return msgspec.structs.replace(offer, files=tuple(files))


@pytest.mark.parametrize("change", ["index", "term", "a checksum", "a length", "a name"])
def test_any_difference_makes_it_another_offer(outgoing, receiver, change):
    offer = outgoing.offer
    last = len(offer.files) - 1
    other = {
        "index": msgspec.structs.replace(offer, index=offer.index + 1),
        "term": msgspec.structs.replace(offer, term=offer.term + 1),
        "a checksum": changed(offer, last, checksum=1),
        "a length": changed(offer, last, length=offer.files[last].length + 1),
        "a name": changed(offer, last, name="another"),
    }[change]
    send(outgoing, receiver.begin(offer), 5)
    assert receiver.begin(other).resume == Resume(0, 0)


def test_a_file_that_is_longer_than_offered_is_received_again(outgoing, receiver):
    incoming = receiver.begin(outgoing.offer)
    send(outgoing, incoming)
    with open(f"{receiver.group}/incoming/files/{outgoing.offer.files[1].name}", "ab") as file:
        file.write(b"more")
    again = receiver.begin(outgoing.offer)
    assert again.resume == Resume(1, 0)


@pytest.mark.parametrize("position", [0, 3])
def test_a_damaged_byte_is_found_and_everything_begins_anew(outgoing, receiver, position):
    """Also one that the disk has spoiled: what counts is what lies there, and not what came."""
    incoming = receiver.begin(outgoing.offer)
    send(outgoing, incoming)
    sizes = [file.length for file in outgoing.offer.files]
    name = outgoing.offer.files[sizes.index(sorted(sizes)[-1 - position])].name
    with open(f"{receiver.group}/incoming/files/{name}", "r+b") as file:
        file.seek(1)
        byte = file.read(1)
        file.seek(1)
        file.write(bytes([byte[0] ^ 4]))
    with pytest.raises(DataError, match=r"it was received as .* The transfer begins anew by itself"):
        incoming.verify()
    assert receiver.names == ["1", "CURRENT"]
    again = receiver.begin(outgoing.offer)
    assert again.resume == Resume(0, 0)
    send(outgoing, again)
    again.verify()


def test_pieces_out_of_order_are_refused(outgoing, receiver):
    incoming = receiver.begin(outgoing.offer)
    send(outgoing, incoming, 3)
    due = incoming.resume
    wrong = [
        outgoing.chunk(due.file, due.offset + 1),
        outgoing.chunk(due.file + 1, 0),
        Chunk(due.file, max(0, due.offset - CHUNK), b"x") if due.offset else Chunk(due.file - 1, 0, b"x"),
        Chunk(2**62, 2**62, b"x"),
    ]
    for chunk in wrong:
        with pytest.raises(ProtocolError, match="is due"):
            incoming.take(chunk)
    assert incoming.resume == due
    send(outgoing, incoming)
    incoming.verify()


def test_a_piece_beyond_the_end_of_its_file_is_refused(outgoing, receiver):
    incoming = receiver.begin(outgoing.offer)
    while outgoing.offer.files[incoming.resume.file].length == 0:
        send(outgoing, incoming, 1)
    due = incoming.resume
    length = outgoing.offer.files[due.file].length
    with pytest.raises(ProtocolError, match=f"sends {length + 1} bytes of a file of {length}"):
        incoming.take(Chunk(due.file, 0, bytes(length + 1)))
    with pytest.raises(ProtocolError, match="sends 0 bytes"):
        incoming.take(Chunk(due.file, 0, b""))
    assert incoming.resume == due


def test_an_empty_file_travels_as_an_empty_piece(receiver):
    offer = Offer(1, 1, (StateFile("a", 0, 0), StateFile("b", 2, 0)))
    incoming = receiver.begin(offer)
    incoming.take(Chunk(0, 0, b""))
    assert incoming.resume == Resume(1, 0)
    assert os.path.getsize(f"{receiver.group}/incoming/files/a") == 0
    assert receiver.begin(offer).resume == Resume(1, 0)


@pytest.mark.parametrize(
    "offer",
    [
        Offer(5, 1, (StateFile("a", 1, 1), StateFile("a", 1, 1))),
        Offer(0, 0, (StateFile("a", 1, 1),)),
    ],
    ids=["two files of one name", "as of nothing"],
)
def test_an_offer_that_can_not_be_one_is_refused(receiver, offer):
    with pytest.raises(ProtocolError, match="can't be one"):
        receiver.begin(offer)
    assert not os.path.exists(f"{receiver.group}/incoming")


def test_a_state_for_which_there_is_no_room_is_refused_before_a_byte_of_it_comes(receiver):
    with pytest.raises(StorageError, match="bytes are free and the state has"):
        receiver.begin(Offer(5, 1, (StateFile("a", 2**60, 1),)))


def test_a_full_disk_is_a_storage_error(outgoing, receiver, monkeypatch):
    incoming = receiver.begin(outgoing.offer)
    monkeypatch.setattr(incoming, "_name", lambda name: "/dev/full")
    while outgoing.offer.files[incoming.resume.file].length == 0:
        incoming.resume = Resume(incoming.resume.file + 1, 0)
    with pytest.raises(StorageError, match="could not write"):
        incoming.take(outgoing.chunk(incoming.resume.file, 0))


# ------------------------------------------------------------------ taking the old one's place


def test_a_state_that_is_not_what_was_offered_does_not_come_to_count(outgoing, receiver):
    """Rule C2: index and term are those inside it."""
    lie = msgspec.structs.replace(outgoing.offer, index=INDEX + 1)
    incoming = receiver.begin(lie)
    send(outgoing, incoming)
    incoming.verify()
    with pytest.raises(DataError, match="was offered as 41"):
        incoming.put_in_place(receiver.states)
    assert receiver.states.current().installed == 0
    receiver.states.clean()
    assert receiver.names == ["1", "CURRENT"]


class Stops(StateDirectory):
    """The process ends right before the pointer is switched."""

    def switch(self, name, installed):
        raise KeyboardInterrupt


def test_a_process_that_ends_before_the_switch_keeps_the_old_state_and_receives_anew(outgoing, receiver):
    """Rule C4. The same files are offered again, and nothing of them is there any more."""
    incoming = receiver.begin(outgoing.offer)
    send(outgoing, incoming)
    incoming.verify()
    with pytest.raises(KeyboardInterrupt):
        incoming.put_in_place(Stops(receiver.files, receiver.states.path))
    # The next start:
    assert receiver.states.current().installed == 0
    receiver.states.clean()
    assert receiver.names == ["1", "CURRENT"]
    again = receiver.begin(outgoing.offer)
    assert again.resume == Resume(0, 0)
    send(outgoing, again)
    again.verify()
    again.put_in_place(receiver.states).close()
    assert installed(receiver) == LOG.digest(INDEX)


def test_a_process_that_ends_right_after_the_switch_has_the_new_state(outgoing, receiver, monkeypatch):
    incoming = receiver.begin(outgoing.offer)
    send(outgoing, incoming)
    incoming.verify()
    monkeypatch.setattr(transfer.shutil, "rmtree", lambda *_, **__: None)  # it ends before it cleans up
    incoming.put_in_place(receiver.states).close()
    monkeypatch.undo()
    assert receiver.states.current().installed == INDEX
    receiver.states.clean()
    assert receiver.names == ["2", "CURRENT"]
    assert installed(receiver) == LOG.digest(INDEX)


def test_dropping_forgets_all_of_it(outgoing, receiver):
    incoming = receiver.begin(outgoing.offer)
    send(outgoing, incoming, 5)
    incoming.drop()
    assert not os.path.exists(f"{receiver.group}/incoming")
    assert receiver.begin(outgoing.offer).resume == Resume(0, 0)
