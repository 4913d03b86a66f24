"""Whether a verified certificate lets its holder act as a worker, now. Costs two look-ups."""

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from fleetpulse.master.errors import (
    CertificateExpired,
    CertificateMismatch,
    CertificateRefused,
    CertificateRevoked,
    ConfigError,
)


class WorkerCertificate(NamedTuple):
    """What the master reads from a worker's certificate. ``serial`` in hexadecimal digits, times in Unix seconds."""

    worker_id: str
    serial: str
    not_before: float
    not_after: float


class Admission:
    """Knows the certificates that the CA has issued and revoked. ``replace`` may be called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.time, refresh: Callable[[], object] = lambda: None) -> None:
        """``refresh`` is called for an unknown certificate, which may be a new one: it may call ``replace``."""
        self._clock, self._refresh = clock, refresh
        self._revoked: frozenset[str] = frozenset()
        self._issued: frozenset[str] | None = None

    def replace(self, revoked: Iterable[str], issued: Iterable[str] | None = None) -> None:
        """Replaces the revoked serials, and all issued ones. ``None``: every serial is one of the CA."""
        self._revoked = frozenset(revoked)
        self._issued = None if issued is None else frozenset(issued)

    def check(self, certificate: WorkerCertificate | None, worker_id: str) -> None:
        """Raises ``CertificateRefused`` unless the holder may act as this worker."""
        if certificate is None:
            raise CertificateMismatch("the certificate is none of a worker")
        if (refusal := self.refusal(certificate)) is not None:
            raise refusal
        if certificate.worker_id != worker_id:
            raise CertificateMismatch(f"the certificate is for worker {certificate.worker_id} only")

    def refusal(self, certificate: WorkerCertificate) -> CertificateRefused | None:
        """Returns the error for a revoked, expired or unknown certificate, ``None`` for a valid one."""
        if certificate.serial in self._revoked:
            return CertificateRevoked(f"the certificate of worker {certificate.worker_id} was revoked")
        if certificate.not_after <= self._clock():
            return CertificateExpired(f"the certificate of worker {certificate.worker_id} has expired")
        if not self._is_issued(certificate.serial):
            with contextlib.suppress(OSError, ConfigError):  # what cannot be read now is read again in a second
                self._refresh()
            if not self._is_issued(certificate.serial):
                # Signed with the CA's key, but not by this CA's book: the key was copied, or a backup restored.
                return CertificateMismatch(
                    f"the certificate of worker {certificate.worker_id} was not given by this CA"
                )
            return self.refusal(certificate)
        return None

    def _is_issued(self, serial: str) -> bool:
        return self._issued is None or serial in self._issued

    def life_used_ratio(self, certificate: WorkerCertificate) -> float:
        """Returns the share of the certificate's life that is over, 0 to 1."""
        return life_used_ratio(certificate.not_before, certificate.not_after, self._clock())


def life_used_ratio(not_before: float, not_after: float, now: float) -> float:
    """Returns the share of a certificate's life that is over, 0 to 1. All in Unix seconds."""
    return min(max((now - not_before) / (not_after - not_before), 0.0), 1.0)
