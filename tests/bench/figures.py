"""Every figure of the table: its name, its unit and its goals by number of workers.

A run's figures are SI numbers by number of workers and key: ``{5000: {"master_cores": 0.4}}``. ``None`` means not
measured.
"""

from collections.abc import Mapping
from typing import NamedTuple

Row = Mapping[str, float | None]
Results = Mapping[int, Row]

SMALL, LARGE, STORM = 1_000, 5_000, 10_000
"""The numbers of workers for which there are goals."""

IDLE = 1
"""The number of workers of an idle master."""

PLACING = 200
"""The number of workers that a queue of tasks is placed on."""


class Unit(NamedTuple):
    """The display format of an SI number."""

    name: str
    per_si: float = 1.0
    decimals: int = 0

    def show(self, value: float) -> str:
        """The number without its unit."""
        return f"{value * self.per_si:,.{self.decimals}f}"


COUNT = Unit("")
PERCENT = Unit("%", 100.0, 1)
MS = Unit("ms", 1e3, 2)
US = Unit("us", 1e6)
US_FINE = Unit("us", 1e6, 1)
SECONDS = Unit("s", 1.0, 2)
MB = Unit("MB", 1e-6, 1)
CORES = Unit("cores", 1.0, 3)
TIMES = Unit("times", 1.0, 1)
TIMES_FINE = Unit("times", 1.0, 2)
KB = Unit("kB", 1e-3, 1)
PER_SECOND = Unit("/s", 1.0, 1)


class Goal(NamedTuple):
    """The goal of a figure."""

    sign: str
    limit: float

    def is_met(self, value: float) -> bool:
        """Whether the figure meets the goal."""
        return {"<": value < self.limit, ">=": value >= self.limit, "=": value == self.limit}[self.sign]


class Figure(NamedTuple):
    """A line of the table. With two keys (a p50 and a p99) the goals apply to the last."""

    label: str
    unit: Unit
    keys: tuple[str, ...]
    goals: Mapping[int, Goal] = {}


class Section(NamedTuple):
    """A group of lines."""

    title: str
    figures: tuple[Figure, ...]


def _below(small: float | None, large: float | None = None) -> dict[int, Goal]:
    return {at: Goal("<", limit) for at, limit in ((SMALL, small), (LARGE, large)) if limit is not None}


def _percentiles(label: str, key: str, goals: Mapping[int, Goal], unit: Unit = MS) -> Figure:
    return Figure(f"{label}, p50 / p99", unit, (f"{key}_p50_seconds", f"{key}_p99_seconds"), goals)


_NONE = {LARGE: Goal("=", 0.0)}

