"""Hostile clients of the HTTPS port: each is refused within TLS or cut, counted and recorded."""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import trustme

from tests.e2e.masters import FAST_LEASE_FLAGS, READY_SECONDS, Master
from tests.e2e.processes import Processes
from tests.e2e.raw import TIMEOUT_SECONDS, RawConnection
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST

pytestmark = pytest.mark.e2e

RATE, CONNECTIONS = 20, 3


@pytest.fixture(scope="module")
def trusting() -> ssl.SSLContext:
    """The TLS context of a client. ``master`` adds its CA."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@pytest.fixture(scope="module")
def master(
    shared_processes: Processes, tmp_path_factory: pytest.TempPathFactory, trusting: ssl.SSLContext
) -> Iterator[Master]:
    """A master that also limits loopback clients. Each client has its own address."""
    ca, folder = trustme.CA(), tmp_path_factory.mktemp("tls")
    ca.configure_trust(trusting)
    certificate, key, root = (folder / name for name in ("chain.pem", "key.pem", "root.pem"))
    write_certificate(ca, certificate, key)
    ca.cert_pem.write_to_path(str(root))
    master = Master(
        shared_processes, *FAST_LEASE_FLAGS, "--tls-certificate", str(certificate), "--tls-key", str(key),
        "--limit-loopback", "--client-rate", str(RATE), "--client-connections", str(CONNECTIONS),
    )  # fmt: skip
    master.url = f"https://{LOCALHOST}:{master.http_port}"
    master.session.verify = str(root)
    eventually(lambda: master.is_healthy() or not master.process.is_running, READY_SECONDS)
    yield master
    master.close()
    master.assert_no_errors()


def write_certificate(ca: trustme.CA, certificate: Path, key: Path) -> None:
    issued = ca.issue_cert(LOCALHOST)
    certificate.write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())


def rejected(master: Master, reason: str) -> float:
    return master.sample("fleetpulse_http_rejected_total", reason)


def refusals(master: Master, client: str) -> list[tuple[str, str, str]]:
    """The refusals of a client in the audit trail: action, status and detail."""
    answer = master.get("/api/audit?outcome=refused&limit=1000")
    entries = answer.json() if answer.status_code == 200 else []
    return [(one["action"], one["status"], one["detail"]) for one in entries if one["client"] == client]


def test_client_without_tls_is_cut_and_recorded(master: Master) -> None:
    before = rejected(master, "tls_handshake")
    with RawConnection(master.http_port, "127.0.1.1") as raw:
        raw.ask("/health")
        assert raw.is_cut()
    eventually(lambda: refusals(master, "127.0.1.1") == [("connect", "", "tls_handshake: HTTP_REQUEST")])
    assert rejected(master, "tls_handshake") == before + 1


def test_silent_client_is_recorded_and_leaving_client_is_not(master: Master) -> None:
    before = rejected(master, "tls_handshake")
    with RawConnection(master.http_port, "127.0.1.2") as silent:
        with RawConnection(master.http_port, "127.0.1.3"):
            pass
        began = time.monotonic()
        assert silent.is_cut()
        assert time.monotonic() - began > 5.0
    expected = ("connect", "", "tls_handshake: it did not end within 10 seconds")
    eventually(lambda: refusals(master, "127.0.1.2") == [expected])
    assert refusals(master, "127.0.1.3") == []
    assert rejected(master, "tls_handshake") == before + 1


def test_client_that_connects_too_often_is_cut_without_an_answer(master: Master, trusting: ssl.SSLContext) -> None:
    before = rejected(master, "client_requests")
    with ExitStack() as stack:
        eager = [stack.enter_context(RawConnection(master.http_port, "127.0.1.4")) for _ in range(3 * RATE)]
        assert eager[-1].is_cut()
        other = stack.enter_context(RawConnection(master.http_port, "127.0.1.5"))
        other.begin_tls(trusting)
        assert other.get("/health").status == 200
    expected = ("connect", "429", "client_requests: this client asks too often")
    eventually(lambda: expected in refusals(master, "127.0.1.4"))
    assert rejected(master, "client_requests") > before


def test_client_with_too_many_connections_is_refused_within_tls(master: Master, trusting: ssl.SSLContext) -> None:
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            busy = stack.enter_context(RawConnection(master.http_port, "127.0.1.6"))
            busy.begin_tls(trusting)
            assert busy.stream("/telemetry/stream") == 200
        another = stack.enter_context(RawConnection(master.http_port, "127.0.1.6"))
        another.begin_tls(trusting)
        assert another.answer().detail(429)
        assert another.is_cut()
    eventually(lambda: [one[:2] for one in refusals(master, "127.0.1.6")] == [("connect", "429")])
    eventually(lambda: master.sample("fleetpulse_stream_readers") == 0)


def test_stalled_handshakes_are_cut_when_the_table_is_full(master: Master, trusting: ssl.SSLContext) -> None:
    before = rejected(master, "idle")
    with ExitStack() as stack:
        silent = [stack.enter_context(RawConnection(master.http_port, "127.0.1.7")) for _ in range(CONNECTIONS)]
        another = stack.enter_context(RawConnection(master.http_port, "127.0.1.7"))
        another.begin_tls(trusting)
        assert another.get("/health").status == 200
        assert silent[0].is_cut()
    assert rejected(master, "idle") == before + 1
    assert refusals(master, "127.0.1.7") == []


def test_plain_text_within_tls_is_malformed(master: Master, trusting: ssl.SSLContext) -> None:
    before = rejected(master, "malformed")
    with RawConnection(master.http_port, "127.0.1.8") as raw:
        raw.begin_tls(trusting)
        assert raw.get("/health").status == 200
        with socket.socket(fileno=raw.socket.detach()) as plain:
            plain.settimeout(TIMEOUT_SECONDS)
            plain.sendall(b"GET /health HTTP/1.1\r\n\r\n")
            with suppress(ConnectionError):
                while plain.recv(1000):
                    continue
    eventually(lambda: [one[:2] for one in refusals(master, "127.0.1.8")] == [("request", "400")])
    assert rejected(master, "malformed") == before + 1
