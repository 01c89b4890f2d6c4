"""What a server accepts as its configuration, and the sentence for everything else."""

import pytest

from balsadb.errors import UsageError
from balsadb.server.config import ServeConfig, make_config, parse_members, read_config_file

MEMBERS = "1=127.0.0.1:8001,2=127.0.0.1:8002,3=127.0.0.1:8003"
TLS = {"tls_cert": "c", "tls_key": "k"}
MINIMAL: dict[str, object] = {"id": 1, "data_dir": "d", "listen": "127.0.0.1:7001", "cluster": MEMBERS}


def test_the_minimum_gets_the_documented_defaults():
    assert make_config(MINIMAL) == ServeConfig(
        id=1,
        data_dir="d",
        listen="127.0.0.1:7001",
        peer_listen="127.0.0.1:8001",
        http_listen=None,
        cluster={1: "127.0.0.1:8001", 2: "127.0.0.1:8002", 3: "127.0.0.1:8003"},
        advertise="127.0.0.1:7001",
        election_timeout_ms=500,
        heartbeat_ms=50,
        snapshot_log_bytes=64 * 1024 * 1024,
        request_timeout_ms=2500,
    )


def test_bounds_on_clients_are_those_of_redis_unless_others_are_given():
    config = make_config(MINIMAL)
    assert (config.max_clients, config.max_clients_per_address, config.client_idle_ms) == (10_000, 0, 0)
    given = {"max_clients": "50", "max_clients_per_address": 5, "client_idle_ms": 86_400_000}
    config = make_config({**MINIMAL, **given})
    assert (config.max_clients, config.max_clients_per_address, config.client_idle_ms) == (50, 5, 86_400_000)


def test_none_means_not_given():
    assert make_config({**MINIMAL, "heartbeat_ms": None, "http_listen": None}) == make_config(MINIMAL)


def test_numbers_may_be_texts_because_variables_are():
    config = make_config({**MINIMAL, "id": "2", "heartbeat_ms": "20", "snapshot_log_bytes": "8 MiB"})
    assert (config.id, config.heartbeat_ms, config.snapshot_log_bytes) == (2, 20, 8 * 1024 * 1024)


@pytest.mark.parametrize(
    "cluster",
    [
        "3=127.0.0.1:8003, 1=127.0.0.1:8001 2=127.0.0.1:8002",
        ["2=127.0.0.1:8002", "1=127.0.0.1:8001", "3=127.0.0.1:8003"],
        {"3": "127.0.0.1:8003", "2": "127.0.0.1:8002", "1": "127.0.0.1:8001"},
    ],
)
def test_members_have_one_canonical_text_however_they_were_written(cluster):
    assert make_config({**MINIMAL, "cluster": cluster}).cluster_text == MEMBERS


