"""What a throughput run found: cells, the measurements of each, and the one table they end in."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from loads import Result

OURS, ETCD, REDIS = "BalsaDB", "etcd", "Redis"
TABLE_WIDTH = 200
"""Wide enough for every column: output that goes to a file must not be folded to 80 columns."""


@dataclass(frozen=True)
class Cell:
    """One thing to measure. `placement` is for us alone: clients at the "leader" or "spread" over all."""

    operation: str
    clients: int
    pipeline: int = 1
    placement: str = "leader"

    @property
    def label(self) -> str:
        """The cell in the words of the table."""
        depth = f" x {self.pipeline}" if self.pipeline > 1 else ""
        return f"{self.operation} {self.clients}{depth} {self.placement}"

    def reference(self) -> Cell:
        """Return the cell of the other systems to compare with: they have no placement."""
        return Cell(self.operation, self.clients, self.pipeline)


@dataclass(frozen=True)
class Measurement:
    """One cell, once: what the clients saw, and what it cost the servers."""

    result: Result
    cpu_us: dict[str, float]
    """Processor time of the servers, in microseconds per operation, by role; of several, the mean."""


@dataclass
class Findings:
    """Everything that was measured, by system and cell, in order of the runs."""

    measured: dict[str, dict[Cell, list[Measurement]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    """Sentences about cells that could not be measured or during which something happened."""

    def add(self, system: str, cell: Cell, measurement: Measurement) -> None:
        """Keep a measurement."""
        self.measured.setdefault(system, {}).setdefault(cell, []).append(measurement)

    def median(self, system: str, cell: Cell) -> Measurement | None:
        """Return the medians over all runs of a cell."""
        runs = self.measured.get(system, {}).get(cell)
        if not runs:
            return None
        results = [run.result for run in runs]
        return Measurement(
            result=Result(
                operations=sum(r.operations for r in results),
                rate=statistics.median(r.rate for r in results),
                p50=statistics.median(r.p50 for r in results),
                p95=statistics.median(r.p95 for r in results),
                p99=statistics.median(r.p99 for r in results),
                maximum=max(r.maximum for r in results),
                errors=sum(r.errors for r in results),
            ),
            cpu_us={role: statistics.median(run.cpu_us[role] for run in runs) for role in runs[0].cpu_us},
        )

    def spread(self, system: str, cell: Cell) -> float | None:
        """Return how far runs lie apart: (greatest - smallest) / median of the rate."""
        rates = [run.result.rate for run in self.measured.get(system, {}).get(cell, [])]
        return (max(rates) - min(rates)) / statistics.median(rates) if len(rates) > 1 else None

    def as_json(self) -> list[dict[str, object]]:
        """Return every single measurement as plain values."""
        return [
            {"system": system, **asdict(cell), "runs": [asdict(run) for run in runs]}
            for system, cells in self.measured.items()
            for cell, runs in cells.items()
        ]


def print_table(findings: Findings, cells: Sequence[Cell]) -> None:
    """Print the table, in Markdown so that it can be pasted."""
    table = Table(box=MARKDOWN, show_edge=True)
    table.add_column("cell", no_wrap=True)
    headings = ["BalsaDB op/s", "etcd op/s", "Redis op/s", "x etcd", "x Redis"]
    headings += [f"{name} p50/p99 ms" for name in (OURS, ETCD, REDIS)]
    headings += ["leader us/op", "follower us/op", "runs differ"]
    for heading in headings:
        table.add_column(heading, justify="right")
    for cell in cells:
        table.add_row(cell.label, *_row(findings, cell))
    Console(width=TABLE_WIDTH, highlight=False).print(table)


def _row(findings: Findings, cell: Cell) -> list[str]:
    ours = findings.median(OURS, cell)
    etcd = findings.median(ETCD, cell.reference())
    redis = findings.median(REDIS, cell.reference())
    cpu = ours.cpu_us if ours else {}
    spread = findings.spread(OURS, cell)
    return [
        *(_rate(m) for m in (ours, etcd, redis)),
        _ratio(ours, etcd),
        _ratio(ours, redis),
        *(_latency(m) for m in (ours, etcd, redis)),
        *(f"{cpu[role]:.1f}" if role in cpu else "-" for role in ("leader", "follower")),
        f"{spread:.0%}" if spread is not None else "-",
    ]


def _rate(measurement: Measurement | None) -> str:
    return f"{measurement.result.rate:,.0f}" if measurement else "-"


def _latency(measurement: Measurement | None) -> str:
    return f"{measurement.result.p50:.2f} / {measurement.result.p99:.2f}" if measurement else "-"


def _ratio(ours: Measurement | None, other: Measurement | None) -> str:
    return f"{ours.result.rate / other.result.rate:.2f}" if ours and other else "-"
