"""The database as a Clerk must find it: keys, and sessions by the rules S1 and S2, without sockets."""

from __future__ import annotations

from balsadb.kv.limits import SESSION_WINDOW


def bulk(word: bytes | None) -> bytes:
    return b"$-1\r\n" if word is None else b"$%d\r\n%b\r\n" % (len(word), word)


def array(parts) -> bytes:
    parts = list(parts)
    return b"*%d\r\n%b" % (len(parts), b"".join(parts))


class Session:
    def __init__(self, ttl_ms: int, now_ms: int) -> None:
        self.ttl_ms = ttl_ms
        self.heard_ms = now_ms
        self.floor = 1
        self.replies: dict[int, tuple[list[bytes], bytes]] = {}


class Database:
    """What the log has done so far. Every command is run at one moment."""

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}
        self.sessions: dict[bytes, Session] = {}
        self.nonces: dict[bytes, bytes] = {}
        self.index = 0
        self.now_ms = 0
        self.kept_bytes_max = 1 << 20
        self.ever_opened: list[bytes] = []

    def run(self, argv: list[bytes], block: list[list[bytes]] | None = None) -> bytes:
        """Run one command; `block` holds the commands of a transaction that EXEC ends."""
        self.index += 1
        self._expire()
        match [argv[0].upper(), *argv[1:]]:
            case [b"SESSION", b"OPEN", nonce, ttl_ms]:
                if nonce not in self.nonces:
                    self.nonces[nonce] = b"%b-%d" % (nonce, self.index)
                    self.sessions[self.nonces[nonce]] = Session(int(ttl_ms), self.now_ms)
                    self.ever_opened.append(self.nonces[nonce])
                return bulk(self.nonces[nonce])
            case [b"SESSION", b"KEEPALIVE", id]:
                if id not in self.sessions:
                    return b"-SESSIONEXPIRED there is no such session\r\n"
                self.sessions[id].heard_ms = self.now_ms
                return b"+OK\r\n"
            case [b"SESSION", b"CLOSE", id]:
                self.end(id)
                return b"+OK\r\n"
            case [b"ONCE", id, sequence, ack, *command]:
                return self._once(id, int(sequence), int(ack), command, block)
            case [b"EXEC"]:
                return array(self._plain(one) for one in block or ())
        return self._plain(argv)

    def end(self, id: bytes) -> None:
        self.sessions.pop(id, None)
        self.nonces = {nonce: held for nonce, held in self.nonces.items() if held != id}

    def _expire(self) -> None:
        for id, session in list(self.sessions.items()):
            if self.now_ms >= session.heard_ms + session.ttl_ms:
                self.end(id)

    def _once(self, id, sequence, ack, command, block) -> bytes:
        session = self.sessions.get(id)
        if session is None:
            return b"-SESSIONEXPIRED there is no such session\r\n"
        session.heard_ms = self.now_ms
        session.floor = max(session.floor, ack)
        session.replies = {s: kept for s, kept in session.replies.items() if s >= session.floor}
        if sequence < session.floor or sequence >= session.floor + SESSION_WINDOW:
            return b"-ERR sequence is outside of the session's window\r\n"
        what = [command, *(block or [])]
        if sequence in session.replies:
            same, reply = session.replies[sequence]
            if same != what:
                return b"-ERR the sequence was used for another command\r\n"
            return reply if len(reply) <= self.kept_bytes_max else b"-DONE the reply was not kept\r\n"
        reply = array(self._plain(one) for one in block) if block is not None else self._plain(command)
        session.replies[sequence] = what, reply
        return reply

    def _plain(self, argv: list[bytes]) -> bytes:
        data = self.data
        match [argv[0].upper(), *argv[1:]]:
            case [b"SET", key, value, b"NX"]:
                if key in data:
                    return b"$-1\r\n"
                data[key] = value
                return b"+OK\r\n"
            case [b"SET", key, value, b"IFEQ", old]:
                if data.get(key) != old:
                    return b"$-1\r\n"
                data[key] = value
                return b"+OK\r\n"
            case [b"SET", key, value]:
                data[key] = value
                return b"+OK\r\n"
            case [b"MSET", *words]:
                data.update(zip(words[::2], words[1::2], strict=True))
                return b"+OK\r\n"
            case [b"GET", key]:
                return bulk(data.get(key))
            case [b"MGET", *keys]:
                return array(bulk(data.get(key)) for key in keys)
            case [b"EXISTS", *keys]:
                return b":%d\r\n" % sum(key in data for key in keys)
            case [b"APPEND", key, value]:
                data[key] = data.get(key, b"") + value
                return b":%d\r\n" % len(data[key])
            case [b"INCRBY", key, by]:
                if not data.get(key, b"0").lstrip(b"-").isdigit():
                    return b"-ERR value is not an integer or out of range\r\n"
                data[key] = b"%d" % (int(data.get(key, b"0")) + int(by))
                return b":%b\r\n" % data[key]
            case [b"DEL", *keys]:
                return b":%d\r\n" % sum(data.pop(key, None) is not None for key in keys)
            case [b"SCAN", cursor, *_]:
                keys = sorted(data)
                start, end = int(cursor), int(cursor) + 2
                return array(
                    [bulk(b"%d" % (end if end < len(keys) else 0)), array(map(bulk, keys[start:end]))]
                )
            case [name, *_]:
                return b"-ERR unknown command '%b', with args beginning with: \r\n" % name
        raise AssertionError(argv)


class Conversation:
    """One connection's MULTI. `take` gives what is to be run, or a reply that is known at once."""

    def __init__(self) -> None:
        self.queued: list[list[bytes]] | None = None

    def take(self, argv: list[bytes]) -> tuple[list[bytes], list[list[bytes]] | None] | bytes:
        name = argv[0].upper()
        if name == b"MULTI":
            self.queued = []
            return b"+OK\r\n"
        if self.queued is not None:
            if name == b"EXEC" or (name == b"ONCE" and argv[4:] == [b"EXEC"]):
                queued, self.queued = self.queued, None
                return argv, queued
            self.queued.append(argv)
            return b"+QUEUED\r\n"
        return argv, None
