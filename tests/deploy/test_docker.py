"""Dockerfile and compose.yaml. No image is built here: what can be read from the files is."""

from __future__ import annotations

import ast
import fnmatch
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from balsadb.address import parse_address
from balsadb.server import http
from balsadb.server.config import parse_members
from deploy.settings import parse_serve

ROOT = Path(__file__).parents[2]


def instructions(text: str) -> list[tuple[str, str]]:
    """Return (instruction, rest) of a Dockerfile, with continued lines joined and comments gone."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines() if line.strip()]


STEPS = instructions((ROOT / "Dockerfile").read_text())
FINAL = STEPS[max(number for number, (name, _) in enumerate(STEPS) if name == "FROM") :]
COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
SERVICES = COMPOSE["services"]
ENVIRONMENT = dict(
    word.split("=", 1) for name, rest in FINAL if name == "ENV" for word in rest.split() if "=" in word
)
PROBED = re.compile(r"urlopen\('http://127\.0\.0\.1:(\d+)(/\w+)'")


def only(name: str) -> str:
    (found,) = [rest for step, rest in FINAL if step == name]
    return found


def served_paths() -> set[str]:
    app = http.create_app(lambda: None)
    return {resource.canonical for resource in app.router.resources()}


def test_every_instruction_is_one_of_dockers():
    known = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL"}
    assert {name for name, _ in STEPS} <= known | {"HEALTHCHECK", "ENTRYPOINT", "CMD"}


def test_it_has_two_stages_of_one_pinned_image_and_only_the_environment_is_taken_over():
    bases = [rest.split()[0] for name, rest in STEPS if name == "FROM"]
    assert bases == ["python:3.11-slim-bookworm"] * 2
    assert [rest for name, rest in FINAL if name == "COPY"] == ["--from=build /opt/balsadb /opt/balsadb"]


def test_it_runs_as_a_user_who_owns_nothing_but_the_volume():
    uid, gid = only("USER").split(":")
    assert int(uid) > 0
    assert int(gid) > 0
    made = next(rest for name, rest in FINAL if name == "RUN")
    assert f"--uid {uid}" in made
    assert f"--gid {gid}" in made
    assert json.loads(only("VOLUME")) == [ENVIRONMENT["BALSADB_DATA_DIR"]]


def test_the_server_is_the_first_process_so_that_it_gets_the_signal():
    assert json.loads(only("ENTRYPOINT")) == ["balsadb"]
    assert json.loads(only("CMD")) == ["serve"]
    assert only("STOPSIGNAL") == "SIGTERM"


def test_ports_exposed_and_probed_are_those_it_listens_at():
    listening = [ENVIRONMENT[f"BALSADB_{name}"] for name in ("LISTEN", "PEER_LISTEN", "HTTP_LISTEN")]
    assert [parse_address(address)[1] for address in listening] == [int(p) for p in only("EXPOSE").split()]
    port, path = PROBED.search(only("HEALTHCHECK")).groups()
    assert int(port) == parse_address(ENVIRONMENT["BALSADB_HTTP_LISTEN"])[1]
    assert path in served_paths()
    words = json.loads(re.search(r"CMD (\[.*\])", only("HEALTHCHECK"))[1])
    ast.parse(words[2])


def test_the_builder_gets_only_what_it_copies():
    """A pattern with ! lets a name in again; the last one that fits counts."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]

    def let_in(name: str) -> bool:
        there = True
        for line in lines:
            pattern = line.removeprefix("!")
            if fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(name, pattern.removeprefix("**/")):
                there = line.startswith("!")
        return there

    copies = [rest for name, rest in STEPS if name == "COPY" and "--from" not in rest]
    copied = {word for rest in copies for word in rest.split()}
    wanted = copied - {"./", "./src"}
    assert wanted == {"pyproject.toml", "README.md", "src"}
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    if not names:
        pytest.skip("this is no checkout")
    assert {name.split("/")[0] for name in names if let_in(name.split("/")[0])} == wanted
    assert not let_in("deploy")
    assert not let_in(".git")


# ------------------------------------------------------------------------------- compose


@pytest.fixture(params=sorted(SERVICES))
def service(request):
    return SERVICES[request.param] | {"name": request.param}


def test_a_service_starts_a_node_that_the_others_know_by_its_name(service):
    config = parse_serve(service["command"], ENVIRONMENT)
    assert len(SERVICES) == 3
    assert {f"balsadb-{node}:8001" for node in config.cluster} == {f"{name}:8001" for name in SERVICES}
    assert config.cluster[config.id] == f"{service['name']}:8001"
    assert parse_address(config.peer_listen)[1] == 8001


def test_all_services_have_the_same_members_and_nothing_else_in_common(service):
    others = [other for other in SERVICES if other != service["name"]]
    mine = parse_serve(service["command"], ENVIRONMENT)
    for other in others:
        theirs = parse_serve(SERVICES[other]["command"], ENVIRONMENT)
        assert theirs.cluster_text == mine.cluster_text
        assert theirs.id != mine.id
        assert theirs.advertise != mine.advertise
        assert not set(SERVICES[other]["ports"]) & set(service["ports"])
        assert not set(SERVICES[other]["volumes"]) & set(service["volumes"])


def test_clients_are_told_a_port_that_is_published_and_nothing_is_published_to_the_world(service):
    config = parse_serve(service["command"], ENVIRONMENT)
    inside = str(parse_address(config.listen)[1])
    host, port = parse_address(config.advertise)
    assert f"{host}:{port}:{inside}" in service["ports"]
    assert all(published.startswith("127.0.0.1:") for published in service["ports"])
    assert not any(published.endswith(":8001") for published in service["ports"])


def test_a_service_keeps_its_data_in_a_volume_of_its_own(service):
    (volume,) = service["volumes"]
    name, _, path = volume.partition(":")
    assert name in COMPOSE["volumes"]
    assert path == parse_serve(service["command"], ENVIRONMENT).data_dir


def test_a_service_takes_its_secrets_from_files_that_are_declared(service):
    for word in service["command"]:
        if word.startswith(("--peer-secret-file=", "--password-file=")):
            secret = word.partition("=/run/secrets/")[2]
            assert secret in service["secrets"]
            assert COMPOSE["secrets"][secret]["file"] == f"./{secret}"
    assert sum("-file=" in word for word in service["command"]) == len(service["secrets"]) == 2
    assert "deploy/peer-secret\ndeploy/password\n" in (ROOT / ".gitignore").read_text()


def test_a_service_is_probed_where_it_answers_and_has_time_to_stop(service):
    test = service["healthcheck"]["test"]
    assert test[0] == "CMD"
    port, path = PROBED.search(test[-1]).groups()
    assert int(port) == parse_address(ENVIRONMENT["BALSADB_HTTP_LISTEN"])[1]
    assert path in served_paths()
    assert service["stop_grace_period"] == "30s"
    assert not service["init"], "the server must be the first process"


def test_addresses_of_the_comment_are_those_of_the_file():
    text = (ROOT / "deploy/compose.yaml").read_text()
    assert "docker compose -f deploy/compose.yaml up --build" in text
    members = parse_members(SERVICES["balsadb-1"]["command"][2].partition("=")[2])
    assert list(members) == [1, 2, 3]
