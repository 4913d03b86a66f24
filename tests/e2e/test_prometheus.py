"""Metrics of a master and its workers in a real Prometheus."""

import signal
import subprocess
import time

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families

from tests.e2e.masters import Master, started_master
from tests.e2e.processes import Processes
from tests.e2e.prometheus import Prometheus, Relay, relay_to
from tests.e2e.waiting import eventually
from tests.tools import require_tool

pytestmark = pytest.mark.e2e

UP = "fleetpulse_worker_up"
CPU = "fleetpulse_worker_cpu_usage_ratio"
OPENMETRICS = "application/openmetrics-text"
TEXT = "text/plain"


def promtool_check(exposition: bytes) -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr of ``promtool check metrics``."""
    checked = subprocess.run(
        [require_tool("promtool"), "check", "metrics"], input=exposition, capture_output=True, check=False
    )
    return checked.returncode, checked.stdout, checked.stderr


@pytest.mark.timeout(180)
def test_killed_worker_is_down_within_31_seconds_and_its_readings_end(processes: Processes) -> None:
    """With the default heartbeat interval of 5 s and timeout of 30 s."""
    master = started_master(processes)
    prometheus = Prometheus(processes, f"127.0.0.1:{master.http_port}")
    worker = processes.worker(master.target, "--worker-id", "rack-7")
    eventually(lambda: prometheus.value(UP) == 1.0 and prometheus.value(CPU) is not None, 20.0)

    # Kill the worker between two heartbeats, so that Prometheus has scraped the last one.
    eventually(lambda: 1.0 < time.time() - last_heartbeat(master) < 4.0)
    worker.send(signal.SIGKILL)
    killed = time.time()
    last = last_heartbeat(master)
    while time.time() < last + 30.0:
        assert prometheus.value(UP) == 1.0
        assert prometheus.value(CPU) is not None
        time.sleep(0.2)
    eventually(lambda: prometheus.value(UP) == 0.0, killed + 31.0 - time.time())

    assert prometheus.query(CPU) == {}
    assert prometheus.value("fleetpulse_worker_last_heartbeat_timestamp_seconds") == pytest.approx(last, abs=0.01)
    assert prometheus.value("fleetpulse_workers{state='inactive'}") == 1.0
    gone = prometheus.value(f"count_over_time({CPU}[1m])")
    assert gone is not None
    eventually(lambda: (prometheus.value(f"count_over_time({UP}[2m])") or 0) > gone + 2)
    assert prometheus.value(UP) == 0.0
    assert prometheus.query(CPU) == {}

    processes.worker(master.target, "--worker-id", "rack-7")
    eventually(lambda: prometheus.value(UP) == 1.0 and prometheus.value(CPU) is not None, 20.0)
    prometheus.close()
    master.close()


def last_heartbeat(master: Master) -> float:
    return master.sample("fleetpulse_worker_last_heartbeat_timestamp_seconds", "rack-7")


def test_both_formats_are_scraped_and_agree(processes: Processes, master: Master) -> None:
    processes.simulate(master.target, 8, "--gpu-share", "0.5")
    eventually(lambda: master.active() == 8)
    with relay_to(master.url) as as_openmetrics, relay_to(master.url, f"{TEXT};version=0.0.4") as as_text:
        prometheus = Prometheus(processes, as_openmetrics.target, as_text.target)
        relays = (as_openmetrics, as_text)

        def up() -> dict[tuple[str, ...], float]:
            return prometheus.query("up")

        eventually(lambda: up() == {(relay.target, "fleetpulse"): 1.0 for relay in relays}, 20.0)
        eventually(lambda: prometheus.query(f"count by (instance) ({UP})") == {(r.target,): 8.0 for r in relays})
        assert series_of(prometheus, as_openmetrics) == series_of(prometheus, as_text)
        prometheus.close()
    assert {scrape.content_type.partition(";")[0] for scrape in as_openmetrics.scrapes} == {OPENMETRICS}
    assert {scrape.content_type.partition(";")[0] for scrape in as_text.scrapes} == {TEXT}
    assert {scrape.encoding for scrape in (*as_openmetrics.scrapes, *as_text.scrapes)} == {"gzip"}


def series_of(prometheus: Prometheus, relay: Relay) -> dict[tuple[str, ...], float]:
    """The number of series of each worker metric."""
    assert len(prometheus.query(f'count by (worker_id) ({{instance="{relay.target}", worker_id!=""}})')) == 8
    every = f'{{__name__=~"fleetpulse_worker_.*", worker_id!="", instance="{relay.target}"}}'
    counted = prometheus.query(f'count by (metric) (label_replace({every}, "metric", "$1", "__name__", "(.*)"))')
    assert len(counted) > 20
    return counted


def test_openmetrics_passes_the_strict_parser(processes: Processes, master: Master) -> None:
    processes.simulate(master.target, 4, "--gpu-share", "0.5")
    eventually(lambda: len(master.samples("fleetpulse_worker_gpu_power_watts")) == 4)
    answer = master.get("/metrics", headers={"Accept": f"{OPENMETRICS}; version=1.0.0"})
    assert answer.headers["Content-Type"].startswith(OPENMETRICS)
    families = {family.name: family for family in openmetrics_families(answer.text)}  # type: ignore[no-untyped-call]
    assert len(families["fleetpulse_worker_up"].samples) == 4
    received = families["fleetpulse_worker_network_received_bytes"]
    assert (received.type, {sample.name for sample in received.samples}) == ("counter", {f"{received.name}_total"})


def test_promtool_finds_no_problem_in_metrics(processes: Processes, master: Master) -> None:
    assert promtool_check(master.get("/metrics").content) == (0, b"", b"")
    processes.simulate(master.target, 10, "--gpu-share", "0.5", "--gpus", "4")
    eventually(lambda: len(master.samples("fleetpulse_worker_gpu_power_watts")) == 20)
    assert promtool_check(master.get("/metrics").content) == (0, b"", b"")
    # promtool reports an error for invalid metrics.
    assert promtool_check(b"# HELP x Help.\n# TYPE x counter\nx 1\n")[0] != 0
