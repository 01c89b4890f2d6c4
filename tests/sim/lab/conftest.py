"""What all course scenarios share."""

import pytest


@pytest.fixture(params=(1, 2, 3))
def seed(request) -> int:
    """Every scenario runs with several seeds: other delays, other election time-outs, other victims."""
    return request.param
