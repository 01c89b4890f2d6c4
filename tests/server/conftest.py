"""What several tests of the server share."""

from __future__ import annotations

import pytest

from balsadb.server import journal
from certificates import certificates

__all__ = ["certificates"]


@pytest.fixture(autouse=True)
def a_journal_with_room(monkeypatch):
    """Let no test have its lines left out because the ones before had many of the kind."""
    monkeypatch.setattr(journal.journal, "_kinds", {})
