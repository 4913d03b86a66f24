"""An hour of readings for pictures of plots, recorded as a master records them, by a clock that runs fast."""

import time
from pathlib import Path

import gevent

from fleetpulse.master.app import history_tiers, open_store
from fleetpulse.master.config import HistoryConfig, LeaseConfig, StoreConfig
from fleetpulse.master.history.recorder import Recorder
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.telemetry.manager import TelemetryManager
from fleetpulse.master.telemetry.records import Clock
from fleetpulse.worker.simulation.machine import SimulatedMachine

_HOUR_SECONDS = 3600
_BEAT_SECONDS = 5
_SILENCE = range(1500, 1800)
"""When one of them was not heard, seconds into the hour."""


def plant_an_hour(data_dir: Path, prefix: str, workers: int) -> None:
    """Write the last hour of such workers as ``fleetpulse simulate`` has, every fourth with GPUs."""
    instruments, now = Instruments(), time.time()
    store = open_store(StoreConfig(data_dir), instruments)
    times = [now - _HOUR_SECONDS + second for second in range(0, _HOUR_SECONDS, _BEAT_SECONDS)]
    at = [times[0]]
    clock = Clock(monotonic=lambda: at[0], wall=lambda: at[0])
    manager = TelemetryManager(LeaseConfig(), instruments, (), clock)
    tiers = history_tiers(HistoryConfig())
    recorder = Recorder(store.history, tiers, instruments, 30.0, manager.knows_worker, lambda: at[0], 0.01)
    manager.set_update_callback(recorder.record)
    width = len(str(workers))
    machines = [
        SimulatedMachine(f"{prefix}-{number:0{width}d}", 0 if number % 4 else 2, 1, times[0])
        for number in range(1, workers + 1)
    ]
    store.start()
    recorder.start()
    for second, at[0] in zip(range(0, _HOUR_SECONDS, _BEAT_SECONDS), times, strict=True):
        for number, machine in enumerate(machines, start=1):
            heartbeat = machine.sample(at[0])
            heartbeat.worker_id = machine.worker_id
            if number != 4 or second not in _SILENCE:
                manager.process_heartbeat(heartbeat)
        gevent.idle()
    recorder.stop()
    manager.shutdown()
    store.stop()
