"""How many clients the open files of a process allow."""

from __future__ import annotations

import resource

import pytest

from balsadb.errors import UsageError
from balsadb.server import descriptors
from balsadb.server.descriptors import CLIENTS_WANTED, FILES_MAX, clients_max, raise_limit


@pytest.fixture
def limits(monkeypatch):
    """Limits of open files, soft and hard, that a test may set."""
    now = [1024, 4096]
    monkeypatch.setattr(descriptors.resource, "getrlimit", lambda which: tuple(now))
    monkeypatch.setattr(
        descriptors.resource, "setrlimit", lambda which, both: now.__setitem__(slice(2), both)
    )
    return now


def test_clients_leave_files_for_everything_else(limits):
    assert clients_max(70) == 1024 - FILES_MAX - 70


@pytest.mark.parametrize("soft", [100_000, resource.RLIM_INFINITY])
def test_more_clients_than_anybody_wants_are_not_admitted(limits, soft):
    limits[0] = soft
    assert clients_max(70) == CLIENTS_WANTED


def test_an_operator_may_want_fewer_clients_or_more(limits):
    assert clients_max(70, wanted=5) == 5
    limits[0] = 100_000
    assert clients_max(70, wanted=50_000) == 50_000
    assert clients_max(70, wanted=200_000) == 100_000 - FILES_MAX - 70


def test_a_process_takes_files_for_as_many_clients_as_are_wanted(limits):
    limits[1] = 10**6
    raise_limit(clients=100_000)
    assert limits == [200_000, 10**6]


def test_a_limit_that_leaves_no_clients_is_told_at_the_start(limits):
    limits[0] = 100
    with pytest.raises(UsageError, match="ulimit -n"):
        clients_max(70)


@pytest.mark.parametrize(
    ("hard", "soft"), [(4096, 4096), (512, 1024), (10**6, 20_000), (resource.RLIM_INFINITY, 20_000)]
)
def test_a_process_takes_as_many_files_as_it_may_and_needs(limits, hard, soft):
    limits[1] = hard
    raise_limit()
    assert limits == [soft, hard]
