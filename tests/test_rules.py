"""Every safety rule that applies so far is named where the code implements it."""

import re
from pathlib import Path

import balsadb

RULES = "P1 P2 P3 P5 P6 P7 R1 R2 R3 R4 S3 S4 S5 S6 S8 W1 W2 W3 W4 W5 B1 B2 B3 M1 M2 M3".split()


def test_every_rule_is_named_in_the_code():
    named: set[str] = set()
    for path in Path(balsadb.__file__).parent.rglob("*.py"):
        for sentence in re.findall(r"rules? [A-Z]\d[^.:;)]*|\([A-Z]\d\)", path.read_text()):
            named |= set(re.findall(r"\b[A-Z]\d\b", sentence))
    assert not set(RULES) - named
