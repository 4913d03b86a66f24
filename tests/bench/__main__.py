"""``python -m tests.bench``: runs the benchmark and prints its table."""

import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import click
from rich.console import Console

from tests.bench import manager
from tests.bench.batch import MACHINES_PER_AGENT, measure_batch
from tests.bench.figures import IDLE, LARGE, PLACING, SMALL, load_ratios, peer_ratios
from tests.bench.fleet import running_fleet, streams_per_connection
from tests.bench.floor import measure_floor
from tests.bench.host import describe_host
from tests.bench.hostile import ATTACK_SECONDS, QUICK_ATTACK_SECONDS, measure_hostile, print_hostile
from tests.bench.idle import measure_idle
from tests.bench.overload import measure_overload
from tests.bench.peers import measure_gateway, measure_latest
from tests.bench.probe import measure_probe
from tests.bench.processes import ROOT, BenchError, find_tool, run_json
from tests.bench.report import Run, print_table, write_docs
from tests.bench.rest import measure_metrics, measure_rest
from tests.bench.storm import STORM_SECONDS, measure_storm
from tests.bench.tasks import TaskPlan, measure_burst, measure_containers, measure_placing, measure_submits
from tests.bench.unary import measure_unary
from tests.bench.window import measure_whole_run, measure_window
from tests.guardian import guarded_run

_RESULTS = ROOT / "bench-results"
_DOCS = ROOT / "docs" / "performance.md"
_TABLE_WIDTH = 150
_WORKERS = "1000,5000,10000"
_SECONDS = 60.0
PARTS = ("idle", "manager", "tasks", "fleet", "peers", "floor", "batch", "storm", "overload", "unary")

Rows = dict[int, dict[str, float | None]]


class Plan(NamedTuple):
    """The extent of the measurements. Times in seconds."""

    workers: tuple[int, ...]
    window_seconds: float = _SECONDS
    rest_seconds: float = 10.0
    fetches: int = 50
    probes: int = 200
    idle_seconds: float = 20.0
    idle_starts: int = 3
    manager_rounds: int = 5
    peers: bool = True
    tasks: TaskPlan | None = TaskPlan()
    parts: frozenset[str] = frozenset(PARTS)
    overload_seconds: float = 75.0
    """Twice the inactivity timeout and more."""
    overload_flags: tuple[str, ...] = ()
    calm_seconds: float = 15.0
    storm_seconds: float = STORM_SECONDS
    storm_quiet_seconds: float = 10.0

    def sizes_for_goals(self) -> set[int]:
        """The sizes that have goals for single calls and overload, or else the largest."""
        return {size for size in self.workers if size in (SMALL, LARGE)} or {max(self.workers)}

    def overload_size(self) -> int:
        """One size is enough: overload is relative to what the fleet takes."""
        return max(self.sizes_for_goals())


