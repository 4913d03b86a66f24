"""master.store.writer: outages, row errors and restarts lose nothing."""

import logging
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
import pytest

from fleetpulse.master.errors import StoreUnavailable, UnknownTask
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.store.database import parse_database_url
from fleetpulse.master.store.store import SqlTaskStore
from fleetpulse.master.tasks import transitions
from fleetpulse.master.tasks.records import Changes, Drain, Idempotency, LogChunk, TaskQuery
from tests.master.fleet import wait_until
from tests.master.requests import task_request
from tests.master.store.builders import NOW, nothing_can_be_written, of, open_store, place, save, submit
from tests.master.store.conftest import sqlite_url
from tests.master.store.encryptor import ENCRYPTOR
from tests.postgres import PostgresServer

TIMEOUT_SECONDS = 0.2

HOLD_THE_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def impatient_store(database_url: str) -> Iterator[SqlTaskStore]:
    """One in which a submit waits for a short time only."""
    with open_store(database_url, write_timeout_seconds=TIMEOUT_SECONDS) as store:
        yield store


@contextmanager
def another_process_writes(database_url: str) -> Iterator[None]:
    """It holds SQLite's lock, in a transaction that does not end."""
    path = parse_database_url(database_url).path
    command = [sys.executable, "-c", HOLD_THE_LOCK, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield
        process.communicate()


def test_hub_goes_on_while_another_process_locks_the_database(tmp_path: Path) -> None:
    database_url = sqlite_url(tmp_path)
    with open_store(database_url, write_timeout_seconds=30.0) as store:
        submit(store, "before")
        with another_process_writes(database_url):
            waiting = gevent.spawn(submit, store, "during")
            ticks = 0
            with gevent.Timeout(60.0):
                while store.health_error() is None:  # more than SQLite's own time limit for a lock
                    gevent.sleep(0.01)
                    ticks += 1
            assert ticks > 20
            # Reading goes on meanwhile.
            assert [task.task_id for task in store.find(TaskQuery()).tasks] == ["before"]
            assert not waiting.ready()
        waiting.get(timeout=30.0)
        assert store.health_error() is None
        assert store.details("during").task.task_id == "during"


def test_outage_and_its_end_are_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    instruments = Instruments()
    value = instruments.registry.get_sample_value
    database_url = sqlite_url(tmp_path)
    with open_store(database_url, instruments=instruments) as store:
        submit(store, "before")
        with nothing_can_be_written(database_url):
            store.save_worker("rack-7", "host", {}, NOW)
            wait_until(lambda: value("fleetpulse_store_errors_total", {"reason": "locked"}) == 2)
            wrong = store.health_error()
            assert wrong is not None
            assert "database is locked" in wrong
        submit(store, "after")
        assert store.health_error() is None
        assert store.knows_worker("rack-7")
    messages = [record.getMessage() for record in caplog.records if record.name == "fleetpulse.master.store.writer"]
    assert [message.split(":")[0].split(",")[0] for message in messages] == [
        "the database cannot be written",
        "the database can be written again",
    ]
    assert (value("fleetpulse_store_commit_seconds_count") or 0) >= 2


def test_writes_during_an_outage_are_written_in_order_after_it(database_url: str) -> None:
    with open_store(database_url) as store:
        task = submit(store, "t1")
        saved: list[str] = []
        with nothing_can_be_written(database_url):
            placed = transitions.placed(task, "rack-7", (), NOW)
            assert placed.attempt is not None
            store.save(of(placed), lambda: saved.append("placed"))
            for number in range(100):
                store.append_log(LogChunk("t1", 1, number, b"%d" % (number % 10)), lambda: saved.append("log"))
            lost = transitions.lost(placed.task, placed.attempt, "it is gone", NOW + 1)
            store.save(of(lost), lambda: saved.append("lost"))
            gevent.sleep(0.1)
            assert saved == []
        wait_until(lambda: len(saved) == 102)
        assert saved == ["placed", *["log"] * 100, "lost"]
        assert store.details("t1").task == lost.task
        assert store.read_log("t1", 1, 0, 1000).data == b"0123456789" * 10


def test_submit_that_timed_out_is_never_written(impatient_store: SqlTaskStore, database_url: str) -> None:
    key = Idempotency("k", "digest")
    with nothing_can_be_written(database_url):
        for task_id in ("in-flight", "waiting"):
            with pytest.raises(StoreUnavailable):
                impatient_store.submit(of(transitions.submitted(task_id, task_request("busybox"), NOW)), key)
    save(impatient_store)  # behind all that was there
    assert [task.task_id for task in impatient_store.find(TaskQuery()).tasks] == []
    for task_id in ("in-flight", "waiting"):
        with pytest.raises(UnknownTask):
            impatient_store.details(task_id)
    # Its key is free again.
    assert impatient_store.submit(of(transitions.submitted("again", task_request("busybox"), NOW)), key) == "again"


def test_outage_ends_without_waiting_writes(tmp_path: Path) -> None:
    database_url = sqlite_url(tmp_path)
    with open_store(database_url, write_timeout_seconds=TIMEOUT_SECONDS) as store:
        with nothing_can_be_written(database_url):

            def is_outage() -> bool:  # the first try may be that of pruning
                with pytest.raises(StoreUnavailable):
                    submit(store, "given-up")
                return "nothing can be written" in (store.health_error() or "")

            wait_until(is_outage)
        wait_until(lambda: store.health_error() is None)


def test_drain_that_timed_out_leaves_the_one_before(impatient_store: SqlTaskStore, database_url: str) -> None:
    before = Drain("rack-7", "new memory", NOW)
    impatient_store.save_drain("rack-7", before)
    with nothing_can_be_written(database_url):
        for drain in (None, Drain("rack-7", "another reason", NOW + 1)):
            with pytest.raises(StoreUnavailable):
                impatient_store.save_drain("rack-7", drain)
    save(impatient_store)
    assert impatient_store.drains() == [before]


def test_submit_of_a_killed_greenlet_is_never_written(store: SqlTaskStore, database_url: str) -> None:
    with nothing_can_be_written(database_url):
        waiting = gevent.spawn(submit, store, "t1")
        gevent.sleep(0.05)
        waiting.kill()
    save(store)
    assert sum(store.count_by_status().values()) == 0


def test_row_error_does_not_stop_other_writes(
    store: SqlTaskStore, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    saved: list[str] = []
    failed: list[RuntimeError] = []

    def try_it() -> None:
        change = transitions.submitted("waited", task_request("busybox", priority=2**70), NOW)
        try:
            store.submit(of(change), None)
        except RuntimeError as error:
            failed.append(error)

    with nothing_can_be_written(database_url):  # so that all of it is one batch
        store.save(Changes(), lambda: saved.append("first"))
        gevent.sleep(0.05)
        for name, priority in (("good", 1), ("bad", 2**70), ("late", 2)):
            change = transitions.submitted(name, task_request("busybox", priority=priority), NOW)
            store.save(of(change), lambda name=name: saved.append(name))  # type: ignore[misc]  # mypy knows no lambda with a default
        waiting = gevent.spawn(try_it)
        gevent.sleep(0.05)
    waiting.join(timeout=20.0)
    assert saved == ["first", "good", "late"]
    assert len(failed) == 1
    assert {task.task_id for task in store.find(TaskQuery()).tasks} == {"good", "late"}
    assert caplog.text.count("a Save cannot be written and is lost: a bug") == 1
    assert "master/store/batch.py" in caplog.text
    assert store.health_error() is None


def test_waiting_writes_share_one_commit(database_url: str) -> None:
    instruments = Instruments()
    with open_store(database_url, instruments=instruments) as store:
        with nothing_can_be_written(database_url):
            submits = [gevent.spawn(submit, store, f"t{number}") for number in range(300)]
            gevent.sleep(0.1)
        gevent.joinall(submits, raise_error=True)
        assert sum(store.count_by_status().values()) == 300
    # The first one alone, as nothing else was there yet, and then all the others.
    commits = instruments.registry.get_sample_value("fleetpulse_store_commit_seconds_count")
    assert commits is not None
    assert commits <= 3


def test_no_database_call_is_made_on_the_hub(tmp_path: Path) -> None:
    made: list[object] = []

    def note(_frame: object, event: str, function: object) -> None:
        owner = getattr(function, "__self__", None)
        if event == "c_call" and isinstance(owner, sqlite3.Connection | sqlite3.Cursor):
            made.append(function)

    store = SqlTaskStore(sqlite_url(tmp_path), ENCRYPTOR, Instruments().store)
    sys.setprofile(note)  # of this thread only
    try:
        store.start()
        place(store, submit(store, "t1"))
        store.details("t1")
        store.stop()
    finally:
        sys.setprofile(None)
    assert made == []


def test_store_survives_a_restart_of_the_server(postgres: PostgresServer) -> None:
    with open_store(postgres.create_schema(), write_timeout_seconds=TIMEOUT_SECONDS) as store:
        task = submit(store, "before")
        saved: list[str] = []
        postgres.kill()
        store.save(of(transitions.placed(task, "rack-7", (), NOW)), lambda: saved.append("placed"))
        with pytest.raises(StoreUnavailable):
            submit(store, "during")
        with pytest.raises(StoreUnavailable):
            store.details("before")
        assert store.health_error() is not None
        assert saved == []
        postgres.start()
        wait_until(lambda: bool(saved))
        assert store.health_error() is None
        submit(store, "after")
        assert [task.task_id for task in store.find(TaskQuery()).tasks] == ["after", "before"]
        assert [attempt.worker_id for attempt in store.details("before").attempts] == ["rack-7"]


def test_reader_survives_a_lost_connection(postgres: PostgresServer) -> None:
    with open_store(postgres.create_schema()) as store:
        submit(store, "t1")
        store.details("t1")
        with postgres.connect("postgres") as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'fleetpulse %' AND pid <> pg_backend_pid()"
            )
        assert store.details("t1").task.task_id == "t1"
        submit(store, "t2")
