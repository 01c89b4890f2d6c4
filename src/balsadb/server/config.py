"""What one server is told at its start, and the check that it makes sense.

Settings come from flags, then from `BALSADB_*` variables, then from a TOML file, in this order; the command
line merges them and `make_config` turns them into a `ServeConfig` or says in a sentence what is wrong. The
names are the same everywhere: flag `--peer-listen`, variable `BALSADB_PEER_LISTEN`, file key `peer-listen`.

Relations between limits are checked here, once, so that no other part has to wonder about them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from balsadb.address import format_address, parse_address
from balsadb.errors import UsageError
from balsadb.server.journal import FORMATS, TEXT

MIB = 1024 * 1024

NODE_ID_MAX = 65_535
"""Ids are for people; a greater one is a typing error."""
CLUSTER_MEMBERS_MAX = 64
"""Initial members. Five or seven are sensible; this only catches nonsense."""
ELECTION_HEARTBEATS_MIN = 3
"""An election time-out must last this many heartbeats: one lost heartbeat must not depose a leader."""
SNAPSHOT_LOG_BYTES_MIN = 4 * MIB
"""A log segment is a quarter of it, and segments below 1 MiB would be made faster than files can be."""
TIMEOUT_MS_MAX = 3_600_000
"""No time may be longer than an hour; a greater one was meant in another unit."""
CLIENTS_MAX = 1_000_000
"""More clients than that no machine has ports or memory for."""
IDLE_MS_MAX = 7 * 24 * TIMEOUT_MS_MAX
"""A client may be told to be idle for a week at most; who wants more wants no bound."""


class ServeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `balsadb serve` can be told. Addresses are `HOST:PORT` texts that parse."""

    id: int
    """This node's id, 1 or greater."""
    data_dir: str
    """Directory of this node's data; made when it does not exist."""
    listen: str
    """Where clients connect."""
    peer_listen: str
    """Where the other servers connect."""
    http_listen: str | None = None
    """Where the dashboard, /metrics and the other pages answer; None: nowhere."""
    cluster: dict[int, str]
    """Peer address of every initial member, this node included, by ascending id. The same on every node,
    and empty on one that joined later."""
    join: str | None = None
    """Client address of a server of the cluster that this node joins; needed for its first start alone."""
    dial: dict[int, str] = {}
    """Peers reached at another address than their advertised one (NAT, proxies)."""
    advertise: str
    """What clients are told as this node's address."""
    election_timeout_ms: int = 500
    """Silence after which a follower stands for election; randomized up to twice this."""
    heartbeat_ms: int = 50
    """How often an idle leader says that it lives."""
    snapshot_log_bytes: int = 64 * MIB
    """Log kept before a snapshot replaces it; a segment of the log is a quarter of this."""
    request_timeout_ms: int = 2500
    """A request without an outcome after this is answered with what is certain about it."""
    password_file: str | None = None
    """File with the password of the user `default`; None: clients need none. The same on every node."""
    tls_cert: str | None = None
    """File with the certificate that clients are shown; with it the client port speaks TLS and nothing
    else."""
    tls_key: str | None = None
    """File with its private key."""
    tls_ca: str | None = None
    """File with the CAs of the clients' certificates. A node that joins knows the others' by it, too."""
    tls_client_cert: str | None = None
    """Whether clients must show a certificate: yes, optional or no. None: yes with `tls_ca`, else no."""
    peer_tls_cert: str | None = None
    """File with the certificate that other servers are shown, whichever side has dialled."""
    peer_tls_key: str | None = None
    """File with its private key."""
    peer_tls_ca: str | None = None
    """File with the cluster's own CA; whoever it has signed is believed to be the node that it names."""
    peer_secret_file: str | None = None
    """File with a secret that all servers prove to each other to know."""
    insecure: bool = False
    """Open ports to everybody beyond loopback, and give backups to everybody who reaches the HTTP port."""
    max_clients: int = 10_000
    """Clients at once, as far as the system allows so many open files; one more is refused."""
    max_clients_per_address: int = 0
    """The same for clients of one address; 0: no other bound."""
    client_idle_ms: int = 0
    """A client that says nothing for so long is closed; 0: never, as in Redis."""
    log_format: str = TEXT
    """How the lines of the journal are written: `text` (key=value) or `json`."""

    @property
    def cluster_text(self) -> str:
        """The canonical `--cluster` text, equal on nodes that were told the same members."""
        return format_members(self.cluster)

    @property
    def client_certificates(self) -> str:
        """Whether clients must show a certificate: yes, optional or no."""
        return self.tls_client_cert or ("yes" if self.tls_ca is not None else "no")

    @property
    def peer_address(self) -> str:
        """Where the other servers reach this node."""
        return self.cluster.get(self.id, self.peer_listen)


SETTINGS = tuple(name.replace("_", "-") for name in ServeConfig.__struct_fields__)
"""Every file key, in the order of the fields."""

_EXAMPLES = {"id": "1", "data_dir": "DIR", "listen": "HOST:7001", "cluster": "1=HOST:8001,..."}

