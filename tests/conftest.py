"""Options of the test suite."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-scripts",
        action="store_true",
        help="bring the expected traces in tests/raft/scripts to what happens now. Understand the difference "
        "first: a trace that changes is a protocol that changes, and may be a bug",
    )
