"""How passwords are kept and compared."""

import time

import pytest

from balsadb.server import passwords
from balsadb.server.passwords import OnePassword, hash_password, matching


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(passwords, "SCRYPT_N", 16)


def test_a_password_is_kept_as_a_salted_hash(quick):
    first, second = hash_password(b"secret"), hash_password(b"secret")
    assert first != second
    assert b"secret" not in first
    assert matching(b"secret", [second, first]) == first
    assert matching(b"Secret", [second, first]) is None


def test_the_form_is_what_the_replicated_users_keep(quick):
    kind, salt, digest = hash_password(b"secret").split(b":")
    assert kind == b"scrypt"
    assert (len(salt), len(digest)) == (32, 64)
    assert bytes.fromhex((salt + digest).decode())


def test_the_accounts_of_one_password_keep_it_nowhere(quick):
    accounts = OnePassword(b"secret")
    assert "secret" not in repr(vars(accounts))
    assert matching(b"secret", accounts.hashes(b"default"))
    assert accounts.hashes(b"alice") == ()


@pytest.mark.parametrize("password", [b"", b"\0\xff\r\n", b"x" * 16_000], ids=["empty", "binary", "huge"])
def test_any_bytes_can_be_compared(quick, password):
    assert matching(password, [hash_password(b"secret")]) is None
    assert matching(password, [hash_password(password)]) is not None


def test_nobody_s_password_is_never_right(quick, monkeypatch):
    monkeypatch.setattr(passwords, "_scrypt", lambda password, salt: bytes(passwords.HASH_BYTES))
    assert matching(b"anything", []) is None


def test_a_user_that_is_not_there_takes_the_same_work(quick, monkeypatch):
    done = []
    real = passwords._scrypt
    monkeypatch.setattr(passwords, "_scrypt", lambda *given: done.append(given) or real(*given))
    kept = hash_password(b"secret")
    done.clear()
    for hashes in ([], [kept]):
        for password in (b"secret", b"wrong"):
            matching(password, hashes)
    assert len(done) == 4


def test_a_look_is_slow_enough_to_matter():
    """Not a benchmark: far below what it takes anywhere, far above a plain hash."""
    kept = hash_password(b"secret")
    began = time.perf_counter()
    assert matching(b"secret", [kept])
    assert time.perf_counter() - began > 0.005
