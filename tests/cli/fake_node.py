"""A server that is a plain dictionary and says about itself what a test wants."""

from __future__ import annotations

from scripted_server import ScriptedServer


def bulk(word: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(word), word)


def flat_map(facts: dict[bytes, int | bytes | None]) -> bytes:
    def encode(value: int | bytes | None) -> bytes:
        if value is None:
            return b"$-1\r\n"
        return b":%d\r\n" % value if isinstance(value, int) else bulk(value)

    pairs = b"".join(bulk(name) + encode(value) for name, value in facts.items())
    return b"*%d\r\n%b" % (2 * len(facts), pairs)


class FakeNode(ScriptedServer):
    """Answers data commands, RAFT STATUS and RAFT DIGEST."""

    def __init__(self, id: int = 1, *, role: bytes = b"follower", commit: int = 0, applied: int = 0) -> None:
        super().__init__()
        self.facts = {b"id": id, b"role": role, b"term": 3, b"leader": 1, b"commit_index": commit}
        self.facts |= {b"applied_index": applied, b"keys": 0, b"ready": 1}
        self.lists = {b"voters": [1, 2, 3]}
        self.members: list[dict[bytes, int | bytes | None]] = []
        self.digest = b"abcd"
        self.refusal = b""
        """When not empty, the answer to everything but what concerns sessions."""

    def answer(self, command: list[bytes]) -> bytes:
        if self.refusal and command[0] != b"SESSION":
            return self.refusal
        match command:
            case [b"RAFT", b"STATUS"]:
                parts = [
                    bulk(name) + (b":%d\r\n" % value if isinstance(value, int) else bulk(value))
                    for name, value in self.facts.items()
                ]
                for name, ids in self.lists.items():
                    parts.append(bulk(name) + b"*%d\r\n" % len(ids) + b"".join(b":%d\r\n" % id for id in ids))
                return b"*%d\r\n%b" % (2 * len(parts), b"".join(parts))
            case [b"INCR", key]:
                return super().answer([b"INCRBY", key, b"1"])
            case [b"RAFT", b"MEMBERS"]:
                return b"*%d\r\n" % len(self.members) + b"".join(map(flat_map, self.members))
            case [b"RAFT", b"DIGEST", *_]:
                return b"*2\r\n:5\r\n" + bulk(self.digest)
        return super().answer(command)