def test_ipv6_addresses_are_bracketed():
    assert parse_members("1=[::1]:8001") == {1: "[::1]:8001"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"id": None}, "--id is missing"),
        ({"log_format": "xml"}, "--log-format: 'xml' is none of text, json"),
        ({"cluster": None}, "--cluster is missing"),
        ({"id": 0}, "--id: 0 is not a number from 1 to 65,535"),
        ({"id": True}, "--id: True is not a number"),
        ({"id": "1_0"}, "--id: '1_0' is not a number"),
        ({"id": 4}, "--cluster does not name node 4"),
        ({"cluster": "1=127.0.0.1:8001,1=127.0.0.1:8002"}, "--cluster: node 1 is named twice"),
        ({"cluster": "1=127.0.0.1:8001,2=127.0.0.1:8001"}, "gives two nodes the same address"),
        ({"cluster": "127.0.0.1:8001"}, "--cluster: '127.0.0.1:8001' is not ID=HOST:PORT"),
        ({"cluster": 5}, "--cluster must be a text"),
        ({"listen": "7001"}, "--listen: '7001' is not an address; write HOST:PORT"),
        ({"listen": "a:b"}, "--listen: 'b' in 'a:b' is not a port"),
        ({"listen": "a:0"}, "not a port from 1 to 65535"),
        ({"listen": "::1:7001"}, "write an IPv6 address as"),
        ({"listen": "0.0.0.0:7001"}, "say with --advertise HOST:PORT"),
        ({"http_listen": "127.0.0.1:7001"}, "must be different addresses"),
        ({"dial": "4=127.0.0.1:9"}, "--dial names node 4"),
        ({"join": "127.0.0.1:7002"}, "--join is for a new node, and --cluster names the initial ones"),
        ({"cluster": None, "join": "127.0.0.1:7002"}, "--peer-listen is missing"),
        ({"cluster": None, "peer_listen": "0.0.0.0:8001"}, "other servers can't be sent to 0.0.0.0:8001"),
        ({"cluster": None, "peer_listen": "h:1", "join": "x"}, "--join: 'x' is not an address"),
        ({"dial": ["1=127.0.0.1:9"]}, "which is this node itself"),
        ({"heartbeat_ms": 200}, "--election-timeout-ms 500 is less than 3 times --heartbeat-ms 200"),
        ({"heartbeat_ms": 1}, "--heartbeat-ms: 1 is not a number from 10"),
        ({"snapshot_log_bytes": "1MiB"}, "--snapshot-log-bytes must be at least 4MiB"),
        ({"tls_cert": "c"}, "--tls-cert is of no use without --tls-key"),
        ({"tls_key": "k"}, "--tls-key is of no use without --tls-cert"),
        ({"tls_ca": "a"}, "--tls-ca is of no use without --tls-cert"),
        ({"tls_client_cert": "no"}, "--tls-client-cert is of no use without --tls-cert"),
        ({**TLS, "tls_client_cert": "yes"}, "--tls-client-cert: with which CA?"),
        ({**TLS, "tls_ca": "a", "tls_client_cert": "perhaps"}, "'perhaps' is none of yes, optional, no"),
        ({**TLS, "tls_ca": "system"}, "clients are known by a CA of your own"),
        ({"peer_tls_cert": "c"}, "--peer-tls-cert is of no use without --peer-tls-key"),
        ({"peer_tls_cert": "c", "peer_tls_key": "k"}, "--peer-tls-key is of no use without --peer-tls-ca"),
        ({"peer_tls_ca": "a"}, "--peer-tls-ca is of no use without --peer-tls-cert"),
        ({"peer_secret_file": ""}, "--peer-secret-file must be a text"),
        ({"insecure": "yes"}, "--insecure must be true or false"),
        ({"snapshot_log_bytes": "lots"}, "--snapshot-log-bytes: 'lots' is not a size"),
        ({"max_clients": 0}, "--max-clients: 0 is not a number from 1 to 1,000,000"),
        ({"max_clients_per_address": -1}, "--max-clients-per-address: -1 is not a number from 0"),
        ({"client_idle_ms": "1h"}, "--client-idle-ms: '1h' is not a number from 0"),
    ],
)
def test_nonsense_is_refused_with_a_sentence(change, sentence):
    with pytest.raises(UsageError) as refused:
        make_config({**MINIMAL, **change})
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("more", "asked"),
    [
        ({}, "no"),
        ({"tls_ca": "a"}, "yes"),
        ({"tls_ca": "a", "tls_client_cert": "optional"}, "optional"),
        ({"tls_ca": "a", "tls_client_cert": "no"}, "no"),
    ],
)
def test_clients_must_show_a_certificate_as_soon_as_there_is_a_ca(more, asked):
    assert make_config({**MINIMAL, **TLS, **more}).client_certificates == asked


def test_a_node_that_joins_names_its_own_peer_address_instead_of_a_cluster():
    joining = {**MINIMAL, "cluster": None, "id": 4, "peer_listen": "h:8004", "join": "h:7001"}
    config = make_config(joining)
    assert (config.join, config.peer_address, config.cluster, config.cluster_text) == (
        "h:7001",
        "h:8004",
        {},
        "",
    )
    assert make_config({**joining, "join": None}).join is None, "a later start needs nobody to join through"


def test_a_file_has_the_names_of_the_flags(tmp_path):
    file = tmp_path / "node.toml"
    file.write_text(
        'id = 1\ndata-dir = "d"\nlisten = "127.0.0.1:7001"\nheartbeat-ms = 30\n'
        '[cluster]\n1 = "127.0.0.1:8001"\n2 = "127.0.0.1:8002"\n3 = "127.0.0.1:8003"\n'
    )
    assert make_config(read_config_file(file)) == make_config({**MINIMAL, "heartbeat_ms": 30})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("heart-beat = 3\nid = 1", "unknown key 'heart-beat'"), ("id =", "is not TOML")],
)
def test_a_wrong_file_is_refused_with_a_sentence(tmp_path, text, sentence):
    file = tmp_path / "node.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=sentence):
        read_config_file(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_config_file(tmp_path / "none.toml")


def test_a_password_file_is_a_setting_like_others(tmp_path):
    given = {"id": 1, "data_dir": "d", "listen": "a:1", "cluster": "1=a:2"}
    assert make_config(given).password_file is None
    assert make_config({**given, "password_file": "/etc/p"}).password_file == "/etc/p"
    with pytest.raises(UsageError, match="--password-file must be a text"):
        make_config({**given, "password_file": 5})
