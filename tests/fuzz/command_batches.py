"""Payloads of COMMANDS entries, applied by two replicas: nothing raises, and both end in the same state (S4).

A payload comes from a peer or from the log; whatever made it, all replicas apply it, and one that stopped at
it would stop at every start.
"""

from __future__ import annotations

import msgspec

from balsadb.kv.batch import FORMAT_VERSION, UnknownFormat, decode_batch, encode_batch
from balsadb.kv.machine import StateMachine
from balsadb.kv.table import COMMANDS, Kind
from fuzz.kit import SEPARATOR, UNREPAIRED, Target

MEMBERS = (1, 2)
PAYLOADS_MAX = 6


def target(data: bytes) -> str:
    """Apply payloads; the first byte of each chooses between its own version byte and the right one."""
    machines = StateMachine(MEMBERS), StateMachine(MEMBERS)
    ran = malformed = 0
    for index, part in enumerate(data.split(SEPARATOR)[:PAYLOADS_MAX], 1):
        payload = part if part[:1] > b"\xf0" else bytes([FORMAT_VERSION]) + part
        try:
            batch = decode_batch(payload)
        except UnknownFormat:
            return "unknown version"
        except UNREPAIRED:
            return "not decoded"
        if batch is not None:
            again = encode_batch(batch.node, batch.boot, batch.sequence, batch.commands)
            assert decode_batch(again) == batch
        outcomes = []
        for machine in machines:
            list(machine.cold_keys(payload, ()))
            outcome = machine.apply_commands(index, 1, 1_000 * index, payload)
            outcomes.append((outcome.ran, repr(outcome.replies)))
        assert outcomes[0] == outcomes[1]
        assert machines[0].alarms == malformed + (batch is None)
        malformed = machines[0].alarms
        ran += outcomes[0][0]
    assert machines[0].digest() == machines[1].digest()
    return f"{min(ran, 3)} ran, {'some' if malformed else 'none'} malformed"


def _payload(sequence: int, *lines: bytes) -> bytes:
    return encode_batch(1, 1, sequence, [line.split() for line in lines])[1:]


_SESSION = _payload(
    1, b"SESSION OPEN nonce 60000", b"ONCE nonce-1-0 1 1 INCR n", b"ONCE nonce-1-0 1 1 INCR n"
)
_WORDS = sorted({name for name, command in COMMANDS.items() if command.kind in (Kind.READ, Kind.WRITE)})
SEEDS = (
    _payload(1, b"SET a 1", b"GET a", b"APPEND a xyz", b"INCR n", b"DEL a"),
    _payload(1, b"SET a 1 PX 500") + SEPARATOR + _payload(2, b"GET a", b"EXISTS a"),
    _payload(1, b"EXEC 2", b"SET a 1", b"INCR a") + SEPARATOR + _payload(2, b"EXEC 9", b"GET a"),
    _payload(1, b"EXEC 1 a 5:1", b"SET a 2", b"RAFT.DIGEST") + SEPARATOR + _payload(2, b"RAFT.DIGEST"),
    _SESSION + SEPARATOR + _payload(2, b"ONCE.EXEC nonce-1-0 2 1 1", b"SET k v", b"SESSION CLOSE nonce-1-0"),
    *[_payload(1, b"SET a 5", word, word + b" a", word + b" a b", word + b" a b c") for word in _WORDS],
)
TOKENS = (
    *[
        msgspec.msgpack.encode(word)
        for word in (*_WORDS, b"a", b"", b"1", b"-1", b"9223372036854775807", b"x" * 70)
    ],
    *[
        msgspec.msgpack.encode(v)
        for v in (0, 1, 2, -1, 2**62, 2**63, None, "x", 1.5, [], [b"GET"], [[b"GET", b"a"]])
    ],
    *[
        SEPARATOR,
        b"\xf1",
        b"\xff",
        b"\x91" * 1_500,
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc1",
        b"\x95",
    ],
    *[
        msgspec.msgpack.encode(w)
        for w in (b"PX", b"EX", b"NX", b"KEEPTTL", b"COUNT", b"MATCH", b"*", b"2147483648")
    ],
)

TARGET = Target("command_batches", target, SEEDS, TOKENS)
