"""All error replies that the source can send, found by walking through its code.

An error reply is made in one of three ways: `Refusal(...)`, a bytes constant that begins with a minus and a
word in capitals, or the text of the RESP parser's complaint. Where the text has holes (`%b`, `%d`), each is
shown as an ellipsis.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import balsadb

SOURCE = Path(balsadb.__file__).parent
NOT_SENT = ("client/", "cli/", "sim/", "kv/reply.py", "resp/decode.py", "resp/encode.py")
"""Parts that receive errors, or pass on those that others made."""
HOLE = "…"
_RAW = re.compile(rb"-([A-Z]+ [^\r\n]+)\r\n")


def find() -> dict[str, set[str]]:
    """Return the text of every error, each with the files that make it."""
    found: dict[str, set[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if not name.startswith(NOT_SENT):
            for text in texts_of(path.read_text()):
                found.setdefault(text, set()).add(name)
    return found


def texts_of(source: str) -> list[str]:
    """Return the texts of the errors that a piece of source makes."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    scopes = [[node for node in ast.walk(tree) if id(node) not in inside], *map(_nodes, functions)]
    return [text for scope in scopes for text in _texts_in(scope)]


def _nodes(function: ast.AST) -> list[ast.AST]:
    return list(ast.walk(function))


def _texts_in(nodes: list[ast.AST]) -> list[str]:
    assigned = {
        target.id: node.value
        for node in nodes
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    texts = []
    for node in nodes:
        if isinstance(node, ast.Call) and _name(node.func) == "Refusal":
            (argument, *_) = [*node.args, *(word.value for word in node.keywords)]
            texts.append(_text(argument, assigned))
        elif isinstance(node, ast.Constant) and isinstance(node.value, bytes):
            match = _RAW.fullmatch(node.value)
            if match and match[1] != b"ERR %b":  # that one passes on the parser's complaint
                texts.append(_with_holes(match[1]))
        elif isinstance(node, ast.Assign) and any(_name(target) == "error" for target in node.targets):
            constant = node.value.left if isinstance(node.value, ast.BinOp) else node.value
            if isinstance(constant, ast.Constant) and isinstance(constant.value, bytes) and constant.value:
                texts.append("ERR " + _with_holes(constant.value) + HOLE)
    return texts


def _name(node: ast.expr) -> str:
    return getattr(node, "attr", getattr(node, "id", ""))


def _text(node: ast.expr, assigned: dict[str, ast.expr]) -> str:
    """Return the text of an expression of type bytes; whatever can't be known beforehand is a hole."""
    match node:
        case ast.Constant(bytes(value)):
            return _with_holes(value)
        case ast.BinOp(left, ast.Mod(), _):
            return _text(left, assigned)
        case ast.BinOp(left, ast.Add(), right):
            return _text(left, assigned) + _text(right, assigned)
        case ast.Call(ast.Attribute(inner, "translate" | "encode"), _):
            return _text(inner, assigned)
        case ast.JoinedStr(parts):
            return "".join(_text(part, assigned) for part in parts)
        case ast.Constant(str(value)):
            return value
        case ast.Name(name) if name in assigned:
            return _text(assigned[name], {})
    return HOLE


def _with_holes(text: bytes) -> str:
    return re.sub(r"%[bds]", HOLE, text.decode()).replace("%%", "%")
