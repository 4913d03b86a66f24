"""Whether a verified certificate lets its holder act as a worker, now. Costs two look-ups."""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from fleetpulse.master.errors import CertificateExpired, CertificateMismatch, CertificateRefused, CertificateRevoked


class WorkerCertificate(NamedTuple):
    """What the master reads from a worker's certificate. ``serial`` in hexadecimal digits, times in Unix seconds."""

    worker_id: str
    serial: str
    not_before: float
    not_after: float


class Admission:
    """Knows the revoked certificates. ``replace`` may be called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._revoked: frozenset[str] = frozenset()

    def replace(self, revoked: Iterable[str]) -> None:
        """Replaces the revoked serials."""
        self._revoked = frozenset(revoked)

    def check(self, certificate: WorkerCertificate | None, worker_id: str) -> None:
        """Raises ``CertificateRefused`` unless the holder may act as this worker."""
        if certificate is None:
            raise CertificateMismatch("the certificate is none of a worker")
        if (refusal := self.refusal(certificate)) is not None:
            raise refusal
        if certificate.worker_id != worker_id:
            raise CertificateMismatch(f"the certificate is for worker {certificate.worker_id} only")

    def refusal(self, certificate: WorkerCertificate) -> CertificateRefused | None:
        """Returns the error for a revoked or expired certificate, ``None`` for a valid one."""
        if certificate.serial in self._revoked:
            return CertificateRevoked(f"the certificate of worker {certificate.worker_id} was revoked")
        if certificate.not_after <= self._clock():
            return CertificateExpired(f"the certificate of worker {certificate.worker_id} has expired")
        return None

    def life_used_ratio(self, certificate: WorkerCertificate) -> float:
        """Returns the share of the certificate's life that is over, 0 to 1."""
        return life_used_ratio(certificate.not_before, certificate.not_after, self._clock())


def life_used_ratio(not_before: float, not_after: float, now: float) -> float:
    """Returns the share of a certificate's life that is over, 0 to 1. All in Unix seconds."""
    return min(max((now - not_before) / (not_after - not_before), 0.0), 1.0)
