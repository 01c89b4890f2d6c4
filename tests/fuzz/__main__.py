"""Feed targets with made inputs until a number or a time is reached: `make fuzz`, or

    PYTHONPATH=tests python -m fuzz resp_requests --inputs 10000000
    PYTHONPATH=tests python -m fuzz --seconds 60            # every target for a minute
    PYTHONPATH=tests python -m fuzz peer_frames --atheris   # guided by coverage, where atheris is installed

Without `--atheris` inputs are made from a grammar (mutation.py). A find ends the run with status 1 and leaves
the input in a file, to become a part of `corpus/` once it is understood.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from fuzz.kit import Target
from fuzz.mutation import Mutator

HANG_SECONDS = 60
"""A target that works on a thousand inputs for so long hangs: the stack is shown and the process ends. In
processor time: a machine that sleeps, or a debugger, is no hang."""
CHUNK = 1_000
SHOWN_BYTES = 120


class Run:
    """One target, many inputs."""

    def __init__(self, target: Target, seed: int) -> None:
        self.target = target
        self.inputs = 0
        self.seconds = 0.0
        self.said: Counter[str] = Counter()
        self.slowest = 0.0
        self.slowest_input = b""
        self._mutator = Mutator(target, seed)

    def go(self, inputs: int | None, seconds: float | None, crashes: Path) -> bool:
        """Run until one of the bounds is reached; tell whether nothing was found."""
        began = time.perf_counter()
        while (inputs is None or self.inputs < inputs) and (seconds is None or self.seconds < seconds):
            signal.setitimer(signal.ITIMER_VIRTUAL, HANG_SECONDS)
            for _ in range(CHUNK if inputs is None else min(CHUNK, inputs - self.inputs)):
                if not self._one(self._mutator.make(), crashes):
                    return False
            self.seconds = time.perf_counter() - began
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        return True

    def _one(self, data: bytes, crashes: Path) -> bool:
        started = time.thread_time()
        try:
            said = self.target.run(data)
        except Exception:
            report(self.target, data, crashes)
            return False
        took = time.thread_time() - started
        self.inputs += 1
        self.said[said] += 1
        if took > self.slowest:
            self.slowest, self.slowest_input = took, data
        self._mutator.tell(data, said)
        return True

    def lines(self) -> list[str]:
        """Return what was seen, as lines."""
        rate = self.inputs / self.seconds if self.seconds else 0.0
        spent = time.process_time()
        slowest = repr(self.slowest_input[:SHOWN_BYTES])
        return [
            f"{self.target.name}: {self.inputs:,} inputs in {self.seconds:.1f} s, {rate:,.0f}/s "
            f"(this process has used {spent:.0f} s of the processor)",
            f"  slowest {self.slowest * 1e3:.2f} ms, {len(self.slowest_input)} bytes: {slowest}",
            *[f"  {count:>12,}  {said}" for said, count in self.said.most_common()],
        ]


def report(target: Target, data: bytes, crashes: Path) -> None:
    """Keep an input that broke something, and say what it did."""
    crashes.mkdir(parents=True, exist_ok=True)
    path = crashes / f"{target.name}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    sys.excepthook(*sys.exc_info())
    print(f"{target.name}: found something with {len(data)} bytes, kept in {path}: {data[:SHOWN_BYTES]!r}")


def load_targets(guided: bool) -> dict[str, Target]:
    """Import the targets, and with them what they test: atheris must be there before."""
    if not guided:
        from fuzz.targets import TARGETS

        return TARGETS
    import atheris

    with atheris.instrument_imports(include=["balsadb"]):
        from fuzz.targets import TARGETS
    return TARGETS


def run_atheris(target: Target, arguments: list[str]) -> None:
    """Let atheris look for inputs that reach new code. Ends the process."""
    import atheris

    def one(data: bytes) -> None:
        target.run(data)

    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Feed decoders with hostile input.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="see targets.py (default: all)")
    parser.add_argument("--inputs", type=int, help="inputs for each target")
    parser.add_argument("--seconds", type=float, help="seconds for each target (default: 20)")
    parser.add_argument(
        "--seed", type=int, default=1, help="the same seed makes the same inputs (default: 1)"
    )
    parser.add_argument("--crashes", type=Path, default=Path("fuzz-crashes"), help="where finds are kept")
    parser.add_argument(
        "--atheris", nargs=argparse.REMAINDER, help="use atheris; what follows is for libFuzzer"
    )
    given = parser.parse_args()
    targets = load_targets(given.atheris is not None)
    unknown = set(given.targets) - set(targets)
    if unknown:
        parser.error(f"unknown target {min(unknown)}")
    chosen = [targets[name] for name in given.targets or targets]
    if given.atheris is not None:
        if len(chosen) != 1:
            parser.error("--atheris takes one target")
        run_atheris(chosen[0], given.atheris)
    seconds = given.seconds if given.seconds or given.inputs else 20.0
    faulthandler.register(signal.SIGVTALRM, chain=True)  # its own end is that of the process
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sound = True
    for target in chosen:
        run = Run(target, given.seed)
        try:
            sound = run.go(given.inputs, seconds, given.crashes) and sound
        except KeyboardInterrupt:
            print("stopped before its end")
            return 1
        finally:
            print("\n".join(run.lines()), flush=True)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
