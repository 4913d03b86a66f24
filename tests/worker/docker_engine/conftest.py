"""A worker id for each test, whose containers are removed afterwards."""

from collections.abc import Iterator

import pytest

from tests.docker_engine import Engine


@pytest.fixture
def worker_id(docker_engine: Engine, request: pytest.FixtureRequest) -> Iterator[str]:
    """Unique to the test; its containers are removed at the end."""
    worker_id = f"test-{abs(hash(request.node.nodeid)):x}"
    yield worker_id
    docker_engine.remove_containers(worker_id)
