"""Every target holds for its seeds, for what once broke it, and for whatever is made of them."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from balsadb.resp.parser import CommandParser
from fuzz import resp_requests
from fuzz.kit import CORPUS, Target
from fuzz.mutation import INPUT_BYTES_MAX, Mutator
from fuzz.targets import TARGETS

targets = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
SECONDS = 2.0
"""For each target, of inputs from the mutator."""
SLOWEST_SECONDS = 1.0
"""Of the processor: no input of two kilobytes may take longer. The slowest ones take some milliseconds."""


@targets
def test_seeds_and_former_finds_hold(target):
    for data in [*target.seeds, *target.corpus()]:
        assert target.run(data) == target.run(data)


@targets
def test_made_inputs_hold_and_none_takes_long(target):
    mutator = Mutator(target, seed=1)
    said = set()
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        data = mutator.make()
        started = time.thread_time()
        said.add(outcome := target.run(data))
        assert time.thread_time() - started < SLOWEST_SECONDS, data
        mutator.tell(data, outcome)
    assert len(said) > 2, "the inputs don't get anywhere"


@targets
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_inputs_hold(target, data):
    part = st.one_of(st.binary(max_size=40), st.sampled_from(target.tokens), st.sampled_from(target.seeds))
    target.run(b"".join(data.draw(st.lists(part, max_size=8)))[:INPUT_BYTES_MAX])


@targets
def test_the_same_seed_makes_the_same_inputs(target):
    one, other = Mutator(target, seed=7), Mutator(target, seed=7)
    assert [one.make() for _ in range(50)] == [other.make() for _ in range(50)]
    assert Mutator(target, seed=8).make() != Mutator(target, seed=9).make() or len(target.seeds) < 3


def test_a_target_that_breaks_is_noticed():
    """A judge that can't fail proves nothing: here the parser forgets a byte where pieces meet."""

    class Forgetful(CommandParser):
        def _take_bulk(self, data: bytes, position: int) -> int:
            if self._bulk_left > len(data) - position and position == 0:
                self._bulk_left -= 1
            return super()._take_bulk(data, position)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resp_requests, "CommandParser", Forgetful)
        mutator = Mutator(resp_requests.TARGET, seed=1)
        inputs = [mutator.make() for _ in range(5_000)]
        with pytest.raises(AssertionError):
            list(map(resp_requests.target, inputs))


def test_a_request_costs_memory_in_proportion_to_its_bytes():
    mutator = Mutator(resp_requests.TARGET, seed=3)
    tracemalloc.start()
    try:
        for _ in range(2_000):
            data = mutator.make()
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            parser = CommandParser()
            commands = parser.feed(data)
            _, peak = tracemalloc.get_traced_memory()
            # The shortest argument that is an object of its own takes eight bytes of input, and some 40 here.
            assert peak - before < 4_096 + 64 * len(data), data
            del parser, commands
    finally:
        tracemalloc.stop()


def test_the_corpus_belongs_to_targets_and_is_small():
    found = [path for path in CORPUS.rglob("*") if path.is_file() and path.name != "README.md"]
    assert {path.parent.name for path in found} <= set(TARGETS)
    assert all(path.stat().st_size <= INPUT_BYTES_MAX for path in found)


def test_a_target_is_found_by_its_name():
    assert all(isinstance(target, Target) and target.name == name for name, target in TARGETS.items())
