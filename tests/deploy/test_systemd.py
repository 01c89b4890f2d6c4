"""The unit file: judged by `systemd-analyze verify` where there is one, and by what it must say."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from balsadb.server.config import make_config
from balsadb.server.failure import EXIT_FAULT
from balsadb.server.node import DRAIN_SECONDS_MAX

FOLDER = Path(__file__).parents[2] / "deploy/systemd"
UNIT = FOLDER / "balsadb.service"
SETTINGS = tomllib.loads((FOLDER / "balsadb.toml").read_text())


def values(name: str) -> list[str]:
    lines = UNIT.read_text().splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{name}=")]


def value(name: str) -> str:
    (found,) = values(name)
    return found


def test_systemd_takes_the_unit_without_a_word(tmp_path):
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        if os.environ.get("BALSADB_TEST_EVERYTHING"):
            pytest.fail("systemd-analyze is not installed")
        pytest.skip("systemd-analyze is not installed")
    # It looks for the program and the user too, which are not here.
    program = tmp_path / "balsadb"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = UNIT.read_text().replace("/opt/balsadb/bin/balsadb", str(program))
    text = text.replace("User=balsadb", "User=daemon").replace("Group=balsadb", "Group=daemon")
    (tmp_path / "balsadb.service").write_text(text)
    done = subprocess.run(
        [analyze, "verify", "--man=no", "--recursive-errors=no", str(tmp_path / "balsadb.service")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = [line for line in done.stderr.splitlines() if "balsadb" in line]
    assert (done.returncode, said) == (0, [])


def test_a_node_that_can_not_trust_its_data_is_left_to_people_and_any_other_is_started_again():
    assert value("Restart") == "on-failure"
    assert value("RestartPreventExitStatus").split() == [str(EXIT_FAULT)]


def test_it_stops_by_the_signal_that_drains_and_has_the_time_for_it():
    assert value("KillSignal") == "SIGTERM"
    assert int(value("TimeoutStopSec")) > 2 * DRAIN_SECONDS_MAX


def test_it_says_no_more_of_its_start_than_is_true():
    assert value("Type") == "exec", "the server does not tell systemd when it is ready"


def test_it_may_open_the_files_that_ten_thousand_clients_need():
    assert int(value("LimitNOFILE")) >= 20_000


@pytest.mark.parametrize("name", ["NoNewPrivileges", "PrivateTmp", "ProtectHome", "RestrictSUIDSGID"])
def test_it_is_confined(name):
    assert value(name) == "yes"
    assert value("ProtectSystem") == "strict"
    assert value("CapabilityBoundingSet") == ""


def test_the_settings_are_those_of_balsadb_serve():
    given = {name.replace("-", "_"): v for name, v in SETTINGS.items()}
    config = make_config(given)
    assert f"--config /etc/{value('ConfigurationDirectory')}/balsadb.toml" in value("ExecStart")
    assert config.data_dir == f"/var/lib/{value('StateDirectory')}"
    assert config.cluster[config.id].partition(":")[0] == config.advertise.partition(":")[0]