TIMES = ("election_timeout_ms", "heartbeat_ms", "request_timeout_ms")
"""Settings in milliseconds. At least 10, one tick of a server's clock."""


def make_config(settings: Mapping[str, object]) -> ServeConfig:
    """Build and check a configuration from settings by field name. A `None` means "not given"."""
    given = {name: value for name, value in settings.items() if value is not None}
    _demand(given, ("id", "data_dir", "listen"))
    identity = _make_joining_identity(given) if "cluster" not in given else make_identity(given)
    node_id, cluster = identity.id, identity.cluster
    if cluster and "join" in given:
        raise UsageError("--join is for a new node, and --cluster names the initial ones; give one of them")
    listen = _address(given["listen"], "listen")
    others: dict[str, Any] = {
        name: _number(given[name], name, 10, TIMEOUT_MS_MAX) for name in TIMES if name in given
    }
    for name, low, high in (
        ("max_clients", 1, CLIENTS_MAX),
        ("max_clients_per_address", 0, CLIENTS_MAX),
        ("client_idle_ms", 0, IDLE_MS_MAX),
    ):
        if name in given:
            others[name] = _number(given[name], name, low, high)
    if "snapshot_log_bytes" in given:
        others["snapshot_log_bytes"] = _bytes(given["snapshot_log_bytes"], "snapshot_log_bytes")
    others |= {name: _text(given[name], name) for name in FILES if name in given}
    config = ServeConfig(
        id=node_id,
        data_dir=identity.data_dir,
        listen=listen,
        peer_listen=_address(given.get("peer_listen", cluster.get(node_id)), "peer_listen"),
        http_listen=_address(given["http_listen"], "http_listen") if "http_listen" in given else None,
        cluster=cluster,
        join=_address(given["join"], "join") if "join" in given else None,
        dial=_members(given.get("dial", ""), "dial"),
        advertise=_address(given.get("advertise", listen), "advertise"),
        password_file=_text(given["password_file"], "password_file") if "password_file" in given else None,
        insecure=_truth(given.get("insecure", False), "insecure"),
        log_format=_log_format(given.get("log_format", TEXT)),
        **others,
    )
    _check_relations(config)
    return config


FILES = (
    "tls_cert",
    "tls_key",
    "tls_ca",
    "tls_client_cert",
    "peer_tls_cert",
    "peer_tls_key",
    "peer_tls_ca",
    "peer_secret_file",
)
"""Settings that are texts: names of files, but for `tls_client_cert`."""


class Identity(msgspec.Struct, frozen=True):
    """The settings that say whose a data directory is."""

    id: int
    data_dir: str
    cluster: dict[int, str]


def make_identity(settings: Mapping[str, object]) -> Identity:
    """Check the settings that a data directory is made with; others are not looked at."""
    given = {name: value for name, value in settings.items() if value is not None}
    _demand(given, ("id", "data_dir", "cluster"))
    node_id = _number(given["id"], "id", 1, NODE_ID_MAX)
    cluster = _members(given["cluster"], "cluster")
    if node_id not in cluster:
        raise UsageError(f"--cluster does not name node {node_id}; it must be the same text on every node")
    return Identity(node_id, _text(given["data_dir"], "data_dir"), cluster)


def _make_joining_identity(given: Mapping[str, object]) -> Identity:
    """Check what a node that was no initial member is told of itself."""
    if "peer_listen" not in given:
        if "join" not in given:
            _demand(given, ("cluster",))
        raise UsageError("--peer-listen is missing; the other servers are told to reach a new node there")
    node_id = _number(given["id"], "id", 1, NODE_ID_MAX)
    return Identity(node_id, _text(given["data_dir"], "data_dir"), {})


def _demand(given: Mapping[str, object], names: tuple[str, ...]) -> None:
    for name in names:
        if name not in given:
            raise UsageError(f"{_flag(name)} is missing; write {_flag(name)} {_EXAMPLES[name]}")


def read_config_file(path: str | Path) -> dict[str, object]:
    """Read a TOML file into settings by field name. An unknown key is an error, not a surprise later."""
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is not TOML: {error}") from None
    for key in table:
        if key not in SETTINGS:
            raise UsageError(f"--config {path}: unknown key {key!r}; known are {', '.join(SETTINGS)}")
    return {key.replace("-", "_"): value for key, value in table.items()}


def parse_members(text: str, what: str = "--cluster") -> dict[int, str]:
    """Read `1=HOST:8001,2=HOST:8002` into addresses by ascending id."""
    members: dict[int, str] = {}
    for part in filter(None, re.split(r"[,\s]+", text)):
        number, equals, address = part.partition("=")
        if not equals:
            raise UsageError(f"{what}: {part!r} is not ID=HOST:PORT")
        node_id = _number(number, what, 1, NODE_ID_MAX)
        if node_id in members:
            raise UsageError(f"{what}: node {node_id} is named twice")
        members[node_id] = format_address(*parse_address(address, what))
    return dict(sorted(members.items()))


