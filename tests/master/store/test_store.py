"""master.store.store: the contract of ``TaskStore``."""

import gevent
import pytest

from fleetpulse.master.errors import ConfigError, IdempotencyConflict, StoreUnavailable, UnknownTask
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.store.store import SqlTaskStore
from fleetpulse.master.tasks import transitions
from fleetpulse.master.tasks.records import (
    AttemptStatus,
    Changes,
    Drain,
    Idempotency,
    LiveTask,
    TaskEvent,
    TaskQuery,
    TaskStatus,
)
from tests.master.fleet import wait_until
from tests.master.requests import task_request
from tests.master.store.builders import (
    FULL_SPEC,
    NOW,
    append,
    as_read,
    finish,
    nothing_can_be_written,
    of,
    open_store,
    place,
    save,
    submit,
)
from tests.master.store.encryptor import ENCRYPTOR


def test_submitted_task_is_read_back(store: SqlTaskStore) -> None:
    task = submit(store, "t1", FULL_SPEC)
    details = store.details("t1")
    assert details.task == as_read(task)
    assert details.attempts == []
    assert details.events == [TaskEvent("t1", NOW, "submitted", "registry.example/train:1")]


def test_task_with_every_field_is_read_back(store: SqlTaskStore) -> None:
    task, attempt = place(store, submit(store, "t1", FULL_SPEC))
    task = task._replace(cancel_requested_at=NOW + 2)
    task, attempt = finish(store, task, attempt, AttemptStatus.FAILED)
    assert task.status is TaskStatus.CANCELLED
    details = store.details("t1")
    assert details.task == as_read(task)
    assert details.attempts == [attempt]
    assert [event.kind for event in details.events] == ["submitted", "assigned", "failed", "cancelled"]


def test_everything_is_read_back_after_a_restart(database_url: str) -> None:
    with open_store(database_url) as store:
        task, attempt = place(store, submit(store, "t1", FULL_SPEC))
        append(store, attempt, 0, b"hello")
        store.save_drain("rack-7", Drain("rack-7", "new memory", NOW))
    with open_store(database_url) as store:
        assert store.details("t1").task == as_read(task)
        assert store.details("t1").attempts == [attempt]
        assert store.read_log("t1", 1, 0, 100).data == b"hello"
        assert store.drains() == [Drain("rack-7", "new memory", NOW)]
        submit(store, "t2")
        assert [task.task_id for task in store.find(TaskQuery()).tasks] == ["t2", "t1"]


def test_events_of_a_task_go_on_after_a_restart(database_url: str) -> None:
    with open_store(database_url) as store:
        task = submit(store, "t1")
    with open_store(database_url) as store:
        place(store, task)
        assert [event.kind for event in store.details("t1").events] == ["submitted", "assigned"]


def test_stop_writes_what_waits(database_url: str) -> None:
    with open_store(database_url) as store:
        task = submit(store, "t1")
        store.save(of(transitions.placed(task, "rack-7", (), NOW)))
    with open_store(database_url) as store:
        assert store.details("t1").task.status is TaskStatus.PENDING


def test_idempotency_key_returns_the_first_task(store: SqlTaskStore) -> None:
    first, second = (of(transitions.submitted(task_id, task_request("busybox"), NOW)) for task_id in ("t1", "t2"))
    key = Idempotency("k", "digest")
    assert store.submit(first, key) == "t1"
    assert store.submit(second, key) == "t1"
    with pytest.raises(UnknownTask):
        store.details("t2")


def test_idempotency_key_with_another_digest_is_a_conflict(store: SqlTaskStore) -> None:
    store.submit(of(transitions.submitted("t1", task_request("busybox"), NOW)), Idempotency("k", "one"))
    with pytest.raises(IdempotencyConflict, match="'k'"):
        store.submit(of(transitions.submitted("t2", task_request("busybox"), NOW)), Idempotency("k", "two"))
    assert store.count_by_status()[TaskStatus.QUEUED] == 1
    assert store.health_error() is None


def test_concurrent_submits_with_one_key_create_one_task(store: SqlTaskStore) -> None:
    def try_it(number: int) -> str:
        change = transitions.submitted(f"t{number}", task_request("busybox"), NOW)
        return store.submit(of(change), Idempotency("k", "digest"))

    tries = [gevent.spawn(try_it, number) for number in range(50)]
    gevent.joinall(tries, raise_error=True)
    assert {one.value for one in tries} == {"t0"}
    assert sum(store.count_by_status().values()) == 1


def test_count_by_status_names_every_status(store: SqlTaskStore) -> None:
    assert store.count_by_status() == dict.fromkeys(TaskStatus, 0)
    for number in range(3):
        submit(store, f"q{number}")
    finish(store, *place(store, submit(store, "done")))
    assert store.count_by_status() == dict.fromkeys(TaskStatus, 0) | {TaskStatus.QUEUED: 3, TaskStatus.COMPLETED: 1}


