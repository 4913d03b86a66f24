"""The Worker dashboard: one machine in depth."""

from grafana_foundation_sdk.models import dashboard as sdk

from grafana.builder.board import Section, board, search
from grafana.builder.board import worker as worker_variable
from grafana.builder.charts import lines, states
from grafana.builder.devices import of_one_worker
from grafana.builder.figures import label, number
from grafana.builder.limits import FULL, NEVER, PLAIN, SHOWN, alerting
from grafana.builder.panels import HALF, QUARTER, THIRD, Size, Text
from grafana.builder.queries import ONE, Query, rate, top
from grafana.builder.tables import firing

_ACTIVE = {0: "inactive", 1: "active"}
_TAKES = {0: "no", 1: "yes"}


def worker() -> sdk.Dashboard:
    return board(
        "fleetpulse-worker",
        "One machine in depth. Where a graph ends, the worker had fallen silent, or does not give that reading.",
        [
            Section("$worker", _head()),
            Section("How it was", _history()),
            Section("CPU and memory", _load()),
            Section("Filesystems, disks, network", _bytes()),
            Section("GPUs", of_one_worker()),
            Section("Tasks", _tasks()),
            Section("Telemetry", _telemetry()),
        ],
        [search(), worker_variable(several=False)],
        'ALERTS{alertname=~"FleetPulse.+", alertstate="firing", worker_id="$worker"}',
        points=None,
    )


def _head() -> list[sdk.Panel]:
    silent = f"time() - max({ONE('last_heartbeat_timestamp_seconds')})"
    used, size = ONE("memory_used_bytes"), ONE("memory_size_bytes")
    return [
        number(Text("State", "Whether the worker beats.", "short"), f"max({ONE('up')})", NEVER, _ACTIVE),
        number(Text("Last heard", "Time since the master last heard it; all that is left of an inactive one.", "s"),
               silent),
        label(Text("Host", "The machine's own name.", "short"),
              Query(f"max by (hostname) ({ONE('info')})", "{{hostname}}")),
        label(Text("Version", "Of FleetPulse on it.", "short"),
              Query(f"max by (version) ({ONE('info')})", "{{version}}")),
        number(Text("Takes tasks", "No when it is drained or cannot run them.", "short"),
               f"max({ONE('schedulable')})", NEVER, _TAKES),
        number(Text("Up for", "Time since the machine booted.", "s"), f"time() - max({ONE('boot_time_seconds')})"),
        number(Text("CPU", "Share of all cores' time in use.", "percentunit"),
               f"max({ONE('cpu_usage_ratio')})", alerting("cpu_ratio")),
        number(Text("Cores", "Logical cores.", "short"), f"max({ONE('cpu_logical_cores')})"),
        number(Text("Memory", "Share in use.", "percentunit"), f"max({used}) / max({size})", alerting("memory_ratio")),
        number(Text("Memory size", "Of the machine.", "bytes"), f"max({size})"),
        number(Text("Fullest filesystem", "Used share of the fullest one.", "percentunit"),
               f"max({ONE('filesystem_used_bytes')} / {ONE('filesystem_size_bytes')})",
               alerting("filesystem_ratio", "filesystem_full_ratio")),
        number(Text("Running tasks", "Tasks that it runs.", "short"), f"max({ONE('running_tasks')})", SHOWN),
    ]  # fmt: skip


def _history() -> list[sdk.Panel]:
    text = Text(
        "Active", "Active or inactive over time. A gap is a master that was not scraped, or did not know it.", "short"
    )
    takes = Text("Takes tasks", "Whether it might be given tasks; no band while it is inactive.", "short")
    return [
        firing({"worker_id": "$worker"}, HALF, " about this worker"),
        states(text, Query(f"max({ONE('up')})", "state"), limits=NEVER, names=_ACTIVE, size=QUARTER),
        states(takes, Query(f"max({ONE('schedulable')})", "takes tasks"), limits=NEVER, names=_TAKES, size=QUARTER),
    ]


