"""master.tasks.messages: what a worker may say of attempts, and what it is told"""

import pytest

from fleetpulse.master.errors import InvalidMessage
from fleetpulse.master.tasks.messages import (
    MAX_HELD_ATTEMPTS,
    held_from,
    log_chunk_from,
    report_from,
    start_message,
    stop_message,
)
from fleetpulse.master.tasks.records import Attempt, AttemptStatus, LogChunk, Outcome, Task, TaskStatus
from fleetpulse.master.tasks.transitions import Report
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import MAX_LOG_CHUNK_BYTES
from tests.master.requests import task_request

ID = pb.AttemptId(task_id="task-1", attempt=2)


def test_report_of_a_running_container() -> None:
    update = pb.TaskUpdate(id=ID, update_number=4, phase=pb.ATTEMPT_PHASE_RUNNING, container_id="c0ffee")
    assert report_from(update) == Report("task-1", 2, AttemptStatus.RUNNING, "c0ffee")


def test_report_of_an_end_has_the_outcome() -> None:
    update = pb.TaskUpdate(
        id=ID,
        phase=pb.ATTEMPT_PHASE_FAILED,
        exit_code=137,
        oom_killed=True,
        reason="out_of_memory",
        message="too\nmuch",
    )
    assert report_from(update).outcome == Outcome(137, True, "out_of_memory", "too much")


def test_missing_fields_of_an_end_are_none_and_not_zero() -> None:
    assert report_from(pb.TaskUpdate(id=ID, phase=pb.ATTEMPT_PHASE_FAILED)).outcome == Outcome()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"id": pb.AttemptId(task_id="task-1")}, "attempt 0"),
        ({"id": pb.AttemptId(attempt=1)}, "''"),
        ({"id": pb.AttemptId(task_id="../etc", attempt=1)}, r"\.\./etc"),
        ({"id": pb.AttemptId(task_id="x" * 65, attempt=1)}, "xxx"),
        ({"phase": pb.ATTEMPT_PHASE_UNSPECIFIED}, "phase"),
        ({"phase": 99}, "phase"),
        ({"reason": "because"}, "reason"),
        ({"container_id": "a b"}, "container_id"),
    ],
)
def test_invalid_report_is_rejected(fields: dict[str, object], named: str) -> None:
    good: dict[str, object] = {"id": ID, "phase": pb.ATTEMPT_PHASE_RUNNING}
    with pytest.raises(InvalidMessage, match=named):
        report_from(pb.TaskUpdate(**(good | fields)))  # type: ignore[arg-type]  # wrong on purpose


def test_log_chunk_is_decoded_and_limited() -> None:
    assert log_chunk_from(pb.LogChunk(id=ID, offset_bytes=5, data=b"hi")) == LogChunk("task-1", 2, 5, b"hi")
    with pytest.raises(InvalidMessage, match=r"log_chunk\.data"):
        log_chunk_from(pb.LogChunk(id=ID, data=bytes(MAX_LOG_CHUNK_BYTES + 1)))


def test_held_attempts_are_decoded_and_limited() -> None:
    assert held_from(pb.Register(attempts_held=[ID, ID])) == {("task-1", 2)}
    many = [pb.AttemptId(task_id="t", attempt=number) for number in range(1, MAX_HELD_ATTEMPTS + 2)]
    with pytest.raises(InvalidMessage, match="attempts_held"):
        held_from(pb.Register(attempts_held=many))


def test_start_and_stop_messages() -> None:
    spec = task_request("busybox:1", command=("echo", "hi"), env={"A": "b"}, memory_required=2, timeout_seconds=1.5)
    attempt = Attempt("task-1", 2, "rack-7", AttemptStatus.ASSIGNED, assigned_at=0.0, gpu_uuids=("GPU-a",))
    start = start_message(Task("task-1", spec, TaskStatus.PENDING, created_at=0.0), attempt).start_task
    assert (start.id, start.docker_image, list(start.command), dict(start.env)) == (
        *(ID, "busybox:1"),
        *(["echo", "hi"], {"A": "b"}),
    )
    assert (start.memory_bytes, list(start.gpu_uuids), start.timeout_seconds) == (2 * 1024**2, ["GPU-a"], 1.5)
    assert (start.HasField("read_only"), start.user, start.network) == (False, "", pb.NETWORK_UNSPECIFIED)
    confined = task_request("busybox:1", read_only=False, user="1:2", network="none")
    start = start_message(Task("task-1", confined, TaskStatus.PENDING, created_at=0.0), attempt).start_task
    assert (start.HasField("read_only"), start.read_only, start.user, start.network) == (
        *(True, False),
        *("1:2", pb.NETWORK_NONE),
    )
    no_limit = start_message(Task("task-1", task_request("busybox:1"), TaskStatus.PENDING, created_at=0.0), attempt)
    assert not no_limit.start_task.HasField("timeout_seconds")
    stop = stop_message(attempt, "enough", forget=True).stop_task
    assert (stop.id, stop.reason, stop.forget) == (ID, "enough", True)
