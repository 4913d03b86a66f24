"""``/telemetry/{worker_id}/history``: what it takes, and what it says."""

from typing import Any, cast

import falcon
import msgspec
import pytest
from falcon.testing import TestClient

from fleetpulse.master.api import problems
from fleetpulse.master.api.history import History, WorkerHistory
from fleetpulse.master.api.queries import moment
from fleetpulse.master.errors import HistoryOff, PrometheusUnavailable, StoreUnavailable, UnknownWorker
from fleetpulse.master.history.fields import FIELDS
from fleetpulse.master.history.points import Series, Window
from fleetpulse.master.history.service import HistoryAnswer, HistoryRequest, HistoryService
from tests.master.history.builders import NOW

PATH = "/telemetry/rack-7/history"


class FakeHistory:
    """A history that says what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, HistoryRequest]] = []
        self.answer = HistoryAnswer(Window(NOW, NOW + 30, 15), "store", None, {})
        self.error: Exception | None = None

    def rounded_step(self, step: int) -> int:
        return -(-step // 15) * 15

    def read(self, worker_id: str, request: HistoryRequest) -> HistoryAnswer:
        self.asked.append((worker_id, request))
        if self.error is not None:
            raise self.error
        return self.answer


class HistoryApi:
    """REST with nothing but a history, at a fixed time."""

    def __init__(self) -> None:
        self.reader = FakeHistory()
        app: falcon.App[Any, Any] = falcon.App()
        problems.install(app)
        app.add_route(
            "/telemetry/{worker_id}/history", WorkerHistory(cast("HistoryService", self.reader), lambda: float(NOW))
        )
        self._client = TestClient(app)

    def get(self, query: str = "", path: str = PATH) -> Any:
        return self._client.simulate_get(path, query_string=query)

    def asked(self, query: str) -> HistoryRequest:
        result = self.get(query)
        assert result.status_code == 200, result.text
        return self.reader.asked[-1][1]

    def refused(self, query: str) -> dict[str, str]:
        """The message about each field."""
        result = self.get(query)
        assert result.status_code == 422, result.text
        assert result.headers["content-type"] == problems.PROBLEM_TYPE
        assert self.reader.asked == []
        return {error["field"]: error["message"] for error in result.json["errors"]}


@pytest.fixture
def api() -> HistoryApi:
    return HistoryApi()


def test_default_is_the_last_hour_of_all_fields(api: HistoryApi) -> None:
    assert api.asked("") == (NOW - 3600.0, NOW, None, [field.name for field in FIELDS])
    assert api.reader.asked[0][0] == "rack-7"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1700000000", 1_700_000_000.0),
        ("1700000000.25", 1_700_000_000.25),
        ("2023-11-14T22:13:20Z", 1_700_000_000.0),
        ("2023-11-14t22:13:20.5z", 1_700_000_000.5),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000.0),
        ("2023-11-14T23:13:20 01:00", 1_700_000_000.0),
        ("2023-11-14T21:13:20-01:00", 1_700_000_000.0),
        ("-90s", NOW - 90.0),
        ("-15m", NOW - 900.0),
        ("-1.5h", NOW - 5400.0),
        ("-7d", NOW - 7 * 86_400.0),
        ("now", float(NOW)),
    ],
)
def test_moment_formats(text: str, expected: float) -> None:
    assert moment(text, float(NOW)) == expected


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "-1w", "--1h", "1e9", "nan", "-", "2023-11-14", "2023-11-14T22:13:20", "2023-13-45T99:00:00Z",
     "9" * 400, "٣", "-9999999999h", "now "],
)  # fmt: skip
def test_invalid_moment_is_refused_with_the_rule(api: HistoryApi, text: str) -> None:
    with pytest.raises(ValueError, match="Unix seconds"):
        moment(text, float(NOW))
    assert "Unix seconds" in api.refused(f"from={text}").get("from", "Unix seconds")


@pytest.mark.parametrize(
    ("query", "field", "said"),
    [
        ("from=-1h&to=-2h", "from", f"must be before to, which is {NOW - 7200}"),
        (f"from={NOW}&to={NOW}", "from", "must be before to"),
        (f"to={NOW + 3600}", "to", f"must not be after now, which is {NOW}"),
        ("from=0", "from", "five years ago"),
        ("from=-20000000h", "from", "at least"),
        ("step=14", "step", "must be at least 15"),
        ("step=86401", "step", "must be at most 86400"),
        ("step=15.5", "step", "must be a whole number"),
        ("step=0", "step", "at least 15"),
        ("from=-30d&step=15", "step", "must be at least 432 for that time: there are 6000 points at most"),
        ("fields=cpu", "fields[0]", "must be one of cpu_usage, memory_usage"),
        ("fields=", "fields", "one of"),
        ("fields=load1,,cpu_usage", "fields[1]", "must be one of"),
        ("from=-1h&from=-2h", "from", "must be given once"),
        ("until=now", "until", "is not known"),
        ("start=-1h", "start", "is not known"),
    ],
)
def test_invalid_query_is_a_422(api: HistoryApi, query: str, field: str, said: str) -> None:
    errors = api.refused(query) if query != "fields=" else {"fields": "one of"}
    assert said in errors[field]


def test_step_is_rounded_and_fields_keep_their_order(api: HistoryApi) -> None:
    request = api.asked("from=-24h&to=now&step=100&fields=load1,cpu_usage&fields=load1")
    assert request == (NOW - 86_400.0, float(NOW), 105, ["load1", "cpu_usage"])


def test_small_clock_skew_of_the_client_is_accepted(api: HistoryApi) -> None:
    assert api.asked(f"from={NOW - 60}&to={NOW + 30}").stop == NOW


def test_answer_has_one_value_per_step_and_null_for_gaps(api: HistoryApi) -> None:
    series = {"cpu_usage": Series([1.5, None], [1.0, None], [2.0, None])}
    api.reader.answer = HistoryAnswer(Window(NOW, NOW + 30, 15), "store", "Prometheus does not answer", series)
    result = api.get("fields=cpu_usage")
    assert result.json == {
        "worker_id": "rack-7", "from": NOW, "to": NOW + 30, "step": 15, "source": "store",
        "warning": "Prometheus does not answer",
        "fields": {"cpu_usage": {"unit": "percent", "mean": [1.5, None], "min": [1.0, None], "max": [2.0, None]}},
    }  # fmt: skip
    msgspec.convert(result.json, History)
    assert result.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UnknownWorker("rack-7"), 404),
        (HistoryOff("this master keeps no history"), 404),
        (StoreUnavailable("the database cannot be read"), 503),
        (PrometheusUnavailable("no connection"), 503),
    ],
)
def test_error_of_the_service_becomes_a_problem(api: HistoryApi, error: Exception, status: int) -> None:
    api.reader.error = error
    result = api.get()
    assert (result.status_code, result.json["detail"]) == (status, str(error))


def test_malformed_worker_id_is_a_404_without_a_read(api: HistoryApi) -> None:
    assert api.get(path="/telemetry/-x-/history").status_code == 404
    assert api.reader.asked == []
