"""A whole server: opens the data directory, wires the parts, listens, and stops cleanly.

    async with Node(config) as node:
        await node.stopped()

`run` is what `balsadb serve` calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import os
import random
import secrets
import shutil
import signal
import ssl
import traceback
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from balsadb.address import parse_address
from balsadb.errors import DataError, UsageError
from balsadb.kv.machine import StateMachine
from balsadb.password_file import read_password_file
from balsadb.raft.configuration import decode_configuration
from balsadb.raft.node import Node as RaftNode
from balsadb.raft.node import Options, Role
from balsadb.raft.types import NOBODY, Configuration, Member, NodeId
from balsadb.replica import Replica, ReplicaOptions
from balsadb.replica.replica import OLD_META, later_start
from balsadb.server import descriptors, joining, protection
from balsadb.server.addresses import AddressBook
from balsadb.server.admission import Admission
from balsadb.server.backups import Backups
from balsadb.server.certificates import Certificates, Files
from balsadb.server.clock import Clock
from balsadb.server.commands.client_state import ClientState
from balsadb.server.commands.view import NodeStatus
from balsadb.server.config import ServeConfig
from balsadb.server.cuts import CutWriter
from balsadb.server.driver import TICK_SECONDS, Driver
from balsadb.server.insight import Insight, Parts
from balsadb.server.journal import forward_logging, journal
from balsadb.server.listener import Listener
from balsadb.server.logins import Logins
from balsadb.server.passwords import OnePassword
from balsadb.server.peers import STRANGERS_MAX, Peers
from balsadb.server.snapshots import SnapshotReceiver, SnapshotSender
from balsadb.server.trust import PeerTrust, Secrets
from balsadb.storage.datadir import DataDirectory
from balsadb.storage.files import OsFiles
from balsadb.storage.opening import open_log
from balsadb.storage.state import StateDirectory, StateStore
from balsadb.storage.wal import WalOptions
from balsadb.version import __version__

HTTP_CONNECTIONS_MAX = 32
"""HTTP connections at once; past it the oldest one is closed."""
MEMBERS_EXPECTED = 8
"""Other servers for whose connections there is room, even if the cluster began smaller."""
DRAIN_SECONDS_MAX = 2.0
"""How long a stopping node waits for requests that are under way."""


class Node:
    """One BalsaDB server inside the running event loop."""

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self._clock = Clock()
        self._last_leader: NodeId = NOBODY
        self._found: joining.Found | None = None
        """The cluster that this node is about to join, at its first start."""
        self._told_removed = False
        self._book = AddressBook(config.id, config.dial)
        self._stack = contextlib.AsyncExitStack()

    # ------------------------------------------------------------------- start

    async def __aenter__(self) -> Self:
        """Open the data directory and start to serve.

        Raises DataError when the directory can't be trusted, UsageError when it does not fit the
        configuration or an address is taken.
        """
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        config = self.config
        journal.begin(config.id, config.log_format)
        loop = asyncio.get_running_loop()
        self._started_ms = self._clock.monotonic_ms()
        protection.check(config)
        # Strangers and HTTP twice: with TLS as many again may be on their way in.
        others = 2 * (max(len(config.cluster), MEMBERS_EXPECTED) + STRANGERS_MAX + HTTP_CONNECTIONS_MAX)
        clients_max = descriptors.clients_max(others, config.max_clients)
        _check_purpose(config)
        self.certificates, self.trust = make_certificates(config), make_trust(config)
        self._logins = await self._make_logins(stack)
        self._open_storage(stack)
        initial, ever = await self._find_members()
        self.replica = self._make_replica(initial, ever)
        beginning = f"{config.cluster_text}\0{self._directory.meta.restored.hex()}"
        digest = hashlib.sha256(beginning.encode()).digest()[:16]
        self._admission = Admission(self.replica, self._directory, digest, config.peer_address)
        self._driver = Driver(self.replica, self._wal, self._clock, loop)
        self._driver.on_configuration = self._configuration_changed
        self._admission.configuration_changed()
        self._cuts = CutWriter(
            self.replica, self._wal, self._store, config.snapshot_log_bytes // 2, loop, self._driver.wake
        )
        stack.push_async_callback(self._close_state)
        self._driver.on_cuts = self._cuts.add
        self._driver.on_collect = self._cuts.collect
        self._listener = Listener(
            self._driver,
            self,
            self._clock,
            clients_max,
            config.max_clients_per_address,
            config.client_idle_ms,
            self._logins,
        )
        self._listener.certificates = self.certificates
        self._update_addresses()
        receiver = SnapshotReceiver(self._driver, self._cuts, self._states, self._files)
        self._peers = Peers(self._driver, self._admission, self._book, receiver, self.trust)
        outgoing = f"{self._directory.group_path}/outgoing"
        # A killed process leaves its copies behind, and they keep the space of files that are long gone.
        await asyncio.to_thread(shutil.rmtree, outgoing, True)
        self._sender = SnapshotSender(
            self._driver, self._cuts, self._admission, self._book.known, outgoing, self.trust
        )
        self._driver.on_snapshot = self._sender.send
        self._watch(stack, receiver)
        self._driver.start()
        stack.push_async_callback(self._driver.stop)
        await _listening(self._peers.start, config.peer_listen, "--peer-listen")
        stack.push_async_callback(self._peers.stop)
        stack.push_async_callback(self._sender.stop)
        await _listening(self._listener.start, config.listen, "--listen")
        stack.callback(self._listener.close)
        stack.push_async_callback(self._drain)
        if config.http_listen is not None:
            await self._start_http(stack, config.http_listen)
        self._ask_in(stack)
        self._tell_start()
        # What lives now lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()

    async def _make_logins(self, stack: contextlib.AsyncExitStack) -> Logins | None:
        """Read the password, so that a bad file is found before anything is opened."""
        if self.config.password_file is None:
            return None
        password = read_password_file(self.config.password_file)
        logins = Logins(await asyncio.to_thread(OnePassword, password))
        stack.callback(logins.close)
        return logins

    def _tell_start(self) -> None:
        config, log = self.config, self.replica.node.log
        journal.say(
            "started",
            version=__version__,
            boot=self.replica.boot,
            listen=config.listen,
            peer_listen=config.peer_listen,
            http_listen=config.http_listen,
            advertise=config.advertise,
            data_dir=config.data_dir,
            cluster_id=self._directory.meta.cluster_id.hex() or None,
            term=self.replica.node.term,
            first_index=log.base_index + 1,
            last_index=log.last_index,
            snapshot_index=self.replica.snapshot_index,
        )

    def _watch(self, stack: contextlib.AsyncExitStack, receiver: SnapshotReceiver) -> None:
        self._insight = Insight(
            Parts(
                self,
                self._driver,
                self.replica,
                self._wal,
                self._cuts,
                self._listener,
                self._peers,
                self._sender,
                receiver,
                self._clock,
                self._book.known,
            )
        )
        self._insight.start()
        stack.callback(self._insight.stop)

    def _open_storage(self, stack: contextlib.AsyncExitStack) -> None:
        config = self.config
        files = self._files = OsFiles()
        self._directory = DataDirectory.open(config.data_dir, files, config.id, config.cluster_text)
        stack.callback(self._directory.close)
        segment_bytes = min(64 * 1024 * 1024, config.snapshot_log_bytes // 4)
        self._states = StateDirectory(files, self._directory.state_path)
        current = self._states.current()
        self._states.clean()
        self._store = StateStore(current.path)
        self._state = self._store.bookkeeping
        try:
            self._wal, self._recovered = open_log(
                files,
                self._directory.wal_path,
                self._directory.meta.store_id,
                WalOptions(segment_bytes=segment_bytes),
                self._state,
                current.installed,
            )
            self._check_boot()
            self._check_state()
        except BaseException:
            self._store.close()
            raise
        stack.callback(self._wal.close)

    async def _find_members(self) -> tuple[Configuration, tuple[NodeId, ...]]:
        """Return the configuration before the first one in the log, and the members it may have had.

        A node that joins does not know the initial members. It takes the present ones, without itself, which
        it never acts by: the log or a state brings the true ones. Until then whoever ever was a member may
        have proposed what is in the log (rule P5).
        """
        config, state = self.config, self._state
        if config.cluster:
            members = tuple(Member(node, address) for node, address in sorted(config.cluster.items()))
            initial = Configuration(voters=tuple(sorted(config.cluster)), members=members)
            return initial, initial.voters
        known = self._recovered.memberships[-1].payload if self._recovered.memberships else b""
        if not known and state is not None:
            known = state.configuration
        if known:
            newest = decode_configuration(known)
            ever = tuple(sorted({*newest.everyone(), *newest.removed}))
            others = tuple(node for node in newest.voters if node != config.id)
            return Configuration(voters=others, members=newest.members, cluster_id=newest.cluster_id), ever
        if config.join is None:
            raise UsageError("this node does not know where its cluster is; start it with --join once more")
        self._found = await joining.find(config.join, config.id, config.password_file, self._calling)
        return self._found.configuration, self._found.ever

    def _ask_in(self, stack: contextlib.AsyncExitStack) -> None:
        """Ask to be added to the cluster that was found, unless somebody has done so already."""
        found = self._found
        if found is None or found.known:
            return
        assert self.config.join is not None
        servers = list(dict.fromkeys([self.config.join, *found.servers]))
        config = self.config
        asking = joining.ask_in(
            self.replica,
            servers,
            config.peer_address,
            config.advertise,
            config.password_file,
            self._calling,
        )
        task = asyncio.get_running_loop().create_task(asking, name="join")
        stack.callback(task.cancel)

    @property
    def _calling(self) -> ssl.SSLContext | None:
        """How this node talks to the client ports of others."""
        return None if self.certificates is None else self.certificates.calling

    def reload(self) -> None:
        """Take up certificates, keys and secrets as their files are now, changed or not."""
        self.trust.reload()
        if self.certificates is not None:
            self.certificates.reload()

    def _update_addresses(self) -> None:
        replica = self.replica
        for configuration in (replica.configuration, replica.node.configuration):
            self._book.learn(configuration)
        self._book.forget(replica.node.gone)

    def _configuration_changed(self) -> None:
        self._admission.configuration_changed()
        self._update_addresses()
        self._peers.follow(alone=self.replica.removed)
        if self.replica.removed and not self._told_removed:
            self._told_removed = True
            sentence = (
                "this node was removed from its cluster, serves nobody any more, and can be stopped for good"
            )
            journal.say("removed", "warning", message=sentence)

    def _check_boot(self) -> None:
        """Refuse a `META` that is older than the state: its boot counter would be used twice (rule P2)."""
        origins = () if self._state is None else self._state.origins
        boot = next((boot for node, boot, _ in origins if node == self.config.id), 0)
        if boot >= self._directory.meta.boot:
            path = f"{self._directory.path}/META"
            raise DataError(path, None, later_start(boot, self._directory.meta.boot), OLD_META)

    def _check_state(self) -> None:
        """Say when the state is lost; the others have it, if there are others (rule W5)."""
        index = 0 if self._state is None else self._state.index
        if index >= self._recovered.first_index - 1:
            return
        problem = f"the state ends at entry {index} and the log begins at {self._recovered.first_index}"
        if len(self.config.cluster) == 1 and not self._directory.meta.met:  # nobody ever joined it
            raise DataError(self._states.path, None, problem, "Put the state back: no other node has it")
        journal.say("state-lost", "warning", message=f"{problem}; fetching the state from the other nodes")

    async def _close_state(self) -> None:
        await self._cuts.stop()
        await asyncio.to_thread(self._cuts.store.close)  # it writes out what it has in memory

    def _make_replica(self, initial: Configuration, ever: tuple[NodeId, ...]) -> Replica:
        config, meta, state = self.config, self._directory.meta, self._state
        if state is not None and state.configuration:
            initial = decode_configuration(state.configuration)
        tick_ms = TICK_SECONDS * 1000
        raft = RaftNode(
            config.id,
            initial,
            self._recovered,
            Options(
                election_ticks=max(1, round(config.election_timeout_ms / tick_ms)),
                heartbeat_ticks=max(1, round(config.heartbeat_ms / tick_ms)),
            ),
            random.Random(secrets.randbits(64)),
            self._clock.wall_ms(),
            applied=0 if state is None else state.index,
            boot=meta.boot,
        )
        return Replica(
            raft,
            StateMachine(ever, self._store, state),
            meta.boot,
            ReplicaOptions(
                request_timeout_ms=config.request_timeout_ms,
                resend_ms=config.election_timeout_ms,
                release_bytes=config.snapshot_log_bytes // 2,
            ),
            store_id=meta.store_id,
            client_address=config.advertise,
            fresh_cluster_id=secrets.token_bytes(16),
            log_bytes=max(0, self._wal.bytes - config.snapshot_log_bytes // 2),
        )

    async def _start_http(self, stack: contextlib.AsyncExitStack, address: str) -> None:
        from balsadb.server import http  # aiohttp takes 200 ms to import; only for those who want it

        host, port = parse_address(address)
        backups = Backups(self._driver, self._cuts, f"{self._directory.group_path}/outgoing/backup")
        exposed = protection.is_exposed(address)
        app = http.create_app(
            self.unready,
            backups,
            self._insight,
            self._logins,
            is_open=not exposed or (self.config.insecure and not protection.knows_clients(self.config)),
            needs_certificate=self.config.client_certificates == "yes",
        )
        certificates = (
            make_certificates(self.config, "optional" if self.config.tls_ca else "no") if exposed else None
        )
        runner = await http.start(app, host, port, HTTP_CONNECTIONS_MAX, certificates)
        stack.push_async_callback(http.stop, runner)

    # -------------------------------------------------------------------- stop

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Answer what is under way, then close everything in the reverse order of the start."""
        await self._stack.aclose()

    async def _drain(self) -> None:
        self._insight.stopping = True
        self._listener.stop_accepting()
        deadline = self._clock.monotonic_ms() + int(DRAIN_SECONDS_MAX * 1000)
        if self.replica.transfer() != NOBODY:
            self._driver.wake()
            while self.replica.node.role is Role.LEADER and self._clock.monotonic_ms() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(TICK_SECONDS)
        # Requests end in turns of the drive loop; nothing there signals the end of the last one.
        while not self.replica.idle and self._clock.monotonic_ms() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(TICK_SECONDS)
        self._listener.finished(self.replica.stop())

    # ------------------------------------------------------ NodeView for commands

    def status(self) -> NodeStatus:
        """Return the node's present state."""
        raft, machine, replica = self.replica.node, self.replica.machine, self.replica
        if raft.leader:
            self._last_leader = raft.leader
        return NodeStatus(
            id=raft.id,
            role=raft.role.value,
            term=raft.term,
            leader=raft.leader,
            last_leader=self._last_leader,
            configuration=replica.configuration,
            client_address=self.config.advertise,
            peer_address=self.config.peer_address,
            matched=raft.matches(),
            commit_index=raft.commit_index,
            applied_index=machine.applied_index,
            first_index=raft.first_index,
            last_index=raft.last_index,
            last_term=raft.log.last_term,
            durable_index=raft.durable_index,
            cluster_id=replica.configuration.cluster_id.hex(),
            connected=self._peers.connected,
            loading=replica.loading,
            ready=(unready := self.unready()) is None,
            unready=unready,
            admitted=raft.eligible,
            snapshot_index=self.replica.snapshot_index,
            keys=machine.store.keys_about,
            log_time_ms=machine.log_time_ms,
            alarms=machine.alarms,
            uptime_ms=self._clock.monotonic_ms() - self._started_ms,
            boot=replica.boot,
            stale_ms=replica.stale_ms(self._clock.monotonic_ms()),
            stale_limit_ms=replica.options.stale_read_ms,
            connections_received=self._listener.connections_received,
            commands_processed=self._listener.commands_processed,
        )

    def figures(self) -> Mapping[str, int | str]:
        """Return how fast, how large and how full the node is."""
        return self._insight.figures()

    def silent_ms(self) -> Mapping[NodeId, int | None]:
        """Return for how long each other member was not known to be there."""
        return self._insight.silent_ms()

    def clients(self) -> Sequence[ClientState]:
        """Return the open client connections."""
        return self._listener.clients()

    def take_snapshot(self) -> None:
        """Make a durable cut soon."""
        self.replica.take_snapshot()
        self._driver.wake()

    def keys(self) -> Iterable[bytes]:
        """Iterate over the keys of the applied state."""
        return self.replica.machine.keys()

    def wall_ms(self) -> int:
        """Return the wall clock in milliseconds since the Unix epoch."""
        return self._clock.wall_ms()

    def wall_us(self) -> int:
        """Return the wall clock in microseconds since the Unix epoch."""
        return self._clock.wall_us()

    def unready(self) -> str | None:
        """Say why this node can't serve now, or None when it can."""
        if self.replica.removed:
            return "this node was removed from the cluster"
        if self.replica.loading:
            return "the log is being replayed"
        if self.config.id not in self.replica.configuration.everyone():
            return "this node is not a member of the cluster yet"
        if not self.replica.node.eligible and not self.replica.node.leader:
            return "waiting to meet all initial members once"
        if not self.replica.node.leader:
            return "no leader is known"
        return None


