"""What the Clerk tells its callers, and what it sends again (rules S1-S3)."""

from mutants.catalogue.mutant import scripted

NETWORK = "client/test_exactly_once.py::test_nothing_is_lost_or_doubled_and_every_error_tells_the_truth"

CLERK = (
    scripted(
        "a refusal after an open outcome is told as not applied",
        "S3",
        NETWORK,
        ("client.desk:Desk.refused", "call.is_open and call.kind is not Kind.READ", "False"),
    ),
    scripted(
        "an answer that says unknown is forgotten",
        "S3",
        NETWORK,
        ("client.desk:Desk.refused", "call.is_open = True", "pass"),
    ),
    scripted(
        "a lost connection is taken for a refusal",
        "S3",
        NETWORK,
        ("client.desk:Desk.unanswered", "call.reason, call.is_open = reason, True", "call.reason = reason"),
    ),
    scripted(
        "a write with an open outcome moves to the next session",
        "S1",
        NETWORK,
        ("client.desk:Desk._rehome", "if call.is_open:", "if False:"),
    ),
    scripted(
        "the lowest number that waits for an answer is told too high",
        "S2",
        NETWORK,
        ("client.session:Session.answered", "and self._lowest not in self._open", ""),
    ),
    scripted(
        "a write without a session is sent again though its outcome is open",
        "S3",
        "client/test_core.py::test_what_may_be_repeated_after_one_attempt",
        ("client.desk:Desk.unanswered", "call.kind is Kind.PLAIN or self.closed", "self.closed"),
    ),
)
