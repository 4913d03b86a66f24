"""``python -m tests.chaos``: rounds of faults under load, and a check of the history."""

import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console
from rich.table import Table

from tests.chaos import history, restarts
from tests.chaos.campaign import Campaign, run_campaign
from tests.chaos.checker import check
from tests.chaos.engine import EngineUnavailable, docker_engine
from tests.chaos.plan import Kind
from tests.chaos.rules import Violation
from tests.chaos.summary import Summary, summary
from tests.docker_engine import Engine
from tests.guardian import guarded_run
from tests.tools import ROOT

_RESULTS = ROOT / "chaos-results"
_TABLE_WIDTH = 130
_SHOWN = 50
_KINDS = [kind.value for kind in Kind]


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--rounds", "number_of_rounds", type=click.IntRange(1), default=50, help="Of each kind.")
@click.option("--kind", "kinds", type=click.Choice(_KINDS), multiple=True, default=_KINDS, help="What is broken.")
@click.option("--seed", type=int, default=None, show_default="a random one", help="The same seed gives the same plan.")
@click.option(
    "--results", type=click.Path(file_okay=False, path_type=Path), default=_RESULTS, help="Where histories are kept."
)
@click.option(
    "--restarts",
    "restarted_workers",
    type=click.IntRange(1),
    default=None,
    metavar="WORKERS",
    help="Instead: a master that starts again every minute under so many simulated workers.",
)
@click.option("--minutes", type=click.IntRange(1), default=20, help="How long, with --restarts.")
def main(
    number_of_rounds: int, kinds: Sequence[str], seed: int | None, results: Path, restarted_workers: int | None,
    minutes: int,
) -> None:  # fmt: skip
    """Kill masters and workers and cut connections under a stream of tasks, and check what came of it."""
    if restarted_workers is not None:
        _restart(restarted_workers, minutes)
    seed = random.randrange(1_000_000) if seed is None else seed
    print(f"seed {seed}", flush=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    results.mkdir(parents=True, exist_ok=True)
    found: list[Violation] = []
    rows: list[tuple[str, Summary, int]] = []
    try:
        with docker_engine() as engine:
            for kind in kinds:
                violations, figures = _campaign(Campaign(kind, seed, [Kind(kind)], number_of_rounds), engine, results)
                found += violations
                rows.append((kind, figures, len(violations)))
    except EngineUnavailable as error:
        raise click.ClickException(str(error)) from error
    _print_table(rows)
    print(f"seed {seed}: {len(found)} violations")
    sys.exit(1 if found else 0)


def _restart(workers: int, minutes: int) -> NoReturn:
    with guarded_run("fleetpulse-chaos-") as folder:
        problems = restarts.run(workers, minutes, folder, _log)
    for problem in problems[:_SHOWN]:
        print(problem, flush=True)
    print(f"{len(problems)} violations")
    sys.exit(1 if problems else 0)


def _campaign(campaign: Campaign, engine: Engine, results: Path) -> tuple[list[Violation], Summary]:
    path = results / f"{campaign.seed}-{campaign.name}.jsonl"
    with guarded_run("fleetpulse-chaos-") as folder:
        run_campaign(campaign, engine, folder, path, lambda words: _log(f"{campaign.name}: {words}"))
    records = history.load(path)
    violations = check(records)
    for violation in violations[:_SHOWN]:
        print(violation, flush=True)
    _log(f"{campaign.name}: {len(violations)} violations; history in {path}")
    return violations, summary(records)


def _print_table(rows: Sequence[tuple[str, Summary, int]]) -> None:
    table = Table("fault", "rounds", "submits", "acknowledged", "tasks", "attempts", "containers", "survived", "bad")
    for name, figures, violations in rows:
        table.add_row(
            name, str(figures.rounds), str(figures.submits), str(figures.acknowledged), _counts(figures.tasks),
            _counts(figures.attempts), str(figures.containers), str(figures.survivors), str(violations),
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else _TABLE_WIDTH).print(table)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))


def _log(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {words}", flush=True)


def _end(number: int, _frame: object) -> NoReturn:
    # An exception stops all processes on the way out. A second Ctrl-C must not interrupt that.
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main(prog_name="python -m tests.chaos")
