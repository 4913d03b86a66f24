"""Response times for other clients during an attack."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from tests.bench.fleet import Master, running_master
from tests.bench.processes import ROOT, Child, running, wait_until
from tests.hostile.attacks import ATTACKS

GOAL_SECONDS = 0.05
"""The goal for the other client's 99th percentile."""

ATTACK_SECONDS = 15.0
QUICK_ATTACK_SECONDS = 3.0
_ATTACKER, _NEIGHBOUR = "127.0.2.1", "127.0.2.2"
_NO_ATTACK = "none"
_READY_SECONDS = 20.0


class Result(NamedTuple):
    """One attack: the figures of the other client, the outcomes of the attacker's requests, the cost of the master."""

    attack: str
    neighbour: dict[str, Any]
    outcomes: dict[str, int]
    cpu_cores: float
    peak_rss_bytes: int


def measure_hostile(
    folder: Path, seconds: float = ATTACK_SECONDS, attacks: Sequence[str] = tuple(sorted(ATTACKS))
) -> Iterator[Result]:
    """Runs each attack against a new master that limits loopback clients, and one period without an attack."""
    for attack in (_NO_ATTACK, *attacks):
        with (
            running_master(folder, flags=("--limit-loopback",)) as master,
            _client(folder, "neighbour", master, _NEIGHBOUR) as neighbour,
        ):
            started_at, before = time.monotonic(), master.process.usage().cpu_seconds
            if attack == _NO_ATTACK:
                time.sleep(seconds)
                outcomes: dict[str, int] = {}
            else:
                with _client(folder, attack, master, _ATTACKER) as attacker:
                    time.sleep(seconds)
                    outcomes = _stop_and_read(attacker)
            usage = master.process.usage()
            cores = (usage.cpu_seconds - before) / (time.monotonic() - started_at)
            yield Result(attack, _stop_and_read(neighbour), outcomes, cores, usage.peak_rss_bytes)


def print_hostile(results: list[Result], console: Console) -> None:
    """Prints a row for each attack."""
    table = Table(title="Other clients during an attack", box=None, pad_edge=False)
    for title in ("attack", "answers", "failures", "p50 ms", "p99 ms", "max ms", "cores", "peak MB", "outcomes"):
        table.add_column(title, justify="left" if title in {"attack", "outcomes"} else "right")
    for attack, neighbour, outcomes, cores, peak in results:
        times = [f"{1000 * neighbour[f'{name}_seconds']:.1f}" for name in ("p50", "p99", "max")]
        table.add_row(
            attack, str(neighbour["answers"]), str(len(neighbour["failures"])), *times, f"{cores:.2f}",
            f"{peak / 1e6:.0f}", " ".join(f"{outcome}: {count:,}" for outcome, count in sorted(outcomes.items())),
        )  # fmt: skip
    console.print(table)
    missed = [one.attack for one in results if one.neighbour["p99_seconds"] > GOAL_SECONDS]
    console.print(f"The goal of {1000 * GOAL_SECONDS:.0f} ms is missed under: {', '.join(missed) or 'none'}")


@contextmanager
def _client(folder: Path, what: str, master: Master, source: str) -> Iterator[Child]:
    ports = [str(master.http_port), "--grpc-port", str(master.grpc_port)]
    command = [sys.executable, "-m", "tests.hostile", what, *ports, "--from", source]
    with running(what, command, folder, cwd=ROOT) as child:
        wait_until(lambda: "ready" in child.output_lines, _READY_SECONDS, f"{what} has not begun", child)
        yield child


def _stop_and_read(child: Child) -> Any:
    """Stops the client and returns its figures."""
    child.stop()
    return json.loads(child.last_output)
