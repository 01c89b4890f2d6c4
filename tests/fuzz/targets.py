"""All targets, by name."""

from __future__ import annotations

from fuzz import (
    backup_files,
    client_connections,
    command_batches,
    identity_files,
    log_entries,
    log_segments,
    peer_frames,
    resp_replies,
    resp_requests,
    state_transfers,
    state_values,
)
from fuzz.kit import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        resp_requests.TARGET,
        resp_requests.QUICK,
        resp_replies.TARGET,
        client_connections.TARGET,
        peer_frames.TARGET,
        log_entries.TARGET,
        log_segments.TARGET,
        command_batches.TARGET,
        state_values.TARGET,
        state_transfers.TARGET,
        identity_files.TARGET,
        backup_files.TARGET,
    )
}
