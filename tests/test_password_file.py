"""Where passwords come from: a file that nobody else may read, with one line in it."""

import os

import pytest

from balsadb.errors import UsageError
from balsadb.password_file import PASSWORD_BYTES_MAX, read_password_file


def password_file(path, content, mode=0o600):
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (b"secret", b"secret"),
        (b"secret\n", b"secret"),
        (b"secret\r\n", b"secret"),
        (b" two words \n", b" two words "),
        (b"\xff\xfe\n", b"\xff\xfe"),
        (b"x" * PASSWORD_BYTES_MAX + b"\n", b"x" * PASSWORD_BYTES_MAX),
    ],
)
def test_a_password_is_the_line_of_its_file(tmp_path, content, password):
    assert read_password_file(password_file(tmp_path / "p", content)) == password


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o610, 0o602])
def test_a_file_that_others_may_use_is_refused_with_the_remedy(tmp_path, mode):
    path = password_file(tmp_path / "p", b"hunter2", mode)
    with pytest.raises(UsageError, match=f"mode {mode:04o}.*chmod 600") as refusal:
        read_password_file(path)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"hunter2\nhunter3\n", "one line"),
        (b"hunter2\0", "one line"),
        (b"hunter2" * PASSWORD_BYTES_MAX, "at most 1024 bytes"),
    ],
)
def test_what_is_no_password_is_refused_and_not_shown(tmp_path, content, problem):
    with pytest.raises(UsageError, match=problem) as refusal:
        read_password_file(password_file(tmp_path / "p", content))
    assert "hunter" not in str(refusal.value)


def test_a_file_that_is_not_there_gives_a_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"--password-file .*nothing: No such file"):
        read_password_file(str(tmp_path / "nothing"))


def test_a_pipe_of_a_shell_can_be_given(tmp_path):
    reading, writing = os.pipe()
    os.write(writing, b"secret\n")
    os.close(writing)
    try:
        assert read_password_file(f"/dev/fd/{reading}") == b"secret"
    finally:
        os.close(reading)
