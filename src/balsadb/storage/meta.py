"""The bytes of `META`: who this node is. Small, replaced as a whole, checked as a whole.

offset  size  field
0       8     "BALSMETA"
8       4     format version, little endian
12      4     length of the content
16      4     CRC-32C of the content
20      ...   content: a `Meta` as MessagePack
"""

from __future__ import annotations

import struct

import google_crc32c
import msgspec

from balsadb.errors import DataError
from balsadb.raft.types import NodeId
from balsadb.storage.recovery import REPLACE

FORMAT_VERSION = 1
MAGIC = b"BALSMETA"
META_BYTES_MAX = 1 << 20
"""A larger file is not one of ours; it is not even read."""
STORE_ID_BYTES = 16

_HEADER = struct.Struct("<8sIII")
_VERSION = struct.Struct("<8sI")


class Meta(msgspec.Struct, frozen=True):
    """What a node must know about itself before it reads its log."""

    node_id: NodeId
    store_id: bytes
    """Random; tells this data directory from any other that ever was under the same node id (rule W5)."""
    cluster_text: str
    """The initial members as `--cluster` said at the first start; empty when the node joined later."""
    cluster_id: bytes = b""
    """As the log has brought it; empty until then."""
    boot: int = 0
    """Starts of this node; raised and synced before anything is proposed (rule P2)."""
    admitted: bool = False
    """All other initial members have said that they never met another directory under this id (rule W5)."""
    met: dict[NodeId, bytes] = {}
    """Store id under which each other node was met first."""
    restored: bytes = b""
    """Checksum of the backup that this directory began with; empty when it began empty (rule M4)."""

    @property
    def joined(self) -> bool:
        """Tell whether this node was no initial member, but joined a cluster that was there."""
        return not self.cluster_text


def encode_meta(meta: Meta) -> bytes:
    """Return the content of the file."""
    content = msgspec.msgpack.encode(meta)
    return _HEADER.pack(MAGIC, FORMAT_VERSION, len(content), google_crc32c.value(content)) + content


def decode_meta(path: str, data: bytes) -> Meta:
    """Read the content of the file at `path`. Raises DataError on any doubt."""
    if len(data) >= _VERSION.size:
        magic, version = _VERSION.unpack_from(data)
        if magic == MAGIC and version > FORMAT_VERSION:
            problem = f"it has format version {version}, and this program knows {FORMAT_VERSION}"
            raise DataError(path, 8, problem, "Start the version of BalsaDB that wrote it")
    if len(data) < _HEADER.size:
        raise DataError(path, len(data), "the file ends within its header", REPLACE)
    magic, version, length, checksum = _HEADER.unpack_from(data)
    if (magic, version) != (MAGIC, FORMAT_VERSION):
        raise DataError(path, 0, "this is not the identity of a BalsaDB node", REPLACE)
    content = data[_HEADER.size :]
    if len(content) != length:
        raise DataError(path, 12, f"{length} bytes are announced and {len(content)} are there", REPLACE)
    if google_crc32c.value(content) != checksum:
        raise DataError(path, _HEADER.size, "the content fails its checksum", REPLACE)
    try:
        meta = msgspec.msgpack.decode(content, type=Meta)
    except msgspec.MsgspecError as error:
        raise DataError(path, _HEADER.size, f"the content makes no sense: {error}", REPLACE) from error
    if len(meta.store_id) != STORE_ID_BYTES:
        raise DataError(path, _HEADER.size, f"the store id has {len(meta.store_id)} bytes", REPLACE)
    return meta
