"""worker.app: a whole worker process, and what it says to a master that writes everything down."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import psutil
import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto import fleetpulse_pb2_grpc as pb_grpc

PATIENCE_SECONDS = 20.0
NO_DOCKER = "unix:///nowhere/docker.sock"
COLLECTORS = ["cpu", "memory", "filesystem", "disk", "network", "load", "uptime", "gpu"]


class Listener(pb_grpc.FleetServicer):
    """A master that grants short intervals and keeps what it hears."""

    def __init__(self) -> None:
        self.heard: SimpleQueue[pb.WorkerMessage] = SimpleQueue()

    def Connect(self, request_iterator: Iterator[pb.WorkerMessage], _: Any) -> Iterator[pb.MasterMessage]:  # noqa: N802 - grpc's
        self.heard.put(next(request_iterator))
        yield pb.MasterMessage(registered=pb.Registered(heartbeat_interval_seconds=0.1, inactivity_timeout_seconds=1.0))
        for message in request_iterator:
            self.heard.put(message)

    def SendHeartbeat(self, request: pb.Heartbeat, context: Any) -> pb.HeartbeatAck:  # noqa: N802 - grpc's
        raise NotImplementedError("a worker beats on its stream")

    def Renew(self, request: pb.RenewRequest, context: Any) -> pb.CertificateChain:  # noqa: N802 - grpc's
        raise NotImplementedError("it has no CA")

    def next_message(self) -> pb.WorkerMessage:
        return self.heard.get(timeout=PATIENCE_SECONDS)


@pytest.fixture
def listener() -> Iterator[tuple[Listener, str]]:
    """A listening master, and where it listens."""
    listener = Listener()
    server = grpc.server(ThreadPoolExecutor(4))
    pb_grpc.add_FleetServicer_to_server(listener, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield listener, f"127.0.0.1:{port}"
    server.stop(None).wait()


class Worker:
    """``python -m fleetpulse.worker`` in a folder."""

    def __init__(self, target: str, folder: Path, *flags: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLEETPULSE_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fleetpulse.worker", "--master", target, "--data-dir", str(folder / "data"), *flags],
            cwd=folder, env=inherited | {"DOCKER_HOST": NO_DOCKER}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def stopped(self) -> str:
        """Stop it as a service manager does; what it logged."""
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=PATIENCE_SECONDS)
        assert self.process.returncode == 0
        return log


@pytest.fixture
def worker(listener: tuple[Listener, str], tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(listener[1], tmp_path, "--worker-id", "rack-7", "--label", "rack=7")
    yield worker
    worker.process.kill()
    worker.process.communicate()


def test_it_registers_this_machine(listener: tuple[Listener, str], worker: Worker) -> None:
    register = listener[0].next_message().register
    assert register.worker_id == "rack-7"
    assert len(register.incarnation_id) == 32
    assert register.hostname == os.uname().nodename
    assert register.version
    assert register.boot_time_unix_seconds == pytest.approx(psutil.boot_time(), abs=2.0)
    assert register.capacity.cpu_cores == psutil.cpu_count()
    assert register.capacity.memory_bytes == psutil.virtual_memory().total
    assert dict(register.labels) == {"rack": "7"}
    assert not register.task_support.available
    assert "no Docker Engine answers at unix:///nowhere/docker.sock" in register.task_support.reason


def test_the_first_heartbeat_has_every_reading_and_a_report_of_every_collector(
    listener: tuple[Listener, str], worker: Worker
) -> None:
    listener[0].next_message()
    heartbeat = listener[0].next_message().heartbeat
    assert (heartbeat.worker_id, heartbeat.sequence_number) == ("rack-7", 1)
    assert heartbeat.cpu.HasField("usage_percent")
    assert heartbeat.memory.size_bytes == psutil.virtual_memory().total
    assert heartbeat.uptime_seconds > 0.0
    assert NO_DOCKER in heartbeat.task_support.reason
    assert heartbeat.load.HasField("load1")
    assert heartbeat.filesystems
    assert heartbeat.network_interfaces
    assert [report.collector for report in heartbeat.collectors] == COLLECTORS
    assert all(report.success for report in heartbeat.collectors if report.collector not in {"gpu", "disk"})
    assert all(0.0 < report.duration_seconds < 1.0 for report in heartbeat.collectors)


def test_it_leaves_with_a_goodbye_and_nothing_else_to_say(listener: tuple[Listener, str], worker: Worker) -> None:
    heard = [listener[0].next_message() for _ in range(4)]
    log = worker.stopped()
    while not heard[-1].HasField("goodbye"):
        heard.append(listener[0].next_message())
    assert heard[-1].goodbye.reason == "SIGTERM"
    assert [message.WhichOneof("message") for message in heard[1:-1]] == ["heartbeat"] * (len(heard) - 2)
    assert listener[0].heard.empty()
    assert "Traceback" not in log
    assert "said goodbye (SIGTERM)" in log


def test_one_without_tasks_says_so(listener: tuple[Listener, str], tmp_path: Path) -> None:
    worker = Worker(listener[1], tmp_path, "--no-tasks")
    support = listener[0].next_message().register.task_support
    assert support == pb.TaskSupport(available=False, reason="tasks are switched off on this worker")
    assert "no tasks can run here" not in worker.stopped()


def test_each_start_is_another_incarnation_of_the_same_worker(listener: tuple[Listener, str], tmp_path: Path) -> None:
    registers = []
    for _ in range(2):
        worker = Worker(listener[1], tmp_path)
        registers.append(listener[0].next_message().register)
        worker.stopped()
        while not listener[0].next_message().HasField("goodbye"):
            continue
    first, second = registers
    assert first.worker_id == second.worker_id == (tmp_path / "data" / "worker_id").read_text().strip()
    assert first.incarnation_id != second.incarnation_id