SECTIONS = (
    Section("Heartbeats in the window", (
        Figure("all connected, by the simulator's own ramp, after", SECONDS, ("connect_seconds",)),
        Figure("workers on a connection", COUNT, ("streams_per_connection",)),
        Figure("accepted", COUNT, ("heartbeats_accepted",)),
        Figure("accepted, of one each 5 s from every worker", PERCENT, ("heartbeats_accepted_ratio",)),
        Figure("dropped", COUNT, ("heartbeats_dropped",), _NONE),
        Figure("rejected", COUNT, ("heartbeats_rejected",)),
        Figure("missed", COUNT, ("heartbeats_missed",)),
        Figure("workers seen inactive", COUNT, ("workers_seen_inactive",), _NONE),
        Figure("dropped, rejected or missed in the whole run", COUNT, ("run_heartbeats_lost",)),
        Figure("workers inactive in the whole run", COUNT, ("run_workers_inactive",), _NONE),
    )),
    Section("Cost of the window, all of the master's processes", (
        Figure("master CPU per heartbeat", US, ("master_cpu_seconds_per_heartbeat",), _below(None, 350e-6)),
        Figure("master", CORES, ("master_cores",)),
        Figure("master without history", CORES, ("without_history_cores",)),
        Figure("... so history takes", CORES, ("history_cores",), _below(0.05)),
        Figure("master RSS", MB, ("master_rss_bytes",), _below(None, 500e6)),
        Figure("master RSS, highest of the whole run", MB, ("master_peak_rss_bytes",), _below(None, 500e6)),
        Figure("master CPU per heartbeat / that of the smallest fleet", TIMES_FINE, ("cpu_growth_ratio",)),
        Figure("master RSS per worker above an idle master, after reads", KB, ("rss_bytes_per_worker",),
               _below(None, 60e3)),
        Figure("simulator CPU per heartbeat", US, ("simulator_cpu_seconds_per_heartbeat",)),
        Figure("simulator", CORES, ("simulator_cores",)),
        Figure("anything else on the machine", CORES, ("other_cores",)),
    )),
    Section("Beside a bare grpc.aio stream server", (
        Figure("its CPU per heartbeat", US, ("floor_cpu_seconds_per_heartbeat",)),
        Figure("its RSS per worker", KB, ("floor_rss_bytes_per_worker",)),
        Figure("master CPU per heartbeat / that", TIMES_FINE, ("cpu_to_floor_ratio",), _below(None, 1.4)),
    )),
    Section("Batches: agents that report for 64 workers each", (
        Figure("master CPU per heartbeat", US, ("batch_cpu_seconds_per_heartbeat",), _below(None, 90e-6)),
        Figure("... / that of the bare server", TIMES_FINE, ("batch_to_floor_ratio",), _below(None, 0.35)),
        Figure("heartbeats accepted", PER_SECOND, ("batch_heartbeats_per_second",)),
        Figure("master RSS per worker above an idle master", KB, ("batch_rss_bytes_per_worker",), _below(None, 35e3)),
        Figure("found inactive", COUNT, ("batch_inactive",), _NONE),
    )),
    Section("A storm: all connect at once", (
        Figure("until all are active", SECONDS, ("storm_seconds",), {STORM: Goal("<", 30.0)}),
        Figure("active in the end", COUNT, ("storm_active",)),
        Figure("calls that the master refused or ended", COUNT, ("storm_refusals",)),
        Figure("workers that waited after a refusal, most at a time", COUNT, ("storm_refused_peak",)),
        Figure("found inactive", COUNT, ("storm_inactive",), {LARGE: Goal("=", 0.0), STORM: Goal("=", 0.0)}),
        _percentiles("/health meanwhile", "storm_health", {}),
    )),
    Section("Overload: half of the CPU that the fleet takes", (
        Figure("the master may use", CORES, ("overload_cores",)),
        Figure("heartbeats processed", PER_SECOND, ("overload_heartbeats_per_second",)),
        Figure("heartbeats superseded by newer ones", PER_SECOND, ("overload_superseded_per_second",)),
        Figure("found inactive", COUNT, ("overload_inactive",), _NONE),
        _percentiles("answers meanwhile", "overload_answer", _below(None, 1.0)),
    )),
    Section("Single calls (SendHeartbeat)", (
        Figure("master CPU per heartbeat", US, ("unary_cpu_seconds_per_heartbeat",)),
        Figure("heartbeats accepted", PER_SECOND, ("unary_heartbeats_per_second",)),
        Figure("calls that failed", COUNT, ("unary_failed",), _NONE),
        Figure("found inactive", COUNT, ("unary_inactive",), _NONE),
    )),
    Section("Time until a heartbeat is visible", (
        _percentiles("from receipt", "receipt_to_visible", _below(None, 50e-3)),
        _percentiles("from sending", "sent_to_visible", {}),
        _percentiles("from sending until a GET shows it, by a probe", "probe", {}),
    )),
    Section("Answers while the fleet beats", (
        _percentiles("/telemetry/{id}, 16 connections", "telemetry_id", _below(5e-3, 5e-3)),
        Figure("/telemetry/{id}, rate reached of 200/s", PER_SECOND, ("telemetry_id_requests_per_second",)),
        _percentiles("/telemetry", "telemetry", _below(5e-3, 20e-3)),
        _percentiles("/workers", "workers", _below(5e-3, 20e-3)),
        _percentiles("/api/workers", "api_workers", _below(5e-3)),
        Figure("/api/workers, p50 / that of the smallest fleet", TIMES_FINE, ("api_workers_growth_ratio",),
               _below(None, 5.0)),
        _percentiles("/health", "health", _below(5e-3)),
        _percentiles("/metrics", "metrics", _below(5e-3, 40e-3)),
        Figure("/metrics, the first when nobody had asked", MS, ("metrics_first_seconds",),
               _below(None, 0.3)),
        Figure("/metrics, gzip, the slowest of one each 15 s in the window", MS, ("metrics_in_window_max_seconds",)),
        _percentiles("/metrics, gzip", "metrics_gzip", _below(5e-3)),
        Figure("/metrics, size plain / gzip", MB, ("metrics_bytes", "metrics_gzip_bytes")),
    )),
    Section("Tasks", (
        Figure("a submit, durable, p99 / p50", MS, ("submit_p99_seconds", "submit_p50_seconds"),
               {IDLE: Goal("<", 10e-3)}),
        Figure("from the submit until the container runs, p99 / p50", MS,
               ("submit_to_running_p99_seconds", "submit_to_running_p50_seconds"), {IDLE: Goal("<", 1.0)}),
        Figure("tasks that have ended, in the store", COUNT, ("history_tasks",)),
        _percentiles("... a page of them", "task_page", {IDLE: Goal("<", 20e-3)}),
        _percentiles("... a page by status and worker", "task_page_filtered", {IDLE: Goal("<", 20e-3)}),
        Figure("queued tasks placed, from the first worker on", COUNT, ("placing_tasks",)),
        Figure("... within", SECONDS, ("placing_seconds",), {PLACING: Goal("<", 2.0)}),
        Figure("submits at once while the fleet beats", COUNT, ("burst_submits",)),
        _percentiles("... each of them", "burst_submit", {}),
        _percentiles("... heartbeats meanwhile, receipt to visible", "burst_receipt_to_visible",
                     {SMALL: Goal("<", 50e-3)}),
    )),
    Section("prometheus_client with the same samples", (
        Figure("generate_latest, p50", MS, ("latest_p50_seconds",)),
        Figure("GET /metrics, p50", MS, ("latest_get_p50_seconds",)),
        Figure("size", MB, ("latest_bytes",)),
        Figure("RSS", MB, ("latest_rss_bytes",)),
        Figure("GET /metrics of FleetPulse is faster than generate_latest", TIMES, ("faster_than_latest",),
               {LARGE: Goal(">=", 20.0)}),
    )),
    Section("Pushgateway with the same samples", (
        Figure("GET /metrics, p50", MS, ("gateway_get_p50_seconds",)),
        Figure("size", MB, ("gateway_bytes",)),
        Figure("RSS", MB, ("gateway_rss_bytes",)),
        Figure("CPU per push, default", US, ("gateway_push_cpu_seconds",)),
        Figure("CPU per push, unchecked", US, ("gateway_unchecked_push_cpu_seconds",)),
        Figure("GET /metrics of FleetPulse is faster", TIMES, ("faster_than_gateway",), {LARGE: Goal(">=", 10.0)}),
    )),
    Section("TelemetryManager without a network", (
        Figure("CPU per heartbeat, REST and /metrics rendered", US, ("manager_cpu_seconds_per_heartbeat",)),
        Figure("a heartbeat until queries show it, mean", US, ("manager_heartbeat_mean_seconds",)),
        _percentiles("a heartbeat until queries show it", "manager_heartbeat", _below(1e-3), US),
        _percentiles("get_worker_telemetry", "manager_one", _below(1e-3), US_FINE),
        _percentiles("get_all_worker_telemetry", "manager_all", _below(10e-3), US_FINE),
    )),
    Section("An idle master and one worker", (
        Figure("up in", SECONDS, ("idle_up_seconds",), {IDLE: Goal("<", 2.0)}),
        Figure("master", CORES, ("idle_cores",), {IDLE: Goal("<", 0.01)}),
        Figure("master RSS", MB, ("idle_rss_bytes",), {IDLE: Goal("<", 120e6)}),
        Figure("worker", CORES, ("idle_worker_cores",)),
        Figure("worker RSS", MB, ("idle_worker_rss_bytes",)),
    )),
)  # fmt: skip


