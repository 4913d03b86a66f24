"""Hostile HTTP clients, one at a time. Each is answered or cut as in ``docs/security.md``, and counted."""

import itertools
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from fleetpulse.master.api.validation import MAX_BODY_BYTES
from fleetpulse.master.edge.refusals import MAX_HEAD_BYTES
from fleetpulse.master.instruments import REJECT_REASONS
from tests.e2e.masters import FAST_LEASE_FLAGS, Master, started_master
from tests.e2e.processes import Processes
from tests.e2e.raw import RawConnection
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

JSON = "Content-Type: application/json"
GIB = 1024**3
TOLERANCE_BYTES = 64 * 1024 * 1024
"""The allowed growth of the web process's memory during a test."""

_NUMBERS = itertools.count(1)
RATE, CONNECTIONS, ALL_CONNECTIONS = 20, 10, 24


def rejected(master: Master, reason: str) -> float:
    assert reason in REJECT_REASONS
    return master.sample("fleetpulse_http_rejected_total", reason)


def refusals(master: Master, client: str) -> set[tuple[str, str, str]]:
    """The refusals of a client in the audit trail: action, status and reason."""
    answer = master.get("/api/audit?outcome=refused&limit=1000")
    # This request may be refused by the rate limit as well.
    entries = answer.json() if answer.status_code == 200 else []
    return {
        (one["action"], one["status"], one["detail"].partition(":")[0])
        for one in entries
        if (one["client"], one["source"], one["actor"]) == (client, "http", "anonymous")
    }


def assert_refused(master: Master, client: str, *refusal: str) -> None:
    """Waits for a refusal in the audit trail: action, status and reason."""
    eventually(lambda: refusal in refusals(master, client))


@pytest.fixture
def client() -> str:
    """The address of a client that no other test uses."""
    return f"127.0.5.{next(_NUMBERS)}"


@pytest.fixture
def rss_is_bounded(shared_master: Master) -> Iterator[None]:
    web = shared_master.web_process()
    before = web.memory_info().rss
    yield
    assert web.memory_info().rss < before + TOLERANCE_BYTES


def test_every_reject_reason_is_exposed_from_the_start(shared_master: Master) -> None:
    assert {labels[0] for labels in shared_master.samples("fleetpulse_http_rejected_total")} == set(REJECT_REASONS)


# Slow requests


def test_slow_request_is_answered_and_cut(shared_master: Master) -> None:
    before = rejected(shared_master, "slow_head"), rejected(shared_master, "slow_body")
    clients = [f"127.0.4.{number}" for number in range(1, 5)]
    with ExitStack() as stack:
        line, head, body, silent = (stack.enter_context(RawConnection(shared_master.http_port, one)) for one in clients)
        head.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        body.ask("/api/tasks", JSON, "Content-Length: 1000", method="POST")
        began = time.monotonic()
        answered: set[RawConnection] = set()
        while len(answered) < 3 and time.monotonic() < began + 25.0:
            for raw, drop in ((line, b"G"), (head, b"X"), (body, b" ")):
                if raw not in answered:
                    raw.send(drop)
                    raw.socket.settimeout(0.1)
                    try:
                        is_answered = bool(raw.socket.recv(1, 2))  # MSG_PEEK
                    except TimeoutError:
                        is_answered = False
                    if is_answered:
                        answered.add(raw)
        assert time.monotonic() - began > 5.0
        for raw, part in ((line, "head"), (head, "head"), (body, "body")):
            raw.socket.settimeout(30.0)
            assert part in raw.answer().detail(408)
            assert raw.is_cut()
        # A silent connection is cut without an answer and without a count.
        assert silent.is_cut()
    assert (rejected(shared_master, "slow_head"), rejected(shared_master, "slow_body")) == (
        before[0] + 2,
        before[1] + 1,
    )
    for one in clients[:2]:
        assert_refused(shared_master, one, "request", "408", "slow_head")
    assert_refused(shared_master, clients[2], "submit_task", "408", "slow_body")
    assert refusals(shared_master, clients[3]) == set()


# Large requests


