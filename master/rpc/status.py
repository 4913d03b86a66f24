"""The master's errors as gRPC status codes: one table."""

import grpc

from fleetpulse.master import errors

STATUS_BY_ERROR: dict[type[errors.FleetPulseError], grpc.StatusCode] = {
    errors.InvalidMessage: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidReading: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ProtocolViolation: grpc.StatusCode.INVALID_ARGUMENT,
    errors.RegistrationTimeout: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.WorkerIdTaken: grpc.StatusCode.ALREADY_EXISTS,
    errors.StreamSuperseded: grpc.StatusCode.ABORTED,
    errors.FleetFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnknownWorker: grpc.StatusCode.NOT_FOUND,
    errors.CertificateMismatch: grpc.StatusCode.PERMISSION_DENIED,
    errors.CertificateRevoked: grpc.StatusCode.UNAUTHENTICATED,
    errors.CertificateExpired: grpc.StatusCode.UNAUTHENTICATED,
    errors.UnknownJoinToken: grpc.StatusCode.PERMISSION_DENIED,
    errors.UsedJoinToken: grpc.StatusCode.PERMISSION_DENIED,
    errors.ExpiredJoinToken: grpc.StatusCode.PERMISSION_DENIED,
    errors.WorkerIdNotGranted: grpc.StatusCode.PERMISSION_DENIED,
    errors.TooManyAttempts: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.StoreUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.MasterStopping: grpc.StatusCode.UNAVAILABLE,
}


def status_of(error: errors.FleetPulseError) -> grpc.StatusCode:
    return STATUS_BY_ERROR.get(type(error), grpc.StatusCode.UNKNOWN)
