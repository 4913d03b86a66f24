"""Runs a simulated fleet as a process: signals, an end, and a line now and then that says how it goes."""

import asyncio
import gc
import json
import resource
import signal
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING

from fleetpulse.worker.simulation.fleet import FleetPlan, FleetState, SimulatedFleet

if TYPE_CHECKING:
    from fleetpulse.worker.credentials.renewer import CertificateRenewer

_GOODBYE_SECONDS = 10.0
_PROGRESS_SECONDS = 1.0
_REPORT_SECONDS = 15.0


def run_simulation(
    plan: FleetPlan,
    duration_seconds: float | None,
    keepers: "Mapping[str, CertificateRenewer]",
    *,
    say_goodbye: bool,
    as_json: bool,
) -> None:
    """Simulate until the duration is over or SIGTERM or SIGINT comes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # With Python's defaults the collector walks all sessions again and again while they grow, and they stand still.
    gc.set_threshold(50_000, 20, 100)
    asyncio.run(_simulate(plan, duration_seconds, keepers, say_goodbye=say_goodbye, as_json=as_json))


async def _simulate(
    plan: FleetPlan,
    duration_seconds: float | None,
    keepers: "Mapping[str, CertificateRenewer]",
    *,
    say_goodbye: bool,
    as_json: bool,
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if duration_seconds is not None:
        loop.call_later(duration_seconds, stop.set)
    fleet = SimulatedFleet(plan, version("fleetpulse"), keepers)
    fleet.start()
    reporter = asyncio.ensure_future(_report(fleet, as_json=as_json))
    await stop.wait()
    reporter.cancel()
    final = fleet.state()
    if say_goodbye:
        await fleet.stop(_GOODBYE_SECONDS)
    else:
        fleet.cut_off()
    _say(final, as_json=as_json)


async def _report(fleet: SimulatedFleet, *, as_json: bool) -> None:
    """Every second while the number of connected workers changes, else every 15 s."""
    said, said_at = -1, 0.0
    while True:
        state = fleet.state()
        if state.connected != said or time.monotonic() - said_at >= _REPORT_SECONDS:
            _say(state, as_json=as_json)
            said, said_at = state.connected, time.monotonic()
        await asyncio.sleep(_PROGRESS_SECONDS)


def _say(state: FleetState, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"time": time.time(), **state._asdict()}), flush=True)
    else:
        print(
            f"{state.connected} of {state.workers} workers connected, {state.heartbeats_sent} heartbeats sent",
            file=sys.stderr,
        )
