"""The Docker Engine of a run outside pytest: a running one, or one that is started for the run."""

import contextlib
import os
from collections.abc import Iterator

import pytest

from tests.docker_engine import Engine, isolated_engine


class EngineUnavailable(Exception):
    """There is no Docker Engine, and none can be started."""


@contextlib.contextmanager
def docker_engine() -> Iterator[Engine]:
    """Yields an engine that has the image of the tests. Raises ``EngineUnavailable``."""
    engine = Engine(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    if engine.answers():
        engine.load_image()
        yield engine
        return
    try:
        with isolated_engine() as own:
            yield own
    except (pytest.skip.Exception, pytest.fail.Exception) as why:
        raise EngineUnavailable(str(why)) from None
