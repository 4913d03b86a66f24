"""master.rpc.status"""

from collections.abc import Iterator

import grpc
import pytest

from fleetpulse.master import errors
from fleetpulse.master.rpc.status import status_of


def all_errors(root: type[errors.FleetPulseError] = errors.FleetPulseError) -> Iterator[type[errors.FleetPulseError]]:
    for error in root.__subclasses__():
        yield error
        yield from all_errors(error)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidMessage("bad"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.InvalidReading("bad"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.ProtocolViolation("bad"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.RegistrationTimeout("late"), grpc.StatusCode.DEADLINE_EXCEEDED),
        (errors.WorkerIdTaken("taken"), grpc.StatusCode.ALREADY_EXISTS),
        (errors.StreamSuperseded("newer"), grpc.StatusCode.ABORTED),
        (errors.FleetFull("full"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.UnknownWorker("a"), grpc.StatusCode.NOT_FOUND),
        (errors.CertificateMismatch("b"), grpc.StatusCode.PERMISSION_DENIED),
        (errors.CertificateRevoked("b"), grpc.StatusCode.UNAUTHENTICATED),
        (errors.CertificateExpired("b"), grpc.StatusCode.UNAUTHENTICATED),
        (errors.UnknownJoinToken("what?"), grpc.StatusCode.PERMISSION_DENIED),
        (errors.UsedJoinToken("used"), grpc.StatusCode.PERMISSION_DENIED),
        (errors.ExpiredJoinToken("late"), grpc.StatusCode.PERMISSION_DENIED),
        (errors.WorkerIdNotGranted("b"), grpc.StatusCode.PERMISSION_DENIED),
        (errors.TooManyAttempts("wait"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.StoreUnavailable("full"), grpc.StatusCode.UNAVAILABLE),
        (errors.MasterStopping("stopping"), grpc.StatusCode.UNAVAILABLE),
        (errors.FleetPulseError("what?"), grpc.StatusCode.UNKNOWN),
    ],
)
def test_status_of_an_error(error: errors.FleetPulseError, status: grpc.StatusCode) -> None:
    assert status_of(error) is status


def test_every_error_has_a_unique_reason_and_a_place_in_the_tree() -> None:
    reasons = [error.reason for error in all_errors()]
    assert len(reasons) == len(set(reasons))
    assert all(reason.isidentifier() and reason.islower() for reason in reasons)
    tree = errors.__doc__ or ""
    assert all(f" {error.__name__} " in tree for error in all_errors())
