"""Runs a simulated fleet as a process: certificates, signals, the end, and a status line now and then."""

import asyncio
import gc
import json
import math
import random
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from fleetpulse.proto.join import JoinToken
from fleetpulse.worker.credentials import JoinEndpoint
from fleetpulse.worker.simulation.connections import allow_connections
from fleetpulse.worker.simulation.fleet import SimulatedFleet, SimulationConfig
from fleetpulse.worker.simulation.status import FleetStatus

if TYPE_CHECKING:
    from fleetpulse.worker.credentials.renewer import CertificateRenewer

_GOODBYE_SECONDS = 10.0
_STATUS_SECONDS = 1.0
_CHANGED_STATUS_SECONDS = 5.0
_UNCHANGED_STATUS_SECONDS = 15.0


def join_all(
    worker_ids: Iterable[str], folder: Path, token: JoinToken | None, endpoint: JoinEndpoint
) -> "dict[str, CertificateRenewer]":
    """Joins every machine, each with a folder of its own below ``folder``. Machines without credentials are left out.

    The token must allow as many uses as there are machines. Raises ``CredentialsError``.
    """
    from fleetpulse.worker.credentials.renewer import CertificateRenewer, load_or_join  # noqa: PLC0415 - heavy, mostly not needed

    credentials: dict[str, CertificateRenewer] = {}
    for worker_id in worker_ids:
        bundle = load_or_join(worker_id, folder / worker_id, token, endpoint, time.time(), time.sleep)
        if bundle is not None:
            rng = random.Random(worker_id)  # nosec B311 # chance without a secret
            credentials[worker_id] = CertificateRenewer(folder / worker_id, bundle, rng)
    return credentials


def run_simulation(
    config: SimulationConfig,
    duration_seconds: float | None,
    credentials: "Mapping[str, CertificateRenewer]",
    *,
    say_goodbye: bool,
    as_json: bool,
) -> None:
    """Returns after the duration, or on SIGTERM or SIGINT. Raises ``TooFewFiles`` before anything is started."""
    allow_connections(config.connections)
    # With Python's defaults the collector stops all sessions again and again while their number grows.
    gc.set_threshold(50_000, 20, 100)
    asyncio.run(_run(config, duration_seconds, credentials, say_goodbye=say_goodbye, as_json=as_json))


async def _run(
    config: SimulationConfig,
    duration_seconds: float | None,
    credentials: "Mapping[str, CertificateRenewer]",
    *,
    say_goodbye: bool,
    as_json: bool,
) -> None:
    fleet = SimulatedFleet(config, version("fleetpulse"), credentials)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if duration_seconds is not None:
        loop.call_later(duration_seconds, stop.set)
    fleet.start()
    reporter = asyncio.ensure_future(_print_status(fleet, as_json=as_json))
    await stop.wait()
    reporter.cancel()
    final = fleet.status()
    if say_goodbye:
        await fleet.stop(_GOODBYE_SECONDS)
    else:
        fleet.cut_off()
    _print(final, as_json=as_json)


async def _print_status(fleet: SimulatedFleet, *, as_json: bool) -> None:
    """For people every 5 s while the number of connected workers changes, else every 15 s, and at once when all are
    connected. For programs every second.
    """
    printed, printed_at = -1, -math.inf
    is_frozen = False
    while True:
        status, now = fleet.status(), time.monotonic()
        is_changed = status.connected != printed
        is_complete = is_changed and status.connected == status.workers
        interval = _CHANGED_STATUS_SECONDS if is_changed else _UNCHANGED_STATUS_SECONDS
        if as_json or is_complete or now - printed_at >= interval:
            _print(status, as_json=as_json)
            printed, printed_at = status.connected, now
            if is_complete and not is_frozen:
                # What a connected fleet holds it keeps: the collector need not walk it again and again.
                gc.freeze()
                is_frozen = True
        await asyncio.sleep(_STATUS_SECONDS)


def _print(status: FleetStatus, *, as_json: bool) -> None:
    if as_json:
        waiting = [group._asdict() for group in status.waiting]
        print(json.dumps({"time": time.time(), **status._asdict(), "waiting": waiting}), flush=True)
    else:
        print(describe_status(status), file=sys.stderr)


def describe_status(status: FleetStatus) -> str:
    """One line: how many are connected, and why the others are not."""
    text = f"{status.connected:,} of {status.workers:,} workers connected, {status.heartbeats_sent:,} heartbeats sent"
    if not status.waiting:
        return text
    reasons = [
        f"{group.workers:,}x {group.reason}" + (f" ({group.details})" if group.details else "")
        for group in status.waiting
    ]
    return f"{text}, {status.workers - status.connected:,} waiting: {', '.join(reasons)}"
