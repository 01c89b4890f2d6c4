"""A cluster of real server processes on this machine: for `balsadb demo`, our tests, and yours.

    with LocalCluster(nodes=3) as cluster, BlockingClerk(cluster.servers) as clerk:
        clerk.put("k", "v")
        cluster.kill(cluster.wait_leader())
        assert clerk.get("k") == b"v"

Every node is a `python -m balsadb serve` with its own ports, directory and log file, so that signals, lost
power and full disks can be tried on it. The processes never outlive the one that made them: each holds the
reading end of a pipe whose writing end only its parent has, and leaves when that closes, which the kernel
does even when the parent is killed with SIGKILL.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from balsadb.address import parse_address
from balsadb.errors import BalsaError, UsageError

if TYPE_CHECKING:
    from balsadb.client.tls import TlsSetting

EXIT_WITH_STDIN = "BALSADB_EXIT_WITH_STDIN"
"""Variable that makes `balsadb serve` leave when its standard input ends."""

PEER_PORT_OFFSET = 1000
HTTP_PORT_OFFSET = 2000
"""With base port 7001: clients at 7001.., peers at 8001.., HTTP at 9001.."""

NODES_MAX = 64
FREE_PORTS = range(10_000, 32_000)
"""Free ports are drawn from here: below the range from which kernels take the ports of outgoing connections,
which would otherwise now and then occupy the port of a node that is down for a moment."""

LOG_TAIL_BYTES = 4000
POLL_SECONDS = 0.02
ASK_SECONDS = 0.5
"""How long one node may take to answer a question about its state."""


class ClusterError(BalsaError):
    """A node of a local cluster did not do what it was asked. The message ends with the tail of its log."""


@dataclass(eq=False)
class LocalNode:
    """One server of the cluster: its addresses and files, and its process while it has one."""

    id: int
    client_address: str
    peer_address: str
    http_address: str
    data_dir: Path
    config_path: Path
    log_path: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    paused: bool = False

    @property
    def running(self) -> bool:
        """True while the process lives; a paused one does."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process id, of the last process if none runs now."""
        return self.process.pid if self.process else None

    @property
    def exit_text(self) -> str:
        """How the last process ended, as words for a sentence."""
        status = self.process.poll() if self.process else None
        if status is None:
            return "running" if self.process else "not started"
        if status < 0:
            return f"killed by {signal.Signals(-status).name}"
        return f"exited with status {status}"

    def log_tail(self) -> str:
        """Return the last lines of the log."""
        try:
            with open(self.log_path, "rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - LOG_TAIL_BYTES))
                return file.read().decode(errors="replace").strip()
        except OSError:
            return ""


class LocalCluster:
    """Servers on this machine, each a process of its own.

    `directory` holds data, configurations and logs, and is used again when it already holds a cluster;
    without it a temporary one is made, and removed by `close`. `base_port` is the first client port; without
    it free ports are taken. `settings` go into every node's configuration file (`{"heartbeat-ms": 20}`).
    `dial[a][b]` makes node `a` reach node `b` at another address, such as a proxy that cuts links, and
    `advertise[a]` is where clients are told to reach node `a`; both may be filled in until the node starts.
    With a `password` clients need it, `Clerk(cluster.servers, password=...)`; it is kept in a file of the
    directory that only its owner can read, `password_file`.

    `node_settings[a]` are settings of node `a` alone, and `tls` is how its client ports are spoken to (as
    for a Clerk) by this object itself, when the settings say that they speak TLS.
    """

    def __init__(
        self,
        nodes: int = 3,
        *,
        directory: str | os.PathLike[str] | None = None,
        base_port: int | None = None,
        settings: Mapping[str, object] | None = None,
        dial: Mapping[int, Mapping[int, str]] | None = None,
        advertise: Mapping[int, str] | None = None,
        command: Sequence[str] | None = None,
        password: str | None = None,
        host: str = "127.0.0.1",
        tls: TlsSetting = False,
        node_settings: Mapping[int, Mapping[str, object]] | None = None,
    ) -> None:
        if not 1 <= nodes <= NODES_MAX:
            raise UsageError(f"a local cluster has 1 to {NODES_MAX} nodes, not {nodes}")
        self.settings = dict(settings or {})
        self._password = password
        self.dial = {a: dict((dial or {}).get(a, {})) for a in range(1, nodes + 1)}
        self._joined: dict[int, str] = {}
        """Client addresses through which nodes join that were not there at first."""
        self.advertise = dict(advertise or {})
        self.tls = tls
        self.node_settings = {node: dict(table) for node, table in (node_settings or {}).items()}
        self._command = list(command or (sys.executable, "-P", "-m", "balsadb", "serve"))
        self._temporary = directory is None
        self.directory = Path(tempfile.mkdtemp(prefix="balsadb-") if directory is None else directory)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            ports = self._ports_of_directory(nodes, base_port) or _choose_ports(nodes, base_port, host)
            self.nodes = {i: self._describe(i, host, *ports[i - 1]) for i in range(1, nodes + 1)}
            self._cluster_text = ",".join(f"{n.id}={n.peer_address}" for n in self.nodes.values())
            self.password_file = self._write_password(password)
        except OSError as error:
            raise UsageError(f"{self.directory}: {error.strerror or error}") from None

    # -- what there is ------------------------------------------------------------------------------------

    @property
    def servers(self) -> list[str]:
        """Client addresses, for `Clerk(cluster.servers)`."""
        return [node.client_address for node in self.nodes.values()]

    @property
    def running(self) -> list[LocalNode]:
        """Nodes whose process lives and is not paused."""
        return [node for node in self.nodes.values() if node.running and not node.paused]

    def leader(self) -> int | None:
        """Return the node that says it leads; of several, that with the greatest term. None: nobody does."""
        claims = []
        # Also those that are not our children: a user may have started one again by hand.
        for node in self.nodes.values():
            facts = {} if node.paused else _raft_facts(node.client_address, self._password, self.tls)
            if facts.get("raft_role") == "leader":
                claims.append((int(facts.get("raft_term", 0)), node.id))
        return max(claims)[1] if claims else None

    # -- processes ----------------------------------------------------------------------------------------

    def start(self, node_id: int | None = None) -> None:
        """Start one node, or all that do not run. Returns at once; see `wait_ready`."""
        chosen = [n for n in self._chosen(node_id) if not n.running]
        for node in chosen:
            for address in (node.client_address, node.peer_address, node.http_address):
                if not _is_free(*parse_address(address)):
                    raise UsageError(
                        f"{address} is taken, and node {node.id} needs it; choose another base port"
                    )
        for node in chosen:
            self._forget_process(node)  # one that has left by itself
            self._start(node)

    def join(self, node_id: int, through: int | None = None) -> LocalNode:
        """Start a new node that joins the cluster through a running one. Returns at once; see `wait_ready`.

        It asks by itself to be added. A later start needs nobody to join through.
        """
        if node_id in self.nodes:
            raise UsageError(f"there is a node {node_id} already")
        guide = self.nodes[through] if through is not None else self.running[0]
        ports = _choose_ports(1, None, parse_address(guide.client_address)[0])[0]
        self.nodes[node_id] = node = self._describe(node_id, parse_address(guide.client_address)[0], *ports)
        self._joined[node_id] = guide.client_address
        self.dial[node_id] = {}
        self._start(node)
        return node

    def forget(self, node_id: int) -> None:
        """Kill what is left of a node that was removed from the cluster, and count it no more."""
        self.kill(node_id)
        del self.nodes[node_id]

    def stop(self, node_id: int | None = None, timeout: float = 15.0) -> None:
        """End one node, or all, as an operator would (SIGTERM), and wait until it has left."""
        chosen = [n for n in self._chosen(node_id) if n.running]
        for node in chosen:
            self._signal(node, signal.SIGTERM)
            self._signal(node, signal.SIGCONT)
        deadline = time.monotonic() + timeout
        for node in chosen:
            assert node.process is not None
            try:
                node.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.kill(node.id)
                raise self._error(
                    node, f"did not stop within {timeout:g} s of SIGTERM and was killed"
                ) from None
            self._forget_process(node)

    def kill(self, node_id: int | None = None) -> None:
        """Kill one node, or all, with SIGKILL, and wait until the process is gone."""
        for node in self._chosen(node_id):
            if node.running:
                assert node.process is not None
                self._signal(node, signal.SIGKILL)
                node.process.wait()
            self._forget_process(node)

    def pause(self, node_id: int) -> None:
        """Stop a process in its tracks (SIGSTOP): its connections stay open and silent."""
        self._signal(self.nodes[node_id], signal.SIGSTOP)
        self.nodes[node_id].paused = True

    def resume(self, node_id: int) -> None:
        """Let a paused process go on (SIGCONT)."""
        self._signal(self.nodes[node_id], signal.SIGCONT)
        self.nodes[node_id].paused = False

    def restart(self, node_id: int) -> None:
        """Kill a node and start it again on the same data."""
        self.kill(node_id)
        self.start(node_id)

    # -- waiting ------------------------------------------------------------------------------------------

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Wait until every node that was started serves clients."""
        waiting = [node for node in self.nodes.values() if node.process and not node.paused]

        def ready() -> bool:
            for node in list(waiting):
                if not node.running:
                    raise self._error(node, node.exit_text)
                if _is_ready(node.http_address):
                    waiting.remove(node)
            return not waiting

        if not _poll(ready, timeout):
            raise self._error(waiting[0], f"is not ready after {timeout:g} s")

    def wait_leader(self, timeout: float = 30.0, other_than: int | None = None) -> int:
        """Wait until a node leads (another one than `other_than`) and return its id."""
        found: list[int] = []

        def led() -> bool:
            leader = self.leader()
            if leader is not None and leader != other_than:
                found.append(leader)
            return bool(found)

        if not _poll(led, timeout):
            tails = "\n".join(f"--- node {n.id}: {n.exit_text}\n{n.log_tail()}" for n in self.nodes.values())
            raise ClusterError(f"no leader after {timeout:g} s\n{tails}")
        return found[0]

    # -- the whole ----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Kill what still runs and remove the directory if it is temporary. May be called twice."""
        self.kill()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- parts --------------------------------------------------------------------------------------------

    def _chosen(self, node_id: int | None) -> list[LocalNode]:
        return list(self.nodes.values()) if node_id is None else [self.nodes[node_id]]

    def _describe(self, node_id: int, host: str, client: int, peer: int, http: int) -> LocalNode:
        stem = self.directory / f"node-{node_id}"
        return LocalNode(
            id=node_id,
            client_address=f"{host}:{client}",
            peer_address=f"{host}:{peer}",
            http_address=f"{host}:{http}",
            data_dir=stem,
            config_path=stem.with_suffix(".toml"),
            log_path=stem.with_suffix(".log"),
        )

    def _ports_of_directory(self, nodes: int, base_port: int | None) -> list[tuple[int, int, int]] | None:
        """Take the ports of the cluster that the directory holds; members are known by their addresses."""
        files = sorted(self.directory.glob("node-*.toml"), key=lambda p: (len(p.name), p.name))
        if not files:
            return None
        tables = [tomllib.loads(file.read_text()) for file in files]
        ports = [
            tuple(parse_address(t[key])[1] for key in ("listen", "peer-listen", "http-listen"))
            for t in tables
        ]
        if len(ports) != nodes:
            raise UsageError(f"{self.directory} holds a cluster of {len(ports)} nodes, not {nodes}")
        if base_port not in (None, ports[0][0]):
            raise UsageError(f"{self.directory} holds a cluster at base port {ports[0][0]}, not {base_port}")
        return [(client, peer, http) for client, peer, http in ports]

    def _write_password(self, password: str | None) -> Path | None:
        if password is None:
            return None
        path = self.directory / "password"
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(password + "\n")
        return path

    def _write_config(self, node: LocalNode) -> None:
        table: dict[str, object] = {
            "id": node.id,
            "data-dir": str(node.data_dir.resolve()),
            "listen": node.client_address,
            "peer-listen": node.peer_address,
            "http-listen": node.http_address,
            "dial": [f"{peer}={address}" for peer, address in sorted(self.dial[node.id].items())],
            **({"advertise": self.advertise[node.id]} if node.id in self.advertise else {}),
            **({} if self.password_file is None else {"password-file": str(self.password_file.resolve())}),
            **self.settings,
            **self.node_settings.get(node.id, {}),
        }
        if node.id in self._joined:
            table["join"] = self._joined[node.id]
        else:
            table["cluster"] = self._cluster_text
        # A JSON number, text or list of texts is also one in TOML.
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in table.items()]
        node.config_path.write_text("".join(lines))

    def _start(self, node: LocalNode) -> None:
        self._write_config(node)
        # A variable of the caller's shell, meant for another server or a client, must not leak in.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("BALSADB_")}
        environment[EXIT_WITH_STDIN] = "1"
        with open(node.log_path, "ab") as log:
            node.process = subprocess.Popen(
                [*self._command, "--config", str(node.config_path)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                # Ctrl-C in a terminal goes to the whole foreground group; the parent alone decides.
                process_group=0,
            )
        node.paused = False

    def _signal(self, node: LocalNode, number: signal.Signals) -> None:
        if node.process is not None:
            node.process.send_signal(number)

    def _forget_process(self, node: LocalNode) -> None:
        node.paused = False
        if node.process is not None and node.process.stdin is not None:
            node.process.stdin.close()

    def _error(self, node: LocalNode, what: str) -> ClusterError:
        return ClusterError(f"node {node.id} {what}; the end of its log {node.log_path}:\n{node.log_tail()}")


def _choose_ports(nodes: int, base_port: int | None, host: str) -> list[tuple[int, int, int]]:
    if base_port is None:
        # The system's own random source: tests that seed the global one must not draw the same ports.
        drawn = iter(random.SystemRandom().sample(FREE_PORTS, len(FREE_PORTS)))
        free = (port for port in drawn if _is_free(host, port))
        return [(next(free), next(free), next(free)) for _ in range(nodes)]
    if nodes > PEER_PORT_OFFSET or not 1 <= base_port <= 65_535 - HTTP_PORT_OFFSET - nodes:
        raise UsageError(f"base port {base_port} leaves no room for {nodes} nodes below port 65536")
    return [(p, p + PEER_PORT_OFFSET, p + HTTP_PORT_OFFSET) for p in range(base_port, base_port + nodes)]


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As servers do: connections of an earlier process that linger in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _is_ready(http_address: str) -> bool:
    try:
        with socket.create_connection(parse_address(http_address), ASK_SECONDS) as connection:
            connection.settimeout(ASK_SECONDS)
            connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64)
    except OSError:
        return False


def _raft_facts(client_address: str, password: str | None = None, tls: TlsSetting = None) -> dict[str, str]:
    from balsadb.client.ask import ask, parse_info
    from balsadb.client.credentials import make_credentials
    from balsadb.errors import ClientError, ProtocolError

    try:
        credentials = make_credentials(None, password)
        return parse_info(ask(parse_address(client_address), ["INFO", "raft"], ASK_SECONDS, credentials, tls))
    except (ClientError, ProtocolError):
        return {}


def _poll(condition: Callable[[], bool], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
