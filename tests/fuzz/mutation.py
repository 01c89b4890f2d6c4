"""Inputs made from a target's seeds and words: the grammar is theirs, the damage is here.

There is no measurement of coverage. Instead an input that came to something new is kept and made others from:
what a target says its inputs came to is coarse, and enough to get through the states of these small decoders.
"""

from __future__ import annotations

import random
import re

from fuzz.kit import Target

INPUT_BYTES_MAX = 2_048
"""No input is longer; what only shows in longer ones is a matter of limits, which have tests of their own."""
POOL_MAX = 256
"""Inputs that others are made from."""

_NUMBER = re.compile(rb"-?[0-9]+")
_NUMBERS = (
    b"0",
    b"1",
    b"2",
    b"-1",
    b"3",
    b"7",
    b"65536",
    b"1024",
    b"4096",
    b"2147483648",
    b"00",
    b"9" * 20,
    b"",
)


class Mutator:
    """Makes inputs for one target, always the same ones for the same seed."""

    def __init__(self, target: Target, seed: int) -> None:
        self._tokens = target.tokens or (b"\0", b"\xff")
        self._pool = [*target.seeds, *target.corpus()] or [b""]
        self._numbers = random.Random(seed)
        self._met: set[str] = set()

    def make(self) -> bytes:
        """Return the next input."""
        below, pool, tokens = self._below, self._pool, self._tokens
        kind = below(8)
        if kind == 0:  # from words alone
            data = b"".join([tokens[below(len(tokens))] for _ in range(1 + below(12))])
        elif kind == 1:  # two that were joined
            data = pool[below(len(pool))] + pool[below(len(pool))]
        else:
            data = pool[below(len(pool))]
        for _ in range(below(5)):
            data = self._changed(data)
        return data[:INPUT_BYTES_MAX]

    def tell(self, data: bytes, said: str) -> None:
        """Learn what an input came to."""
        if said in self._met:
            return
        self._met.add(said)
        if len(self._pool) < POOL_MAX:
            self._pool.append(data)
        else:
            self._pool[self._below(POOL_MAX)] = data

    def _below(self, bound: int) -> int:
        return int(self._numbers.random() * bound)

    def _changed(self, data: bytes) -> bytes:
        below = self._below
        place = below(len(data) + 1)
        match below(8):
            case 0 if data:  # a bit
                place = min(place, len(data) - 1)
                return data[:place] + bytes([data[place] ^ 1 << below(8)]) + data[place + 1 :]
            case 1:  # a byte
                return data[:place] + bytes([below(256)]) + data[place + 1 :]
            case 2:  # something less
                return data[:place] + data[place + 1 + below(8) :]
            case 3:  # the end
                return data[:place]
            case 4:  # something twice
                return data[:place] + data[max(0, place - 1 - below(40)) :]
            case 5:  # another number
                numbers = list(_NUMBER.finditer(data))
                if numbers:
                    found = numbers[below(len(numbers))]
                    return data[: found.start()] + _NUMBERS[below(len(_NUMBERS))] + data[found.end() :]
                return data
            case 6:  # the rest of another one
                other = self._pool[below(len(self._pool))]
                return data[:place] + other[below(len(other) + 1) :]
            case _:  # a word, instead of something or between
                word = self._tokens[below(len(self._tokens))]
                return data[:place] + word + data[place + (below(2) and len(word)) :]
