"""Between the contract and the records of tasks: what a worker may say, checked once; and what it is told.

The readers raise ``InvalidMessage`` with the field and the rule.
"""

import re

from fleetpulse.master.errors import InvalidMessage
from fleetpulse.master.tasks.records import Attempt, AttemptStatus, LogChunk, Outcome, Task
from fleetpulse.master.tasks.transitions import Report
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import ATTEMPT_REASONS, MAX_LOG_CHUNK_BYTES, is_task_id

LOG_LIMIT_BYTES = 10 * 1024 * 1024
"""Of one attempt's output that is kept."""

STOP_GRACE_SECONDS = 10.0
MAX_MESSAGE_LENGTH = 2000
MAX_HELD_ATTEMPTS = 10_000

_CONTAINER_ID = re.compile(r"[A-Za-z0-9._-]{0,128}", re.ASCII)

_STATUS_BY_PHASE = {
    pb.ATTEMPT_PHASE_PREPARING: AttemptStatus.PREPARING,
    pb.ATTEMPT_PHASE_RUNNING: AttemptStatus.RUNNING,
    pb.ATTEMPT_PHASE_COMPLETED: AttemptStatus.COMPLETED,
    pb.ATTEMPT_PHASE_FAILED: AttemptStatus.FAILED,
    pb.ATTEMPT_PHASE_STOPPED: AttemptStatus.STOPPED,
}

_NETWORKS = {None: pb.NETWORK_UNSPECIFIED, "none": pb.NETWORK_NONE, "bridge": pb.NETWORK_BRIDGE}

AttemptKey = tuple[str, int]
"""Task id and number."""


def held_from(register: pb.Register) -> frozenset[AttemptKey]:
    """The attempts that a worker says it holds."""
    if len(register.attempts_held) > MAX_HELD_ATTEMPTS:
        raise InvalidMessage(f"attempts_held has over {MAX_HELD_ATTEMPTS} entries")
    return frozenset(_key(held) for held in register.attempts_held)


def report_from(update: pb.TaskUpdate) -> Report:
    """What a ``TaskUpdate`` says."""
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
    """A piece of a log."""
    task_id, attempt = _key(message.id)
    if len(message.data) > MAX_LOG_CHUNK_BYTES:
        raise InvalidMessage(
            f"log_chunk.data has {len(message.data)} bytes; at most {MAX_LOG_CHUNK_BYTES} are accepted"
        )
    return LogChunk(task_id, attempt, message.offset_bytes, message.data)


def start_message(task: Task, attempt: Attempt) -> pb.MasterMessage:
    """Run this attempt."""
    spec = task.spec
    return pb.MasterMessage(
        start_task=pb.StartTask(
            id=_id(attempt),
            docker_image=spec.docker_image,
            command=spec.command,
            env=spec.env,
            cpu_cores=spec.cpu_required,
            memory_bytes=spec.memory_bytes,
            gpu_uuids=attempt.gpu_uuids,
            timeout_seconds=spec.timeout_seconds,
            log_limit_bytes=LOG_LIMIT_BYTES,
            name=spec.name,
            read_only=spec.read_only,
            user=spec.user or "",
            network=_NETWORKS[spec.network],
        )
    )


def stop_message(attempt: Attempt, reason: str, *, forget: bool = False) -> pb.MasterMessage:
    """End this attempt; with ``forget`` at once and without a word."""
    return pb.MasterMessage(
        stop_task=pb.StopTask(id=_id(attempt), grace_seconds=STOP_GRACE_SECONDS, reason=reason, forget=forget)
    )


def kept_attempt(key: AttemptKey, log_received_bytes: int) -> pb.KeptAttempt:
    """Go on with this attempt."""
    return pb.KeptAttempt(id=pb.AttemptId(task_id=key[0], attempt=key[1]), log_received_bytes=log_received_bytes)


def update_ack(update: pb.TaskUpdate, *, stale: bool = False) -> pb.MasterMessage:
    """The update is durable, or about somebody else's attempt."""
    return pb.MasterMessage(ack=pb.Ack(update_number=update.update_number, stale=stale, id=update.id))


def log_ack(key: AttemptKey, received_bytes: int, *, stale: bool = False) -> pb.MasterMessage:
    """So many bytes of the log are durable."""
    return pb.MasterMessage(
        ack=pb.Ack(
            id=pb.AttemptId(task_id=key[0], attempt=key[1]),
            log=pb.LogReceived(received_bytes=received_bytes),
            stale=stale,
        )
    )


def _id(attempt: Attempt) -> pb.AttemptId:
    return pb.AttemptId(task_id=attempt.task_id, attempt=attempt.attempt)


def _key(attempt_id: pb.AttemptId) -> AttemptKey:
    if not is_task_id(attempt_id.task_id) or attempt_id.attempt < 1:
        raise InvalidMessage(f"{attempt_id.task_id[:80]!a} attempt {attempt_id.attempt} is not an attempt's id")
    return attempt_id.task_id, attempt_id.attempt


def _printable(text: str) -> str:
    """A worker's words for people, as one line that a terminal and a log can bear."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text[:MAX_MESSAGE_LENGTH]).split())
