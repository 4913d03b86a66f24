"""master.metrics.exposition"""

import gc
import subprocess
import weakref
from pathlib import Path

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client import parser
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.samples import Sample

from fleetpulse.master.metrics.custom import escape
from fleetpulse.master.metrics.exposition import BYTES_IN_A_ROW, FleetExposition
from fleetpulse.master.telemetry.decoding import decode_heartbeat
from fleetpulse.master.telemetry.readings import (
    CollectorReport,
    Cpu,
    DiskDevice,
    Filesystem,
    Gpu,
    Load,
    Memory,
    NetworkInterface,
    Reading,
    RunningTask,
)
from fleetpulse.master.telemetry.records import Allocation, HeartbeatCounts, Registration, WorkerTelemetry
from tests.master.fleet import full_heartbeat, wait_until
from tests.master.hostile import ANY_TEXT
from tests.tools import require_tool

GOLDEN = Path(__file__).parent / "golden"

FULL = WorkerTelemetry(
    worker_id="rack-7",
    registration=Registration("first", "rack-7.example.com", "1.2.3", boot_time=1_600_000_000.0),
    registered_at=1_700_000_000.0,
    is_active=True,
    last_update=1_700_000_005.25,
    reading=decode_heartbeat(full_heartbeat()),
    counts=HeartbeatCounts(10, 2, 3, 4, "cpu.usage_percent is -1.0", 1_700_000_001.0, -0.25),
    revision=1,
    allocation=Allocation(cpu_cores=2.5, memory_bytes=1024**3, gpu_uuids=("GPU-aaaa",), tasks=1),
)
BARE = WorkerTelemetry("bare", Registration(), 1_700_000_000.0, True, 1_700_000_000.0, Reading(), HeartbeatCounts(), 2)
SILENT = replace(FULL, worker_id="silent", is_active=False)


def text_of(exposition: FleetExposition) -> str:
    return b"".join(exposition.chunks(openmetrics=False)).decode()


def openmetrics_families(exposition: FleetExposition) -> list[Metric]:
    text = b"".join(exposition.chunks(openmetrics=True)).decode() + "# EOF\n"
    return list(openmetrics_parser.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def showing(*workers: WorkerTelemetry) -> FleetExposition:
    exposition = FleetExposition()
    for worker in workers:
        exposition.worker_changed(worker)
    return exposition


def samples_of(text: str) -> list[Sample]:
    return [sample for family in parser.text_string_to_metric_families(text) for sample in family.samples]


def series_of(text: str) -> set[str]:
    return {sample.name for sample in samples_of(text)}


def check_by_promtool(text: str) -> None:
    promtool = require_tool("promtool")
    result = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


# Golden texts


@pytest.mark.parametrize(
    ("name", "workers"),
    [("empty", []), ("full", [FULL]), ("bare", [BARE]), ("silent", [SILENT]), ("fleet", [FULL, BARE, SILENT])],
)
def test_golden_text(name: str, workers: list[WorkerTelemetry]) -> None:
    assert text_of(showing(*workers)) == (GOLDEN / f"{name}.prom").read_text()


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("*.prom")), ids=lambda path: path.stem)
def test_promtool_accepts_the_golden_text(golden: Path) -> None:
    check_by_promtool(golden.read_text())


def test_openmetrics_has_the_same_samples() -> None:
    families = openmetrics_families(showing(FULL, BARE, SILENT))
    samples = [sample for family in families for sample in family.samples]
    assert samples == samples_of((GOLDEN / "fleet.prom").read_text())
    assert {family.type for family in families} == {"gauge", "counter"}


# What is missing


def test_missing_reading_has_no_sample() -> None:
    assert series_of(text_of(showing(BARE))) == {
        "fleetpulse_worker_up",
        "fleetpulse_worker_last_heartbeat_timestamp_seconds",
        "fleetpulse_worker_info",
        "fleetpulse_worker_draining",
        "fleetpulse_worker_heartbeats_dropped_total",
        "fleetpulse_worker_heartbeats_missed_total",
        "fleetpulse_worker_heartbeats_refused_total",
        "fleetpulse_worker_refused",
    }


