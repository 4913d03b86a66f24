"""The Master dashboard: what the master says of itself."""

from grafana_foundation_sdk.models import dashboard as sdk

from grafana.builder.board import Section, board
from grafana.builder.charts import lines, spread
from grafana.builder.figures import label, number
from grafana.builder.limits import alerting
from grafana.builder.panels import QUARTER, THIRD, Text
from grafana.builder.queries import Query, buckets, of_master, or_zero, quantile, quantiles, rate
from grafana.builder.tables import firing

_STARTED = of_master("process_start_time_seconds")
_OPEN = f"max({of_master('process_open_fds')}) / max({of_master('process_max_fds')})"


def master() -> sdk.Dashboard:
    return board(
        "fleetpulse-master",
        "The master about itself: heartbeats, latency, HTTP, gRPC, the store, the scheduler, the process.",
        [
            Section("Now", _now()),
            Section("Heartbeats", _heartbeats()),
            Section("HTTP and scrapes", _http()),
            Section("gRPC and streams of workers", _grpc()),
            Section("Store and scheduler", _store()),
            Section("Process", _process()),
        ],
        [],
    )


def _now() -> list[sdk.Panel]:
    return [
        label(Text("Version", "Of FleetPulse on the master.", "short"),
              Query("max by (version) (fleetpulse_build_info)", "{{version}}")),
        number(Text("Up for", "Time since its web process was started.", "s"), f"time() - max({_STARTED})"),
        number(Text("Restarts, 30 minutes", "Starts of the web process after the first. Coloured from where "
                    "FleetPulseMasterRestarting fires.", "short"),
               "max(changes(process_start_time_seconds[30m]) and on (instance, job) fleetpulse_build_info)",
               alerting("master_restarts")),
        number(Text("Heartbeats", "Accepted, each second.", "cps"),
               f"sum({rate('fleetpulse_heartbeats_received_total')})"),
        number(Text("Time to be visible, p99", "From a heartbeat's arrival until REST and /metrics show it.", "s"),
               quantile(0.99, "heartbeat_receipt_to_visible_seconds"), alerting("heartbeat_visible_seconds")),
        number(Text("Open files", "Of those that the process may open; each worker needs one.", "percentunit"),
               _OPEN, alerting("open_files_ratio")),
    ]  # fmt: skip


def _heartbeats() -> list[sdk.Panel]:
    received, dropped = (rate(f"fleetpulse_heartbeats_{what}_total") for what in ("received", "dropped"))
    return [
        lines(Text("Accepted", "Heartbeats, each second.", "cps"), Query(f"sum({received})", "received"), size=THIRD),
        lines(Text("Dropped share", "Of the accepted heartbeats, those that a newer one overtook in a full queue.",
                   "percentunit"),
              Query(f"sum({dropped}) / (sum({received}) > 0)", "dropped"),
              limits=alerting("heartbeats_dropped_ratio"), size=THIRD),
        lines(Text("Rejected",
                   "Heartbeats that the master refused, each second, by reason. Empty if there never was one.", "cps"),
              Query(f"sum by (reason) ({rate('fleetpulse_heartbeats_rejected_total')})", "{{reason}}"),
              limits=alerting("heartbeats_rejected_rate"), size=THIRD),
        lines(Text("Receipt to visible",
                   "From a heartbeat's arrival in the master's code until REST and /metrics show it.", "s"),
              *quantiles("heartbeat_receipt_to_visible_seconds"), limits=alerting("heartbeat_visible_seconds"),
              size=THIRD),
        spread(Text("Receipt to visible, all", "How many heartbeats took so long.", "s"),
               buckets("heartbeat_receipt_to_visible_seconds"), "short", THIRD),
        lines(Text("Sent to visible",
                   "From a heartbeat's sending, by the worker's clock, until it is shown, by the master's: "
                   "clocks that differ show up here.", "s"),
              *quantiles("heartbeat_sent_to_visible_seconds"), limits=alerting("clock_skew_seconds"), size=THIRD),
    ]  # fmt: skip


