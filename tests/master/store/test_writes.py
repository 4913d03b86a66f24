"""master.store.writes: the order of writes, and undo when a caller is gone."""

import time
from collections.abc import Sequence

import pytest

from fleetpulse.master.store.writes import (
    BATCH_BYTES,
    BATCH_LENGTH,
    AppendLog,
    SaveDrain,
    SaveWorker,
    Submit,
    Undo,
    Write,
    WriteQueue,
)
from fleetpulse.master.tasks import transitions
from fleetpulse.master.tasks.records import Changes, Drain, LogChunk
from tests.master.requests import task_request


@pytest.fixture
def queue() -> WriteQueue:
    return WriteQueue()


def note(name: str = "rack-7") -> SaveWorker:
    return SaveWorker(name, "host", {}, 0.0)


def submit(task_id: str) -> Submit:
    change = transitions.submitted(task_id, task_request("busybox"), 0.0)
    return Submit(Changes((change.task,)), 0, None, task_id)


def filled(queue: WriteQueue, *writes: Write) -> None:
    for write in writes:
        assert queue.put(write)


def tried(writes: Sequence[Write] | None) -> None:
    """As a batch does that came to its commit."""
    assert writes
    for write in writes:
        write.maybe_written = True
        if isinstance(write, Submit):
            write.outcome = write.outcome or write.task_id


def next_of(queue: WriteQueue) -> list[Write]:
    """What is tried next, and is written this time."""
    taken = queue.take(1.0)
    assert taken is not None
    queue.commit()
    return list(taken)


def test_waiting_writes_are_taken_together_in_order(queue: WriteQueue) -> None:
    writes = [note(str(number)) for number in range(10)]
    filled(queue, *writes)
    assert next_of(queue) == writes
    assert queue.clear() == ()


def test_batch_is_bounded_by_number_and_bytes(queue: WriteQueue) -> None:
    filled(queue, *(note() for _ in range(BATCH_LENGTH + 1)))
    assert [len(next_of(queue)), len(next_of(queue))] == [BATCH_LENGTH, 1]
    chunk = LogChunk("t1", 1, 0, b"x" * (BATCH_BYTES // 4))
    filled(queue, *(AppendLog(chunk, lambda: None) for _ in range(6)))
    assert [len(next_of(queue)), len(next_of(queue))] == [4, 2]


def test_take_returns_nothing_when_idle(queue: WriteQueue) -> None:
    assert queue.take(0.01) == ()


def test_postponed_writes_come_before_later_ones(queue: WriteQueue) -> None:
    first, second = note("first"), note("second")
    filled(queue, first)
    queue.take(1.0)
    filled(queue, second)
    assert queue.postpone(0.0) == []
    assert next_of(queue) == [first, second]


def test_new_writes_do_not_shorten_the_pause(queue: WriteQueue) -> None:
    filled(queue, note())
    queue.take(1.0)
    queue.postpone(3600.0)
    filled(queue, note())
    assert queue.take(0.01) == ()


def test_batch_with_a_row_error_is_retried_one_by_one(queue: WriteQueue) -> None:
    writes = [note(str(number)) for number in range(3)]
    filled(queue, *writes)
    queue.take(1.0)
    queue.retry_singly()
    filled(queue, note("later"))
    assert [next_of(queue) for _ in range(3)] == [[write] for write in writes]


def test_waiting_write_can_be_withdrawn(queue: WriteQueue) -> None:
    first, second = submit("t1"), submit("t2")
    filled(queue, first, second)
    assert queue.cancel_retries(first)
    assert next_of(queue) == [second]


def test_last_try_may_succeed(queue: WriteQueue) -> None:
    write = submit("t1")
    filled(queue, write)
    tried(queue.take(1.0))
    assert not queue.cancel_retries(write)
    assert queue.commit() == [write]
    assert queue.clear() == ()


def test_no_retry_after_the_last_try(queue: WriteQueue) -> None:
    write, other = submit("t1"), note()
    filled(queue, write, other)
    queue.take(1.0)  # and no commit was tried
    queue.cancel_retries(write)
    assert queue.postpone(0.0) == [write]
    assert next_of(queue) == [other]


def test_submit_is_undone_when_its_commit_may_have_worked(queue: WriteQueue) -> None:
    write, other = submit("t1"), note()
    filled(queue, write, other)
    tried(queue.take(1.0))
    queue.cancel_retries(write)
    assert queue.postpone(0.0) == [write]
    undo, after = next_of(queue)
    assert isinstance(undo, Undo)
    assert (undo.write, after) == (write, other)


def test_submit_withdrawn_during_the_pause_is_undone(queue: WriteQueue) -> None:
    first, write, last = note("first"), submit("t1"), note("last")
    filled(queue, first, write, last)
    tried(queue.take(1.0))
    queue.postpone(0.0)
    assert queue.cancel_retries(write)
    taken = next_of(queue)
    assert isinstance(taken[1], Undo)
    assert [taken[0], taken[2]] == [first, last]


def test_durable_submit_is_undone_when_its_caller_is_gone(queue: WriteQueue) -> None:
    write, other = submit("t1"), note()
    filled(queue, write, other)
    tried(queue.take(1.0))
    assert queue.abandon(write)
    assert queue.commit() == [other]
    (undo,) = next_of(queue)
    assert isinstance(undo, Undo)
    assert undo.write is write


def test_task_that_another_caller_relies_on_is_kept(queue: WriteQueue) -> None:
    write, other = submit("t1"), submit("t2")
    filled(queue, write, other)
    other.outcome = "t1"  # for the same idempotency key
    tried(queue.take(1.0))
    queue.abandon(write)
    assert queue.commit() == [other]
    assert queue.clear() == ()


def test_durable_write_cannot_be_abandoned(queue: WriteQueue) -> None:
    write = submit("t1")
    filled(queue, write)
    tried(queue.take(1.0))
    queue.commit()
    assert not queue.abandon(write)
    assert queue.clear() == ()


def drain(worker_id: str, reason: str, previous: str) -> SaveDrain:
    write = SaveDrain(worker_id, Drain(worker_id, reason, 0.0))
    write.previous = Drain(worker_id, previous, 0.0)
    return write


def test_drains_are_undone_last_first(queue: WriteQueue) -> None:
    first, second = drain("rack-7", "two", "one"), drain("rack-7", "three", "two")
    for give_up in (queue.abandon, queue.cancel_retries):
        filled(queue, first, second)
        tried(queue.take(1.0))
        give_up(first)
        give_up(second)
        queue.commit() if give_up == queue.abandon else queue.postpone(0.0)
        undone = next_of(queue)
        assert [undo.write for undo in undone if isinstance(undo, Undo)] == [second, first]


def test_drain_replaced_by_a_later_one_is_not_undone(queue: WriteQueue) -> None:
    first, second = drain("rack-7", "two", "one"), drain("rack-7", "three", "two")
    filled(queue, first, second)
    tried(queue.take(1.0))
    queue.abandon(first)
    assert queue.commit() == [second]
    assert queue.clear() == ()


def test_closed_queue_refuses_writes_and_is_emptied(queue: WriteQueue) -> None:
    write = note()
    filled(queue, write)
    queue.close(time.monotonic() + 3600.0)
    assert not queue.put(note())
    assert next_of(queue) == [write]
    assert queue.take(1.0) is None
    assert queue.clear() == ()


def test_writes_are_left_after_the_deadline(queue: WriteQueue) -> None:
    write = note()
    filled(queue, write)
    queue.take(1.0)
    queue.postpone(0.0)
    queue.close(time.monotonic())
    assert queue.take(1.0) is None
    assert queue.clear() == (write,)
