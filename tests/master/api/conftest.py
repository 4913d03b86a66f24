"""Fixtures for the tests of REST."""

from collections.abc import Iterator

import pytest

from tests.master.api.desk import TaskWeb, running_task_web


@pytest.fixture
def tasks() -> Iterator[TaskWeb]:
    """The paths of tasks, over tasks in memory."""
    with running_task_web() as web:
        yield web