QUICK = Plan(
    workers=(200,), window_seconds=10.0, rest_seconds=1.0, fetches=10, probes=20, idle_seconds=2.0, idle_starts=1,
    manager_rounds=1, overload_seconds=5.0, overload_flags=("--heartbeat-interval", "1s"), calm_seconds=3.0,
    storm_quiet_seconds=0.0,
    tasks=TaskPlan(submits=10, containers=2, queued=50, history=500, pages=5, burst=20),
)  # fmt: skip


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--workers", default=_WORKERS, help="Sizes of the fleet, one after the other.")
@click.option("--seconds", type=click.FloatRange(5.0), default=_SECONDS, help="Length of the steady window of each.")
@click.option("--quick", is_flag=True, help="200 workers for 10 s, and everything else short: to see that it works.")
@click.option("--skip-peers", is_flag=True, help="Leave out prometheus_client and the Pushgateway.")
@click.option("--skip-tasks", is_flag=True, help="Leave out tasks, which need a Docker Engine and root to start one.")
@click.option("--parts", default=",".join(PARTS), help="Measure only these.")
@click.option("--hostile", is_flag=True, help="Measure nothing but how others are served while a client attacks.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path),
    help="Where the figures are kept as JSON.",
    show_default="bench-results/DATE.json",
)
@click.option(
    "--from", "earlier", type=click.Path(exists=True, path_type=Path), help="Measure nothing; show this JSON."
)
@click.option("--write-docs", "docs", is_flag=True, help="Put the table into docs/performance.md.")  # fmt: skip
def main(**options: Any) -> None:
    """Measure FleetPulse under a simulated fleet, with its peers beside it.

    Give the machine nothing else to do meanwhile.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    try:
        if options["hostile"]:
            _measure_hostile(QUICK_ATTACK_SECONDS if options["quick"] else ATTACK_SECONDS)
            return
        _report(_earlier_run(options) or _new_run(options), write=options["docs"])
    except BenchError as error:
        raise click.ClickException(str(error)) from error


def _new_run(options: Mapping[str, Any]) -> Run:
    plan = QUICK if options["quick"] else Plan(_sizes(options["workers"]), options["seconds"])
    parts = _parts(options["parts"])
    plan = plan._replace(
        parts=parts,
        peers=not options["skip_peers"] and "peers" in parts,
        tasks=None if options["skip_tasks"] or "tasks" not in parts else plan.tasks,
    )
    for tool in ("wrk", "prometheus-pushgateway") if plan.peers else ("wrk",):
        find_tool(tool)
    started_at = datetime.now().astimezone()
    path = options["json_path"] or _RESULTS / f"{started_at:%Y-%m-%d-%H%M}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    run = Run(f"{started_at:%Y-%m-%d %H:%M}", _command(options), plan.window_seconds, describe_host(), {})
    with guarded_run("fleetpulse-bench-") as folder:
        for results in measure(plan, folder):
            # Saved after each step, in case a later one fails.
            run = run._replace(results=results)
            path.write_text(json.dumps(run.to_json(), indent=2) + "\n")
    _log(f"kept in {path}")
    return run


def _measure_hostile(seconds: float) -> None:
    results = []
    with guarded_run("fleetpulse-bench-") as folder:
        for result in measure_hostile(folder, seconds):
            _log(f"{result.attack}: p99 {1000.0 * result.neighbour['p99_seconds']:.1f} ms")
            results.append(result)
    print_hostile(results, Console(width=None if sys.stdout.isatty() else _TABLE_WIDTH))


def _earlier_run(options: Mapping[str, Any]) -> Run | None:
    path: Path | None = options["earlier"]
    try:
        return Run.from_json(json.loads(path.read_text())) if path else None
    except (ValueError, KeyError) as error:
        raise BenchError(f"{path} does not hold a run: {error!r}") from error


def _report(run: Run, *, write: bool) -> None:
    # Without a terminal no figure is cut off.
    print_table(run, Console(width=None if sys.stdout.isatty() else _TABLE_WIDTH))
    if write:
        write_docs(run, _DOCS)


def measure(plan: Plan, folder: Path) -> Iterator[Rows]:
    """Measures everything, the smallest first, so that errors show early. Yields all rows after each step."""
    rows: Rows = {}
    if "idle" in plan.parts:
        _log(f"an idle master for {plan.idle_seconds:.0f} s")
        rows[IDLE] = measure_idle(folder, plan.idle_seconds, plan.idle_starts)
        yield rows
    if "manager" in plan.parts:
        _log("the TelemetryManager without a network")
        command = [sys.executable, "-m", "tests.bench.manager", str(plan.manager_rounds)]
        rows[manager.WORKERS] = run_json("manager", command, folder, 300.0)
        yield rows
    if plan.tasks is not None:
        rows.setdefault(IDLE, {}).update(_measure_tasks(plan.tasks, folder))
        rows[PLACING] = _measure_placing(plan.tasks, folder)
        yield rows
    for workers in plan.workers:
        row = rows.setdefault(workers, {})
        for figures in _measure_size(plan, workers, folder):
            row |= figures
            row |= peer_ratios(row)
            row |= load_ratios(workers, row, rows[min(plan.workers)], rows.get(IDLE, {}))
            yield rows


def _measure_size(plan: Plan, workers: int, folder: Path) -> Iterator[dict[str, float | None]]:
    """The parts of one size, each with processes of its own."""
    if "fleet" in plan.parts:
        yield _measure_fleet(plan, workers, folder)
    if "floor" in plan.parts:
        _log(f"{workers:,} workers: a bare grpc.aio server")
        yield measure_floor(folder, workers, plan.window_seconds / 2.0)
    if "batch" in plan.parts:
        _log(f"{workers:,} workers: agents that report for {MACHINES_PER_AGENT} each")
        yield measure_batch(folder, workers, plan.window_seconds)
    if "storm" in plan.parts:
        _log(f"{workers:,} workers: all at once")
        yield measure_storm(folder, workers, plan.storm_seconds, quiet_seconds=plan.storm_quiet_seconds)
    if "unary" in plan.parts and workers in plan.sizes_for_goals():
        _log(f"{workers:,} workers: single calls")
        yield measure_unary(folder, workers, plan.window_seconds / 2.0)
    if "overload" in plan.parts and workers == plan.overload_size():
        _log(f"{workers:,} workers: half of the processor time they take")
        yield measure_overload(folder, workers, plan.overload_seconds, plan.overload_flags, plan.calm_seconds)


def _measure_tasks(plan: TaskPlan, folder: Path) -> dict[str, float | None]:
    _log(f"submits, and pages of {plan.history:,} tasks")
    row = measure_submits(folder, plan)
    _log("tasks in real containers")
    return row | measure_containers(folder, plan)


def _measure_placing(plan: TaskPlan, folder: Path) -> dict[str, float | None]:
    _log(f"{plan.queued:,} tasks wait for {PLACING} workers")
    return measure_placing(folder, plan)


def _measure_fleet(plan: Plan, workers: int, folder: Path) -> dict[str, float | None]:
    _log(f"{workers:,} workers: connecting")
    with running_fleet(folder, workers) as fleet:
        _log(f"{workers:,} workers: steady window of {plan.window_seconds:.0f} s")
        row = measure_window(fleet, plan.window_seconds)
        row |= {
            "connect_seconds": fleet.connect_seconds,
            "streams_per_connection": float(streams_per_connection(workers)),
        }
        _log(f"{workers:,} workers: REST by wrk")
        row |= measure_rest(fleet, folder, plan.rest_seconds)
        _log(f"{workers:,} workers: /metrics")
        figures, text = measure_metrics(fleet, plan.fetches)
        row |= figures
        _log(f"{workers:,} workers: from outside")
        row |= measure_probe(fleet, plan.probes)
        if plan.tasks is not None and workers <= SMALL:
            _log(f"{workers:,} workers: {plan.tasks.burst} submits at once")
            row |= measure_burst(fleet, plan.tasks)
        row |= measure_whole_run(fleet)
    if workers <= SMALL:
        _log(f"{workers:,} workers: the same window without history")
        row |= _measure_without_history(plan, workers, folder)
        row["history_cores"] = _difference(row["master_cores"], row["without_history_cores"])
    if plan.peers:
        _log(f"{workers:,} workers: the same samples in prometheus_client")
        row |= measure_latest(text, folder, plan.fetches)
        _log(f"{workers:,} workers: the same samples in the Pushgateway")
        row |= measure_gateway(text, folder, plan.fetches)
    return row


def _measure_without_history(plan: Plan, workers: int, folder: Path) -> dict[str, float | None]:
    """Measures the window with a master without history."""
    off = ("--history-retention", "off", "--history-long-retention", "off")
    with running_fleet(folder, workers, off) as fleet:
        return {"without_history_cores": measure_window(fleet, plan.window_seconds)["master_cores"]}


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _sizes(text: str) -> tuple[int, ...]:
    sizes = text.split(",")
    if not all(size.isdecimal() and int(size) > IDLE for size in sizes):
        raise click.UsageError(f"--workers {text!r}: expected numbers above {IDLE} as 1000,5000")
    return tuple(map(int, sizes))


def _parts(text: str) -> frozenset[str]:
    parts = frozenset(text.split(","))
    if unknown := parts - frozenset(PARTS):
        raise click.UsageError(f"--parts: {', '.join(sorted(unknown))}: expected some of {','.join(PARTS)}")
    return parts


def _command(options: Mapping[str, Any]) -> str:
    """The command for this run, without options that do not change its figures."""
    words = ["--quick"] if options["quick"] else []
    if options["workers"] != _WORKERS:
        words.append(f"--workers {options['workers']}")
    if options["seconds"] != _SECONDS:
        words.append(f"--seconds {options['seconds']:g}")
    if options["parts"] != ",".join(PARTS):
        words.append(f"--parts {options['parts']}")
    words += [f"--skip-{part}" for part in ("peers", "tasks") if options[f"skip_{part}"]]
    return f'make bench ARGS="{" ".join(words)}"' if words else "make bench"


def _log(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr, flush=True)


def _end(number: int, _frame: object) -> NoReturn:
    # An exception stops all processes on the way out. A second Ctrl-C must not interrupt that.
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main(prog_name="python -m tests.bench")
