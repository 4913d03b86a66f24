"""A worker id for each test, and nothing left of it on the engine."""

from collections.abc import Iterator

import pytest

from tests.docker_engine import Engine


@pytest.fixture
def worker_id(docker_engine: Engine, request: pytest.FixtureRequest) -> Iterator[str]:
    """One that no other test has; its containers go with the test."""
    worker_id = f"test-{abs(hash(request.node.nodeid)):x}"
    yield worker_id
    docker_engine.remove_containers(worker_id)
