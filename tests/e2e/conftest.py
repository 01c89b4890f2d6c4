"""Clusters of real processes for the end-to-end tests."""

from __future__ import annotations

import pytest

from balsadb.testing import LocalCluster
from certificates import certificates

__all__ = ["certificates"]


def pytest_collection_modifyitems(items):
    """Everything here starts processes."""
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def shared_cluster():
    """Three nodes for tests that break nothing."""
    with LocalCluster(nodes=3) as cluster:
        yield cluster


@pytest.fixture
def cluster():
    """Three nodes of one's own, to break."""
    with LocalCluster(nodes=3) as own:
        yield own
