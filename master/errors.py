"""The errors of the master, as one tree.

    FleetPulseError
    ├── ConfigError              a flag, a variable or a file is not usable; the message says what is accepted
    ├── InvalidMessage           a message breaks a rule of the contract; the error names the field and the rule
    │   └── InvalidReading       a reading is NaN, infinite or out of range
    ├── ProtocolViolation        messages came in an order that the contract does not allow
    ├── RegistrationTimeout      a stream was opened and no worker registered on it
    ├── WorkerIdTaken            another incarnation with this worker_id is active
    ├── StreamSuperseded         the same incarnation opened a newer stream
    ├── FleetFull                the master has its maximum of workers or streams
    ├── UnknownWorker            no worker has this id
    ├── WorkerNotCarried         a report speaks for a worker that is not registered on its stream
    ├── WorkerStillActive        the worker is active, so it cannot be forgotten
    ├── UnknownTask              no task has this id
    ├── TaskRefused              the master's policy does not allow the task
    ├── QuotaExceeded            too much is queued: for the master, or of this submitter
    ├── TaskAlreadyFinished      the task has ended, so it cannot be cancelled
    ├── IllegalTransition        a task or an attempt cannot change to this status; a bug
    ├── StaleReport              a worker reports an attempt that is not assigned to it now
    ├── IdempotencyConflict      the idempotency key was used for another request
    ├── InvalidCursor            the master did not issue this cursor, or it is too old
    ├── LogExpired               the log has been pruned
    ├── HistoryOff               no history of telemetry is kept
    ├── PrometheusUnavailable    Prometheus cannot be reached, is too slow, or refuses
    ├── ForeignUser              a worker without a certificate is of another user of the master's machine
    ├── CertificateRefused       a worker's certificate is not accepted
    │   ├── CertificateMismatch  it is another worker's, or not a worker's
    │   ├── CertificateRevoked   it was revoked by ``fleetpulse ca revoke``
    │   └── CertificateExpired   it has expired; the stream was opened before that
    ├── JoinRefused              no certificate is issued
    │   ├── UnknownJoinToken     this master did not make the join token
    │   ├── UsedJoinToken        the join token has no use left
    │   ├── ExpiredJoinToken     the join token has expired
    │   ├── WorkerIdNotGranted   the token is not for this worker id
    │   │   └── WorkerIdInUse    nor for taking it over from the worker that has a certificate for it
    │   └── TooManyAttempts      the host was refused too often, or the worker has too many certificates
    ├── AuditUnavailable         the audit trail cannot be read now; it may still be written
    ├── StoreUnavailable         the store cannot be written or read now; nothing has changed
    ├── AccessEnded              the token or session behind an open answer was revoked, expired or signed out
    └── MasterStopping           the master is stopping; a client may try again

Each adapter maps the tree to its status codes in one table: ``rpc.status`` to gRPC, ``api.problems`` to HTTP.
``reason`` is the short, bounded word under which ``/metrics`` counts an error.
"""

from collections.abc import Sequence
from typing import ClassVar

from fleetpulse.proto.policy import Refusal

RETRY_AFTER_SECONDS = 5
"""``Retry-After`` of a 503 and of a client past its limit: by then another web process may be there, or the store."""

QUEUE_LIMITS = ("queued_bytes", "queued_tasks", "token_queued_bytes", "token_queued_tasks")
"""The limits of the queue of tasks, as ``QuotaExceeded`` and ``/metrics`` name them."""


class FleetPulseError(Exception):
    """Root of every error that the master raises on purpose. ``str(error)`` may be shown to the caller."""

    reason: ClassVar[str] = "error"


class ConfigError(FleetPulseError):
    reason = "config"


class InvalidMessage(FleetPulseError):
    reason = "invalid_message"


class InvalidReading(InvalidMessage):
    reason = "invalid_reading"


class ProtocolViolation(FleetPulseError):
    reason = "protocol_violation"


class RegistrationTimeout(FleetPulseError):
    reason = "registration_timeout"


class WorkerIdTaken(FleetPulseError):
    reason = "worker_id_taken"


class StreamSuperseded(FleetPulseError):
    reason = "superseded"


class FleetFull(FleetPulseError):
    reason = "fleet_full"


class UnknownWorker(FleetPulseError):
    reason = "unknown_worker"

    def __init__(self, worker_id: str) -> None:
        super().__init__(f"no worker has the id {worker_id!r}")
        self.worker_id = worker_id


class WorkerNotCarried(FleetPulseError):
    reason = "not_carried"


class WorkerStillActive(FleetPulseError):
    reason = "worker_still_active"


class UnknownTask(FleetPulseError):
    reason = "unknown_task"

    def __init__(self, task_id: str) -> None:
        super().__init__(f"no task has the id {task_id!r}")
        self.task_id = task_id


class TaskRefused(FleetPulseError):
    reason = "task_refused"

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        super().__init__("; ".join(map(str, refusals)))
        self.refusals = tuple(refusals)


class QuotaExceeded(FleetPulseError):
    reason = "quota_exceeded"

    def __init__(self, limit: str, text: str) -> None:
        super().__init__(text)
        self.limit = limit
        """The name of the limit, one of ``QUEUE_LIMITS``."""


class TaskAlreadyFinished(FleetPulseError):
    reason = "task_already_finished"


class IllegalTransition(FleetPulseError):
    reason = "illegal_transition"

    def __init__(self, what: str, source: str, target: str) -> None:
        super().__init__(f"{what} cannot go from {source} to {target}")


class StaleReport(FleetPulseError):
    reason = "stale_report"


class IdempotencyConflict(FleetPulseError):
    reason = "idempotency_conflict"


class InvalidCursor(FleetPulseError):
    reason = "invalid_cursor"


class LogExpired(FleetPulseError):
    reason = "log_expired"


class HistoryOff(FleetPulseError):
    reason = "history_off"


class PrometheusUnavailable(FleetPulseError):
    reason = "prometheus_unavailable"


class ForeignUser(FleetPulseError):
    reason = "foreign_user"


class CertificateRefused(FleetPulseError):
    reason = "certificate_refused"


class CertificateMismatch(CertificateRefused):
    reason = "certificate_mismatch"


class CertificateRevoked(CertificateRefused):
    reason = "certificate_revoked"


class CertificateExpired(CertificateRefused):
    reason = "certificate_expired"


class JoinRefused(FleetPulseError):
    reason = "join_refused"


class UnknownJoinToken(JoinRefused):
    reason = "token_unknown"


class UsedJoinToken(JoinRefused):
    reason = "token_used"


class ExpiredJoinToken(JoinRefused):
    reason = "token_expired"


class WorkerIdNotGranted(JoinRefused):
    reason = "worker_id_not_granted"


class WorkerIdInUse(WorkerIdNotGranted):
    reason = "worker_id_in_use"


class TooManyAttempts(JoinRefused):
    reason = "too_many_attempts"


class AuditUnavailable(FleetPulseError):
    reason = "audit_unavailable"


class StoreUnavailable(FleetPulseError):
    reason = "store_unavailable"


class AccessEnded(FleetPulseError):
    reason = "access_ended"


class MasterStopping(FleetPulseError):
    reason = "stopping"
