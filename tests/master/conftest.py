"""Fixtures for every test of the master."""

from collections.abc import Iterator

import pytest

from tests.master.fleet import Fleet, running_fleet


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """A fleet with the default terms: a heartbeat every 5 s, inactive after 30 s."""
    with running_fleet() as fleet:
        yield fleet
