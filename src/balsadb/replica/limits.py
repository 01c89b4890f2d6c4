"""Every bound of a replica, with its unit and what happens when it is reached."""

from __future__ import annotations

import msgspec

WRITE_BYTES = 512
"""What a write takes in the log besides its entries, about: it has a header and fills whole sectors. Small
writes consist mostly of it, and a log of them must go as early as any other."""


class ReplicaOptions(msgspec.Struct, frozen=True):
    """Bounds and times. The defaults suit a local network."""

    request_timeout_ms: int = 2500
    """A request without an outcome after this gets an error that says what is certain."""
    resend_ms: int = 500
    """Proposals and questions without progress for this long go out again (rule P3): an election time-out."""
    payload_bytes_max: int = 1024 * 1024
    """A payload takes no further request past this; one request is always admitted."""
    payload_commands_max: int = 16_384
    """A payload takes no further request past this many commands."""
    window_bytes_max: int = 8 * 1024 * 1024
    """Bytes of own payloads in flight (W of rule B1). Past it requests wait; one is always admitted."""
    collect_commands_min: int = 64
    """While the disk works, fewer waiting commands than this collect for a larger batch."""
    queued_bytes_max: int = 64 * 1024 * 1024
    """Bytes of requests held by this node. Past it requests are refused with -TRYAGAIN."""
    apply_bytes_max: int = 4 * 1024 * 1024
    """Bytes that the entries applied in one turn may write; one entry is always applied."""
    cut_keys_max: int = 4_096
    """Keys that may change before a cut takes them (rule C1)."""
    cut_bytes_max: int = 4 * 1024 * 1024
    """Bytes that may be written before a cut takes them."""
    cuts_max: int = 8
    """Cuts that are not yet written. With so many the node applies nothing more: the disk is behind."""
    release_bytes: int = 32 * 1024 * 1024
    """A cut is made durable, so that the log before it may go, after so many bytes of log."""
    warm_keys_max: int = 4_096
    """Keys that are read from the disk at a time before what needs them runs (rule R5)."""
    warm_slices_max: int = 64
    """Slices of keys that are brought closer at a time before the scans that need them run."""
    read_questions_max: int = 64
    """Read-index questions in flight. Past it reads collect for the next question."""
    slow_write_ms: int = 250
    """A write to the log that takes longer is slow."""
    slow_disk_ms: int = 3_000
    """A leader whose writes have all been slow for so long hands over to somebody whose disk is ahead."""
    stale_read_ms: int = 5_000
    """READONLY reads are refused on a node whose state may be older than this (rule R4)."""
    idle_probe_ms: int = 1_000
    """A node on which nobody has read for so long asks for a read index, to know how old its state may be."""
    probe_ms: int = 250
    """The same on a node that has answered READONLY reads meanwhile."""