def make_certificates(config: ServeConfig, client_certificates: str | None = None) -> Certificates | None:
    """Read what clients are shown and asked for; None without TLS. Raises UsageError."""
    if config.tls_cert is None or config.tls_key is None:
        return None
    files = Files(config.tls_cert, config.tls_key, config.tls_ca)
    host, _ = parse_address(config.advertise)
    return Certificates.of_clients(files, client_certificates or config.client_certificates, host)


def make_trust(config: ServeConfig) -> PeerTrust:
    """Read what other servers are shown and asked for. Raises UsageError."""
    certificates = secrets = None
    if config.peer_tls_cert is not None and config.peer_tls_key is not None:
        files = Files(config.peer_tls_cert, config.peer_tls_key, config.peer_tls_ca, "--peer-tls")
        certificates = Certificates.of_peers(files, config.id)
    if config.peer_secret_file is not None:
        secrets = Secrets(config.peer_secret_file)
    return PeerTrust(certificates, secrets)


def _check_purpose(config: ServeConfig) -> None:
    """Refuse to make a data directory for a node that belongs nowhere."""
    if not (config.cluster or config.join or os.path.exists(os.path.join(config.data_dir, "META"))):
        raise UsageError(
            f"{config.data_dir} is new; say with --cluster which cluster begins, or with --join which one "
            "this node joins"
        )