def test_load_live_returns_tasks_oldest_first_with_attempt_and_log_size(store: SqlTaskStore) -> None:
    queued = submit(store, "queued")
    running = place(store, submit(store, "running"))
    append(store, running[1], 0, b"x" * 1000)
    finish(store, *place(store, submit(store, "done")))
    assert store.load_live() == [LiveTask(queued, None, 0), LiveTask(*running, 1000)]


def test_load_live_returns_no_attempt_for_a_task_between_attempts(store: SqlTaskStore) -> None:
    task, attempt = place(store, submit(store, "t1", task_request("busybox", max_retries=1)))
    append(store, attempt, 0, b"of the first attempt")
    task, _ = finish(store, task, attempt, AttemptStatus.FAILED)
    assert store.load_live() == [LiveTask(task, None, 0)]
    again = place(store, task)
    assert store.load_live() == [LiveTask(*again, 0)]


def test_writes_keep_their_order(store: SqlTaskStore) -> None:
    saved: list[int] = []
    for number in range(1200):  # more than one batch
        change = transitions.submitted("t1", task_request("busybox", name="first"), NOW)
        changed = change._replace(task=change.task._replace(retries_used=number), events=())
        store.save(of(changed), lambda number=number: saved.append(number))  # type: ignore[misc]  # mypy knows no lambda with a default
    wait_until(lambda: len(saved) == 1200)
    assert saved == sorted(saved)
    assert store.details("t1").task.retries_used == 1199


def test_saving_the_same_again_changes_nothing(store: SqlTaskStore) -> None:
    change = transitions.placed(submit(store, "t1"), "rack-7", (), NOW)
    save(store, change._replace(events=()))
    before = store.details("t1")
    save(store, change._replace(events=()))
    assert store.details("t1") == before


def test_request_of_a_task_never_changes(store: SqlTaskStore) -> None:
    task = submit(store, "t1", FULL_SPEC)
    save(store, transitions.Change(task._replace(request=task_request("other"), retries_used=1), None))
    assert store.details("t1").task == as_read(task._replace(retries_used=1))


def test_unknown_task_is_an_error(store: SqlTaskStore) -> None:
    for ask in (lambda: store.details("t1"), lambda: store.read_log("t1", 1, 0, 10)):
        with pytest.raises(UnknownTask):
            ask()


def test_drain_is_kept_until_it_is_ended(store: SqlTaskStore) -> None:
    store.save_worker("rack-7", "host", {"zone": "a"}, NOW)
    store.save_drain("rack-7", Drain("rack-7", "a \0 reason", NOW))
    store.save_drain("never-seen", Drain("never-seen", "", NOW + 1))
    assert store.drains() == [Drain("never-seen", "", NOW + 1), Drain("rack-7", "a \ufffd reason", NOW)]
    store.save_worker("rack-7", "host", {}, NOW + 2)  # it registers again
    store.save_drain("never-seen", None)
    assert [drain.worker_id for drain in store.drains()] == ["rack-7"]
    assert store.knows_worker("never-seen")
    assert not store.knows_worker("rack-8")


def test_worker_attempts_are_newest_first(store: SqlTaskStore) -> None:
    tasks = [submit(store, f"t{number}") for number in range(4)]
    here = [place(store, task, "rack-7", NOW + number) for number, task in enumerate(tasks[:3])]
    place(store, tasks[3], "rack-8")
    assert store.worker_attempts("rack-7", 10) == [(attempt, task) for task, attempt in reversed(here)]
    assert len(store.worker_attempts("rack-7", 2)) == 2
    assert store.worker_attempts("rack-9", 10) == []
    assert [store.assigned_to(task_id, 1) for task_id in ("t0", "t3", "t4")] == ["rack-7", "rack-8", None]
    assert store.assigned_to("t0", 2**32 - 1) is None


def test_failing_callback_does_not_stop_the_store(store: SqlTaskStore, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("unexpected")

    store.save(Changes(), fail)
    submit(store, "t1")
    assert "unexpected" in caplog.text


def test_stopped_store_is_unavailable(database_url: str) -> None:
    with open_store(database_url) as store:
        assert store.health_error() is None
    assert store.health_error() == "the store is closed"
    for ask in (lambda: submit(store, "t1"), lambda: store.details("t1")):
        with pytest.raises(StoreUnavailable, match="closed"):
            ask()
    store.save(Changes())  # comes too late, and is no error
    store.stop()


def test_stop_is_bounded_by_its_timeout(database_url: str) -> None:
    store = SqlTaskStore(database_url, ENCRYPTOR, Instruments().store)
    store.start()
    task = submit(store, "t1")
    with nothing_can_be_written(database_url):
        store.save(of(transitions.placed(task, "rack-7", (), NOW)))
        waiting = gevent.spawn(submit, store, "t2")
        gevent.sleep(0)
        store.stop(0.2)
    waiting.join()
    # Whether the try that was under way came through after all is not known; that its caller heard is what counts.
    assert waiting.successful() or isinstance(waiting.exception, StoreUnavailable)


def test_invalid_url_is_refused_by_the_constructor() -> None:
    with pytest.raises(ConfigError):
        SqlTaskStore("mysql://user:secret@host/database", ENCRYPTOR, Instruments().store)
