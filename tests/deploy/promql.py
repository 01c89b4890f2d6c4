"""As much of Prometheus' query language as our rules use: enough to find what would not parse.

Grammar, the loosest binding first: or; and, unless; comparisons; + -; * / %; unary; a selector, a number, a
function, an aggregation, brackets. Every expression has a type: a scalar, an instant or a range vector.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

TOKEN = re.compile(
    r"""\s*(?:(?P<duration>\d+(?:ms|[smhdwy])(?![\w]))
    |(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    |(?P<string>"(?:[^"\\]|\\.)*")
    |(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
    |(?P<sign>==|!=|=~|!~|>=|<=|[-+*/%(){}\[\],=<>]))""",
    re.VERBOSE,
)
LEVELS = (("or",), ("and", "unless"), ("==", "!=", ">", "<", ">=", "<="), ("+", "-"), ("*", "/", "%"))
SETS = ("or", "and", "unless")
AGGREGATIONS = {"sum", "max", "min", "avg", "count"}
FUNCTIONS = {
    "rate": ["range"],
    "increase": ["range"],
    "histogram_quantile": ["scalar", "vector"],
    "max_over_time": ["range"],
}


class PromqlError(ValueError):
    """The expression is not one."""


@dataclass
class Selector:
    """One metric as an expression names it."""

    name: str
    matchers: list[tuple[str, str, str]] = field(default_factory=list)
    """(label, operator, value)."""


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        at = 0
        text = text.rstrip()
        while at < len(text):
            found = TOKEN.match(text, at)
            if found is None:
                raise PromqlError(f"no token at {text[at:]!r}")
            self.tokens.append((str(found.lastgroup), found.group(str(found.lastgroup))))
            at = found.end()
        self.tokens.append(("end", ""))
        self.selectors: list[Selector] = []
        self.labels: set[str] = set()

    @property
    def next(self) -> str:
        return self.tokens[0][1]

    def take(self, *wanted: str, kind: str = "") -> str:
        found, text = self.tokens.pop(0)
        if (wanted and text not in wanted) or (kind and found != kind):
            raise PromqlError(f"{text!r} where {wanted or kind} should be")
        return text

    def expression(self, level: int = 0) -> str:
        if level == len(LEVELS):
            return self.unary()
        left = self.expression(level + 1)
        while self.next in LEVELS[level]:
            operator = self.take()
            if self.next in ("on", "ignoring"):
                self.take()
                self.label_list()
            right = self.expression(level + 1)
            if "range" in (left, right) or (operator in SETS and "scalar" in (left, right)):
                raise PromqlError(f"{operator} between {left} and {right}")
            left = "vector" if "vector" in (left, right) else "scalar"
        return left

    def unary(self) -> str:
        if self.next == "-":
            self.take()
        return self.primary()

    def primary(self) -> str:
        kind, text = self.tokens[0]
        if kind == "number":
            self.take()
            return "scalar"
        if text == "(":
            self.take()
            inside = self.expression()
            self.take(")")
            return inside
        if text in AGGREGATIONS:
            return self.aggregation()
        name = self.take(kind="name")
        if self.next == "(":
            return self.function(name)
        return self.selector(name)

    def aggregation(self) -> str:
        self.take()
        if self.next in ("by", "without"):
            self.take()
            self.label_list()
        self.take("(")
        if self.expression() != "vector":
            raise PromqlError("only an instant vector can be aggregated")
        self.take(")")
        return "vector"

    def function(self, name: str) -> str:
        if name not in FUNCTIONS:
            raise PromqlError(f"no function {name} is known here")
        self.take("(")
        for number, wanted in enumerate(FUNCTIONS[name]):
            if number:
                self.take(",")
            if (given := self.expression()) != wanted:
                raise PromqlError(f"{name} takes a {wanted}, not a {given}")
        self.take(")")
        return "vector"

    def selector(self, name: str) -> str:
        selector = Selector(name)
        self.selectors.append(selector)
        if self.next == "{":
            self.take()
            while self.next != "}":
                label = self.take(kind="name")
                operator = self.take("=", "!=", "=~", "!~")
                selector.matchers.append((label, operator, self.take(kind="string")[1:-1]))
                if self.next != "}":
                    self.take(",")
            self.take("}")
        if self.next == "[":
            self.take()
            self.take(kind="duration")
            self.take("]")
            return "range"
        return "vector"

    def label_list(self) -> None:
        self.take("(")
        while self.next != ")":
            self.labels.add(self.take(kind="name"))
            if self.next != ")":
                self.take(",")
        self.take(")")


def parse(text: str) -> tuple[list[Selector], set[str]]:
    """Check an expression; return what it selects and the labels that it groups and joins by."""
    parser = _Parser(text)
    kind = parser.expression()
    parser.take("", kind="end")
    if kind != "vector":
        raise PromqlError(f"a rule needs an instant vector, not a {kind}")
    return parser.selectors, parser.labels
