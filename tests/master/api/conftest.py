"""Fixtures for the tests of REST."""

from collections.abc import Iterator

import pytest

from tests.master.api.task_api import TaskApi, running_task_api


@pytest.fixture
def tasks() -> Iterator[TaskApi]:
    """The paths of tasks, over tasks in memory."""
    with running_task_api() as web:
        yield web
