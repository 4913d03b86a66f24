"""master.store.store: what the task service may rely on."""

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
from tests.master.requests import a_request
from tests.master.store.encryptor import ENCRYPTOR
from tests.master.store.given import (
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


def test_a_submitted_task_is_read_back_as_it_was(store: SqlTaskStore) -> None:
    task = submit(store, "t1", FULL_SPEC)
    details = store.details("t1")
    assert details.task == as_read(task)
    assert details.attempts == []
    assert details.events == [TaskEvent("t1", NOW, "submitted", "registry.example/train:1")]


def test_a_task_with_every_field_set_is_read_back(store: SqlTaskStore) -> None:
    task, attempt = place(store, submit(store, "t1", FULL_SPEC))
    task = task._replace(cancel_requested_at=NOW + 2)
    task, attempt = finish(store, task, attempt, AttemptStatus.FAILED)
    assert task.status is TaskStatus.CANCELLED
    details = store.details("t1")
    assert details.task == as_read(task)
    assert details.attempts == [attempt]
    assert [event.kind for event in details.events] == ["submitted", "assigned", "failed", "cancelled"]


def test_it_is_all_there_for_the_next_process(database_url: str) -> None:
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


def test_the_story_of_a_task_goes_on_in_the_next_process(database_url: str) -> None:
    with open_store(database_url) as store:
        task = submit(store, "t1")
    with open_store(database_url) as store:
        place(store, task)
        assert [event.kind for event in store.details("t1").events] == ["submitted", "assigned"]


def test_what_waits_is_written_before_the_stop(database_url: str) -> None:
    with open_store(database_url) as store:
        task = submit(store, "t1")
        store.save(of(transitions.placed(task, "rack-7", (), NOW)))
    with open_store(database_url) as store:
        assert store.details("t1").task.status is TaskStatus.PENDING


def test_a_key_stands_for_one_task(store: SqlTaskStore) -> None:
    first, second = (of(transitions.submitted(task_id, a_request("busybox"), NOW)) for task_id in ("t1", "t2"))
    key = Idempotency("k", "digest")
    assert store.submit(first, key) == "t1"
    assert store.submit(second, key) == "t1"
    with pytest.raises(UnknownTask):
        store.details("t2")


def test_a_key_with_another_digest_is_a_conflict_and_changes_nothing(store: SqlTaskStore) -> None:
    store.submit(of(transitions.submitted("t1", a_request("busybox"), NOW)), Idempotency("k", "one"))
    with pytest.raises(IdempotencyConflict, match="'k'"):
        store.submit(of(transitions.submitted("t2", a_request("busybox"), NOW)), Idempotency("k", "two"))
    assert store.count_by_status()[TaskStatus.QUEUED] == 1
    assert store.health_error() is None


def test_of_many_that_use_one_key_at_once_one_is_accepted(store: SqlTaskStore) -> None:
    def try_it(number: int) -> str:
        change = transitions.submitted(f"t{number}", a_request("busybox"), NOW)
        return store.submit(of(change), Idempotency("k", "digest"))

    tries = [gevent.spawn(try_it, number) for number in range(50)]
    gevent.joinall(tries, raise_error=True)
    assert {one.value for one in tries} == {"t0"}
    assert sum(store.count_by_status().values()) == 1


def test_every_status_is_counted(store: SqlTaskStore) -> None:
    assert store.count_by_status() == dict.fromkeys(TaskStatus, 0)
    for number in range(3):
        submit(store, f"q{number}")
    finish(store, *place(store, submit(store, "done")))
    assert store.count_by_status() == dict.fromkeys(TaskStatus, 0) | {TaskStatus.QUEUED: 3, TaskStatus.COMPLETED: 1}


def test_live_tasks_come_oldest_first_with_their_attempt_and_the_length_of_its_log(store: SqlTaskStore) -> None:
    queued = submit(store, "queued")
    running = place(store, submit(store, "running"))
    append(store, running[1], 0, b"x" * 1000)
    finish(store, *place(store, submit(store, "done")))
    assert store.load_live() == [LiveTask(queued, None, 0), LiveTask(*running, 1000)]


def test_a_live_task_that_waits_to_be_tried_again_has_no_attempt(store: SqlTaskStore) -> None:
    task, attempt = place(store, submit(store, "t1", a_request("busybox", max_retries=1)))
    append(store, attempt, 0, b"of the first attempt")
    task, _ = finish(store, task, attempt, AttemptStatus.FAILED)
    assert store.load_live() == [LiveTask(task, None, 0)]
    again = place(store, task)
    assert store.load_live() == [LiveTask(*again, 0)]


def test_writes_keep_their_order(store: SqlTaskStore) -> None:
    told: list[int] = []
    for number in range(1200):  # more than one batch
        change = transitions.submitted("t1", a_request("busybox", name="first"), NOW)
        changed = change._replace(task=change.task._replace(retries_used=number), events=())
        store.save(of(changed), lambda number=number: told.append(number))  # type: ignore[misc]  # mypy knows no lambda with a default
    wait_until(lambda: len(told) == 1200)
    assert told == sorted(told)
    assert store.details("t1").task.retries_used == 1199


def test_saying_the_same_again_changes_nothing(store: SqlTaskStore) -> None:
    change = transitions.placed(submit(store, "t1"), "rack-7", (), NOW)
    save(store, change._replace(events=()))
    before = store.details("t1")
    save(store, change._replace(events=()))
    assert store.details("t1") == before


def test_what_was_asked_for_stays_as_it_was_accepted(store: SqlTaskStore) -> None:
    task = submit(store, "t1", FULL_SPEC)
    save(store, transitions.Change(task._replace(request=a_request("other"), retries_used=1), None))
    assert store.details("t1").task == as_read(task._replace(retries_used=1))


def test_of_an_unknown_task_there_is_nothing(store: SqlTaskStore) -> None:
    for ask in (lambda: store.details("t1"), lambda: store.read_log("t1", 1, 0, 10)):
        with pytest.raises(UnknownTask):
            ask()


def test_a_worker_is_drained_until_the_drain_is_ended(store: SqlTaskStore) -> None:
    store.save_worker("rack-7", "host", {"zone": "a"}, NOW)
    store.save_drain("rack-7", Drain("rack-7", "a \0 reason", NOW))
    store.save_drain("never-seen", Drain("never-seen", "", NOW + 1))
    assert store.drains() == [Drain("never-seen", "", NOW + 1), Drain("rack-7", "a \ufffd reason", NOW)]
    store.save_worker("rack-7", "host", {}, NOW + 2)  # it registers again
    store.save_drain("never-seen", None)
    assert [drain.worker_id for drain in store.drains()] == ["rack-7"]
    assert store.knows_worker("never-seen")
    assert not store.knows_worker("rack-8")


def test_the_attempts_of_a_worker_come_newest_first(store: SqlTaskStore) -> None:
    tasks = [submit(store, f"t{number}") for number in range(4)]
    here = [place(store, task, "rack-7", NOW + number) for number, task in enumerate(tasks[:3])]
    place(store, tasks[3], "rack-8")
    assert store.worker_attempts("rack-7", 10) == [(attempt, task) for task, attempt in reversed(here)]
    assert len(store.worker_attempts("rack-7", 2)) == 2
    assert store.worker_attempts("rack-9", 10) == []
    assert [store.assigned_to(task_id, 1) for task_id in ("t0", "t3", "t4")] == ["rack-7", "rack-8", None]
    assert store.assigned_to("t0", 2**32 - 1) is None


def test_what_follows_a_write_may_fail_and_the_store_goes_on(
    store: SqlTaskStore, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("nobody expected this")

    store.save(Changes(), fail)
    submit(store, "t1")
    assert "nobody expected this" in caplog.text


def test_a_store_that_is_stopped_says_so(database_url: str) -> None:
    with open_store(database_url) as store:
        assert store.health_error() is None
    assert store.health_error() == "the store is closed"
    for ask in (lambda: submit(store, "t1"), lambda: store.details("t1")):
        with pytest.raises(StoreUnavailable, match="closed"):
            ask()
    store.save(Changes())  # comes too late, and is no error
    store.stop()


def test_a_stop_waits_no_longer_than_it_was_told(database_url: str) -> None:
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


def test_a_url_that_is_not_usable_is_refused_at_once() -> None:
    with pytest.raises(ConfigError):
        SqlTaskStore("mysql://user:secret@host/database", ENCRYPTOR, Instruments().store)
