"""A worker of the benchmark sends heartbeats and polls REST until it sees its own values.

Both times are taken by this process, so no two clocks are compared. What it finds is an upper bound: the call,
the answers and their transport are part of it.
"""

import json
import time

import grpc

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto import fleetpulse_pb2_grpc as pb_grpc
from tests.bench.client import fetch, percentile
from tests.bench.fleet import Fleet
from tests.bench.processes import BenchError
from tests.ports import LOCALHOST

_WORKER_ID = "bench-probe"
_PAUSE_SECONDS = 0.04
_TIMEOUT_SECONDS = 10.0


def measure_probe(fleet: Fleet, probes: int) -> dict[str, float | None]:
    """Sends ``probes`` heartbeats, each with a unique number."""
    with grpc.insecure_channel(f"{LOCALHOST}:{fleet.master.grpc_port}") as channel:
        stub = pb_grpc.FleetStub(channel)
        _probe(stub, fleet.master.http_port, 0)  # the first includes the connection and the registration
        seconds = [_probe(stub, fleet.master.http_port, number) for number in range(1, probes + 1)]
    return {"probe_p50_seconds": percentile(seconds, 50), "probe_p99_seconds": percentile(seconds, 99)}


def _probe(stub: pb_grpc.FleetStub, http_port: int, number: int) -> float:
    time.sleep(_PAUSE_SECONDS)
    heartbeat = pb.Heartbeat(worker_id=_WORKER_ID, load=pb.Load(load1=number))
    started = time.perf_counter()
    stub.SendHeartbeat(heartbeat, timeout=_TIMEOUT_SECONDS)
    while True:
        answer = fetch(http_port, f"/telemetry/{_WORKER_ID}")
        seconds = time.perf_counter() - started
        if answer.status == 200 and json.loads(answer.body)["load"]["load1"] == number:
            return seconds
        if seconds > _TIMEOUT_SECONDS:
            raise BenchError(f"the probe's heartbeat {number} is not visible after {_TIMEOUT_SECONDS:.0f} s")
