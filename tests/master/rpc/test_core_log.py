"""What is taken out of a process's standard error, and what is told of it."""

import pytest

from fleetpulse.master.rpc.core_log import Records
from fleetpulse.master.rpc.handshakes import FailedHandshake, failure_from

STARTED = (
    b"I1128 23:28:38.445169   26686 handshaker.cc:80] handshake_manager 0x7f3b6800eb70: adding handshaker "
    b"endpoint_info [0x7f3b680010f0] at index 0\n"
)
WENT_ON = (
    b"I1128 23:28:38.445213   26686 handshaker.cc:155] CallNextHandshakerLocked: error=OK shutdown=false index=1, "
    b"args={endpoint=0x7f3b6800dbe0, args={grpc.internal.endpoint_peer_address=ipv4:192.0.2.7:43756}, exit_early=0}\n"
)


def failed(error: str, peer: str = "ipv4:192.0.2.7:43756") -> bytes:
    """The record of the core, in several lines."""
    return (
        f"I1128 23:28:38.445338   26688 handshaker.cc:155] CallNextHandshakerLocked: error={error}\n"
        "=== Source Location Trace: === \nsrc/core/util/status_helper.cc:68\n"
        " shutdown=false index=2, args={endpoint=0x7f3b6800dbe0, args={grpc.experimental.event_engine=0x55c56509b160, "
        f"grpc.internal.endpoint_local_address=ipv4:127.0.0.1:50051, grpc.internal.endpoint_peer_address={peer}, "
        "grpc.resource_quota=0x55c5650aa130}, read_buffer.Length()=0, exit_early=0}\n"
    ).encode()


NOT_TLS = failed(
    "UNKNOWN: Ssl handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000009c:SSL routines:"
    "OPENSSL_internal:HTTP_REQUEST: Invalid certificate verification context: OK"
)
TOLD = FailedHandshake("not_tls", "HTTP_REQUEST", "ipv4:192.0.2.7:43756", "ipv4:127.0.0.1:50051")
OURS = b"2026-11-28 23:28:38,445 ERROR master.app: it failed\nTraceback (most recent call last):\n  File x\nOSError\n"
OTHER = b"E1128 23:28:38.445338   26688 chttp2_transport.cc:1] a socket failed\n"


def test_only_the_records_about_handshakes_are_taken_out() -> None:
    data = OURS + STARTED + OURS + NOT_TLS + OTHER + WENT_ON + NOT_TLS + OURS
    assert Records().feed(data) == (OURS + OURS + OTHER + OURS, [TOLD, TOLD])


def test_a_record_is_told_when_it_is_there() -> None:
    records = Records()
    assert records.feed(STARTED) == (b"", [])
    assert records.feed(NOT_TLS) == (b"", [TOLD])
    assert records.feed(OURS) == (OURS, [])


def test_what_has_no_end_of_line_yet_goes_on_at_once() -> None:
    records = Records()
    assert records.feed(STARTED + b"half a") == (b"half a", [])
    assert records.feed(b" line\n" + NOT_TLS) == (b" line\n", [TOLD])


def test_a_record_that_is_torn_is_put_together() -> None:
    records = Records()
    assert records.feed(NOT_TLS[:90]) == (b"", [])
    assert records.feed(NOT_TLS[90:]) == (b"", [TOLD])


@pytest.mark.parametrize(
    ("error", "reason", "was_refused"),
    [
        ("UNAVAILABLE: Handshake read failed (Socket closed)", "client_left", False),
        ("UNKNOWN: ... OPENSSL_internal:TLSV1_ALERT_UNKNOWN_CA: OK", "client_refused", False),
        ("DEADLINE_EXCEEDED: Handshake timed out", "timed_out", True),
        ("UNKNOWN: ... CERTIFICATE_VERIFY_FAILED: certificate is not yet valid: OK", "certificate_invalid", True),
        ("UNKNOWN: something that nobody has heard of", "other", True),
    ],
)
def test_reasons(error: str, reason: str, was_refused: bool) -> None:
    failure = failure_from(failed(error, "ipv6:%5B2001:db8::7%5D:4711"))
    assert failure is not None
    assert (failure.reason, failure.was_refused) == (reason, was_refused)
    assert failure.peer == "ipv6:%5B2001:db8::7%5D:4711"


def test_nothing_is_told_of_a_handshake_that_goes_on() -> None:
    assert failure_from(STARTED) is None
    assert failure_from(WENT_ON) is None
