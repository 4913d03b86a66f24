"""Why a TLS handshake on a gRPC port failed, from what grpc's core says of it."""

import re
from typing import NamedTuple

from fleetpulse.master.instruments.certificates import LEFT_REASONS

_FAILURE = re.compile(
    r"\] CallNextHandshakerLocked: error=(?!OK )(?P<error>.*?) shutdown=\w+ index=\d+, args=\{"
    r"(?:.*?endpoint_local_address=(?P<local>[^,}]+))?(?:.*?endpoint_peer_address=(?P<peer>[^,}]+))?",
    re.DOTALL,
)
_REASON_BY_WORDS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no_certificate",
    "certificate has expired": "certificate_expired",
    "unable to get local issuer certificate": "unknown_ca",
    "unable to verify the first certificate": "unknown_ca",
    "self signed certificate": "unknown_ca",
    "certificate signature failure": "unknown_ca",
    "CERTIFICATE_VERIFY_FAILED": "certificate_invalid",
    "HTTP_REQUEST": "not_tls",
    "WRONG_VERSION_NUMBER": "not_tls",
    "TLSV1_ALERT": "client_refused",
    "SSLV3_ALERT": "client_refused",
    "Handshake timed out": "timed_out",
    "Socket closed": "client_left",
    "Connection reset": "client_left",
}
"""The first that is found says it."""

_SSL_WORDS = re.compile(r"SSL routines:OPENSSL_internal:(?P<words>.*?)(?:: OK)?$")
_NO_WORDS = ": Invalid certificate verification context"
"""What the core adds where there was nothing to verify."""


class FailedHandshake(NamedTuple):
    """``peer`` and ``local`` are the addresses of both ends as grpc writes them, or empty."""

    reason: str
    detail: str
    peer: str
    local: str

    @property
    def was_refused(self) -> bool:
        """Whether it was the master that would not go on."""
        return self.reason not in LEFT_REASONS


def failure_from(record: bytes) -> FailedHandshake | None:
    """The failure that a record of the core tells, if it tells one."""
    found = _FAILURE.search(record.decode("utf-8", "replace"))
    if found is None:
        return None
    error = found["error"].split("\n", 1)[0].strip()
    reason = next((reason for words, reason in _REASON_BY_WORDS.items() if words in error), "other")
    said = _SSL_WORDS.search(error)
    detail = error if said is None else said["words"].removesuffix(_NO_WORDS)
    return FailedHandshake(reason, detail, found["peer"] or "", found["local"] or "")
