"""master.api.validation: what a body may be, by a client without scruples"""

import json
from collections.abc import Iterator
from typing import Any

import falcon
import gevent
import pytest

from fleetpulse.master.api import problems
from fleetpulse.master.api.validation import MAX_BODY_BYTES, read_json
from tests.master.api.task_api import JSON, TaskApi
from tests.master.api.web_server import Client, Served, served

TYPE = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"


class Echo:
    """Answers with what was read."""

    def __init__(self, deadline_seconds: float) -> None:
        self._deadline_seconds = deadline_seconds

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.text = json.dumps(read_json(req, deadline_seconds=self._deadline_seconds))

    def on_put(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.text = json.dumps(read_json(req, is_optional=True))


def echo_app(deadline_seconds: float = 10.0) -> "falcon.App[Any, Any]":
    app: falcon.App[Any, Any] = falcon.App()
    problems.install(app)
    app.add_route("/echo", Echo(deadline_seconds))
    return app


@pytest.fixture
def echo() -> Iterator[Served]:
    with served(echo_app()) as server:
        yield server


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


# Size


def test_body_of_the_maximum_size_is_accepted(echo: Served) -> None:
    body = json.dumps("a" * (MAX_BODY_BYTES - 2)).encode()
    assert len(body) == MAX_BODY_BYTES
    with Client(echo.address) as client:
        client.request("POST", "/echo", TYPE, f"Content-Length: {len(body)}", body=body)
        assert client.answer()[0] == 200
        client.request("POST", "/echo", TYPE, CHUNKED, body=chunked(body[:1000], body[1000:]))
        assert client.answer()[0] == 200


def test_too_large_content_length_is_refused_before_reading(echo: Served) -> None:
    with Client(echo.address) as client:
        client.request("POST", "/echo", TYPE, f"Content-Length: {MAX_BODY_BYTES + 1}")
        status, problem = client.answer()
        assert (status, problem["detail"]) == (413, "a body may have 1048576 bytes at most")


def test_too_large_chunked_body_is_refused(echo: Served) -> None:
    with Client(echo.address) as client:
        client.request("POST", "/echo", TYPE, CHUNKED, body=b"%x\r\n" % (1 << 40) + b"1" * (MAX_BODY_BYTES + 2048))
        assert client.answer()[0] == 413


def test_next_request_on_the_connection_is_served(echo: Served) -> None:
    with Client(echo.address) as client:
        for body in (b"1", b"22"):
            client.request("POST", "/echo", TYPE, f"Content-Length: {len(body)}", body=body)
        assert [client.answer(), client.answer()] == [(200, 1), (200, 22)]


# Time


def test_trickling_body_ends_the_connection_at_the_deadline() -> None:
    with served(echo_app(deadline_seconds=0.3)) as server, Client(server.address) as client:
        client.request("POST", "/echo", TYPE, "Content-Length: 100000")
        trickle = gevent.spawn(trickle_into, client)
        with gevent.Timeout(20.0):
            while not len(server.connections):
                gevent.sleep(0)
            server.connections.join()
            trickle.join()  # what it sends is refused now


def test_missing_body_is_a_408_after_the_deadline() -> None:
    with served(echo_app(deadline_seconds=0.2)) as server, Client(server.address) as client:
        client.request("POST", "/echo", TYPE, "Content-Length: 100000", body=b"[1, ")
        status, problem = client.answer()
        assert (status, problem["detail"]) == (408, "the body was not complete after 0.2 s")
        assert client.is_closed()


@pytest.mark.parametrize("first", [b"", b"5\r\n12", b"5\r\n12345\r\n"])
def test_missing_chunks_are_a_408_after_the_deadline(first: bytes) -> None:
    with served(echo_app(deadline_seconds=0.2)) as server, Client(server.address) as client:
        client.request("POST", "/echo", TYPE, CHUNKED, body=first)
        assert client.answer()[0] == 408
        assert client.is_closed()


def trickle_into(client: Client) -> None:
    try:
        while True:
            client.send(b" ")
            gevent.sleep(0.02)
    except OSError:
        return


# Bodies that are not whole


def test_aborted_body_does_not_disturb_the_server(echo: Served, caplog: pytest.LogCaptureFixture) -> None:
    for lines, body in ((f"Content-Length: {1000}", b"[1,"), (CHUNKED, b"5\r\n12")):
        client = Client(echo.address)
        client.request("POST", "/echo", TYPE, lines, body=body)
        client.close()
    with gevent.Timeout(20.0):
        echo.connections.join()
    assert "Traceback" not in caplog.text
    with Client(echo.address) as client:
        client.request("POST", "/echo", TYPE, "Content-Length: 1", body=b"1")
        assert client.answer() == (200, 1)


def test_short_body_is_refused(echo: Served) -> None:
    with Client(echo.address) as client:
        client.request("POST", "/echo", TYPE, "Content-Length: 5", body=b"1")
        client.end()
        assert client.answer()[0] == 400


@pytest.mark.parametrize("body", [b"xyz\r\n", b"-1\r\n", b"2\r\n123\r\n0\r\n\r\n", b"\r\n\r\n"])
def test_malformed_chunks_are_refused(echo: Served, body: bytes) -> None:
    with Client(echo.address) as client:
        client.request("POST", "/echo", TYPE, CHUNKED, body=body)
        status, problem = client.answer()
        assert (status, problem["status"]) == (400, 400)
        assert client.is_closed()


# No body


def test_missing_length_is_a_411(echo: Served) -> None:
    with Client(echo.address) as client:
        client.request("POST", "/echo", TYPE)
        assert client.answer()[0] == 411
        client.request("POST", "/echo", TYPE, "Content-Length: 0")
        status, problem = client.answer()
        assert status == 400
        assert "the body is not JSON" in problem["detail"]


def test_optional_body_may_be_missing(echo: Served) -> None:
    with Client(echo.address) as client:
        for lines in ((), ("Content-Length: 0",), (TYPE, "Content-Length: 0")):
            client.request("PUT", "/echo", *lines)
            assert client.answer() == (200, None)
        client.request("PUT", "/echo", TYPE, "Content-Length: 3", body=b"[1]")
        assert client.answer() == (200, [1])
        client.request("PUT", "/echo", "Content-Length: 3", body=b"[1]")
        assert client.answer()[0] == 415


def test_expect_100_continue_is_answered(echo: Served) -> None:
    with Client(echo.address) as client:
        client.request("POST", "/echo", TYPE, "Content-Length: 1", "Expect: 100-continue")
        assert client.head().status == 100
        client.send(b"7")
        assert client.answer() == (200, 7)


# Content types


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"'],
)
def test_json_content_types_are_accepted(tasks: TaskApi, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    result = tasks.client.simulate_post("/api/tasks", body=b'{"docker_image":"busybox"}', headers=headers)
    assert result.status_code == 201


@pytest.mark.parametrize(
    "content_type",
    [
        None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp",
        "application/json; charset=latin-1", "application/merge-patch+json", "json", "*/*",
    ],
)  # fmt: skip
def test_other_content_type_is_a_415(tasks: TaskApi, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    result = tasks.client.simulate_post("/api/tasks", body=b'{"docker_image":"busybox"}', headers=headers)
    assert result.status_code == 415
    assert "application/json" in result.json["detail"]


# JSON


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"docker_image=busybox", "line 1, column 1"),
        (b'{"docker_image": "busybox"', "line 1"),
        (b'{\n  "docker_image": "busybox",\n}', "line 2, column 28"),
        (b"{'docker_image': 'busybox'}", "line 1, column 2"),
        (b'{"docker_image": "busybox"} x', "line 1, column 29"),
        (b'{"docker_image": "bus\x00ybox"}', "line 1"),
        (b'{"docker_image": "\xff"}', "UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"a": nan}', "line 1, column 7"),
        (b'{"a": 0x10}', "line 1"),
        (b"[" * 100_000, "line 1"),
        (b"9" * 5000, "line 1"),
        (b"\x00", "line 1"),
    ],
)
def test_invalid_json_is_a_400_with_its_position(tasks: TaskApi, body: bytes, where: str) -> None:
    result = tasks.client.simulate_post("/api/tasks", body=body, headers=JSON)
    assert result.status_code == 400
    assert result.json["detail"].startswith("the body is not JSON: ")
    assert where in result.json["detail"]
