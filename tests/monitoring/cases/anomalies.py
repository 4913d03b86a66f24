"""Cases for monitoring/rules/anomalies.yml: quiet machines, one of which makes a step at minute 20."""

from tests.monitoring.promtool import Case, Firing, flat, turning

ALERT = "FleetPulseWorkerAnomalous"


def fleet(step: float, peers: int = 4, peers_step: float = 0.0, reading: str = "cpu") -> dict[str, str]:
    """w0 rises by ``step`` and the others by ``peers_step``, in percent, from 30."""
    series: dict[str, str] = {}
    for number in range(peers + 1):
        by = peers_step if number else step
        worker = f'{{worker_id="w{number}"}}'
        series |= {
            f"fleetpulse_worker_up{worker}": flat(1),
            f"fleetpulse_worker_draining{worker}": flat(0),
            f"fleetpulse_worker_running_tasks{worker}": flat(2),
        }
        levels = turning((30, 20), (30 + by, 60))
        if reading == "cpu":
            series[f"fleetpulse_worker_cpu_usage_ratio{worker}"] = turning((0.3, 20), (round(0.3 + by / 100, 4), 60))
        elif reading == "memory":
            series[f"fleetpulse_worker_memory_used_bytes{worker}"] = levels
            series[f"fleetpulse_worker_memory_size_bytes{worker}"] = flat(100)
        else:
            gpu = f'{{worker_id="w{number}",gpu="0",uuid="GPU-{number}"}}'
            series[f"fleetpulse_worker_gpu_temperature_celsius{gpu}"] = levels
    return series


def firing(z: str, reading: str = "cpu") -> Firing:
    return Firing(
        "info",
        "anomalies",
        f"The {reading} of worker w0 is abnormal",
        f"The {reading} reading of worker w0 is {z} standard deviations from its own last hour, and its peers do not "
        "deviate likewise. Its tasks do not explain it.",
        "curl -s http://master:8080/telemetry/w0 | jq '{cpu, memory, load, gpus, running_tasks}'",
        "fleetpulse-worker?var-worker=w0",
        {"worker_id": "w0", "reading": reading},
    )


CASES = [
    # The mean of 5 minutes is all beyond the step at minute 25.
    Case(ALERT, "a-step", fleet(22), [20, 29], 30, [firing("4.4")]),
    Case(ALERT, "a-smaller-step", fleet(17), [25, 30, 35]),
    Case(ALERT, "memory", fleet(22, reading="memory"), [29], 30, [firing("4.4", "memory")]),
    Case(ALERT, "gpu", fleet(22, reading="gpu_temperature"), [29], 30, [firing("4.4", "gpu_temperature")]),
    Case(ALERT, "down", fleet(-22), [29], 30, [firing("-4.4")]),
    Case(ALERT, "peers-follow-a-little", fleet(22, peers_step=6), [29], 30, [firing("4.4")]),
    Case(ALERT, "peers-follow-a-little-more", fleet(22, peers_step=8), [25, 30, 35]),
    Case(ALERT, "the-whole-fleet-rises-more", fleet(25, peers_step=60), [25, 30, 35]),
    Case(ALERT, "too-few-peers", fleet(40, peers=3), [25, 30, 35]),
    # Half an hour after the step it is what is usual now.
    Case(ALERT, "usual-by-now", fleet(40), [20], 30, [firing("8.0")]),
    Case(ALERT, "usual-by-now-it-is-over", fleet(40), [52, 60]),
    Case(
        ALERT, "a-task-explains-it",
        fleet(40) | {'fleetpulse_worker_running_tasks{worker_id="w0"}': turning((2, 20), (3, 60))}, [25, 30, 35],
    ),
    Case(ALERT, "drained", fleet(40) | {'fleetpulse_worker_draining{worker_id="w0"}': flat(1)}, [25, 30, 35]),
    Case(
        ALERT, "gone-meanwhile",
        fleet(40) | {'fleetpulse_worker_up{worker_id="w0"}': turning((1, 26), (0, 60))}, [27, 30, 35],
    ),
    Case(
        ALERT, "new", {name: f"_x15 {values}" if '"w0"' in name else values for name, values in fleet(40).items()},
        [25, 30, 34],
    ),
]  # fmt: skip
