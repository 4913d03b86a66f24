"""A Prometheus as a source of history: what it is asked, how its answer is laid out, and when it is let alone."""

import socket
from collections.abc import Iterator

import pytest

from fleetpulse.master import prometheus as module
from fleetpulse.master.errors import PrometheusUnavailable
from fleetpulse.master.history.fields import FIELDS
from fleetpulse.master.history.points import Window
from fleetpulse.master.prometheus import RETRY_SECONDS, PrometheusClient, PrometheusHistory, query_for
from tests.master.history.given import NOW
from tests.master.prometheus_server import Server, running_server, success

WINDOW = Window(NOW, NOW + 45, 15)
FIELD = ["cpu_usage"]


class Asking:
    """A history over a server, on a clock that the test moves."""

    def __init__(self, url: str, seconds: float = 10.0) -> None:
        self.now = 0.0
        client = PrometheusClient(url, seconds)
        self.history = PrometheusHistory(client, lambda: self.now, lambda: float(NOW + 50))

    def read(self) -> list[float | None]:
        return self.history.read("rack-7", WINDOW, FIELD)["cpu_usage"].mean


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def asking(server: Server) -> Iterator[Asking]:
    asking = Asking(server.url + "/")
    yield asking
    asking.history.close()


def series(stat: str, *values: tuple[float, str], field: str = "cpu_usage") -> dict[str, object]:
    return {"metric": {"field": field, "stat": stat}, "values": [list(value) for value in values]}


def test_a_point_is_of_the_time_before_it_was_looked_at(server: Server, asking: Asking) -> None:
    server.respond = lambda _: success(
        series("mean", (NOW + 15, "12.3456"), (NOW + 45, "NaN")),
        series("max", (NOW + 30, "+Inf"), (NOW + 45, "3")),
        series("mean", (NOW + 15, "1"), field="unasked"),
    )
    found = asking.history.read("rack-7", WINDOW, FIELD)
    assert found.keys() == {"cpu_usage"}
    assert found["cpu_usage"] == ([12.346, None, None], [None, None, None], [None, None, 3.0])
    ((path, form),) = server.asked
    assert path == "/api/v1/query_range"
    assert (form["start"], form["end"], form["step"]) == (str(NOW + 15), str(NOW + 45), "15")
    assert form["query"] == query_for("rack-7", FIELD, 15)


def test_every_field_can_be_asked_for() -> None:
    names = [field.name for field in FIELDS]
    query = query_for("rack-7", names, 15)
    assert all(f'"field", "{name}"' in query for name in names)
    assert query.count("label_replace(") == 2 * 3 * len(names)


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (200, b"<html>", "no Prometheus"),
        (404, b"404 page not found", "no Prometheus: status 404"),
        (200, b"[]", "no Prometheus"),
        (200, b'{"status": "success", "data": {"result": [{"metric": {}, "values": [["a", "b"]]}]}}', "no Prometheus"),
        (422, b'{"status": "error", "errorType": "execution", "error": "too many samples"}', "too many samples"),
        (503, b'{"status": "error"}', "refused"),
    ],
)
def test_what_is_no_answer_is_told(server: Server, asking: Asking, status: int, body: bytes, why: str) -> None:
    server.status, server.respond = status, lambda _: body
    with pytest.raises(PrometheusUnavailable, match=why):
        asking.read()


def test_one_that_is_away_is_let_alone_for_a_while(server: Server, asking: Asking) -> None:
    server.status, server.respond = 503, lambda _: b"away"
    for _ in range(3):
        with pytest.raises(PrometheusUnavailable):
            asking.read()
    assert len(server.asked) == 1
    server.status, server.respond = 200, lambda _: success(series("mean", (NOW + 15, "1")))
    asking.now += RETRY_SECONDS
    assert asking.read() == [1.0, None, None]
    assert asking.read() == [1.0, None, None]
    assert len(server.asked) == 3


def test_nobody_at_the_port() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        asking = Asking(f"http://user:secret@127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(PrometheusUnavailable, match="no connection") as raised:
            asking.read()
        assert "secret" not in str(raised.value)
        asking.history.close()


def test_an_answer_that_trickles_is_over_at_the_deadline(server: Server) -> None:
    server.trickle, server.respond = 0.05, lambda _: success(series("mean", *[(NOW, "1")] * 100))
    asking = Asking(server.url, seconds=0.3)
    with pytest.raises(PrometheusUnavailable, match="answer"):
        asking.read()
    asking.history.close()


def test_an_answer_without_an_end_is_cut(server: Server) -> None:
    server.respond = lambda _: b"x" * (module.MAX_ANSWER_BYTES + 1)
    asking = Asking(server.url, seconds=30.0)
    with pytest.raises(PrometheusUnavailable, match="more than"):
        asking.read()
    asking.history.close()


def test_what_is_not_over_is_not_asked_for(server: Server, asking: Asking) -> None:
    assert asking.history.read("rack-7", Window(NOW, NOW + 90, 15), FIELD)["cpu_usage"].mean == [None] * 6
    assert server.asked[0][1]["end"] == str(NOW + 45)
    assert asking.history.read("rack-7", Window(NOW + 45, NOW + 60, 15), FIELD)["cpu_usage"].mean == [None]
    assert len(server.asked) == 1
