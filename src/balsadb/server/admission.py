"""Who may talk to this node as a member, and whether this node may vote (rule W5).

Two nodes exchange hellos before anything else. Each notes in its `META`, durably, which data directory
(store id) it met under which node id. An empty directory may only start to vote when **all** other initial
members have said that they never met another directory under its id: then it can't be the successor of a
disk that has already voted or acknowledged something. That is why the first start needs all initial
members up once, and later starts do not.
"""

from __future__ import annotations

import msgspec

from balsadb.errors import StorageError
from balsadb.raft.types import NodeId
from balsadb.replica.identity import stranger
from balsadb.replica.replica import Replica
from balsadb.server.failure import stop_process
from balsadb.storage.datadir import DataDirectory, Meta
from balsadb.version import __version__
from balsadb.wire.frame import PROTOCOL_VERSION, Hello, Refused, Welcome
from balsadb.wire.handshake import MESSAGES

IDENTITIES_MAX = 1024
"""Nodes whose hellos are remembered; one that the log does not know is not, past this."""


class Admission:
    """Decides on hellos, and keeps what they teach in `META`."""

    def __init__(
        self, replica: Replica, directory: DataDirectory, cluster_digest: bytes, peer_address: str = ""
    ) -> None:
        """`peer_address` is where the other servers reach this one."""
        self._peer_address = peer_address
        self._replica = replica
        self._directory = directory
        self._cluster_digest = cluster_digest
        self._confirmed: set[NodeId] = set()
        """Initial members that have never met another directory under our id."""
        self._update_eligibility()

    def hello(self, target: NodeId, purpose: int = MESSAGES) -> Hello:
        """Make the hello for a connection to `target`."""
        meta, replica = self._directory.meta, self._replica
        return Hello(
            protocol_version=PROTOCOL_VERSION,
            cluster_id=self._cluster_id(),
            cluster_digest=self._cluster_digest,
            node_id=replica.node.id,
            target_id=target,
            store_id=meta.store_id,
            boot=meta.boot,
            client_address=replica.identities[replica.node.id][1],
            admitted=meta.admitted,
            purpose=purpose,
            peer_address=self._peer_address,
        )

    def answer(self, hello: Hello) -> Welcome | Refused:
        """Decide on the hello of a node that has connected to us."""
        if hello.cluster_id in self._replica.configuration.former:
            # Whatever else may be wrong with it. It is told that it is out: two of the old cluster could be
            # a majority of it, and serve clients what counts no more (rule M4).
            return Refused(self._outdated(hello.node_id, hello.cluster_id), hello.cluster_id)
        reason = self._objection(hello)
        if reason is not None:
            return Refused(reason)
        reason = self._meet(hello.node_id, hello.store_id, hello.client_address)
        if reason is not None:
            gone = hello.node_id in self._replica.node.gone and hello.cluster_id == self._cluster_id()
            return Refused(reason, self._cluster_id() if gone else b"")
        replica = self._replica
        return Welcome(
            node_id=replica.node.id,
            store_id=self._directory.meta.store_id,
            cluster_id=self._cluster_id(),
            client_address=replica.identities[replica.node.id][1],
            never_met_other=True,
        )

    def welcomed(self, target: NodeId, welcome: Welcome) -> str | None:
        """Take the answer of `target` to our hello; returns why the connection must not be used."""
        if welcome.node_id != target:
            return (
                f"node {welcome.node_id} answers at the address of node {target}; correct --cluster or --dial"
            )
        reason = self._cluster_objection(welcome.cluster_id) or self._meet(
            target, welcome.store_id, welcome.client_address
        )
        if reason is None and welcome.never_met_other:
            self._confirmed.add(target)
            self._update_eligibility()
        return reason

    def refused(self, refusal: Refused) -> str:
        """Take a refusal of our hello; returns its reason. A removed node falls silent (rule M1)."""
        if refusal.removed_from and refusal.removed_from == self._cluster_id():
            self._replica.node.note_removed()
        return refusal.reason

    def configuration_changed(self) -> None:
        """Write the cluster id that the log has brought into `META`, once; see whether this node may vote."""
        self._update_eligibility()
        cluster_id = self._replica.configuration.cluster_id
        if cluster_id and cluster_id != self._directory.meta.cluster_id:
            self._write_meta(msgspec.structs.replace(self._directory.meta, cluster_id=cluster_id))

    # ---------------------------------------------------------------- inside

    def _cluster_id(self) -> bytes:
        return self._replica.configuration.cluster_id or self._directory.meta.cluster_id

    def _objection(self, hello: Hello) -> str | None:
        me = self._replica.node.id
        if hello.protocol_version != PROTOCOL_VERSION:
            return (
                f"node {me} (BalsaDB {__version__}) speaks peer protocol {PROTOCOL_VERSION}, and node "
                f"{hello.node_id} speaks {hello.protocol_version}; docs/compatibility.md says which versions "
                "of BalsaDB go together"
            )
        if hello.target_id != me:
            return f"this is node {me}, not node {hello.target_id}; correct --cluster or --dial"
        if hello.node_id == me:
            return f"node {me} is another process already; ids must be unique"
        named = hello.cluster_id and self._cluster_id()
        if not named and hello.cluster_digest != self._cluster_digest:
            # Also when just one of them is without a name: it may be a restored node (rule M4) at the address
            # of one of the old cluster, and neither must even note that it met the other.
            return (
                "the --cluster texts of the two nodes differ, or the backups that they were restored from; "
                "both must be the same on every node"
            )
        return self._cluster_objection(hello.cluster_id)

    def _outdated(self, node: NodeId, cluster_id: bytes) -> str:
        former = self._replica.configuration.former
        return (
            f"node {node} belongs to the cluster as it was before recovery {former.index(cluster_id) + 1} "
            f"({cluster_id.hex()}, now {self._cluster_id().hex()}); what it holds counts no more: empty its "
            "directory and let it join under a new id (balsadb serve --join)"
        )

    def _cluster_objection(self, cluster_id: bytes) -> str | None:
        mine = self._cluster_id()
        if cluster_id and mine and cluster_id != mine:
            return f"the nodes belong to different clusters ({mine.hex()} and {cluster_id.hex()})"
        return None

    def _meet(self, node: NodeId, store_id: bytes, client_address: str) -> str | None:
        """Check a node's directory against the log and against what we met before; note it durably."""
        configuration = self._replica.node.configuration
        if self._cluster_id() and configuration.member(node) is None and node not in self._replica.node.gone:
            # rule M1: it names our cluster, and our log may lag. As a voter it must be heard, or we could
            # keep it from ever being elected. What it may do is decided by those who know it.
            if len(self._replica.identities) < IDENTITIES_MAX:
                self._replica.identities[node] = (store_id, client_address)
            return None
        reason = stranger(configuration, node, store_id)
        if reason is not None:
            return reason
        meta = self._directory.meta
        met = meta.met.get(node)
        if met is None:
            # On disk before we say that we never met another one: after a restart we still know.
            self._write_meta(msgspec.structs.replace(meta, met={**meta.met, node: store_id}))
        elif met != store_id:
            return (
                f"node {node} came with another data directory before; "
                "put that one back, or replace the node with a new one under a new id"
            )
        self._replica.identities[node] = (store_id, client_address)
        return None

    def _write_meta(self, meta: Meta) -> None:
        """Replace `META`, or stop: a node whose disk fails goes on with nothing (rule W4)."""
        try:
            self._directory.update_meta(meta)
        except StorageError as error:
            stop_process(str(error))

    def _update_eligibility(self) -> None:
        node, meta = self._replica.node, self._directory.meta
        if not meta.admitted:
            if not self._known_by_the_log() and not self._confirmed_by_all():
                node.eligible = False
                return
            self._write_meta(msgspec.structs.replace(meta, admitted=True))
        node.eligible = True

    def _known_by_the_log(self) -> bool:
        """Tell whether this node joined later and the log has bound its directory.

        Its id was never used before, and no learner is promoted before it is bound, so no other directory has
        ever voted under this id.
        """
        meta = self._directory.meta
        member = self._replica.node.configuration.member(meta.node_id)
        return meta.joined and member is not None and member.store_id == meta.store_id

    def _confirmed_by_all(self) -> bool:
        """Tell whether all other initial members have said that they never met another directory of ours."""
        node, meta = self._replica.node, self._directory.meta
        others = {member for member in node.configuration.voters if member != node.id}
        return not meta.joined and others <= self._confirmed
