"""The history of a worker over REST: with and without a real Prometheus, and after crashes of the master."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.e2e.grpc_client import GrpcClient
from tests.e2e.masters import FAST_LEASE_FLAGS, READY_SECONDS, Master, started_master
from tests.e2e.processes import Processes
from tests.e2e.prometheus import Prometheus
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

FIELDS = "cpu_usage,memory_used_bytes,filesystem_usage,network_received_bytes_per_second,gpu_usage"
BYTES_A_SECOND = 10_000
STEP = 15


def cpu_at(moment: float) -> float:
    """A CPU usage that is constant within a bucket."""
    return 10.0 + 7.5 * (moment // STEP % 8)


class Worker:
    """Sends heartbeats with known readings. Continues while the master is down."""

    def __init__(self, target: str) -> None:
        self._client, self._enough = GrpcClient(target), threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._enough.wait(0.4):
            now = time.time()
            if not 0.2 < now % STEP < STEP - 0.2:
                continue  # so close to the end of a bucket it could arrive in the next
            heartbeat = pb.Heartbeat(
                worker_id="steady",
                incarnation_id="one",
                cpu=pb.Cpu(usage_percent=cpu_at(now)),
                memory=pb.Memory(used_bytes=6_000_000_000, size_bytes=16_000_000_000),
                filesystems=[
                    pb.Filesystem(mountpoint="/", used_bytes=30, size_bytes=100),
                    pb.Filesystem(mountpoint="/data", used_bytes=3, size_bytes=4),
                ],
                network_interfaces=[
                    pb.NetworkInterface(interface="eth0", received_bytes=round(now * BYTES_A_SECOND) % 10**12)
                ],
            )
            try:
                self._client.send_heartbeat(heartbeat)
            except grpc.RpcError:
                continue

    def close(self) -> None:
        self._enough.set()
        self._thread.join()
        self._client.channel.close()


@contextmanager
def steady_worker(master: Master) -> Iterator[None]:
    worker = Worker(master.target)
    try:
        yield
    finally:
        worker.close()


def history(master: Master, query: str, since: float) -> dict[str, Any]:
    """Waits for a point that begins at ``since`` or later, and returns the history."""

    def found() -> dict[str, Any] | None:
        answer = master.get(f"/telemetry/steady/history?fields={FIELDS}&{query}")
        content: dict[str, Any] = answer.json()
        return content if answer.status_code == 200 and whole_points(content, since) else None

    content = eventually(found, 60.0)
    assert content is not None
    return content


def means(found: dict[str, Any], field: str) -> dict[int, float]:
    """The means of the existing points, by their start."""
    values = enumerate(found["fields"][field]["mean"])
    return {found["from"] + number * found["step"]: value for number, value in values if value is not None}


def whole_points(found: dict[str, Any], since: float) -> list[int]:
    return [time for time in means(found, "cpu_usage") if time >= since]


def agree(one: dict[str, Any], other: dict[str, Any], begin: int) -> None:
    for field in ("cpu_usage", "memory_used_bytes", "filesystem_usage"):
        assert means(one, field)[begin] == pytest.approx(means(other, field)[begin], rel=1e-3), field
    assert means(one, "cpu_usage")[begin] == pytest.approx(cpu_at(begin), rel=1e-3)


def test_history_of_store_and_prometheus_agree_and_survive_restarts(processes: Processes) -> None:
    port = free_port()
    prometheus = Prometheus(processes, f"{LOCALHOST}:{port}")
    flags = ("--http-port", str(port), "--prometheus-url", prometheus.url)
    master = Master(processes, *FAST_LEASE_FLAGS, *flags)
    master.url = f"http://{LOCALHOST}:{port}"
    eventually(master.is_healthy, READY_SECONDS)
    began = time.time()
    with steady_worker(master):
        # Compare one complete bucket in Prometheus and in the store.
        by_prometheus = history(master, "from=-2m", began)
        assert by_prometheus["source"] == "prometheus"
        (begin, *_) = whole_points(by_prometheus, began)
        (process,) = [one for one in processes._started if one.name == "prometheus"]
        process.kill_all()
        by_store = history(master, f"from={begin}", begin)
        assert by_store["source"] == "store"
        assert "Prometheus does not answer" in by_store["warning"]
        agree(by_store, by_prometheus, begin)
        assert means(by_store, "filesystem_usage")[begin] == pytest.approx(75.0)
        rates = [means(found, "network_received_bytes_per_second")[begin] for found in (by_store, by_prometheus)]
        assert rates[0] == pytest.approx(BYTES_A_SECOND, rel=0.15)
        assert 0.0 < rates[1] < 1.15 * BYTES_A_SECOND  # a rate over a minute; the worker started within it
        assert means(by_store, "gpu_usage") == means(by_prometheus, "gpu_usage") == {}

        # Written points survive a crash of the web process. There is a gap while it was down.
        rows = master.sample("fleetpulse_history_written_rows_total")
        eventually(lambda: master.sample("fleetpulse_history_written_rows_total") > rows, 30.0)
        dead = master.web_process()
        dead.kill()
        eventually(lambda: master.process.children() not in ([], [dead]), READY_SECONDS)
        eventually(master.is_healthy, READY_SECONDS)
        after = history(master, f"from={begin}", begin)
        agree(after, by_prometheus, begin)
        samples_before = master.sample("fleetpulse_history_samples_total")
        eventually(lambda: master.sample("fleetpulse_history_samples_total") > samples_before, 30.0)
        open_bucket = time.time() // STEP * STEP - STEP  # it may have ended since
    master.process.send(signal.SIGTERM)
    assert master.process.wait() == 0

    # A clean stop loses nothing, including the open bucket.
    again = started_master(processes, *FAST_LEASE_FLAGS)
    found = history(again, f"from={begin}", open_bucket)
    agree(found, by_prometheus, begin)
    again.assert_no_errors()
    prometheus.close()
    master.close()
    again.close()
