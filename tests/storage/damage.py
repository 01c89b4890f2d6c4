"""Random damage to the files of a stopped node: what a disk, a person or a backup script can do to one file.

The old copies are those of `META` and of the state, taken a while before. An old copy of the log is not in
this catalogue: a whole directory that is put back to an earlier moment has lost what it acknowledged since,
looks sound in itself, and no node can find that out alone; operators are told not to do it.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import NamedTuple

SECTOR = 512


class Damage(NamedTuple):
    """What was done."""

    kind: str
    path: str
    """Relative to the data directory."""
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.path} {self.detail}".rstrip()


KINDS = ("flip", "truncate", "zero", "old copy", "delete", "delete directory")
WEIGHTS = (35, 15, 20, 10, 12, 8)


def damage(rng: random.Random, directory: Path, old: Path | None = None, kind: str | None = None) -> Damage:
    """Damage one file or directory under `directory`, in any way or in that of `kind`.

    `old` is a copy of the directory from earlier, if there is one.
    """
    while True:
        done = _damage(rng, kind or rng.choices(KINDS, WEIGHTS)[0], directory, old)
        if done is not None:
            return done


def _damage(rng: random.Random, kind: str, directory: Path, old: Path | None) -> Damage | None:
    if kind == "delete directory":
        victim = rng.choice(sorted(path for path in directory.rglob("*") if path.is_dir()))
        shutil.rmtree(victim)
        return Damage(kind, str(victim.relative_to(directory)))
    victim = _file(rng, directory)
    name = str(victim.relative_to(directory))
    if kind == "old copy":
        copy = None if old is None else old / name
        in_log = name.startswith("group-0/wal") and not name.endswith("END")
        if copy is None or in_log or not copy.is_file():
            return None
        content = copy.read_bytes()
        if content == victim.read_bytes():
            return None
        victim.write_bytes(content)
        return Damage(kind, name)
    if kind == "delete":
        victim.unlink()
        return Damage(kind, name)
    data = bytearray(victim.read_bytes())
    if not data:
        return None
    before, detail = bytes(data), ""
    if kind == "flip":
        detail = _flip(rng, data)
    elif kind == "truncate":
        length = rng.choice((0, rng.randrange(len(data)), rng.randrange(len(data)) // SECTOR * SECTOR))
        del data[length:]
        detail = f"to {length}"
    else:
        detail = _zero(rng, data)
    if data == before:
        return None
    victim.write_bytes(data)
    return Damage(kind, name, detail)


def _file(rng: random.Random, directory: Path) -> Path:
    """Draw a file, each part of a node with its own weight: a state has many files and `META` is one."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    part = rng.choices(("wal/", "state/", ""), (5, 4, 1))[0]
    chosen = [path for path in files if f"/group-0/{part}" in str(path)] if part else []
    return rng.choice(chosen or [path for path in files if "/group-0/" not in str(path)] or files)


def _written(data: bytes) -> int:
    """Where the zeros begin with which a file ends."""
    return max(1, len(data.rstrip(b"\0")))


def _flip(rng: random.Random, data: bytearray) -> str:
    places = []
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        place = rng.randrange(_written(data) if rng.random() < 0.9 else len(data))
        data[place] ^= 1 << rng.randrange(8)
        places.append(place)
    return f"at {places}"


def _zero(rng: random.Random, data: bytearray) -> str:
    """Zero whole sectors: some in a row, often up to the last that was written."""
    sectors = -(-_written(data) // SECTOR)
    first = rng.randrange(sectors)
    count = rng.choice((1, 1, 2, sectors - first))
    start, stop = first * SECTOR, min((first + count) * SECTOR, len(data))
    data[start:stop] = bytes(stop - start)
    return f"sectors {first}..{first + count - 1}"