def format_members(members: Mapping[int, str]) -> str:
    """Write members so that `parse_members` reads them back."""
    return ",".join(f"{node_id}={address}" for node_id, address in sorted(members.items()))


def _check_relations(config: ServeConfig) -> None:
    if len(config.cluster) > CLUSTER_MEMBERS_MAX:
        raise UsageError(
            f"--cluster names {len(config.cluster)} members; at most {CLUSTER_MEMBERS_MAX} are possible"
        )
    if len(set(config.cluster.values())) < len(config.cluster):
        raise UsageError("--cluster gives two nodes the same address")
    if config.cluster and (strangers := sorted(config.dial.keys() - config.cluster.keys())):
        raise UsageError(f"--dial names node {strangers[0]}, which --cluster does not")
    if config.id in config.dial:
        raise UsageError(f"--dial names node {config.id}, which is this node itself")
    listening = [a for a in (config.listen, config.peer_listen, config.http_listen) if a is not None]
    if len(set(listening)) < len(listening):
        raise UsageError("--listen, --peer-listen and --http-listen must be different addresses")
    if parse_address(config.advertise)[0] in ("0.0.0.0", "::"):
        raise UsageError(
            f"clients can't be sent to {config.advertise}; "
            "say with --advertise HOST:PORT where they reach this node"
        )
    if not config.cluster and parse_address(config.peer_address)[0] in ("0.0.0.0", "::"):
        raise UsageError(f"--peer-listen: other servers can't be sent to {config.peer_address}; name a host")
    if config.election_timeout_ms < ELECTION_HEARTBEATS_MIN * config.heartbeat_ms:
        raise UsageError(
            f"--election-timeout-ms {config.election_timeout_ms} is less than "
            f"{ELECTION_HEARTBEATS_MIN} times --heartbeat-ms {config.heartbeat_ms}; "
            "one lost heartbeat would depose the leader"
        )
    _check_certificates(config)
    if config.snapshot_log_bytes < SNAPSHOT_LOG_BYTES_MIN:
        raise UsageError(f"--snapshot-log-bytes must be at least {SNAPSHOT_LOG_BYTES_MIN // MIB}MiB")


def _check_certificates(config: ServeConfig) -> None:
    """Files that are of no use without another one are most likely a slip."""
    for one, other in (
        ("tls_cert", "tls_key"),
        ("tls_key", "tls_cert"),
        ("tls_ca", "tls_cert"),
        ("tls_client_cert", "tls_cert"),
        ("peer_tls_cert", "peer_tls_key"),
        ("peer_tls_key", "peer_tls_ca"),
        ("peer_tls_ca", "peer_tls_cert"),
    ):
        if getattr(config, one) is not None and getattr(config, other) is None:
            raise UsageError(f"{_flag(one)} is of no use without {_flag(other)}")
    if config.client_certificates not in ("yes", "optional", "no"):
        raise UsageError(f"--tls-client-cert: {config.tls_client_cert!r} is none of yes, optional, no")
    if config.tls_ca == "system":
        raise UsageError("--tls-ca: clients are known by a CA of your own; name its file")
    if config.client_certificates != "no" and config.tls_cert is not None and config.tls_ca is None:
        raise UsageError("--tls-client-cert: with which CA? name its file with --tls-ca")


def _flag(name: str) -> str:
    return name if name.startswith("--") else "--" + name.replace("_", "-")


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError(f"{_flag(name)} must be a text")
    return value


def _truth(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{_flag(name)} must be true or false")
    return value


def _log_format(value: object) -> str:
    if value not in FORMATS:
        raise UsageError(f"--log-format: {value!r} is none of {', '.join(FORMATS)}")
    return str(value)


def _address(value: object, name: str) -> str:
    return format_address(*parse_address(_text(value, name), _flag(name)))


def _number(value: object, name: str, low: int, high: int) -> int:
    text = str(value)
    # bool is an int to Python, and int() would take "1_0"; neither is a number that anyone meant.
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= high:
        raise UsageError(f"{_flag(name)}: {value!r} is not a number from {low:,} to {high:,}")
    return int(text)


def _bytes(value: object, name: str) -> int:
    match = re.fullmatch(r"([0-9]{1,15})\s*(|B|KiB|MiB|GiB)", str(value), re.IGNORECASE)
    if isinstance(value, bool) or match is None:
        raise UsageError(f"{_flag(name)}: {value!r} is not a size; write 64MiB, 1GiB or a number of bytes")
    return int(match[1]) << {"": 0, "b": 0, "kib": 10, "mib": 20, "gib": 30}[match[2].lower()]


def _members(value: object, name: str) -> dict[int, str]:
    """Take the flag's text, a list of such texts, or a TOML table."""
    if isinstance(value, Mapping):
        value = [f"{node_id}={address}" for node_id, address in value.items()]
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    if not isinstance(value, str):
        raise UsageError(f'{_flag(name)} must be a text such as "1=HOST:8001,2=HOST:8002" or a table')
    return parse_members(value, _flag(name))
