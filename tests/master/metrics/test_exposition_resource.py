"""master.metrics.exposition: GET /metrics"""

import pytest
from prometheus_client.openmetrics import parser as openmetrics_parser

from fleetpulse.master.metrics.families import FAMILIES
from tests.master.fleet import full_heartbeat, settle
from tests.master.metrics.test_exposition import check_by_promtool, samples_of
from tests.master.web import Web

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


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain", "text/html,*/*;q=0.8", "application/json", "a;;q=x"])
def test_prometheus_text_is_the_default(web: Web, accept: str) -> None:
    result = web.client.simulate_get("/metrics", headers={"Accept": accept})
    assert result.status_code == 200
    assert result.headers["Content-Type"].startswith("text/plain")
    assert "# EOF" not in result.text


@pytest.mark.parametrize("kind", ["application/openmetrics-text", "text/plain"])
@pytest.mark.parametrize("version", ["x", "1.x", '"1.0.0"', "-1", "1", "9" * 5000, "\xb2"])
def test_invalid_version_gets_prometheus_text(web: Web, kind: str, version: str) -> None:
    result = web.client.simulate_get("/metrics", headers={"Accept": f"{kind};version={version}"})
    assert result.status_code == 200
    assert result.headers["Content-Type"].startswith("text/plain")
    assert "# EOF" not in result.text


@pytest.mark.parametrize("parameter", ["q=x", "q=", "q=-1", "q=1e999", "escaping=x", "escaping=", "=;", "version"])
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
