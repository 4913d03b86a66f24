"""Two masters on one PostgreSQL database, as processes: only one of them is active."""

import signal
from collections.abc import Iterator

import psycopg
import pytest

from tests.e2e.masters import READY_SECONDS, Master, started_master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually
from tests.postgres import PostgresServer

pytestmark = pytest.mark.e2e

REFUSED_SECONDS = 40.0
CUT = """
SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = 4201703
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@pytest.fixture
def database_url(postgres: PostgresServer) -> str:
    return postgres.create_database()


@pytest.fixture
def started(processes: Processes, database_url: str) -> Iterator[list[Master]]:
    """The started masters: at first one that is healthy."""
    masters = [started_master(processes, DATABASE_URL=database_url)]
    yield masters
    for master in masters:
        master.close()
        master.assert_no_errors()


def cut(database_url: str) -> None:
    """Terminates the connection of the master that holds the database's lock."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        assert connection.execute(CUT).fetchall() == [(True,)]


def submit(master: Master) -> int:
    """Submits a task and returns the status of the answer."""
    body = {"docker_image": "busybox", "cpu_required": 1, "memory_required": 32}
    return master.session.post(f"{master.url}/api/tasks", json=body, timeout=15).status_code


def assert_refused(master: Master, by: Master) -> None:
    """Asserts that the master exited, and that its error names the master that uses the database."""
    assert master.process.wait(REFUSED_SECONDS) == 4
    (line,) = master.log_lines("ERROR master.server")
    assert f":{by.web_process().pid}, process " in line
    assert "uses it: give each master its own DATABASE_URL" in line


def test_second_master_on_one_database_is_refused(
    processes: Processes, database_url: str, started: list[Master]
) -> None:
    (first,) = started
    started.append(Master(processes, DATABASE_URL=database_url))
    assert_refused(started[1], by=first)
    assert submit(first) == 201


def test_killed_master_does_not_block_the_next_one(
    processes: Processes, database_url: str, started: list[Master]
) -> None:
    (first,) = started
    web = first.web_process()
    web.kill()
    eventually(lambda: first.web_process() != web and first.is_healthy(), READY_SECONDS)
    assert submit(first) == 201
    first.process.kill_all()
    started.append(started_master(processes, DATABASE_URL=database_url))
    assert submit(started[1]) == 201
    assert len(started[1].json("/api/tasks")) == 2


def test_master_survives_a_cut_database_connection(database_url: str, started: list[Master]) -> None:
    (first,) = started
    web = first.web_process()
    cut(database_url)
    assert submit(first) == 201
    assert first.web_process() == web
    assert first.is_healthy()


def test_suspended_master_ends_after_another_took_over(
    processes: Processes, database_url: str, started: list[Master]
) -> None:
    (first,) = started
    web = first.web_process()
    first.process.send(signal.SIGSTOP)
    web.send_signal(signal.SIGSTOP)
    cut(database_url)
    started.append(started_master(processes, DATABASE_URL=database_url))
    second = started[1]
    web.send_signal(signal.SIGCONT)
    first.process.send(signal.SIGCONT)
    assert submit(first) == 503
    assert_refused(first, by=second)
    assert submit(second) == 201
    assert len(second.json("/api/tasks")) == 1