def peer_ratios(row: Row) -> dict[str, float | None]:
    """The ratios to the peers, where both were measured. The compared times are medians."""
    ours = row.get("metrics_p50_seconds")
    return {
        ratio: None if ours is None or theirs is None else theirs / ours
        for ratio, theirs in (
            # The peer's time excludes HTTP; FleetPulse's is that of a whole GET.
            ("faster_than_latest", row.get("latest_p50_seconds")),
            ("faster_than_gateway", row.get("gateway_get_p50_seconds")),
        )
    }


def load_ratios(workers: int, row: Row, smallest: Row, idle: Row) -> dict[str, float | None]:
    """What the figures of a fleet are beside those of the bare server, of the smallest fleet and of an idle master."""
    return {
        "batch_to_floor_ratio": _ratio(row, "batch_cpu_seconds_per_heartbeat", row, "floor_cpu_seconds_per_heartbeat"),
        "batch_rss_bytes_per_worker": _bytes_per_worker(workers, row.get("batch_rss_bytes"), idle),
        "cpu_to_floor_ratio": _ratio(row, "master_cpu_seconds_per_heartbeat", row, "floor_cpu_seconds_per_heartbeat"),
        "cpu_growth_ratio": _ratio(row, "master_cpu_seconds_per_heartbeat", smallest),
        "api_workers_growth_ratio": _ratio(row, "api_workers_p50_seconds", smallest),
        "rss_bytes_per_worker": _bytes_per_worker(workers, row.get("master_rss_after_reads_bytes"), idle),
    }


def _bytes_per_worker(workers: int, rss: float | None, idle: Row) -> float | None:
    idle_rss = idle.get("idle_rss_bytes")
    return None if rss is None or idle_rss is None else (rss - idle_rss) / workers


def _ratio(row: Row, key: str, other: Row, other_key: str = "") -> float | None:
    value, reference = row.get(key), other.get(other_key or key)
    return value / reference if value is not None and reference else None
