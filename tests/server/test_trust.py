"""How two servers come to believe each other, message by message."""

from __future__ import annotations

import msgspec
import pytest

from balsadb.errors import ProtocolError, UsageError
from balsadb.server.trust import Introduction, PeerTrust, Reception, Secrets, Untrusted
from balsadb.wire.frame import PROTOCOL_VERSION, Challenge, Hello, Proof, Refused, Welcome

A, B = "a" * 64, "b" * 64
HELLO = Hello(PROTOCOL_VERSION, b"c" * 16, b"d" * 16, 1, 2, b"s" * 16, 7, "a:1", True)
BACK = Hello(PROTOCOL_VERSION, b"c" * 16, b"d" * 16, 2, 1, b"t" * 16, 7, "b:1", True)
WELCOME = Welcome(2, b"t" * 16, b"c" * 16, "b:1", True)


@pytest.fixture
def knowing(tmp_path):
    """Return a function that makes a node know secrets."""

    def make(*secrets: str) -> PeerTrust:
        file = tmp_path / f"secret-{len(list(tmp_path.iterdir()))}"
        file.write_text("".join(f"{secret}\n" for secret in secrets))
        file.chmod(0o600)
        return PeerTrust(secrets=Secrets(str(file)))

    return make


def nobody() -> PeerTrust:
    return PeerTrust()


class Listener:
    """A node that welcomes everybody whom it believes, or refuses with a reason."""

    def __init__(self, trust: PeerTrust, answer: Welcome | Refused = WELCOME) -> None:
        self.trust = trust
        self.asked: list[Hello] = []
        self.answer = answer

    def reception(self) -> Reception:
        def decide(hello: Hello) -> Welcome | Refused:
            self.asked.append(hello)
            return self.answer

        return Reception(self.trust, decide, None)


def meet(dialler: PeerTrust, listener: Listener, hello: Hello = HELLO) -> Welcome | Refused:
    """Let the two greet each other; returns what the dialler takes for the answer."""
    introduction, reception = Introduction(dialler, hello), listener.reception()
    said = introduction.take(reception.take(introduction.hello))
    if isinstance(said, Proof):
        said = introduction.take(reception.take(said))
    assert isinstance(said, Welcome | Refused)
    return said


def test_two_nodes_with_the_same_secret_believe_each_other(knowing):
    listener = Listener(knowing(A))
    answer = meet(knowing(A), listener)
    assert msgspec.structs.replace(answer, proof=b"") == WELCOME
    assert [hello.node_id for hello in listener.asked] == [1]
    assert not listener.trust.refusals


def test_two_nodes_without_any_secret_believe_each_other():
    assert meet(nobody(), Listener(nobody())) == WELCOME


def test_a_node_with_another_secret_is_refused_before_its_hello_is_looked_at(knowing):
    dialler, listener = knowing(B), Listener(knowing(A))
    with pytest.raises(Untrusted, match=r"proves nothing: .* different shared secrets"):
        meet(dialler, listener)
    assert listener.asked == []
    assert listener.trust.refusals == {"secret": 1}
    assert dialler.refusals == {"secret": 1}


def test_a_node_without_the_secret_is_told_what_it_lacks(knowing):
    listener = Listener(knowing(A))
    answer = meet(nobody(), listener)
    assert isinstance(answer, Refused)
    assert "--peer-secret-file" in answer.reason
    assert listener.asked == []


def test_a_listener_that_proves_nothing_is_not_believed(knowing):
    with pytest.raises(Untrusted, match="does not prove"):
        meet(knowing(A), Listener(nobody()))


def test_a_stranger_can_not_tell_a_node_that_it_was_removed(knowing):
    forged = Refused("you are out", b"c" * 16)
    with pytest.raises(Untrusted, match="proves nothing: you are out"):
        meet(knowing(A), Listener(nobody(), forged))


def test_a_refusal_of_somebody_who_knows_the_secret_counts(knowing):
    answer = meet(knowing(A), Listener(knowing(A), Refused("you are out" * 200, b"c" * 16)))
    assert isinstance(answer, Refused)
    assert answer.removed_from == b"c" * 16


def test_a_proof_that_was_overheard_is_of_no_use(knowing):
    listener = Listener(knowing(A))
    introduction, first = Introduction(knowing(A), HELLO), listener.reception()
    proof = introduction.take(first.take(introduction.hello))
    assert isinstance(first.take(proof), Welcome)
    again = listener.reception()
    assert isinstance(again.take(introduction.hello), Challenge)
    assert isinstance(again.take(proof), Refused)


