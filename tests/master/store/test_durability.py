"""Durability of commits, and one master at a time on a SQLite file."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleetpulse.master.errors import ConfigError
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.store.database import default_url
from fleetpulse.master.store.store import SqlTaskStore
from fleetpulse.master.tasks.records import TaskQuery
from tests.master.store.builders import open_store, submit
from tests.master.store.conftest import sqlite_url
from tests.master.store.encryptor import ENCRYPTOR
from tests.postgres import PostgresServer
from tests.tools import ROOT


@contextmanager
def child(what: str, database_url: str) -> Iterator["subprocess.Popen[str]"]:
    """A process with the store open; it is dead at the end."""
    command = [sys.executable, "-m", "tests.master.store.child", what, database_url]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_acknowledged_tasks_survive_a_kill(database_url: str) -> None:
    acknowledged: set[str] = set()
    for _ in range(3):
        with child("submit", database_url) as process:
            assert process.stdout is not None
            first = {process.stdout.readline().strip() for _ in range(200)}
            process.send_signal(signal.SIGKILL)
            acknowledged |= first | {line.strip() for line in process.stdout}
        with open_store(database_url, open_timeout_seconds=5.0) as store:
            stored = {task.task_id for task in store.find(TaskQuery(limit=100_000)).tasks}
            assert acknowledged <= stored
            live = store.load_live()
            assert {one.task.task_id for one in live} == stored
            assert all(store.details(one.task.task_id).events for one in live[-5:])
    assert len(acknowledged) >= 600


def test_full_disk_is_an_outage_that_loses_nothing(tmp_path: Path) -> None:
    database_url = sqlite_url(tmp_path)
    with child("fill", database_url) as process:
        said, _ = process.communicate(timeout=90)
        assert process.returncode == 0, said
    wrong, unavailable, right = said.splitlines()
    assert wrong.startswith("wrong: nothing can be written for 0 s: ")
    assert unavailable.startswith("unavailable: nothing can be written for ")
    assert right == "right: None"
    with open_store(database_url) as store:
        assert [task.task_id for task in store.find(TaskQuery()).tasks] == ["after", "before"]
        log = store.read_log("before", 1, 0, 100 * 65536)
        assert log.data == b"".join(bytes([number]) * 65536 for number in range(100))


@pytest.mark.parametrize(("pragma", "value"), [("synchronous", 2), ("journal_mode", "wal")])
def test_sqlite_commits_are_durable(tmp_path: Path, pragma: str, value: object) -> None:
    # On the very connection that writes.
    with open_store(sqlite_url(tmp_path)) as store, store._writer._engine.connect() as connection:
        assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() == value


def test_postgresql_commits_are_durable(postgres: PostgresServer) -> None:
    with open_store(postgres.create_schema()) as store, store._writer._engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"


def test_second_master_on_a_sqlite_file_is_refused_with_the_process_of_the_first(tmp_path: Path) -> None:
    database_url = sqlite_url(tmp_path)
    with child("hold", database_url) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        second = SqlTaskStore(database_url, ENCRYPTOR, Instruments().store, open_timeout_seconds=0.1)
        with pytest.raises(ConfigError, match=f"another master .process {process.pid}. uses this database"):
            second.start()
        assert second.health_error() is not None
    with open_store(database_url, open_timeout_seconds=0.0) as store:  # at once, after a kill
        submit(store, "t1")


def test_stopped_and_refused_stores_leave_no_file_open(tmp_path: Path) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    database_url = sqlite_url(tmp_path)
    with open_store(database_url):
        pass
    before = open_files()
    for _ in range(3):
        with open_store(database_url) as store:
            submit(store, "t1")
            store.details("t1")
            refused = SqlTaskStore(database_url, ENCRYPTOR, Instruments().store, open_timeout_seconds=0.0)
            with pytest.raises(ConfigError):
                refused.start()
    assert open_files() == before


def test_database_files_are_private(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        with open_store(default_url(tmp_path / "data")) as store:
            submit(store, "t1")
            kept = sorted((tmp_path / "data").iterdir())
            assert [path.name for path in kept] == [
                f"fleetpulse.db{ending}" for ending in ("", "-shm", "-wal", ".lock")
            ]
            assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
            assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(mask)


def test_folder_that_cannot_be_created_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigError, match="cannot be opened: Not a directory"):
        SqlTaskStore(default_url(tmp_path / "file" / "data"), ENCRYPTOR, Instruments().store).start()
