"""Messages between the master and a worker about attempts. What a worker sends is checked once, here.

The readers raise ``InvalidMessage`` with the field and the rule.
"""

import re
from typing import Protocol

from fleetpulse.master.errors import InvalidMessage
from fleetpulse.master.tasks.records import Attempt, AttemptKey, AttemptStatus, LogChunk, Outcome, Task
from fleetpulse.master.tasks.request import TaskRequest
from fleetpulse.master.tasks.transitions import Report
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import ATTEMPT_REASONS, LOG_LIMIT_BYTES, MAX_LOG_CHUNK_BYTES, is_task_id

STOP_GRACE_SECONDS = 10.0
MAX_MESSAGE_LENGTH = 2000
MAX_HELD_ATTEMPTS = 10_000

_CONTAINER_ID = re.compile(r"[A-Za-z0-9._-]{0,128}")

_STATUS_BY_PHASE = {
    pb.ATTEMPT_PHASE_PREPARING: AttemptStatus.PREPARING,
    pb.ATTEMPT_PHASE_RUNNING: AttemptStatus.RUNNING,
    pb.ATTEMPT_PHASE_COMPLETED: AttemptStatus.COMPLETED,
    pb.ATTEMPT_PHASE_FAILED: AttemptStatus.FAILED,
    pb.ATTEMPT_PHASE_STOPPED: AttemptStatus.STOPPED,
}

_NETWORKS = {None: pb.NETWORK_UNSPECIFIED, "none": pb.NETWORK_NONE, "bridge": pb.NETWORK_BRIDGE}

_COPIED = TaskRequest.model_fields.keys() & set(pb.StartTask.DESCRIPTOR.fields_by_name) - {"network"}
"""Fields of a request that ``StartTask`` has by the same name and in the same unit; ``None`` leaves them unset."""


class WorkerLink(Protocol):
    """The way to a connected worker, on the hub. Does not wait. What cannot be sent is dropped, and repeated later."""

    def send(self, message: pb.MasterMessage) -> None: ...

    def report_violation(self, action: str, target: str, reason: str) -> None:
        """Records in the audit trail that the worker was refused this on an attempt that was never its own."""
        ...


def held_from(register: pb.Register) -> frozenset[AttemptKey]:
    """Returns the attempts that a worker says it holds."""
    if len(register.attempts_held) > MAX_HELD_ATTEMPTS:
        raise InvalidMessage(f"attempts_held has over {MAX_HELD_ATTEMPTS} entries")
    return frozenset(_key(held) for held in register.attempts_held)


def report_from(update: pb.TaskUpdate) -> Report:
    """Returns the report in a ``TaskUpdate``."""
    task_id, attempt = _key(update.id)
    status = _STATUS_BY_PHASE.get(update.phase)
    if status is None:
        raise InvalidMessage(f"task_update.phase is {update.phase}; it must be one that this master knows")
    if update.reason and update.reason not in ATTEMPT_REASONS:
        raise InvalidMessage("task_update.reason must be empty or one of proto.rules.ATTEMPT_REASONS")
    if not _CONTAINER_ID.fullmatch(update.container_id):
        raise InvalidMessage("task_update.container_id must be at most 128 letters, digits, '._-'")
    message = _printable(update.message)
    outcome = Outcome()
    if status.is_terminal:
        outcome = Outcome(
            exit_code=update.exit_code if update.HasField("exit_code") else None,
            oom_killed=update.oom_killed if update.HasField("oom_killed") else None,
            reason=update.reason or None,
            error=message or None,
        )
    return Report(task_id, attempt, status, update.container_id or None, outcome, message)


def log_chunk_from(message: pb.LogChunk) -> LogChunk:
    """Returns the piece of a log."""
    task_id, attempt = _key(message.id)
    if len(message.data) > MAX_LOG_CHUNK_BYTES:
        raise InvalidMessage(
            f"log_chunk.data has {len(message.data)} bytes; at most {MAX_LOG_CHUNK_BYTES} are accepted"
        )
    return LogChunk(task_id, attempt, message.offset_bytes, message.data)


def start_message(task: Task, attempt: Attempt) -> pb.MasterMessage:
    """Tells a worker to run the attempt."""
    request = task.request
    start = pb.StartTask(
        id=_id(attempt.key),
        cpu_cores=request.cpu_required,
        memory_bytes=request.memory_bytes,
        gpu_uuids=attempt.gpu_uuids,
        log_limit_bytes=LOG_LIMIT_BYTES,
        network=_NETWORKS[request.network],
        **{name: getattr(request, name) for name in _COPIED},
    )
    return pb.MasterMessage(start_task=start)


def stop_message(attempt: Attempt, reason: str, *, forget: bool = False) -> pb.MasterMessage:
    """Tells a worker to end the attempt; with ``forget`` at once and without a report."""
    stop = pb.StopTask(id=_id(attempt.key), grace_seconds=STOP_GRACE_SECONDS, reason=reason, forget=forget)
    return pb.MasterMessage(stop_task=stop)


def kept_attempt(key: AttemptKey, log_received_bytes: int) -> pb.KeptAttempt:
    """Tells a worker to go on with the attempt."""
    return pb.KeptAttempt(id=_id(key), log_received_bytes=log_received_bytes)


def update_ack(update: pb.TaskUpdate, *, stale: bool = False) -> pb.MasterMessage:
    """Says that the update is durable, or not about the worker's current attempt."""
    return pb.MasterMessage(ack=pb.Ack(update_number=update.update_number, stale=stale, id=update.id))


def log_ack(key: AttemptKey, received_bytes: int, *, stale: bool = False) -> pb.MasterMessage:
    """Says how many bytes of the log are durable."""
    log = pb.LogReceived(received_bytes=received_bytes)
    return pb.MasterMessage(ack=pb.Ack(id=_id(key), log=log, stale=stale))


def _id(key: AttemptKey) -> pb.AttemptId:
    return pb.AttemptId(task_id=key[0], attempt=key[1])


def _key(attempt_id: pb.AttemptId) -> AttemptKey:
    if not is_task_id(attempt_id.task_id) or attempt_id.attempt < 1:
        raise InvalidMessage(f"{attempt_id.task_id[:80]!a} attempt {attempt_id.attempt} is not an attempt's id")
    return attempt_id.task_id, attempt_id.attempt


def _printable(text: str) -> str:
    """A worker's text for people, as one line that is safe in a terminal and in a log."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text[:MAX_MESSAGE_LENGTH]).split())
