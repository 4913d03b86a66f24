"""The anomaly rules on an hour of simulated machines: noise, a daily wave, and one step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleetpulse.worker.simulation.machine import SimulatedMachine
from tests.monitoring.promtool import run, with_master
from tests.monitoring.rules import RULES

WORKERS = 12
MINUTES = 60
NOON = 1_700_049_600.0


def day(seed: int, change: Callable[[int, int], float]) -> dict[str, str]:
    """An hour of a simulated fleet's CPU, one sample per minute, plus ``change(worker, minute)``; limited to 0 to 1."""
    series = {}
    for number in range(WORKERS):
        machine = SimulatedMachine(f"w{number}", 0, seed, NOON)
        values = [machine.sample(NOON + 60.0 * minute).cpu.usage_percent / 100 for minute in range(MINUTES)]
        changed = [min(max(value + change(number, minute), 0.0), 1.0) for minute, value in enumerate(values)]
        series[f'fleetpulse_worker_cpu_usage_ratio{{worker_id="w{number}"}}'] = " ".join(f"{v:.4f}" for v in changed)
        series[f'fleetpulse_worker_up{{worker_id="w{number}"}}'] = f"1x{MINUTES}"
    return series


def firing_at(minute: int, *worker_ids: str) -> dict[str, Any]:
    return {
        "expr": 'count by (worker_id) (ALERTS{alertname="FleetPulseWorkerAnomalous", alertstate="firing"})',
        "eval_time": f"{minute}m",
        "exp_samples": [{"labels": f'{{worker_id="{worker_id}"}}', "value": 1} for worker_id in worker_ids],
    }


def check_rules(series: dict[str, str], expected: list[dict[str, Any]], folder: Path) -> None:
    test = {
        "interval": "1m",
        "input_series": [{"series": with_master(name), "values": values} for name, values in series.items()],
        "promql_expr_test": expected,
    }
    result = run([test], folder, [RULES / "recording.yml", RULES / "anomalies.yml"])
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("step", [0.45, -0.6])
def test_step_of_one_worker_is_found_within_ten_minutes(step: float, seed: int, tmp_path: Path) -> None:
    def change(number: int, minute: int) -> float:
        level = 0.35 if step < 0 else 0.0  # a fall needs a level to start from
        return (level if number == 5 else 0.0) + (step if number == 5 and minute >= 20 else 0.0)

    check_rules(day(seed, change), [firing_at(20), firing_at(22), firing_at(30, "w5")], tmp_path)


def morning(number: int, minute: int) -> float:
    """From minute 15 on all workers rise by 20 to 50 points within a quarter of an hour."""
    return (0.2 + 0.3 * number / WORKERS) * min(max((minute - 15) / 15, 0.0), 1.0)


def usual(number: int, minute: int) -> float:
    """Only each machine's daily wave and noise."""
    return 0.0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pattern", [usual, morning])
def test_daily_pattern_of_the_fleet_is_not_an_anomaly(
    pattern: Callable[[int, int], float], seed: int, tmp_path: Path
) -> None:
    check_rules(day(seed, pattern), [firing_at(minute) for minute in range(20, MINUTES)], tmp_path)