def test_gpu_has_samples_for_its_known_readings_only() -> None:
    (size,) = (s for s in samples_of(text_of(showing(FULL))) if s.labels.get("gpu") == "1" and "size" in s.name)
    assert size.labels == {"worker_id": "rack-7", "gpu": "1", "uuid": "GPU-bbbb"}
    names = {s.name for s in samples_of(text_of(showing(FULL))) if s.labels.get("gpu") == "1"}
    assert names == {"fleetpulse_worker_gpu_info", "fleetpulse_worker_gpu_memory_size_bytes"}


def test_series_ends_when_its_reading_is_missing() -> None:
    exposition = showing(FULL)
    text_of(exposition)
    exposition.worker_changed(replace(FULL, reading=Reading(load=Load(load1=0.0))))
    left = series_of(text_of(exposition)) - series_of(text_of(showing(BARE)))
    assert left == {
        "fleetpulse_worker_load1",
        "fleetpulse_worker_boot_time_seconds",
        "fleetpulse_worker_running_tasks",
        "fleetpulse_worker_clock_skew_seconds",
    }


@given(st.lists(st.tuples(st.sampled_from(["a null", " null", "x"]), st.none() | st.integers(0, 9)), max_size=8))
def test_any_pattern_of_missing_readings_leaves_the_others(gpus: list[tuple[str, int | None]]) -> None:
    reading = Reading(
        gpus=tuple(Gpu(number, f"{uuid}{number}", "", None, used, 5) for number, (uuid, used) in enumerate(gpus))
    )
    samples = samples_of(text_of(showing(replace(FULL, reading=reading))))
    used = {s.labels["uuid"]: s.value for s in samples if s.name == "fleetpulse_worker_gpu_memory_used_bytes"}
    assert used == {f"{uuid}{number}": used for number, (uuid, used) in enumerate(gpus) if used is not None}
    assert sum(s.name == "fleetpulse_worker_gpu_memory_size_bytes" for s in samples) == len(gpus)
    assert not any(s.name == "fleetpulse_worker_gpu_utilization_ratio" for s in samples)


def test_first_text_is_laid_out_before_the_first_scrape() -> None:
    exposition = FleetExposition()
    exposition.start()
    try:
        for number in range(100):
            exposition.worker_changed(replace(FULL, worker_id=f"rack-{number}"))
        wait_until(lambda: all(exposition.has_rendered(f"rack-{number}") for number in range(100)))
    finally:
        exposition.stop()
    assert text_of(exposition).count("fleetpulse_worker_up{") == 100


def test_zero_has_a_sample() -> None:
    zeros = Reading(
        cpu=Cpu(usage_percent=0.0),
        memory=Memory(swap_size_bytes=0),
        gpus=(Gpu(0, "GPU-aaaa", "", 0.0, 0, None, 0.0, None),),
        running_tasks=(RunningTask("train", 1, 0.0, 0),),
        disk_devices=(DiskDevice("sda", 0, None),),
        network_interfaces=(NetworkInterface("eth0", None, 0),),
        collectors=(CollectorReport("cpu", False, 0.0, "broken"),),
    )
    values = {sample.name: sample.value for sample in samples_of(text_of(showing(replace(FULL, reading=zeros))))}
    for name in (
        "cpu_usage_ratio", "swap_size_bytes", "gpu_utilization_ratio", "gpu_memory_used_bytes",
        "gpu_temperature_celsius", "task_cpu_usage_ratio", "task_memory_used_bytes", "disk_read_bytes_total",
        "network_transmitted_bytes_total", "collector_success", "collectors_duration_seconds",
    ):  # fmt: skip
        assert values[f"fleetpulse_worker_{name}"] == 0.0


# Silence


def test_inactive_worker_keeps_three_series() -> None:
    exposition = showing(FULL)
    text_of(exposition)
    exposition.worker_changed(replace(FULL, is_active=False))
    samples = samples_of(text_of(exposition))
    assert {(sample.name, sample.value) for sample in samples} == {
        ("fleetpulse_worker_up", 0.0),
        ("fleetpulse_worker_last_heartbeat_timestamp_seconds", 1_700_000_005.25),
        ("fleetpulse_worker_draining", 0.0),
    }


