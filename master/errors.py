"""What can go wrong in the master, as one tree.

    FleetPulseError
    ├── ConfigError              a flag, a variable or a file is not usable; the process does not start
    ├── InvalidMessage           a message breaks a rule of the contract
    │   └── InvalidReading       ... and the rule is about a reading's value
    ├── ProtocolViolation        messages came in an order that the contract does not allow
    ├── RegistrationTimeout      a stream was opened and nobody registered on it
    ├── WorkerIdTaken            another incarnation with this worker_id still beats
    ├── StreamSuperseded         the same incarnation opened a newer stream
    ├── FleetFull                the master serves as many workers or streams as it was told to
    ├── UnknownWorker            no worker has this id
    ├── WorkerStillActive        the worker beats, so it cannot be forgotten
    ├── UnknownTask              no task has this id
    ├── TaskRefused              the policy of the master does not allow the task
    ├── TaskAlreadyFinished      the task has ended, so it cannot be cancelled
    ├── IllegalTransition        a task or an attempt cannot go from where it is to there; a bug
    ├── StaleReport              a worker speaks of an attempt that is not its own any more
    ├── IdempotencyConflict      the key was used for another request
    ├── InvalidCursor            a page was asked for by a cursor that the master did not give
    ├── LogExpired               the log was there and has been pruned
    ├── HistoryOff               no history of telemetry is kept
    ├── PrometheusUnavailable    Prometheus, which has the longer history, does not answer as it should
    ├── CertificateRefused       a worker's certificate is not good for what it was shown for
    │   ├── CertificateMismatch  ... it is another worker's, or none of a worker
    │   ├── CertificateRevoked   ... it was taken back
    │   └── CertificateExpired   ... its time is over
    ├── JoinRefused              no certificate is given for this
    │   ├── UnknownJoinToken     ... the token is not one of this master's
    │   ├── UsedJoinToken        ... it has been used
    │   ├── ExpiredJoinToken     ... its time is over
    │   ├── WorkerIdNotGranted   ... it is not for this worker id
    │   └── TooManyAttempts      ... too much was refused, or given, before
    ├── AuditUnavailable         the audit trail cannot be read now
    ├── StoreUnavailable         what must be durable cannot be written, or what is stored cannot be read, now
    ├── AccessEnded              what was shown when an answer began is not good any more
    └── MasterStopping           the master is on its way out

Each adapter maps the tree to its own status codes in one table: ``rpc.status`` to gRPC, ``api.problems`` to HTTP.
``reason`` is the short, bounded word under which an error is counted on ``/metrics``.
"""

from collections.abc import Sequence
from typing import ClassVar

from fleetpulse.proto.policy import Refusal


class FleetPulseError(Exception):
    """Root of every error that the master raises on purpose. ``str(error)`` is fit to be shown to the caller."""

    reason: ClassVar[str] = "error"


class ConfigError(FleetPulseError):
    """A setting is not usable; the message names the setting, its value and what is accepted."""

    reason = "config"


class InvalidMessage(FleetPulseError):
    """A message breaks a rule of the contract; the message names the field and the rule."""

    reason = "invalid_message"


class InvalidReading(InvalidMessage):
    """A reading is not a value that the quantity can have: NaN, infinite, or out of range."""

    reason = "invalid_reading"


class ProtocolViolation(FleetPulseError):
    """Messages came in an order that the contract does not allow."""

    reason = "protocol_violation"


class RegistrationTimeout(FleetPulseError):
    """A stream was opened and nobody registered on it in time."""

    reason = "registration_timeout"


class WorkerIdTaken(FleetPulseError):
    """Another incarnation with this worker_id still beats."""

    reason = "worker_id_taken"


class StreamSuperseded(FleetPulseError):
    """The same incarnation opened a newer stream; this one was half-open."""

    reason = "superseded"


class FleetFull(FleetPulseError):
    """The master serves as many workers or streams as it was told to."""

    reason = "fleet_full"


