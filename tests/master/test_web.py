"""master.web: slow, idle and abusive clients on a real socket"""

from typing import Any

import falcon
import gevent
import pytest

from fleetpulse.master.config import Limits
from fleetpulse.master.edge.requests import MAX_CHUNKS
from tests.master.api.web_server import Client, Served, served

HASTY = Limits(head_seconds=0.2, answer_seconds=0.3)
MIB = 1024 * 1024


class Hello:
    """Answers with the requested number of bytes, and reads no body."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.data = b"x" * req.get_param_as_int("bytes", default=1)

    on_post = on_get


def app() -> "falcon.App[Any, Any]":
    app: falcon.App[Any, Any] = falcon.App()
    app.add_route("/", Hello())
    return app


def test_incomplete_head_times_out_with_an_answer() -> None:
    with served(app(), HASTY) as server, Client(server.address) as client:
        client.send(b"GET / HTTP/1.1\r\nHost")
        status, problem = client.answer()
        assert (status, problem["status"]) == (408, 408)
        assert client.is_closed()


def test_slow_head_has_one_deadline() -> None:
    with served(app(), HASTY) as server, Client(server.address) as client:
        head = b"GET / HTTP/1.1\r\nX: " + b"x" * 1000

        def trickle() -> None:
            for letter in head:
                client.send(bytes([letter]))
                gevent.sleep(0.02)

        trickling = gevent.spawn(trickle)
        assert client.answer()[0] == 408
        trickling.kill()


def test_head_deadline_does_not_apply_to_idle_connections() -> None:
    with served(app(), HASTY) as server, Client(server.address) as client:
        gevent.sleep(0.5)
        for _ in range(2):
            client.request("GET", "/")
            assert client.head().status == 200
            assert client._file.read(1) == b"x"
            gevent.sleep(0.5)


def test_idle_connection_is_closed_without_an_answer() -> None:
    with served(app(), idle_seconds=0.2) as server, Client(server.address) as client:
        assert client.is_closed()


def test_connection_is_closed_when_the_answer_is_not_read(caplog: pytest.LogCaptureFixture) -> None:
    with served(app(), HASTY) as server, Client(server.address) as client:
        client.request("GET", f"/?bytes={64 * MIB}")
        wait_until_alone(server)
    assert "Traceback" not in caplog.text


def test_small_unread_body_is_discarded() -> None:
    with served(app()) as server, Client(server.address) as client:
        for _ in range(3):
            client.request("POST", "/", f"Content-Length: {MIB}", body=bytes(MIB))
            assert client.head().status == 200
            assert client._file.read(1) == b"x"


def test_large_unread_body_closes_the_connection() -> None:
    with served(app()) as server, Client(server.address) as client:
        client.request("POST", "/", f"Content-Length: {MIB + 1}")
        head = client.head()
        assert (head.status, head.headers["connection"]) == (200, "close")
        client._file.read(1)
        # Who still sends is not reset at once: its answer would be lost with that.
        for _ in range(3):
            client.send(bytes(1000))
            gevent.sleep(0.05)
        client.end()
        assert client.is_closed()
        wait_until_alone(server)


def test_endless_body_does_not_starve_other_connections() -> None:
    with served(app()) as server, Client(server.address) as client, Client(server.address) as other:
        client.request("POST", "/", "Transfer-Encoding: chunked")
        pouring = gevent.spawn(pour, client)
        for _ in range(20):
            other.request("GET", "/")
            assert other.head().status == 200
            other._file.read(1)
        pouring.join(10.0)
        assert pouring.ready()


def pour(client: Client) -> None:
    try:
        while True:
            client.send(b"1\r\nx\r\n" * 1000)
    except OSError:
        return


def wait_until_alone(server: Served) -> None:
    with gevent.Timeout(20.0):
        while not len(server.connections):
            gevent.sleep(0)
        server.connections.join()


# Chunks


def of_chunks(how_many: int) -> bytes:
    return b"1\r\nx\r\n" * how_many + b"0\r\n\r\n"


def test_number_of_chunks_is_limited() -> None:
    with served(app()) as server:
        with Client(server.address) as client:
            for _ in range(2):
                client.request("POST", "/", "Transfer-Encoding: chunked", body=of_chunks(MAX_CHUNKS - 1))
                assert client.head().status == 200
                assert client._file.read(1) == b"x"
        with Client(server.address) as client:
            client.request("POST", "/", "Transfer-Encoding: chunked", body=of_chunks(MAX_CHUNKS))
            assert client.head().status == 200
            client._file.read(1)
            assert client.is_closed()
