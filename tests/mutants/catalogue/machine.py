"""The state machine: the same everywhere, bounded, all or nothing (rules S4, S5, S8)."""

from mutants.catalogue.mutant import mutant, scripted

MACHINE = (
    mutant(
        "a revision counts the reads that rode along",
        "S4",
        40,
        ("kv.execution:_run", "space.position = position\n", "space.position = len(replies)\n"),
    ),
    scripted(
        "a refused command has done half of its work",
        "S4",
        "kv/test_strings.py::test_the_longest_key_and_value_and_one_byte_more",
        (
            "kv.keyspace:Keyspace.write_all",
            "spent += len(key) + len(value)\n",
            "spent += len(key) + len(value)\n        self._put(key, (value, self.index, self.position))\n",
        ),
    ),
    scripted(
        "a malformed payload stops every replica",
        "S4",
        "kv/test_machine.py::TestOrderOfEntries",
        (
            "kv.machine:StateMachine.apply_commands",
            "if batch is None:",
            "assert batch is not None\n    if False:",
        ),
    ),
    scripted(
        "what one node alone knows runs in a transaction",
        "S4",
        "kv/test_machine.py::TestTransactions::test_what_one_node_alone_knows_stays_outside",
        ("kv.execution:run_inside", ' or b"no_multi" in command.flags', ""),
    ),
    scripted(
        "an entry changes without a bound",
        "S5",
        "kv/test_machine.py::TestBudget",
        ("kv.keyspace:Keyspace.write", "if spent > CHANGE_BYTES_MAX:", "if False:"),
    ),
    scripted(
        "a command overtakes one that the entry had no room for",
        "S5",
        "kv/test_machine.py::TestBudget",
        ("kv.execution:_run", "space.spent = _EXHAUSTED", "pass"),
    ),
    scripted(
        "a digest does not cover the origins",
        "S8",
        "kv/test_machine.py::TestDigest",
        (
            "kv.machine:StateMachine.digest",
            "sorted((node, origin.boot, origin.last) for node, origin in self.origins.items()),",
            "",
        ),
    ),
    scripted(
        "a digest is taken in the middle of its entry",
        "S8",
        "kv/test_machine.py::TestDigest",
        (
            "kv.machine:StateMachine.apply_commands",
            "replies = run_batch(",
            "early = self.digest()\n    replies = run_batch(",
        ),
        (
            "kv.machine:StateMachine.apply_commands",
            "self._digests.fulfil(index, self.digest())",
            "self._digests.fulfil(index, early)",
        ),
    ),
)
