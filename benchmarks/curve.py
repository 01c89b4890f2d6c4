"""Draws throughput against latency from what throughput.py has measured.

    python benchmarks/throughput.py --clients 1 4 16 64 256 --no-spread --json result.json
    python benchmarks/curve.py result.json docs/performance.svg

A curve is one system; each of its points is a number of clients, written beside it. Further to the right is
more operations a second, lower is less waiting. Both axes are logarithmic. Solid lines are the 99th
percentile, dashed ones the median. Pipelined cells are left out: their latency is that of a batch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from pathlib import Path
from typing import Any

from harness import BenchError
from report import ETCD, OURS, REDIS

PANEL_WIDTH, PANEL_HEIGHT = 400, 300
LEFT, TOP, GAP, BOTTOM = 64, 64, 80, 84
# Told apart by people who see colours differently, too, and by their marks.
COLOURS = {OURS: "#0072b2", ETCD: "#d55e00", REDIS: "#009e73"}
OPERATIONS = ("SET", "GET")


@dataclass(frozen=True)
class Point:
    """A system under one number of clients: medians over all runs."""

    clients: int
    rate: float
    p50: float
    p99: float


Curves = dict[str, dict[str, list[Point]]]
"""Points by operation and system, in order of clients."""


def read(document: dict[str, Any]) -> Curves:
    """Read the JSON of throughput.py."""
    curves: Curves = {operation: {} for operation in OPERATIONS}
    for cell in document["cells"]:
        if cell["pipeline"] != 1 or cell["placement"] != "leader" or cell["operation"] not in curves:
            continue
        results = [run["result"] for run in cell["runs"]]
        medians = (statistics.median(result[name] for result in results) for name in ("rate", "p50", "p99"))
        curves[cell["operation"]].setdefault(cell["system"], []).append(Point(cell["clients"], *medians))
    for systems in curves.values():
        for points in systems.values():
            points.sort(key=lambda point: point.clients)
    return curves


class Axis:
    """A logarithmic axis over whole powers of ten that hold all values."""

    def __init__(self, values: Sequence[float], begin: float, end: float) -> None:
        self.low = floor(log10(min(values)))
        self.high = max(ceil(log10(max(values))), self.low + 1)
        self._begin, self._end = begin, end

    def at(self, value: float) -> float:
        """Return where a value is."""
        return self._begin + (log10(value) - self.low) / (self.high - self.low) * (self._end - self._begin)

    def ticks(self) -> list[float]:
        """Return the powers of ten."""
        return [10.0**power for power in range(self.low, self.high + 1)]


def draw(curves: Curves, notes: Iterable[str]) -> str:
    """Return the picture as SVG: one panel for each operation."""
    points = [p for systems in curves.values() for some in systems.values() for p in some]
    if not points:
        raise BenchError("there is nothing to draw: no cell without pipelining")
    shown = [operation for operation in OPERATIONS if curves[operation]]
    notes = list(notes)
    width = LEFT + len(shown) * (PANEL_WIDTH + GAP)
    height = TOP + PANEL_HEIGHT + BOTTOM + 14 * len(notes)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12" fill="#222">',
        "<title>Throughput against latency</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        _legend(sorted({system for systems in curves.values() for system in systems})),
    ]
    for number, operation in enumerate(shown):
        left = LEFT + number * (PANEL_WIDTH + GAP)
        # The same axes for all panels, so that they can be compared.
        across = Axis([point.rate for point in points], left, left + PANEL_WIDTH)
        latencies = [latency for point in points for latency in (point.p50, point.p99) if latency > 0]
        up = Axis(latencies, TOP + PANEL_HEIGHT, TOP)
        parts += _frame(operation, left, across, up)
        for system, some in curves[operation].items():
            parts += _curve(some, COLOURS.get(system, "#666"), across, up)
    for number, note in enumerate(notes):
        y = TOP + PANEL_HEIGHT + 60 + 14 * number
        parts.append(f'<text x="{LEFT}" y="{y}" font-size="10" fill="#555">{escape(note)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _legend(systems: Sequence[str]) -> str:
    parts = []
    for number, system in enumerate(systems):
        x = LEFT + 110 * number
        parts.append(f'<circle cx="{x + 5}" cy="20" r="4" fill="{COLOURS.get(system, "#666")}"/>')
        parts.append(f'<text x="{x + 15}" y="24">{escape(system)}</text>')
    x = LEFT + 110 * len(systems)
    for offset, dashes, name in ((0, "", "p99"), (80, ' stroke-dasharray="5 4"', "median")):
        parts.append(f'<path d="M{x + offset} 20h26" stroke="#222"{dashes}/>')
        parts.append(f'<text x="{x + offset + 32}" y="24">{name}</text>')
    return "\n".join(parts)


def _frame(operation: str, left: float, across: Axis, up: Axis) -> list[str]:
    """Draw a panel without its curves."""
    bottom = TOP + PANEL_HEIGHT
    parts = [f'<text x="{left}" y="{TOP - 10}" font-weight="bold">{operation}</text>']
    for rate in across.ticks():
        x = across.at(rate)
        parts.append(f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{rate:,.0f}</text>')
    for latency in up.ticks():
        y = up.at(latency)
        parts.append(f'<path d="M{left} {y:.1f}h{PANEL_WIDTH}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{latency:g}</text>')
    middle = left + PANEL_WIDTH / 2
    parts.append(f'<text x="{middle}" y="{bottom + 38}" text-anchor="middle">operations a second</text>')
    turned, x = TOP + PANEL_HEIGHT / 2, left - 42
    parts.append(f'<text transform="translate({x} {turned}) rotate(-90)" text-anchor="middle">ms</text>')
    return parts


def _curve(points: Sequence[Point], colour: str, across: Axis, up: Axis) -> list[str]:
    """Draw the two lines of a system and its marks."""
    parts = []
    for latencies, dashes in (("p99", ""), ("p50", ' stroke-dasharray="5 4"')):
        placed = [
            (point.clients, across.at(point.rate), up.at(getattr(point, latencies)))
            for point in points
            if getattr(point, latencies) > 0
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for _, x, y in placed)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"{dashes}/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for _, x, y in placed]
        if latencies == "p99":
            label = f'font-size="10" text-anchor="middle" fill="{colour}"'
            parts += [
                f'<text x="{x:.1f}" y="{y - 7:.1f}" {label}>{clients}</text>' for clients, x, y in placed
            ]
    return parts


def describe(document: dict[str, Any]) -> list[str]:
    """Return what the picture is worth only together with."""
    machine, settings = document["machine"], document["settings"]
    systems = ", ".join(f"{name} {version}" for name, (version, _) in document["systems"].items())
    lines = [
        f"Numbers beside the points are clients. {systems}; values of {settings['value_bytes']} bytes, "
        f"medians of {settings['runs']} runs of {settings['seconds']:g} s.",
        f"{machine['processor']}, {machine['cores']} cores for all servers and the load generator; "
        f"{machine['file_system']}, fdatasync p50 {machine['sync_p50_ms']:.2f} ms. Redis: one node.",
    ]
    if machine["load_before"] > machine["cores"] / 4:
        lines.append(f"The machine was busy with other work (load average {machine['load_before']:.1f}).")
    return lines


def main() -> int:
    """Read one file, write the other."""
    parser = argparse.ArgumentParser(description="Draw throughput against latency.")
    parser.add_argument(
        "source", type=Path, metavar="RESULT.json", help="what throughput.py --json has written"
    )
    parser.add_argument("target", type=Path, metavar="PICTURE.svg", help="where the picture goes")
    options = parser.parse_args()
    try:
        document = json.loads(options.source.read_text())
        picture = draw(read(document), describe(document))
    except (ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{options.source} is not what throughput.py writes ({error!r})") from None
    options.target.write_text(picture)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, OSError) as error:
        sys.exit(f"curve: {error}")