@pytest.mark.usefixtures("rss_is_bounded")
def test_declared_oversized_body_is_refused_before_it_is_sent(shared_master: Master) -> None:
    before = rejected(shared_master, "body_too_large")
    with RawConnection(shared_master.http_port) as raw:
        answer = raw.get("/api/tasks", JSON, f"Content-Length: {MAX_BODY_BYTES + 1}", method="POST")
        assert str(MAX_BODY_BYTES) in answer.detail(413)
        assert answer.headers["Connection"] == "close"
        assert raw.is_cut()
    assert rejected(shared_master, "body_too_large") == before + 1


@pytest.mark.usefixtures("rss_is_bounded")
def test_chunked_body_of_a_gibibyte_is_refused(shared_master: Master) -> None:
    with RawConnection(shared_master.http_port) as raw:
        raw.ask("/api/tasks", JSON, "Transfer-Encoding: chunked", method="POST")
        taken = raw.pour(b"100000\r\n" + bytes(0x100000) + b"\r\n", GIB)
        assert taken < GIB // 8
        assert str(MAX_BODY_BYTES) in raw.answer().detail(413)


@pytest.mark.usefixtures("rss_is_bounded")
def test_body_of_tiny_chunks_is_refused(shared_master: Master) -> None:
    with RawConnection(shared_master.http_port) as raw:
        raw.ask("/api/tasks", JSON, "Transfer-Encoding: chunked", method="POST")
        assert raw.pour(b"1\r\n \r\n" * 10_000, GIB) < GIB // 8
        assert raw.answer().detail(400)


@pytest.mark.usefixtures("rss_is_bounded")
@pytest.mark.parametrize("lines", [f"Content-Length: {GIB}", "Transfer-Encoding: chunked"])
def test_large_unread_body_closes_the_connection(shared_master: Master, lines: str) -> None:
    with RawConnection(shared_master.http_port) as raw:
        raw.ask("/health", lines)
        assert raw.pour(b"100000\r\n" + bytes(0x100000) + b"\r\n", GIB) < GIB // 8
        assert raw.answer().status == 200


def test_small_unread_body_keeps_the_connection(shared_master: Master) -> None:
    with RawConnection(shared_master.http_port) as raw:
        for lines, body in (
            ("Content-Length: 100000", bytes(100_000)),
            ("Transfer-Encoding: chunked", b"1\r\nx\r\n0\r\n\r\n"),
        ):
            assert raw.get("/health", lines, body=body).status == 200
        assert raw.get("/health").status == 200


