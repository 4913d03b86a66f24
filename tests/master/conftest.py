"""Fixtures for every test of the master."""

from collections.abc import Iterator

import pytest

from tests.master.fleet import Fleet, running_fleet
from tests.master.web import Web, running_web


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """A fleet with the default lease: a heartbeat every 5 s, inactive after 30 s."""
    with running_fleet() as fleet:
        yield fleet


@pytest.fixture
def web() -> Iterator[Web]:
    """A fleet with the default lease and the master's web application."""
    with running_web() as web:
        yield web
