"""The page on bad inputs has a row for each of them, and the tests that it names are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import balsadb

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "bad-inputs.md"
INPUTS = 45
ELSEWHERE = {21, 22, 26}
"""Rows about passwords and TLS, which have tests of their own."""


def rows() -> dict[int, list[str]]:
    """The tests of each row."""
    found = {}
    for line in PAGE.read_text().splitlines():
        if match := re.match(r"\| (\d+) \|", line):
            found[int(match[1])] = re.findall(r"`([\w/]+\.py::\w+)`", line)
    return found


def test_every_input_has_a_row_with_a_test():
    found = rows()
    assert sorted(found) == list(range(1, INPUTS + 1))
    assert {number for number, names in found.items() if not names} <= ELSEWHERE


@pytest.mark.parametrize("name", sorted({name for names in rows().values() for name in names}))
def test_a_test_that_the_page_names_is_there(name):
    path, _, function = name.partition("::")
    text = (TESTS / path).read_text()
    assert re.search(rf"^(async )?def {function}\(", text, re.MULTILINE)


def test_no_code_of_ours_decompresses_anything():
    """Bad input 45."""
    for path in Path(balsadb.__file__).parent.rglob("*.py"):
        assert not re.search(r"\b(zlib|gzip|bz2|lzma|zstandard|brotli)\b", path.read_text()), path