@pytest.mark.parametrize(
    "lines",
    ["X: x\r\n" * 101, "X: " + "x" * 8190 + "\r\n", ("X: " + "x" * 7000 + "\r\n") * 10, "X: x\r\n" * 100_000],
    ids=["101 headers", "one of 8 kB", "70 kB in all", "100,000 headers"],
)
@pytest.mark.usefixtures("rss_is_bounded")
def test_headers_above_the_limits_are_refused(shared_master: Master, client: str, lines: str) -> None:
    before = rejected(shared_master, "head_too_large")
    with RawConnection(shared_master.http_port, client) as raw:
        raw.send(f"GET /health HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
        assert raw.answer().detail(431)
        assert raw.is_cut()
    assert rejected(shared_master, "head_too_large") == before + 1
    assert_refused(shared_master, client, "request", "431", "head_too_large")


@pytest.mark.usefixtures("rss_is_bounded")
def test_endless_header_is_refused(shared_master: Master) -> None:
    with RawConnection(shared_master.http_port) as raw:
        raw.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ")
        assert raw.pour(b"x" * MAX_HEAD_BYTES, GIB) < GIB // 8
        assert raw.answer().detail(431)


def test_too_long_request_line_is_refused(shared_master: Master, client: str) -> None:
    before = rejected(shared_master, "line_too_long")
    with RawConnection(shared_master.http_port, client) as raw:
        assert raw.get("/" + "a" * 5000).detail(414)
        assert raw.is_cut()
    assert rejected(shared_master, "line_too_long") == before + 1
    assert_refused(shared_master, client, "request", "414", "line_too_long")


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"docker_image":['])
@pytest.mark.usefixtures("rss_is_bounded")
def test_deeply_nested_json_is_refused(shared_master: Master, opening: bytes) -> None:
    before = rejected(shared_master, "json_too_deep")
    body = opening * (MAX_BODY_BYTES // len(opening))
    with RawConnection(shared_master.http_port) as raw:
        answer = raw.get("/api/tasks", JSON, f"Content-Length: {len(body)}", method="POST", body=body)
        assert "1024 levels" in answer.detail(400)
        assert raw.get("/health").status == 200
    assert rejected(shared_master, "json_too_deep") == before + 1


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x00\x01\x02\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: x\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nExpect: miracles\r\n\r\n", 417),
    ],
    ids=["noise", "version", "no colon", "two hosts", "no host", "two lengths", "smuggling", "coding", "expectation"],
)
def test_malformed_request_is_refused(shared_master: Master, client: str, request_bytes: bytes, status: int) -> None:
    before = rejected(shared_master, "malformed")
    with RawConnection(shared_master.http_port, client) as raw:
        raw.send(request_bytes)
        assert raw.answer().detail(status).isprintable()
        assert raw.is_cut()
    assert rejected(shared_master, "malformed") == before + 1
    assert_refused(shared_master, client, "request", str(status), "malformed")


def test_request_of_http_1_0_needs_no_host(shared_master: Master) -> None:
    with RawConnection(shared_master.http_port) as raw:
        raw.send(b"GET /health HTTP/1.0\r\n\r\n")
        assert raw.answer().status == 200


@pytest.mark.parametrize(
    "path",
    ["//", "//telemetry", "/telemetry//", "/%2f", "/%2Ftelemetry", "/api%2Ftasks", "/api/tasks%2f", "/%5ctelemetry"],
)
def test_paths_are_found_only_as_they_are_written(path: str, shared_master: Master) -> None:
    with RawConnection(shared_master.http_port) as raw:
        raw.get(path).detail(404)


def test_answers_are_private_and_do_not_name_the_server_software(shared_master: Master) -> None:
    with RawConnection(shared_master.http_port) as raw:
        for path in (
            "/telemetry",
            "/workers",
            "/api/tasks",
            "/api/workers",
            "/sd/targets?port=1",
            "/nowhere",
            "/health",
        ):
            headers = raw.get(path).headers
            assert headers["Server"] == "fleetpulse"
            assert path in ("/nowhere", "/health") or headers["Cache-Control"] == "private, no-cache"


def test_client_cannot_forge_log_lines(shared_master: Master) -> None:
    for request in (b"GET /a\x1b[2Jb\nlevel=forged HTTP/1.1\r\n\r\n", b"GET /%0Alevel=forged%1b HTTP/1.1\r\n\r\n"):
        with RawConnection(shared_master.http_port) as raw:
            raw.send(request)
            assert raw.answer().status in {400, 404}
    assert not shared_master.log_lines("^level=forged|\x1b")


# Limits for one client, on a master that also limits loopback clients


@pytest.fixture(scope="module")
def strict(shared_processes: Processes) -> Iterator[Master]:
    master = started_master(
        shared_processes, *FAST_LEASE_FLAGS, "--limit-loopback", "--client-rate", str(RATE),
        "--client-connections", str(CONNECTIONS), "--max-connections", str(ALL_CONNECTIONS),
        "--data-dir", str(shared_processes.folder / "strict"),
    )  # fmt: skip
    yield master
    master.close()
    master.assert_no_errors()


def client_of(number: int) -> str:
    return f"127.0.1.{number}"


def test_client_above_its_rate_gets_retry_after_and_others_are_served(strict: Master) -> None:
    with (
        RawConnection(strict.http_port, client_of(1)) as eager,
        RawConnection(strict.http_port, client_of(2)) as other,
    ):
        answers = [eager.get("/health") for _ in range(3 * RATE)]
        refused = [answer for answer in answers if answer.status != 200]
        assert 0 < len(refused) <= RATE
        for answer in refused:
            assert answer.detail(429)
            assert math.ceil(float(answer.headers["Retry-After"])) == 1
        assert other.get("/health").status == 200
        heads = [eager.get("/health", method="HEAD") for _ in range(3 * RATE)]
        assert {head.status for head in heads} == {200, 429}
        assert {head.body for head in heads} == {b""}
        # The connection stays usable, and the client is served again soon.
        assert eventually(lambda: eager.get("/health").status == 200)
    assert rejected(strict, "client_requests") > len(refused)
    assert_refused(strict, client_of(1), "request", "429", "client_requests")
    assert refusals(strict, client_of(2)) == set()


def test_client_that_connects_too_often_is_refused_and_others_are_served(strict: Master) -> None:
    before = rejected(strict, "client_requests")
    with ExitStack() as stack:
        eager = [stack.enter_context(RawConnection(strict.http_port, client_of(6))) for _ in range(3 * RATE)]
        answer = eager[-1].answer()
        assert answer.detail(429)
        assert answer.headers["Retry-After"] == "1"
        assert eager[-1].is_cut()
        assert stack.enter_context(RawConnection(strict.http_port, client_of(7))).get("/health").status == 200
    assert rejected(strict, "client_requests") > before
    assert_refused(strict, client_of(6), "connect", "429", "client_requests")
    assert refusals(strict, client_of(7)) == set()


def test_longest_idle_connection_of_a_client_is_cut_for_its_next(strict: Master) -> None:
    before = rejected(strict, "idle")
    with ExitStack() as stack:
        kept = [stack.enter_context(RawConnection(strict.http_port, client_of(3))) for _ in range(CONNECTIONS)]
        for raw in kept[1:]:
            assert raw.get("/health").status == 200
        another = stack.enter_context(RawConnection(strict.http_port, client_of(3)))
        assert another.get("/health").status == 200
        assert kept[0].is_cut()
        assert kept[1].get("/health").status == 200
    assert rejected(strict, "idle") == before + 1
    # Cutting an idle connection is not a refusal.
    assert refusals(strict, client_of(3)) == set()


def test_client_with_only_busy_connections_is_refused(strict: Master) -> None:
    before = rejected(strict, "client_connections")
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            assert stack.enter_context(RawConnection(strict.http_port, client_of(4))).stream("/telemetry/stream") == 200
        another = stack.enter_context(RawConnection(strict.http_port, client_of(4)))
        answer = another.answer()
        assert answer.detail(429)
        assert answer.headers["Retry-After"] == "5"
        assert another.is_cut()
        assert stack.enter_context(RawConnection(strict.http_port, client_of(5))).get("/health").status == 200
    assert rejected(strict, "client_connections") == before + 1
    assert_refused(strict, client_of(4), "connect", "429", "client_connections")
    eventually(lambda: strict.sample("fleetpulse_stream_readers") == 0)


def test_full_table_refuses_or_cuts_idle_connections(strict: Master) -> None:
    strict.session.close()
    with ExitStack() as stack:
        for number in range(ALL_CONNECTIONS - 4):
            raw = stack.enter_context(RawConnection(strict.http_port, client_of(10 + number // CONNECTIONS)))
            assert raw.stream("/telemetry/stream") == 200
        idle = [stack.enter_context(RawConnection(strict.http_port, client_of(20))) for _ in range(4)]
        for raw in idle:
            assert raw.get("/health").status == 200
        busy = [stack.enter_context(RawConnection(strict.http_port, client_of(21))) for _ in range(4)]
        for raw in busy:
            assert raw.stream("/telemetry/stream") == 200
        assert all(raw.is_cut() for raw in idle)
        another = stack.enter_context(RawConnection(strict.http_port, client_of(22)))
        answer = another.answer()
        assert answer.detail(503)
        assert answer.headers["Retry-After"] == "5"
    eventually(lambda: strict.sample("fleetpulse_stream_readers") == 0)
    assert rejected(strict, "connections") == 1
    assert_refused(strict, client_of(22), "connect", "503", "connections")