def test_a_challenge_is_good_for_one_proof(knowing):
    reception = Listener(knowing(A)).reception()
    introduction = Introduction(knowing(A), HELLO)
    proof = introduction.take(reception.take(introduction.hello))
    assert isinstance(reception.take(Proof(b"x" * 32)), Refused)
    with pytest.raises(ProtocolError, match="out of place"):
        reception.take(proof)


def test_a_node_can_not_be_made_to_answer_its_own_challenge(knowing):
    """The attacker has node 1 dial it, and hands on the challenge of node 1's own listener."""
    one = knowing(A)
    listener = Listener(one)
    reception, dialling = listener.reception(), Introduction(one, HELLO)
    forged = msgspec.structs.replace(BACK, authentication=1, nonce=dialling.hello.nonce)
    challenge = reception.take(forged)
    proof = dialling.take(challenge)
    assert isinstance(proof, Proof)
    assert isinstance(reception.take(proof), Refused)
    assert listener.asked == []


def test_an_answer_that_was_changed_on_the_way_is_not_believed(knowing):
    listener = Listener(knowing(A))
    introduction, reception = Introduction(knowing(A), HELLO), listener.reception()
    answer = reception.take(introduction.take(reception.take(introduction.hello)))
    with pytest.raises(Untrusted):
        introduction.take(msgspec.structs.replace(answer, node_id=3))


@pytest.mark.parametrize("nonce", [b"", b"x" * 31])
def test_a_hello_without_a_whole_nonce_gets_no_challenge(knowing, nonce):
    reception = Listener(knowing(A)).reception()
    assert isinstance(reception.take(msgspec.structs.replace(HELLO, authentication=1, nonce=nonce)), Refused)


@pytest.mark.parametrize("greeting", [Proof(b"x" * 32), WELCOME, Challenge(b"x" * 32), Refused("no")])
def test_nothing_comes_before_a_hello(knowing, greeting):
    with pytest.raises(ProtocolError, match="out of place"):
        Listener(knowing(A)).reception().take(greeting)


def test_a_secret_is_replaced_without_a_moment_in_which_two_nodes_do_not_believe_each_other(knowing):
    for one, other in [((A,), (A, B)), ((A, B), (B, A)), ((B, A), (B,))]:
        for dialler, listener in [(one, other), (other, one), (one, one), (other, other)]:
            assert isinstance(meet(knowing(*dialler), Listener(knowing(*listener))), Welcome)


def test_a_changed_file_is_taken_up_and_a_useless_one_is_not(tmp_path, capsys):
    file = tmp_path / "secret"
    file.write_text(A)
    file.chmod(0o600)
    secrets = Secrets(str(file))
    file.write_text(f"{B}\n{A}\n")
    assert (secrets.own, secrets.believed) == (B.encode(), (B.encode(), A.encode()))
    file.write_text("short\n")
    assert secrets.own == B.encode()
    file.unlink()
    assert secrets.own == B.encode()
    said = capsys.readouterr().err
    assert said.count("took up") == 1
    assert said.count("stays in use") == 2
    assert A not in said
    assert B not in said
    assert "short\n" not in said


@pytest.mark.parametrize(
    ("text", "mode", "sentence"),
    [
        ("", 0o600, "it has 0"),
        ("x" * 31, 0o600, "openssl rand -hex 32"),
        (f"{A}\n" * 9, 0o600, "it has 9"),
        (A, 0o644, "can be read by others"),
        (A, 0o620, "can be changed by others"),
        (A, 0o602, "can be changed by others"),
    ],
)
def test_a_file_that_keeps_no_secret_is_refused(tmp_path, text, mode, sentence):
    file = tmp_path / "secret"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(UsageError, match=sentence):
        Secrets(str(file))


def test_a_secret_that_its_group_can_read_is_only_mentioned(tmp_path, capsys):
    file = tmp_path / "secret"
    file.write_text(A)
    file.chmod(0o640)
    Secrets(str(file))
    assert "can be read by its group" in capsys.readouterr().err


def test_a_missing_secret_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"--peer-secret-file .*none: No such file"):
        Secrets(str(tmp_path / "none"))
