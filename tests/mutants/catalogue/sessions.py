"""Exactly once: sessions and the time by which they end (rules S1, S2, S5, S6)."""

from mutants.catalogue.mutant import mutant, scripted

SESSIONS = (
    mutant(
        "sessions are not part of a cut",
        "C1",
        40,
        ("kv.machine:StateMachine.freeze", "cut.sessions = self.sessions.freeze()", "self.sessions.freeze()"),
        focus={"small_cuts": True, "nodes": 3, "crashes": 60.0},
    ),
    mutant(
        "a start forgets the sessions",
        "C1",
        40,
        (
            "kv.machine:load_sessions",
            "base.sessions(),",
            "(),",
        ),
        focus={"small_cuts": True, "nodes": 3, "crashes": 60.0},
    ),
    mutant(
        "a session that a cut holds changes under it",
        "C1",
        60,
        ("kv.sessions:Sessions._hear", "session = session.copy()", "pass"),
        focus={"small_cuts": True, "nodes": 3, "crashes": 60.0},
    ),
    mutant(
        "a cut does not know when the term began",
        "S6",
        40,
        ("kv.machine:StateMachine.freeze", "term_time_ms=self.sessions.term_ms,", ""),
        focus={"small_cuts": True, "nodes": 3, "crashes": 60.0},
    ),
    mutant(
        "sessions end by the local clock",
        "S6",
        20,
        (
            "replica.replica:Replica._apply_commands",
            "entry.time_ms, payload, slots",
            "self.wall_ms, payload, slots",
        ),
    ),
    mutant(
        "a lower acknowledgement lowers the floor",
        "S2",
        60,
        ("kv.sessions:Sessions.attempt", "if ack > session.floor:", "if ack != session.floor:"),
        focus={"nodes": 3},
    ),
    mutant(
        "an id is the nonce alone",
        "S1",
        40,
        ("kv.sessions:Sessions.open", 'b"%b-%d-%d" % (nonce, *revision)', "nonce"),
        focus={"nodes": 3},
    ),
    mutant(
        "a repeated sequence number runs again",
        "S2",
        20,
        ("kv.sessions:Sessions.attempt", "if noted is not None:", "if False:"),
        focus={"nodes": 3},
    ),
    mutant(
        "a transaction in a session is not noted",
        "S2",
        40,
        (
            "kv.execution:_run_transaction_once",
            "attempt.end(space, _run_transaction(space, commands, position, count))",
            "_run_transaction(space, commands, position, count)",
        ),
        focus={"nodes": 3},
    ),
    scripted(
        "a jump of the leader's clock shows in log time",
        "S6",
        "raft/test_clock.py",
        ("raft.core:Core.tell_time", "wall_ms if steady_ms is None else steady_ms", "wall_ms"),
    ),
    scripted(
        "a start takes a configuration that may yet be truncated",
        "M2",
        "replica/test_replica.py",
        ("replica.replica:Replica.__init__", "node.settled_configuration", "node.configuration"),
    ),
    scripted(
        "an id knows its entry and not its place in it",
        "S1",
        "kv/test_sessions.py::TestIds",
        ("kv.sessions:Sessions.open", 'b"%b-%d-%d" % (nonce, *revision)', 'b"%b-%d" % (nonce, revision[0])'),
    ),
    scripted(
        "acknowledgements are ignored",
        "S2",
        "kv/test_sessions.py::TestOnce",
        ("kv.sessions:Sessions.attempt", "if ack > session.floor:", "if False:"),
    ),
    scripted(
        "what ran is forgotten with a reply that is too large",
        "S2",
        "kv/test_sessions.py::TestOnce",
        (
            "kv.sessions:Sessions.note",
            "session.done[sequence] = checksum, kept, size",
            "if kept is not NOT_KEPT: session.done[sequence] = checksum, kept, size",
        ),
    ),
    scripted(
        "another command under the same number gets the first one's reply",
        "S2",
        "kv/test_sessions.py::TestOnce",
        ("kv.sessions:Sessions.attempt", "if noted[0] != checksum:", "if False:"),
    ),
    scripted(
        "any sequence number may be used",
        "S2",
        "kv/test_sessions.py::TestOnce",
        ("kv.sessions:Sessions.attempt", "if sequence >= session.floor + SESSION_WINDOW:", "if False:"),
    ),
    scripted(
        "a command that did not run for want of room is noted as done",
        "S5",
        "kv/test_sessions.py::TestOnce",
        ("kv.commands.sessions:Attempt.end", "if reply is not OVER_BUDGET:", "if True:"),
    ),
    scripted(
        "one session keeps replies without a bound",
        "S2",
        "kv/test_sessions.py::TestOnce",
        ("kv.sessions:Sessions.note", "session.bytes + size > SESSION_BYTES_MAX or ", ""),
    ),
    scripted(
        "a session that is due lives until its turn",
        "S5",
        "kv/test_sessions.py::TestExpiry",
        ("kv.sessions:Sessions._living", " and self._end_ms(session) > self._now_ms", ""),
    ),
    scripted(
        "an outage ends all sessions",
        "S6",
        "kv/test_sessions.py::TestExpiry",
        ("kv.sessions:Sessions.clock", "if new_term:", "if False:"),
    ),
    scripted(
        "sessions come back from the disk in another order than they end in",
        "S4",
        "kv/test_sessions.py::TestExpiry",
        ("kv.sessions:Sessions.load", "sessions.sort(key=lambda session: session.heard)", "pass"),
    ),
    scripted(
        "one entry removes all that is due",
        "S5",
        "kv/test_expiry.py",
        ("kv.expiry:expire", "part.expire(index, now_ms, left)", "part.expire(index, now_ms, 10**9)"),
    ),
    scripted(
        "a clock entry at every tick",
        "S6",
        "replica/test_clock.py",
        (
            "replica.replica:Replica._move_clock",
            " or node.last_index != machine.applied_index",
            "",
        ),
    ),
    scripted(
        "no clock entry in an idle cluster",
        "S6",
        "replica/test_clock.py",
        ("replica.replica:Replica._move_clock", "node.stamp_ms >= deadline", "False"),
    ),
)
