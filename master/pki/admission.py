"""Whether a certificate that was verified lets its holder speak as a worker, now. Costs two look-ups."""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from fleetpulse.master.errors import CertificateExpired, CertificateMismatch, CertificateRefused, CertificateRevoked


class WorkerCertificate(NamedTuple):
    """What the master needs to know of a certificate that a worker shows. ``serial`` in hexadecimal digits."""

    worker_id: str
    serial: str
    not_before: float
    not_after: float
    """Unix seconds."""

    def life_used_ratio(self, now: float) -> float:
        """The share of its life that is over, 0 to 1."""
        return life_used_ratio(self.not_before, self.not_after, now)


class Admission:
    """Knows what is revoked. ``replace`` may come from any thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._revoked: frozenset[str] = frozenset()

    def replace(self, revoked: Iterable[str]) -> None:
        """These serials are revoked, and no others."""
        self._revoked = frozenset(revoked)

    def check(self, certificate: WorkerCertificate | None, worker_id: str) -> None:
        """Raise ``CertificateRefused`` unless the holder may speak as this worker."""
        if certificate is None:
            raise CertificateMismatch("the certificate is none of a worker")
        if (refusal := self.refusal(certificate)) is not None:
            raise refusal
        if certificate.worker_id != worker_id:
            raise CertificateMismatch(f"the certificate is for worker {certificate.worker_id} only")

    def life_used_ratio(self, certificate: WorkerCertificate) -> float:
        """The share of the certificate's life that is over, 0 to 1."""
        return certificate.life_used_ratio(self._clock())

    def refusal(self, certificate: WorkerCertificate) -> CertificateRefused | None:
        """Why the certificate is good for nothing any more, if that is so."""
        if certificate.serial in self._revoked:
            return CertificateRevoked(f"the certificate of worker {certificate.worker_id} was revoked")
        if certificate.not_after <= self._clock():
            return CertificateExpired(f"the certificate of worker {certificate.worker_id} has expired")
        return None


def life_used_ratio(not_before: float, not_after: float, now: float) -> float:
    """The share of a certificate's life that is over, 0 to 1. All in Unix seconds."""
    return min(max((now - not_before) / (not_after - not_before), 0.0), 1.0)