class UnknownWorker(FleetPulseError):
    """No worker has this id."""

    reason = "unknown_worker"

    def __init__(self, worker_id: str) -> None:
        super().__init__(f"no worker has the id {worker_id!r}")
        self.worker_id = worker_id


class WorkerStillActive(FleetPulseError):
    """The worker beats, so it cannot be forgotten."""

    reason = "worker_still_active"


class UnknownTask(FleetPulseError):
    """No task has this id."""

    reason = "unknown_task"

    def __init__(self, task_id: str) -> None:
        super().__init__(f"no task has the id {task_id!r}")
        self.task_id = task_id


class TaskRefused(FleetPulseError):
    """The policy of the master does not allow the task."""

    reason = "task_refused"

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        super().__init__("; ".join(map(str, refusals)))
        self.refusals = tuple(refusals)


class TaskAlreadyFinished(FleetPulseError):
    """The task has ended, so it cannot be cancelled."""

    reason = "task_already_finished"


class IllegalTransition(FleetPulseError):
    """A task or an attempt cannot go from where it is to there. Whoever sees this has found a bug."""

    reason = "illegal_transition"

    def __init__(self, what: str, source: str, target: str) -> None:
        super().__init__(f"{what} cannot go from {source} to {target}")


class StaleReport(FleetPulseError):
    """A worker speaks of an attempt that is not its own any more."""

    reason = "stale_report"


class IdempotencyConflict(FleetPulseError):
    """The idempotency key was used for another request."""

    reason = "idempotency_conflict"


class InvalidCursor(FleetPulseError):
    """A page was asked for by a cursor that the master did not give."""

    reason = "invalid_cursor"


class LogExpired(FleetPulseError):
    """The log was there and has been pruned."""

    reason = "log_expired"


class HistoryOff(FleetPulseError):
    """The master was told to keep no history of telemetry."""

    reason = "history_off"


class PrometheusUnavailable(FleetPulseError):
    """Prometheus, which has the longer history, cannot be reached, is too slow, or refuses."""

    reason = "prometheus_unavailable"


class CertificateRefused(FleetPulseError):
    """A worker's certificate is not good for what it was shown for."""

    reason = "certificate_refused"


class CertificateMismatch(CertificateRefused):
    """The certificate is another worker's, or none of a worker."""

    reason = "certificate_mismatch"


class CertificateRevoked(CertificateRefused):
    """The certificate was taken back by ``fleetpulse ca revoke``."""

    reason = "certificate_revoked"


class CertificateExpired(CertificateRefused):
    """The certificate's time is over; the stream was opened before that."""

    reason = "certificate_expired"


class JoinRefused(FleetPulseError):
    """No certificate is given for this token or request."""

    reason = "join_refused"


class UnknownJoinToken(JoinRefused):
    """The join token is none of this master's."""

    reason = "token_unknown"


class UsedJoinToken(JoinRefused):
    """The join token has been used as often as it may be."""

    reason = "token_used"


class ExpiredJoinToken(JoinRefused):
    """The join token's time is over."""

    reason = "token_expired"


class WorkerIdNotGranted(JoinRefused):
    """The join token is for another worker id, or for none that has a certificate already."""

    reason = "worker_id_not_granted"


class TooManyAttempts(JoinRefused):
    """Too many attempts of this address were refused, or this worker has too many certificates."""

    reason = "too_many_attempts"


class AuditUnavailable(FleetPulseError):
    """The audit trail cannot be read now. It may still be written."""

    reason = "audit_unavailable"


class StoreUnavailable(FleetPulseError):
    """What must be durable cannot be written, or what is stored cannot be read, now. Nothing has changed."""

    reason = "store_unavailable"


class AccessEnded(FleetPulseError):
    """What was shown when an answer began was revoked, has expired or was signed out since."""

    reason = "access_ended"


class MasterStopping(FleetPulseError):
    """The master is on its way out; try again, it is being restarted or replaced."""

    reason = "stopping"