def _http() -> list[sdk.Panel]:
    requests = "fleetpulse_http_requests_total"
    errors = rate(f'{requests}{{status=~"5.."}}')
    slowest = quantile(0.99, "http_request_duration_seconds", "route")
    return [
        lines(Text("Answers by route", "Each second.", "reqps"),
              Query(f"sum by (route) ({rate(requests)})", "{{route}}"), size=THIRD, stacked=True),
        lines(Text("Answers by status", "Each second.", "reqps"),
              Query(f"sum by (status) ({rate(requests)})", "{{status}}"), size=THIRD, stacked=True),
        lines(Text("Errors", "Share of the answers with a status of 5xx.", "percentunit"),
              Query(f"({or_zero(f'sum({errors})')}) / (sum({rate(requests)}) > 0)", "5xx"),
              limits=alerting("http_error_ratio"), size=THIRD),
        lines(Text("Time of an answer, p99", "Without its sending, by route.", "s"), Query(slowest, "{{route}}"),
              size=THIRD),
        lines(Text("Scrapes", "Time of a scrape as Prometheus sees it, and of putting the text of /metrics together.",
                   "s"),
              Query(f"max({of_master('scrape_duration_seconds')})", "scrape"),
              Query(quantile(0.99, "exposition_duration_seconds"), "text, p99"),
              limits=alerting("scrape_seconds"), size=THIRD),
        lines(Text("Samples of a scrape", "Prometheus refuses a scrape with more than its sample_limit.", "short"),
              Query(f"max({of_master('scrape_samples_scraped')})", "samples"),
              limits=alerting("scrape_samples"), size=THIRD),
    ]  # fmt: skip


def _grpc() -> list[sdk.Panel]:
    calls = "fleetpulse_grpc_requests_total"
    errors = rate(calls + '{code!~"OK|CANCELLED|UNAVAILABLE|ABORTED"}')
    return [
        lines(Text("Streams", "Streams of workers that are open and registered, and active workers.", "short"),
              Query("max(fleetpulse_worker_sessions)", "streams"),
              Query('max(fleetpulse_workers{state="active"})', "active"), size=THIRD),
        lines(Text("Calls that ended", "Each second, by method and how. A stream ends when its worker leaves.", "cps"),
              Query(f"sum by (method, code) ({rate(calls)})", "{{method}} {{code}}"), size=THIRD),
        lines(Text("Errors", "Calls that ended in an error other than a lost connection, each second.", "cps"),
              Query(f"sum by (code) ({errors})", "{{code}}"), limits=alerting("grpc_error_rate"), size=THIRD),
        lines(Text("Refused streams", "Each second, by reason. Empty if there never was one.", "cps"),
              Query(f"sum by (reason) ({rate('fleetpulse_worker_sessions_refused_total')})", "{{reason}}"),
              size=THIRD),
        lines(Text("Life of certificates", "The share that is over: of the master's, and of a connected worker's that "
                   "has the most behind it. Renewed at two thirds; empty without a CA.", "percentunit"),
              Query("max by (holder) (fleetpulse_certificate_life_used_ratio)", "{{holder}}"),
              limits=alerting("certificate_used_ratio", "certificate_nearly_expired_ratio"), size=THIRD, most=1),
    ]  # fmt: skip


def _store() -> list[sdk.Panel]:
    return [
        lines(Text("Transactions of the store", "Time of one, made durable.", "s"), *quantiles("store_commit_seconds"),
              limits=alerting("store_commit_seconds"), size=THIRD),
        spread(Text("Transactions, all", "How many took so long.", "s"), buckets("store_commit_seconds"), "short",
               THIRD),
        lines(Text("Failed transactions", "Each second, by why. Empty if there never was one.", "cps"),
              Query(f"sum by (reason) ({rate('fleetpulse_store_errors_total')})", "{{reason}}"), size=THIRD),
        lines(Text("Scheduling rounds", "Time of one round in which waiting tasks were given places.", "s"),
              *quantiles("task_scheduling_round_seconds"), size=THIRD),
        lines(Text("Broadcaster", "Scheduling rounds, each second.", "cps"),
              Query(f"sum({rate('fleetpulse_task_scheduling_round_seconds_count')})", "rounds"), size=THIRD),
        firing({"alertname": "FleetPulse(Master|Scrape|Sample|Http|Grpc|Store|Heartbeats|Clock|Certificate).*"}, THIRD,
               ", about the master", of_workers=False),
    ]  # fmt: skip


def _process() -> list[sdk.Panel]:
    cpu = "rate(process_cpu_seconds_total[$__rate_interval]) and on (instance, job) fleetpulse_build_info"
    collections = "rate(python_gc_collections_total[$__rate_interval]) and on (instance, job) fleetpulse_build_info"
    return [
        lines(Text("CPU", "Of one core; the hub of the master is one thread.", "percentunit"),
              Query(f"sum({cpu})", "used"), size=QUARTER),
        lines(Text("Memory", "Of the web process.", "bytes"),
              Query(f"max({of_master('process_resident_memory_bytes')})", "resident"), size=QUARTER),
        lines(Text("Open files", "Of those that the process may open; each worker needs one.", "percentunit"),
              Query(_OPEN, "open"), limits=alerting("open_files_ratio"), size=QUARTER, most=1),
        lines(Text("Garbage collections", "Each second, by generation.", "cps"),
              Query(f"sum by (generation) ({collections})", "generation {{generation}}"), size=QUARTER),
    ]  # fmt: skip