async def _listening(start: object, address: str, flag: str) -> None:
    host, port = parse_address(address)
    try:
        await start(host, port)  # type: ignore[operator]
    except OSError as error:
        raise UsageError(f"{flag} {address}: {error.strerror or error}") from None


async def _serve(config: ServeConfig) -> None:
    stop = asyncio.Event()
    told: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_tell_unexpected)
    forward_logging()

    def ask_to_stop(number: signal.Signals) -> None:
        told.append(number.name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask_to_stop, number)
    async with Node(config) as node:
        if node.certificates is not None or protection.knows_peers(config):
            # Without files to read again a closed terminal ends the server, as it does any program.
            loop.add_signal_handler(signal.SIGHUP, node.reload)
        await stop.wait()
        journal.say("stopping", signal=told[0])
    journal.say("stopped", status=0)


def _tell_unexpected(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tell of an error that nobody waited for; what it was about goes on, or was closed by the loop."""
    error = context.get("exception")
    lines = traceback.format_exception(error) if isinstance(error, BaseException) else []
    journal.say("unexpected", "error", message=str(context.get("message")), trace="".join(lines) or None)


def run(config: ServeConfig) -> None:
    """Run a server until SIGTERM or SIGINT. Raises what `Node.__aenter__` raises."""
    if not __debug__:
        raise UsageError("BalsaDB does not run under python -O: its assertions are part of its safety")
    if os.name == "nt":
        raise UsageError("BalsaDB servers run on Linux and macOS; Windows has no way to sync a file range")
    descriptors.raise_limit(config.max_clients)
    try:
        import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:  # no wheel for this platform
        runner = asyncio.Runner()
    with runner:
        runner.run(_serve(config))
