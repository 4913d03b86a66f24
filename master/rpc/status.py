"""How gRPC calls end: the status of each error, and the entry in the audit trail."""

from typing import NamedTuple

import grpc

from fleetpulse.master import errors
from fleetpulse.master.addresses import host_of_peer
from fleetpulse.master.audit.entries import ANONYMOUS, AuditEntry, AuditOutcome

STATUS_BY_ERROR: dict[type[errors.FleetPulseError], grpc.StatusCode] = {
    errors.InvalidMessage: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidReading: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ProtocolViolation: grpc.StatusCode.INVALID_ARGUMENT,
    errors.RegistrationTimeout: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.WorkerIdTaken: grpc.StatusCode.ALREADY_EXISTS,
    errors.StreamSuperseded: grpc.StatusCode.ABORTED,
    errors.FleetFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnknownWorker: grpc.StatusCode.NOT_FOUND,
    errors.WorkerNotCarried: grpc.StatusCode.NOT_FOUND,
    errors.ForeignUser: grpc.StatusCode.UNAUTHENTICATED,
    errors.CertificateMismatch: grpc.StatusCode.PERMISSION_DENIED,
    errors.CertificateRevoked: grpc.StatusCode.UNAUTHENTICATED,
    errors.CertificateExpired: grpc.StatusCode.UNAUTHENTICATED,
    errors.UnknownJoinToken: grpc.StatusCode.PERMISSION_DENIED,
    errors.UsedJoinToken: grpc.StatusCode.PERMISSION_DENIED,
    errors.ExpiredJoinToken: grpc.StatusCode.PERMISSION_DENIED,
    errors.WorkerIdNotGranted: grpc.StatusCode.PERMISSION_DENIED,
    errors.WorkerIdInUse: grpc.StatusCode.PERMISSION_DENIED,
    errors.TooManyAttempts: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.StoreUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.MasterStopping: grpc.StatusCode.UNAVAILABLE,
}


class RpcStatus(NamedTuple):
    """How the master ends a call."""

    code: grpc.StatusCode
    details: str = ""
    retry_after_seconds: float | None = None
    """When the client should try again, if the master says so."""

    @property
    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        """Carries ``retry_after_seconds`` under the name that gRPC's own retries use."""
        delay_seconds = self.retry_after_seconds
        return () if delay_seconds is None else (("grpc-retry-pushback-ms", str(round(1000 * delay_seconds))),)


def status_of(error: errors.FleetPulseError) -> grpc.StatusCode:
    """Returns the status code of an error."""
    return STATUS_BY_ERROR.get(type(error), grpc.StatusCode.UNKNOWN)


def audit_entry(
    action: str,
    worker_id: str,
    target: str,
    peer: str,
    detail: str = "",
    outcome: AuditOutcome = AuditOutcome.OK,
    status: grpc.StatusCode = grpc.StatusCode.OK,
) -> AuditEntry:
    """Returns the entry of what a client did. ``worker_id`` is empty if the actor is unknown; ``peer`` is grpc's."""
    actor = f"worker:{worker_id}" if worker_id else ANONYMOUS
    return AuditEntry(actor, None, "grpc", host_of_peer(peer), action, target, outcome, status.name, detail)


def refusal_entry(action: str, worker_id: str, target: str, peer: str, error: errors.FleetPulseError) -> AuditEntry:
    """Returns the entry of what a client was refused."""
    outcome = AuditOutcome.FAILED if isinstance(error, errors.StoreUnavailable) else AuditOutcome.REFUSED
    return audit_entry(action, worker_id, target, peer, f"{error.reason}: {error}", outcome, status_of(error))
