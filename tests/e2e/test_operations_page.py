"""Every command of docs/operations.md, run in the order of the page on servers of this version.

A machine of the page is a directory here, and its addresses are free ports. Instead of `systemctl` this test
starts and stops the servers.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from balsadb.testing import EXIT_WITH_STDIN, _choose_ports
from operations_page import PAGE, Step, settings, steps

TEXT = PAGE.read_text()
PORTS = ("7001", "8001", "9001")
WORD = re.compile(r"--confirm (node-\S+)")
COMMAND_SECONDS = 60
BENCH_SECONDS = "0.3"


class Machine:
    """One of the machines of the page."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def start(self, environment: dict[str, str]) -> None:
        assert self.process is None, "it runs"
        command = [sys.executable, "-P", "-m", "balsadb", "serve", "--config"]
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                [*command, str(self.directory / "balsadb.toml")],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment | {EXIT_WITH_STDIN: "1"},
            )

    def stop(self, number: signal.Signals) -> None:
        assert self.process is not None, "it does not run"
        self.process.send_signal(number)
        self.process.communicate(timeout=30)
        expected = 0 if number is signal.SIGTERM else -number
        assert self.process.returncode == expected, self.log
        self.process = None


class Operator:
    """Does what the page says."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        names = [f"db{number}" for number in range(1, 6)]
        self._machines = {name: Machine(directory / name) for name in names}
        ports = _choose_ports(len(names), None, "127.0.0.1")
        self._addresses = {
            f"{name}:{theirs}": f"127.0.0.1:{mine}"
            for name, three in zip(names, ports, strict=True)
            for theirs, mine in zip(PORTS, three, strict=True)
        }
        (directory / "mnt").mkdir()
        (directory / "work").mkdir()
        self._environment = self._make_environment()
        self._word = ""
        for name, machine in self._machines.items():
            (machine.directory / "balsadb.toml").write_text(self._resolve(self._settings(name), name))

    def _make_environment(self) -> dict[str, str]:
        programs = self._directory / "bin"
        programs.mkdir()
        (programs / "balsadb").write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m balsadb "$@"\n')
        (programs / "balsadb").chmod(0o755)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BALSADB_")}
        path = f"{programs}{os.pathsep}{clean['PATH']}"
        return clean | {"PATH": path, "BALSADB_SECONDS": BENCH_SECONDS}

    @staticmethod
    def _settings(name: str) -> str:
        """Return a machine's settings: those of the page, for its id and its own addresses."""
        model = "db1" if name in ("db1", "db2", "db3") else "db4"
        text = settings(TEXT)[model].replace(f"id = {model[2]}\n", f"id = {name[2]}\n")
        return re.sub(rf'(listen = "){model}:', rf"\g<1>{name}:", text)

    def _resolve(self, text: str, machine: str) -> str:
        """Put what is here in the place of the page's addresses, paths, times and words."""
        text = re.sub(r"\bdb\d:\d{4}\b", lambda found: self._addresses[found[0]], text)
        text = text.replace("--seconds 60", f"--seconds {BENCH_SECONDS}").replace("/mnt/", f"{self._mnt}/")
        if machine:
            here = str(self._machines[machine].directory)
            text = text.replace("/var/lib/balsadb", f"{here}/data").replace("/etc/balsadb", here)
        assert "/var/lib" not in text, f"on which machine? {text}"
        assert "/etc/" not in text, f"on which machine? {text}"
        return WORD.sub(f"--confirm {self._word}", text)

    @property
    def _mnt(self) -> Path:
        return self._directory / "mnt"

    def do(self, step: Step) -> None:
        if assigned := re.fullmatch(r"export (\w+)=(\S+)", step.command):
            self._environment[assigned[1]] = self._resolve(assigned[2], step.machine)
        elif unit := re.fullmatch(r"systemctl (\w+) balsadb", step.command):
            self._systemctl(unit[1], self._machines[step.machine])
        else:
            self._run(step)

    def _systemctl(self, action: str, machine: Machine) -> None:
        if action in ("stop", "restart"):
            machine.stop(signal.SIGTERM)
        if action == "kill":
            machine.stop(signal.SIGKILL)
        if action in ("start", "restart"):
            machine.start(self._environment)

    def _run(self, step: Step) -> None:
        command = self._resolve(step.command, step.machine)
        done = subprocess.run(
            ["bash", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
            env=self._environment,
            cwd=self._directory / "work",
        )
        said = f"line {step.line}: {step.command}\n{done.stdout}"
        assert done.returncode in step.statuses, f"status {done.returncode} of {said}"
        for line in step.shown:
            assert self._resolve(line, "") in done.stdout, f"{line!r} is not in the output of {said}"
        if word := WORD.search(done.stdout):
            self._word = word[1]

    def close(self) -> None:
        for machine in self._machines.values():
            if machine.process is not None:
                machine.stop(signal.SIGKILL)


@pytest.fixture
def operator(tmp_path):
    operator = Operator(tmp_path)
    yield operator
    operator.close()


@pytest.mark.timeout(300)
def test_every_command_of_the_page_does_what_it_says(operator):
    for step in steps(TEXT):
        operator.do(step)