def test_returning_worker_has_all_its_series_again() -> None:
    exposition = showing(FULL)
    before = text_of(exposition)
    exposition.worker_changed(replace(FULL, is_active=False))
    text_of(exposition)
    exposition.worker_changed(FULL)
    assert text_of(exposition) == before


# No series can leak


def test_removed_worker_leaves_no_series() -> None:
    exposition = showing(FULL, SILENT, BARE)
    text_of(exposition)
    for worker in (FULL, SILENT, BARE, FULL):
        exposition.worker_removed(worker.worker_id)
    assert text_of(exposition) == (GOLDEN / "empty.prom").read_text()


class TrackedId(str):
    """A worker id that can be referred to weakly."""

    __slots__ = ("__weakref__",)


def test_removed_workers_leave_no_memory_behind() -> None:
    exposition = FleetExposition()
    ids = [TrackedId(f"rack-{number}") for number in range(1000)]
    for number, worker_id in enumerate(ids):
        exposition.worker_changed(replace(FULL, worker_id=worker_id, is_active=number % 2 == 0))
    assert text_of(exposition).count("fleetpulse_worker_up{") == 1000
    for worker_id in ids:
        exposition.worker_changed(replace(FULL, worker_id=worker_id))
        exposition.worker_removed(worker_id)
    assert text_of(exposition) == (GOLDEN / "empty.prom").read_text()
    held = [weakref.ref(worker_id) for worker_id in ids]
    del ids, worker_id
    gc.collect()
    assert [reference() for reference in held if reference() is not None] == []


def test_worker_may_leave_during_a_scrape() -> None:
    exposition = showing(FULL, BARE)
    chunks = exposition.chunks(openmetrics=False)
    text = next(chunks) + next(chunks)
    exposition.worker_removed("rack-7")
    text += b"".join(chunks)
    samples = samples_of(text.decode())
    assert [sample.name for sample in samples if sample.labels["worker_id"] == "rack-7"] == ["fleetpulse_worker_up"]
    assert series_of(text.decode()) == series_of(text_of(showing(BARE)))


def test_scrape_lets_other_greenlets_run() -> None:
    turns = []

    def other() -> None:
        while True:
            turns.append(1)
            gevent.sleep(0)

    exposition = showing(*(replace(FULL, worker_id=f"rack-{number}") for number in range(2000)))
    exposition.catch_up()
    greenlet = gevent.spawn(other)
    try:
        text = text_of(exposition)
    finally:
        greenlet.kill()
    # A family is joined in one go, and here none is longer than what is joined in a row.
    assert len(turns) >= len(text) // (2 * BYTES_IN_A_ROW) >= 3


# Labels

HOSTILE = [
    '"', "\\", "\n", '\\"', "\\n", '"} 1\nfleetpulse_worker_up{worker_id="evil', "{}=,#", " ", "", "名前",
    "%b", "100 %", "is null", "ÿ",
]  # fmt: skip


def with_mountpoint(mountpoint: str) -> WorkerTelemetry:
    return replace(FULL, reading=Reading(filesystems=(Filesystem(mountpoint, 1, 2),)))


@pytest.mark.parametrize("mountpoint", HOSTILE)
def test_hostile_mountpoint_stays_a_label(mountpoint: str) -> None:
    text = text_of(showing(with_mountpoint(mountpoint), BARE))
    mountpoints = [sample.labels["mountpoint"] for sample in samples_of(text) if "mountpoint" in sample.labels]
    assert mountpoints == [mountpoint, mountpoint]
    assert {sample.labels["worker_id"] for sample in samples_of(text)} == {"rack-7", "bare"}
    check_by_promtool(text)


@given(ANY_TEXT)
def test_any_label_value_survives_both_formats(value: str) -> None:
    exposition = showing(with_mountpoint(value))
    by_openmetrics = [sample for family in openmetrics_families(exposition) for sample in family.samples]
    for samples in (samples_of(text_of(exposition)), by_openmetrics):
        assert {sample.labels["mountpoint"] for sample in samples if "mountpoint" in sample.labels} == {value}


def test_label_values_are_escaped() -> None:
    assert escape("/data") == "/data"
    assert escape('a"b\\c\nd') == r"a\"b\\c\nd"
