"""master.metrics.exposition: GET /metrics"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as openmetrics_parser

from fleetpulse.master.metrics.families import FAMILIES
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.fleet import full_heartbeat, settle
from tests.master.metrics.test_exposition import check_by_promtool, samples_of
from tests.master.web import Web, running_web

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
# What Prometheus 2 and Prometheus 3 send.
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.fixture(autouse=True)
def two_workers(web: Web) -> None:
    """One gives everything, one nothing."""
    web.fleet.manager.process_heartbeat(full_heartbeat("rack-7"))
    web.fleet.manager.register_worker("bare")
    settle()


def test_promtool_accepts_the_metrics_of_fleet_and_master(web: Web) -> None:
    web.json("/telemetry")
    result = web.client.simulate_get("/metrics")
    assert result.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert int(result.headers["Content-Length"]) == len(result.content)
    assert result.headers["Vary"] == "Accept, Accept-Encoding"
    samples = samples_of(result.text)
    values = {(sample.name, sample.labels.get("worker_id")): sample.value for sample in samples}
    assert values["fleetpulse_worker_up", "rack-7"] == values["fleetpulse_worker_up", "bare"] == 1
    assert values["fleetpulse_heartbeats_received_total", None] == 1
    assert values["process_resident_memory_bytes", None] > 0
    assert not any(label in sample.labels for sample in samples for label in ("instance", "job"))
    check_by_promtool(result.text)


@pytest.mark.parametrize("accept", [OPENMETRICS["Accept"], PROMETHEUS_2, PROMETHEUS_3])
def test_openmetrics_is_served_on_request(web: Web, accept: str) -> None:
    result = web.client.simulate_get("/metrics", headers={"Accept": accept})
    assert result.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert result.text.endswith("# EOF\n")
    assert result.text.count("# EOF") == 1
    families = list(openmetrics_parser.text_string_to_metric_families(result.text))  # type: ignore[no-untyped-call]
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    assert {family.name.removesuffix("_total") for family in FAMILIES} <= set(names)
    assert "fleetpulse_heartbeats_received" in names


SEQUENCE_NUMBERS = st.integers(0, 2**64 - 1)
TIMES = st.floats(0, 4e9) | st.just(1_700_003_600.0)
VALUES = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([-1.0, -0.0, -1e300])
KINDS = st.sampled_from([pb.CUSTOM_TYPE_COUNTER, pb.CUSTOM_TYPE_GAUGE, pb.CUSTOM_TYPE_UNTYPED])


@st.composite
def any_heartbeat(draw: st.DrawFn) -> pb.Heartbeat:
    """One that the master accepts, whatever it says."""
    message = full_heartbeat(draw(st.sampled_from(["rack-7", "rack-8"])))
    message.incarnation_id = ""
    message.sequence_number = draw(SEQUENCE_NUMBERS)
    message.sent_time_unix_seconds = draw(TIMES)
    for name in draw(st.sets(st.sampled_from(["a", "b"]))):
        kind = draw(KINDS)
        metric = message.custom.add(name=f"{name}_total" if kind == pb.CUSTOM_TYPE_COUNTER else name, type=kind)
        metric.samples.add(value=draw(VALUES))
    message.running_tasks[0].task_id = draw(st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True))
    return message


@settings(max_examples=25, deadline=None)
@given(st.lists(any_heartbeat(), min_size=1, max_size=6))
def test_no_counter_is_negative_whatever_a_worker_says(messages: list[pb.Heartbeat]) -> None:
    with running_web() as web:
        for message in messages:
            web.fleet.manager.process_heartbeat(message)
            settle()
        text = web.client.simulate_get("/metrics", headers=OPENMETRICS).text
    families = list(openmetrics_parser.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
    counted = [
        sample
        for family in families
        for sample in family.samples
        if family.type == "counter" or sample.name.endswith(("_bucket", "_count", "_sum"))
    ]
    assert len(counted) > 50
    assert [sample for sample in counted if not sample.value >= 0] == []


def test_clock_that_is_an_hour_ahead_and_a_counter_below_zero_leave_the_text_valid(web: Web) -> None:
    message = full_heartbeat("ahead")
    message.sent_time_unix_seconds = web.fleet.clock.wall + 3600.0
    message.custom.add(name="jobs_total", type=pb.CUSTOM_TYPE_COUNTER).samples.add(value=-1.0)
    web.fleet.manager.process_heartbeat(message)
    settle()
    text = web.client.simulate_get("/metrics", headers=OPENMETRICS).text
    openmetrics = list(openmetrics_parser.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
    values = {sample.name: sample.value for family in openmetrics for sample in family.samples}
    assert values["fleetpulse_heartbeat_sent_to_visible_seconds_sum"] == 0.0
    assert values["fleetpulse_heartbeat_sent_to_visible_seconds_count"] == 2.0
    skews = {
        sample.labels["worker_id"]: sample.value
        for family in openmetrics
        for sample in family.samples
        if sample.name == "fleetpulse_worker_clock_skew_seconds"
    }
    assert skews == {"ahead": 3600.0, "rack-7": 0.0}
    assert "fleetpulse_custom_jobs_total" not in values


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain", "text/html,*/*;q=0.8", "application/json", "a;;q=x"])
def test_prometheus_text_is_the_default(web: Web, accept: str) -> None:
    result = web.client.simulate_get("/metrics", headers={"Accept": accept})
    assert result.status_code == 200
    assert result.headers["Content-Type"].startswith("text/plain")
    assert "# EOF" not in result.text


@pytest.mark.parametrize("kind", ["application/openmetrics-text", "text/plain"])
@pytest.mark.parametrize("version", ["x", "1.x", '"1.0"', "-1", "1", "9" * 5000, "\xb2"])
def test_invalid_version_gets_prometheus_text(web: Web, kind: str, version: str) -> None:
    result = web.client.simulate_get("/metrics", headers={"Accept": f"{kind};version={version}"})
    assert result.status_code == 200
    assert result.headers["Content-Type"].startswith("text/plain")
    assert "# EOF" not in result.text


@pytest.mark.parametrize("quality", ["x", "", "-1", "1e999", "nan", "2"])
def test_header_that_breaks_the_grammar_is_none(web: Web, quality: str) -> None:
    result = web.client.simulate_get("/metrics", headers={"Accept": f"{OPENMETRICS['Accept']};q={quality}"})
    assert result.status_code == 200
    assert result.headers["Content-Type"].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize(
    "accept",
    [
        "*/*;q=0", "text/plain;q=0", "text/plain; Q=0.000", "TEXT/*;q=0", "*/*;q=0.0, application/json",
        "text/plain;q=0,application/openmetrics-text;q=0", "application/*;q=0,text/*;q=0",
    ],
)  # fmt: skip
def test_format_with_quality_0_is_refused(web: Web, accept: str) -> None:
    result = web.client.simulate_get("/metrics", headers={"Accept": accept})
    assert result.status_code == 406


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/plain;q=0,*/*", "application/openmetrics-text"),
        ("application/openmetrics-text;q=0,*/*;q=0.1", "text/plain"),
        ("application/openmetrics-text;q=0", "text/plain"),
        ("application/openmetrics-text;q=0.1,text/plain;q=0.9", "text/plain"),
        ("text/plain;q=0.1,application/openmetrics-text;q=0.2", "application/openmetrics-text"),
        ("text/plain,application/openmetrics-text", "application/openmetrics-text"),
        ('application/openmetrics-text;version="1.0.0"', "application/openmetrics-text"),
        ("Application/OpenMetrics-Text", "application/openmetrics-text"),
        ("application/openmetrics-text;version=0.0.1", "text/plain"),
        ("application/*", "application/openmetrics-text"),
        ("*/*;q=0.2", "text/plain"),
    ],
)
def test_format_with_the_best_quality_is_served(web: Web, accept: str, kind: str) -> None:
    result = web.client.simulate_get("/metrics", headers={"Accept": accept})
    assert result.status_code == 200
    assert result.headers["Content-Type"].startswith(f"{kind}; version=")


@pytest.mark.parametrize("kind", ["application/openmetrics-text;version=1.0.0", "text/plain;version=1.0.0"])
@pytest.mark.parametrize("escaping", ["dots", "underscores", "values", "allow-utf-8"])
def test_escaping_changes_no_name(web: Web, kind: str, escaping: str) -> None:
    plain, escaped = (
        web.client.simulate_get("/metrics", headers={"Accept": accept})
        for accept in (kind, f"{kind};escaping={escaping}")
    )
    names, same = (
        {line.split()[2] for line in answer.text.splitlines() if line.startswith("# TYPE")}
        for answer in (plain, escaped)
    )
    assert names == same
    assert not any("__" in name for name in names)
    assert escaped.headers["Content-Type"] == plain.headers["Content-Type"]


@pytest.mark.parametrize("parameter", ["escaping=x", "escaping=", "=;", "version"])
def test_unknown_parameters_of_accept_are_ignored(web: Web, parameter: str) -> None:
    result = web.client.simulate_get("/metrics", headers={"Accept": f"{OPENMETRICS['Accept']};{parameter}"})
    assert result.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")


def test_head_is_get_without_the_body(web: Web) -> None:
    head = web.client.simulate_head("/metrics", headers=OPENMETRICS)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Type"].startswith("application/openmetrics-text")
    assert int(head.headers["Content-Length"]) > 1000


def test_inactive_worker_is_down_and_forgotten_worker_has_no_series(web: Web) -> None:
    web.fleet.pass_time(30.0)
    text = web.client.simulate_get("/metrics").text
    assert [line for line in text.splitlines() if '"rack-7"' in line] == [
        'fleetpulse_worker_up{worker_id="rack-7"} 0',
        'fleetpulse_worker_last_heartbeat_timestamp_seconds{worker_id="rack-7"} 1700000000.0',
        'fleetpulse_worker_draining{worker_id="rack-7"} 0',
    ]
    assert 'fleetpulse_workers{state="inactive"} 2.0' in text
    web.fleet.manager.unregister_worker("rack-7")
    assert '"rack-7"' not in web.client.simulate_get("/metrics").text


def test_scrape_duration_is_measured(web: Web) -> None:
    web.client.simulate_get("/metrics")
    web.client.simulate_get("/metrics")
    assert web.fleet.metric("exposition_duration_seconds_count") == 2
