"""Bounds and pauses: what a node refuses or drops instead of waiting (rules B1-B3, R4)."""

from mutants.catalogue.mutant import mutant, scripted

PRESSURE = (
    mutant(
        "a leader takes proposals without a bound",
        "B1",
        200,
        ("raft.replication:admit", "if outstanding and", "if False and"),
    ),
    mutant(
        "what is committed but not yet on the own disk does not count",
        "B1",
        400,
        ("raft.replication:maybe_commit", "min(agreed, log.durable_index, log.applied_index)", "agreed"),
    ),
    mutant(
        "reads wait in any number",
        "R4",
        200,
        ("raft.reads:_arrive", "if leader.reads_count >= core.options.reads_max:", "if False:"),
    ),
    scripted(
        "messages queue for a peer that does not read",
        "B1",
        "server/test_peer_queue.py",
        ("server.peers:Peers.send", " or link.get_write_buffer_size() > OUTBOX_BYTES_MAX", ""),
    ),
    scripted(
        "a node holds requests without a bound",
        "B1",
        "replica/test_replica.py",
        ("replica.replica:Replica.submit", "if refused:", "if False:"),
    ),
    scripted(
        "a node that no leader confirms answers READONLY reads for ever",
        "R4",
        "replica/test_replica.py",
        (
            "replica.replica:Replica._dispatch",
            "elif self._too_old:",
            "elif False:",
        ),
    ),
    scripted(
        "a tick comes before the messages that waited in a pause",
        "B3",
        "server/test_driver_order.py",
        (
            "server.driver:Driver._on_timer",
            "self._loop.call_soon(self._loop.call_soon, self._make_tick_due)",
            "self._make_tick_due()",
        ),
    ),
    scripted(
        "durable entries never leave the cache",
        "B2",
        "raft/test_log.py::test_the_cache_keeps_what_is_not_durable_whatever_its_size",
        ("raft.log:Log._evict", "while count < evictable and size > goal:", "while False:"),
    ),
)
