"""Writes of a node on their way into the log, and their replies (rules P1-P6)."""

from mutants.catalogue.mutant import QUICK_RESTARTS, mutant, scripted

REPLICA = (
    mutant(
        "a payload is made anew before the old one is dead",
        "P1",
        40,
        (
            "replica.proposals:Proposals.flush",
            "if self._window[-1].term != node.term or",
            "if self._window[-1].term != node.term:\n"
            "                self.bury(node.term)\n"
            "                continue\n"
            "            if",
        ),
    ),
    mutant(
        "payloads of the present term are taken for dead",
        "P1",
        20,
        ("replica.proposals:Proposals.bury", "window[0].term >= term", "window[0].term > term"),
    ),
    mutant(
        "a payload that ran runs again",
        "P2",
        20,
        ("kv.machine:StateMachine._admit", "if not (follows or begins):", "if False:"),
    ),
    mutant(
        "payloads run with gaps before them",
        "P2",
        400,
        (
            "kv.machine:StateMachine._admit",
            "batch.sequence == origin.last + 1",
            "batch.sequence > origin.last",
        ),
    ),
    mutant(
        "any other boot begins anew",
        "P2",
        400,
        (
            "kv.machine:StateMachine._admit",
            "begins = batch.boot > origin.boot and",
            "begins = batch.boot != origin.boot and",
        ),
        focus=QUICK_RESTARTS | {"election_ticks": 50, "partitions": 0.0},
    ),
    mutant(
        "the boot counter is not raised",
        "P2",
        40,
        ("storage.datadir:DataDirectory.open", "boot=meta.boot + 1", "boot=max(meta.boot, 1)"),
    ),
    mutant(
        "the raised boot counter is not synced",
        "P2",
        400,
        (
            "storage.datadir:DataDirectory.update_meta",
            "file.sync()",
            "pass",
        ),
        ("storage.datadir:DataDirectory.update_meta", "files.sync_directory(self.path)", "pass"),
    ),
    mutant(
        "a waiter is answered by whatever runs next",
        "scenario 33",
        40,
        (
            "replica.replica:Replica._apply_commands",
            "if outcome.ran and outcome.node == self.node.id and outcome.boot == self.boot:",
            "window = self._proposals._window\n"
            "    due = sum(request.answers for request in window[0].requests) if window else 0\n"
            "    if outcome.ran and window and due == len(outcome.replies):\n"
            "        outcome = __import__('msgspec').structs.replace(outcome, sequence=window[0].sequence)",
        ),
    ),
    mutant(
        "an open outcome is told as not applied",
        "P1",
        40,
        (
            "replica.replica:Replica.tick",
            "self._refuse(request, UNKNOWN)",
            "self._refuse(request, NOT_APPLIED)",
        ),
    ),
    mutant(
        "reads and writes of a connection overtake each other",
        "P6",
        40,
        (
            "replica.request:Lane.admits",
            "return not self.backlog and (self.flying == 0 or self.kind is kind)",
            "return True",
        ),
    ),
    mutant(
        "reads that ride on a payload run before it",
        "P6",
        20,
        (
            "replica.proposals:Proposals._take",
            "(base + position, command) for position, command in request.reads",
            "(base, command) for position, command in request.reads",
        ),
    ),
    mutant(
        "payloads without progress are not sent again",
        "P3",
        40,
        ("replica.proposals:Proposals.resend", "node.leader != node.id", "False"),
    ),
    scripted(
        "payloads are sent again in another order",
        "P3",
        "replica/test_proposals.py::test_payloads_without_progress_are_sent_again_in_order_byte_for_byte",
        ("replica.proposals:Proposals.resend", "in self._window]", "in reversed(self._window)]"),
    ),
    mutant(
        "a request that was refused is proposed all the same",
        "P3",
        200,
        ("replica.proposals:Proposals._take", "if request.replies is not None:", "if False:"),
    ),
    mutant(
        "the requests of a dead payload are lost",
        "P3",
        40,
        (
            "replica.proposals:Proposals.bury",
            "self._requeue([request for payload in window for request in payload.requests])",
            "pass",
        ),
    ),
    scripted(
        "a stranger's payload runs",
        "P5",
        "kv/test_machine.py::TestMembers",
        ("kv.machine:StateMachine._admit", "if batch.node not in self.members:", "if False:"),
    ),
    scripted(
        "a removed node's origin stays",
        "P5",
        "kv/test_machine.py::TestMembers",
        ("kv.machine:StateMachine.apply_membership", "self.origins.pop(node, None)", "pass"),
    ),
)
