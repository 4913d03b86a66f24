"""The Docker Engine of a run outside pytest: the one that answers, or one of its own."""

import contextlib
import os
from collections.abc import Iterator

import pytest

from tests.docker_engine import Engine, own_engine


class NoEngine(Exception):
    """Why there is no Docker Engine to be had."""


@contextlib.contextmanager
def an_engine() -> Iterator[Engine]:
    """With the image of the tests. Raises ``NoEngine``."""
    engine = Engine(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    if engine.answers():
        engine.load_image()
        yield engine
        return
    try:
        with own_engine() as own:
            yield own
    except (pytest.skip.Exception, pytest.fail.Exception) as why:
        raise NoEngine(str(why)) from None