def _load() -> list[sdk.Panel]:
    cores = f"max({ONE('cpu_logical_cores')})"
    return [
        lines(Text("CPU", "Share of all cores' time in use, and share that is promised to tasks.", "percentunit"),
              Query(f"max({ONE('cpu_usage_ratio')})", "used"),
              Query(f"max({ONE('allocated_cpu_cores')}) / {cores}", "promised"), limits=alerting("cpu_ratio"), most=1),
        lines(Text("Load", "Mean number of processes that ran or waited, and how many cores there are.", "short"),
              *(Query(f"max({ONE(f'load{minutes}')})", f"{minutes} min") for minutes in (1, 5, 15)),
              Query(cores, "there is")),
        lines(Text("Memory", "In use, promised to tasks, and the machine's size.", "bytes"),
              Query(f"max({ONE('memory_used_bytes')})", "used"),
              Query(f"max({ONE('allocated_memory_bytes')})", "promised"),
              Query(f"max({ONE('memory_size_bytes')})", "there is")),
        lines(Text("Swap", "In use, and the size. No line: no swap, or no reading of it.", "bytes"),
              Query(f"max({ONE('swap_used_bytes')})", "used"), Query(f"max({ONE('swap_size_bytes')})", "there is")),
    ]  # fmt: skip


def _bytes() -> list[sdk.Panel]:
    def used(at: str) -> str:
        return f"{ONE('filesystem_used_bytes')}{at} / {ONE('filesystem_size_bytes')}{at}"

    def in_4_hours(at: str) -> str:
        then = f"predict_linear({ONE('filesystem_used_bytes')}[1h]{at}, 4 * 3600)"
        return f"{then} / {ONE('filesystem_size_bytes')}{at}"

    def way(by: str, name: str) -> str:
        return top(lambda at: rate(ONE(name), at), by)

    def flow(title: str, what: str, by: str, *pair: tuple[str, str]) -> sdk.Panel:
        text = Text(title, f"Bytes {what}, each second; the ten busiest at the end of the time range.", "Bps")
        return lines(text, *(Query(way(by, name), f"{{{{{by}}}}} {verb}") for name, verb in pair), size=QUARTER)

    return [
        lines(Text("Filesystems", "Used share of each, the ten fullest at the end of the time range.", "percentunit"),
              Query(top(used, "mountpoint"), "{{mountpoint}}"),
              limits=alerting("filesystem_ratio", "filesystem_full_ratio"),
              size=QUARTER, most=1),
        lines(Text("Filesystems in 4 hours",
                   "Used share of each if the last hour goes on. FleetPulseFilesystemFillsIn4Hours "
                   "fires when that is full, and the filesystem more than half full already.", "percentunit"),
              Query(top(in_4_hours, "mountpoint"), "{{mountpoint}}"), limits=FULL, size=QUARTER),
        flow("Disks", "read and written", "device",
             ("disk_read_bytes_total", "read"), ("disk_written_bytes_total", "written")),
        flow("Network", "received and sent", "interface",
             ("network_received_bytes_total", "received"), ("network_transmitted_bytes_total", "sent")),
    ]  # fmt: skip


def _tasks() -> list[sdk.Panel]:
    def ten(title: str, what: str, unit: str, name: str) -> sdk.Panel:
        text = Text(title, f"{what}, by running task; the ten with most at the end of the time range.", unit)
        return lines(text, Query(top(lambda at: f"{ONE(name)}{at}", "task_id"), "{{task_id}}"), size=THIRD)

    return [
        lines(
            Text("Running tasks", "Tasks that it runs.", "short"),
            Query(f"max({ONE('running_tasks')})", "running"),
            size=THIRD,
        ),
        ten("CPU of tasks", "Share of one core: 2 is two cores", "percentunit", "task_cpu_usage_ratio"),
        ten("Memory of tasks", "Memory in use", "bytes", "task_memory_used_bytes"),
    ]


def _telemetry() -> list[sdk.Panel]:
    collectors = Query(f"min by (collector) ({ONE('collector_success')})", "{{collector}}")
    return [
        lines(Text("Age of the last heartbeat", "How old what is shown here was: a sawtooth as high as the interval.",
                   "s"),
              Query(f"time() - max({ONE('last_heartbeat_timestamp_seconds')})", "age"), size=Size(6, 8)),
        lines(Text("Heartbeats lost", "Missed never arrived; dropped were overtaken by a newer one in the queue.",
                   "cps"),
              Query(f"max({rate(ONE('heartbeats_missed_total'))})", "missed"),
              Query(f"max({rate(ONE('heartbeats_dropped_total'))})", "dropped"),
              limits=alerting("heartbeats_missed_rate"), size=QUARTER),
        lines(Text("Slowest collector", "Time that the slowest of the worker's collectors took.", "s"),
              Query(f"max({ONE('collectors_duration_seconds')})", "slowest"), limits=PLAIN, size=QUARTER),
        states(Text("Collectors", "Whether each gave its readings. /telemetry/$worker says why one did not.", "short"),
               collectors, limits=NEVER, names={0: "failed", 1: "well"}, size=QUARTER),
    ]  # fmt: skip
