"""master.prometheus: queries, the layout of answers, and failures."""

import socket
from collections.abc import Iterator

import pytest

from fleetpulse.master import prometheus as module
from fleetpulse.master.errors import PrometheusUnavailable
from fleetpulse.master.history.fields import FIELDS
from fleetpulse.master.history.points import Window
from fleetpulse.master.prometheus import RETRY_SECONDS, PrometheusClient, PrometheusHistory, query_for
from tests.master.history.builders import NOW
from tests.master.prometheus_server import Server, running_server, success

WINDOW = Window(NOW, NOW + 45, 15)
FIELD = ["cpu_usage"]


class ClockedHistory:
    """A history from a fake server, on a manual clock."""

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
def clocked(server: Server) -> Iterator[ClockedHistory]:
    clocked = ClockedHistory(server.url + "/")
    yield clocked
    clocked.history.close()


def series(stat: str, *values: tuple[float, str], field: str = "cpu_usage") -> dict[str, object]:
    return {"metric": {"field": field, "stat": stat}, "values": [list(value) for value in values]}


def test_point_covers_the_step_before_its_evaluation(server: Server, clocked: ClockedHistory) -> None:
    server.respond = lambda _: success(
        series("mean", (NOW + 15, "12.3456"), (NOW + 45, "NaN")),
        series("max", (NOW + 30, "+Inf"), (NOW + 45, "3")),
        series("mean", (NOW + 15, "1"), field="unasked"),
    )
    found = clocked.history.read("rack-7", WINDOW, FIELD)
    assert found.keys() == {"cpu_usage"}
    assert found["cpu_usage"] == ([12.346, None, None], [None, None, None], [None, None, 3.0])
    ((path, form),) = server.queries
    assert path == "/api/v1/query_range"
    assert (form["start"], form["end"], form["step"]) == (str(NOW + 15), str(NOW + 45), "15")
    assert form["query"] == query_for("rack-7", FIELD, 15)


def test_every_field_has_a_query() -> None:
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
def test_invalid_answer_is_unavailable(
    server: Server, clocked: ClockedHistory, status: int, body: bytes, why: str
) -> None:
    server.status, server.respond = status, lambda _: body
    with pytest.raises(PrometheusUnavailable, match=why):
        clocked.read()


def test_prometheus_is_not_asked_again_soon_after_a_failure(server: Server, clocked: ClockedHistory) -> None:
    server.status, server.respond = 503, lambda _: b"away"
    for _ in range(3):
        with pytest.raises(PrometheusUnavailable):
            clocked.read()
    assert len(server.queries) == 1
    server.status, server.respond = 200, lambda _: success(series("mean", (NOW + 15, "1")))
    clocked.now += RETRY_SECONDS
    assert clocked.read() == [1.0, None, None]
    assert clocked.read() == [1.0, None, None]
    assert len(server.queries) == 3


def test_refused_connection_is_unavailable() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        clocked = ClockedHistory(f"http://user:secret@127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(PrometheusUnavailable, match="no connection") as raised:
            clocked.read()
        assert "secret" not in str(raised.value)
        clocked.history.close()


def test_slow_answer_ends_at_the_deadline(server: Server) -> None:
    server.trickle, server.respond = 0.05, lambda _: success(series("mean", *[(NOW, "1")] * 100))
    clocked = ClockedHistory(server.url, seconds=0.3)
    with pytest.raises(PrometheusUnavailable, match="answer"):
        clocked.read()
    clocked.history.close()


def test_endless_answer_is_cut(server: Server) -> None:
    server.respond = lambda _: b"x" * (module.MAX_ANSWER_BYTES + 1)
    clocked = ClockedHistory(server.url, seconds=30.0)
    with pytest.raises(PrometheusUnavailable, match="more than"):
        clocked.read()
    clocked.history.close()


def test_incomplete_step_is_not_queried(server: Server, clocked: ClockedHistory) -> None:
    assert clocked.history.read("rack-7", Window(NOW, NOW + 90, 15), FIELD)["cpu_usage"].mean == [None] * 6
    assert server.queries[0][1]["end"] == str(NOW + 45)
    assert clocked.history.read("rack-7", Window(NOW + 45, NOW + 60, 15), FIELD)["cpu_usage"].mean == [None]
    assert len(server.queries) == 1
