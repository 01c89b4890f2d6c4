"""Configurations in the log."""

import pytest

from balsadb.errors import InvariantError, ProtocolError
from balsadb.raft.configuration import (
    ConfigurationLog,
    change_fault,
    decode_configuration,
    encode_configuration,
)
from balsadb.raft.types import Configuration, Member

OLD = Configuration(voters=(1, 2, 3))


def test_a_configuration_survives_its_encoding():
    configuration = Configuration(
        (1, 2), (2, 3), (4,), (5,), (Member(1, "a:1", "b:2", b"\x00" * 16),), b"\xff" * 16
    )
    assert decode_configuration(encode_configuration(configuration)) == configuration


def test_a_malformed_configuration_is_a_protocol_error():
    with pytest.raises(ProtocolError):
        decode_configuration(b"\xc1")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (OLD, Configuration((1, 2, 3), cluster_id=b"x" * 16)),
        (OLD, Configuration((1, 2, 3), learners=(4,))),
        (OLD, Configuration((1, 2, 3, 4), outgoing=(1, 2, 3))),
        (Configuration((1, 2, 3, 4), (1, 2, 3)), Configuration((1, 2, 3, 4))),
        (Configuration((1, 2, 3, 4), (1, 2, 3)), Configuration((1, 2, 3, 4), (1, 2, 3), learners=(9,))),
    ],
)
def test_legal_steps(old, new):
    assert change_fault(old, new) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (OLD, Configuration(())),
        (OLD, Configuration((1, 2, 3, 4))),
        (OLD, Configuration((4, 5, 6), outgoing=(1, 2))),
        (OLD, Configuration((1, 2, 3), learners=(3,))),
        (OLD, Configuration((1, 2, 3), removed=(3,))),
        (Configuration((1,), removed=(2,)), Configuration((1,))),
        (Configuration((1, 2, 3, 4), (1, 2, 3)), Configuration((1, 2, 3))),
    ],
)
def test_steps_that_could_let_two_majorities_decide_or_revive_an_id(old, new):
    assert change_fault(old, new) is not None


def test_truncation_returns_to_the_former_configuration():
    log = ConfigurationLog(0, OLD)
    other = Configuration((1, 2, 3), learners=(4,))
    log.append(5, other)
    log.append(7, OLD)
    assert log.truncate(6)
    assert (log.index, log.current) == (5, other)
    assert not log.truncate(6)
    assert log.truncate(1)
    assert (log.index, log.current) == (0, OLD)


def test_committed_configurations_are_not_returned_to():
    log = ConfigurationLog(0, OLD)
    log.append(5, Configuration((1, 2, 3), learners=(4,)))
    log.committed(5)
    with pytest.raises(InvariantError, match="only known"):
        log.truncate(5)


def test_an_id_is_gone_only_when_its_removal_is_committed():
    log = ConfigurationLog(0, Configuration((1, 2, 3)))
    log.append(5, Configuration((1, 2), outgoing=(1, 2, 3)))
    log.append(6, Configuration((1, 2), removed=(3,)))
    log.committed(5)
    assert (log.current.removed, log.gone) == ((3,), ())
    log.truncate(6)
    log.append(6, Configuration((1, 2), removed=(3,)))
    log.committed(6)
    assert log.gone == (3,)
