"""Every safety rule that applies so far is named where the code implements it."""

import re
from pathlib import Path

import balsadb

RULES = {
    f"{kind}{number}"
    for kind, numbers in {
        "P": "123567",
        "R": "1234",
        "S": "34568",
        "W": "12345",
        "B": "123",
        "M": "1234",
    }.items()
    for number in numbers
}


def test_every_rule_is_named_in_the_code():
    named: set[str] = set()
    for path in Path(balsadb.__file__).parent.rglob("*.py"):
        for sentence in re.findall(r"rules? [A-Z]\d[^.:;)]*|\([A-Z]\d\)", path.read_text()):
            named |= set(re.findall(r"\b[A-Z]\d\b", sentence))
    assert not RULES - named
