"""The Kubernetes files. No cluster is started: labels, ports, probes and command lines are held together."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from balsadb.address import parse_address
from balsadb.server import http
from balsadb.server.node import DRAIN_SECONDS_MAX
from deploy.settings import parse_serve, serve_lines

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"
OBJECTS = [
    document for path in sorted(FOLDER.glob("*.yaml")) for document in yaml.safe_load_all(path.read_text())
]
VERSIONS = {
    "StatefulSet": "apps/v1",
    "Service": "v1",
    "PodDisruptionBudget": "policy/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
}


def named(kind: str, name: str = "balsadb") -> dict:
    (found,) = [o for o in OBJECTS if (o["kind"], o["metadata"]["name"]) == (kind, name)]
    return found


SET = named("StatefulSet")["spec"]
POD = SET["template"]["spec"]
LABELS = SET["template"]["metadata"]["labels"]
(CONTAINER,) = POD["containers"]
PORTS = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
INDEX = "metadata.labels['apps.kubernetes.io/pod-index']"


def configuration(node: int):
    """Return what the server of a pod is told."""
    variables = {"POD_NAME": f"balsadb-{node}", "BALSADB_ID": str(node)}
    initial, joining = serve_lines(CONTAINER["command"][-1], variables)
    return parse_serve(initial if node <= 3 else joining, variables)


def test_every_object_has_a_known_kind_and_a_version_that_is_served_today():
    assert {o["kind"]: o["apiVersion"] for o in OBJECTS} == VERSIONS
    assert len(OBJECTS) == 5
    for each in OBJECTS:
        assert "namespace" not in each["metadata"]
        assert each["metadata"]["labels"] == LABELS


def test_every_selector_finds_the_pods():
    assert SET["selector"]["matchLabels"] == LABELS
    for service in ("balsadb", "balsadb-peers"):
        assert named("Service", service)["spec"]["selector"] == LABELS
    assert named("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == LABELS
    policy = named("NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"] == LABELS
    assert policy["ingress"][0]["from"] == [{"podSelector": {"matchLabels": LABELS}}]
    terms = POD["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert [term["labelSelector"]["matchLabels"] for term in terms] == [LABELS]
    assert terms[0]["topologyKey"] == "kubernetes.io/hostname"


def test_nodes_find_each_other_before_they_are_ready_and_clients_only_who_is():
    peers, clients = named("Service", "balsadb-peers")["spec"], named("Service")["spec"]
    assert SET["serviceName"] == "balsadb-peers"
    assert (peers["clusterIP"], peers["publishNotReadyAddresses"]) == ("None", True)
    assert "publishNotReadyAddresses" not in clients
    assert [port["name"] for port in clients["ports"]] == ["clients"]
    for port in [*peers["ports"], *clients["ports"]]:
        assert port["targetPort"] == port["name"]
        assert PORTS[port["targetPort"]] == port["port"]


def test_the_port_of_the_peers_is_for_nodes_only():
    own, others = named("NetworkPolicy")["spec"]["ingress"]
    assert {port["port"] for port in own["ports"]} == set(PORTS)
    assert {port["port"] for port in others["ports"]} == set(PORTS) - {"peers"}


@pytest.mark.parametrize("node", [1, 2, 3])
def test_an_initial_pod_starts_the_node_that_the_others_expect_there(node):
    config = configuration(node)
    assert config.id == node
    assert sorted(config.cluster) == [1, 2, 3]
    assert config.cluster[node] == f"balsadb-{node}.balsadb-peers:8001"
    assert config.advertise == f"balsadb-{node}.balsadb-peers:7001"
    assert config.log_format == "json"
    assert config.cluster_text == configuration(1).cluster_text
    assert SET["replicas"] == len(config.cluster)


def test_a_later_pod_joins_and_says_where_it_is():
    config = configuration(4)
    assert (config.id, config.cluster, config.join) == (4, {}, "balsadb:7001")
    assert config.peer_listen == "balsadb-4.balsadb-peers:8001"
    assert config.advertise == "balsadb-4.balsadb-peers:7001"


@pytest.mark.parametrize("node", [1, 4])
def test_a_pod_listens_at_its_ports_and_keeps_its_data_in_its_volume(node):
    config = configuration(node)
    listening = {"clients": config.listen, "peers": config.peer_listen, "http": config.http_listen}
    assert {name: parse_address(str(address))[1] for name, address in listening.items()} == PORTS
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    (claim,) = SET["volumeClaimTemplates"]
    assert mounts[claim["metadata"]["name"]] == config.data_dir
    volumes = {volume["name"] for volume in POD["volumes"]} | {claim["metadata"]["name"]}
    assert set(mounts) == volumes


def test_the_ordinal_is_the_id_and_ids_begin_at_one():
    variables = {each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"] for each in CONTAINER["env"]}
    assert variables == {"POD_NAME": "metadata.name", "BALSADB_ID": INDEX}
    assert SET["ordinals"]["start"] == 1


def test_all_pods_start_at_once_because_the_first_start_needs_all():
    assert SET["podManagementPolicy"] == "Parallel"
    assert named("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_probes_ask_for_pages_that_are_there_and_life_is_not_readiness():
    app = http.create_app(lambda: None)
    paths = {resource.canonical for resource in app.router.resources()}
    probes = {name: CONTAINER[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {probe["path"] for probe in probes.values()} <= paths
    assert {probe["port"] for probe in probes.values()} == {"http"}
    assert probes["readiness"]["path"] == "/readyz"
    assert probes["liveness"]["path"] == probes["startup"]["path"] == "/livez"
    notes = SET["template"]["metadata"]["annotations"]
    assert notes["prometheus.io/port"] == str(PORTS["http"])


def test_a_stop_has_time_to_hand_leadership_over_and_the_server_gets_the_signal_itself():
    sleep = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep[0] == "sleep"
    assert int(sleep[1]) + 2 * DRAIN_SECONDS_MAX < POD["terminationGracePeriodSeconds"]
    script = CONTAINER["command"][-1]
    assert script.count("exec balsadb serve") == script.count("balsadb serve") == 2


def test_secrets_come_as_files_from_the_secret_that_the_comment_makes():
    script, text = CONTAINER["command"][-1], (FOLDER / "statefulset.yaml").read_text()
    (mount,) = [mount for mount in CONTAINER["volumeMounts"] if mount["name"] == "secrets"]
    (volume,) = [volume for volume in POD["volumes"] if volume["name"] == "secrets"]
    assert f"create secret generic {volume['secret']['secretName']} " in text
    assert mount["readOnly"]
    (own,) = [mount for mount in CONTAINER["volumeMounts"] if mount["name"] == "own-secrets"]
    copying = f"cp -f {mount['mountPath']}/peer-secret {mount['mountPath']}/password {own['mountPath']}/\n"
    assert script.index("umask 077\n") < script.index(copying) < script.index("exec ")
    for name in ("peer-secret", "password"):
        assert script.count(f"--{name}-file {own['mountPath']}/{name}") == 2
        assert f"--from-literal={name}=" in text


@pytest.mark.parametrize(("node", "word"), [(1, "--cluster"), (3, "--cluster"), (4, "--join")])
def test_a_shell_runs_the_script_twice_and_makes_of_it_what_this_test_reads(node, word, tmp_path):
    mounted, own = tmp_path / "etc", tmp_path / "run"
    for directory in (mounted, own):
        directory.mkdir()
    for name in ("peer-secret", "password"):
        (mounted / name).write_text(f"a {name}\n")
        (mounted / name).chmod(0o440)
    (tmp_path / "balsadb").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "balsadb").chmod(0o755)
    script = CONTAINER["command"][-1].replace("/etc/balsadb", str(mounted)).replace("/run/balsadb", str(own))
    variables = {"POD_NAME": f"balsadb-{node}", "BALSADB_ID": str(node)}
    environment = variables | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    for _ in range(2):  # a container that is started again finds its copies
        done = subprocess.run(
            [*CONTAINER["command"][:-1], script], env=environment, capture_output=True, text=True, timeout=30
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert word in done.stdout.splitlines()
    lines = serve_lines(script, variables)
    assert done.stdout.splitlines() == lines[0 if node <= 3 else 1]
    for name in ("peer-secret", "password"):
        assert (own / name).read_text() == f"a {name}\n"
        assert (own / name).stat().st_mode & 0o077 == 0


def test_a_pod_has_no_rights_that_it_does_not_need():
    assert POD["securityContext"]["runAsNonRoot"]
    assert POD["securityContext"]["runAsUser"] == POD["securityContext"]["fsGroup"] == 10001
    assert not POD["automountServiceAccountToken"]
    assert not POD["enableServiceLinks"], "they would set BALSADB_PORT and its like"
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"]
    assert not CONTAINER["securityContext"]["allowPrivilegeEscalation"]
    assert CONTAINER["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert set(CONTAINER["resources"]) == {"requests", "limits"}
