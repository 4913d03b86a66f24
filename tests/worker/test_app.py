"""worker.app: a whole worker process before a master that records everything; the capacity and the collectors."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from queue import SimpleQueue
from types import MappingProxyType
from typing import Any

import grpc
import psutil
import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto import fleetpulse_pb2_grpc as pb_grpc
from fleetpulse.worker.app import (
    UnknownCollector,
    WorkerConfig,
    command_environment,
    custom_collectors,
    machine_collectors,
)
from fleetpulse.worker.collectors.plugins import PLUGINS_GROUP

TIMEOUT_SECONDS = 20.0
NO_DOCKER = "unix:///nowhere/docker.sock"
COLLECTORS = ["cpu", "memory", "filesystem", "disk", "network", "load", "uptime", "pressure", "sensors", "cores", "gpu"]


class RecordingMaster(pb_grpc.FleetServicer):
    """A master that grants short intervals and records every message."""

    def __init__(self) -> None:
        self.messages: SimpleQueue[pb.WorkerMessage] = SimpleQueue()

    def Connect(self, request_iterator: Iterator[pb.WorkerMessage], _: Any) -> Iterator[pb.MasterMessage]:  # noqa: N802 - grpc's
        self.messages.put(next(request_iterator))
        yield pb.MasterMessage(registered=pb.Registered(heartbeat_interval_seconds=0.1, inactivity_timeout_seconds=1.0))
        for message in request_iterator:
            self.messages.put(message)

    def SendHeartbeat(self, request: pb.Heartbeat, context: Any) -> pb.HeartbeatAck:  # noqa: N802 - grpc's
        raise NotImplementedError("a worker sends heartbeats on its stream")

    def Renew(self, request: pb.RenewRequest, context: Any) -> pb.CertificateChain:  # noqa: N802 - grpc's
        raise NotImplementedError("it has no CA")

    def next_message(self) -> pb.WorkerMessage:
        return self.messages.get(timeout=TIMEOUT_SECONDS)


@pytest.fixture
def recorder() -> Iterator[tuple[RecordingMaster, str]]:
    """A master that listens, and its address."""
    recorder = RecordingMaster()
    server = grpc.server(ThreadPoolExecutor(4))
    pb_grpc.add_FleetServicer_to_server(recorder, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield recorder, f"127.0.0.1:{port}"
    server.stop(None).wait()


class Worker:
    """``python -m fleetpulse.worker`` with its data in a folder."""

    def __init__(
        self, target: str, folder: Path, *flags: str, environment: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLEETPULSE_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fleetpulse.worker", "--master", target, "--data-dir", str(folder / "data"), *flags],
            cwd=folder, env=inherited | {"DOCKER_HOST": NO_DOCKER, **environment}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def stopped(self) -> str:
        """Stop it as a service manager does; returns its log."""
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=TIMEOUT_SECONDS)
        assert self.process.returncode == 0
        return log


@pytest.fixture
def worker(recorder: tuple[RecordingMaster, str], tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(recorder[1], tmp_path, "--worker-id", "rack-7", "--label", "rack=7")
    yield worker
    worker.process.kill()
    worker.process.communicate()


def test_worker_registers_this_machine(recorder: tuple[RecordingMaster, str], worker: Worker) -> None:
    register = recorder[0].next_message().register
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


def test_first_heartbeat_has_every_reading_and_a_report_of_every_collector(
    recorder: tuple[RecordingMaster, str], worker: Worker
) -> None:
    recorder[0].next_message()
    heartbeat = recorder[0].next_message().heartbeat
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


def test_sigterm_ends_the_worker_with_a_goodbye_as_its_last_message(
    recorder: tuple[RecordingMaster, str], worker: Worker
) -> None:
    messages = [recorder[0].next_message() for _ in range(4)]
    log = worker.stopped()
    while not messages[-1].HasField("goodbye"):
        messages.append(recorder[0].next_message())
    assert messages[-1].goodbye.reason == "SIGTERM"
    assert [message.WhichOneof("message") for message in messages[1:-1]] == ["heartbeat"] * (len(messages) - 2)
    assert recorder[0].messages.empty()
    assert "Traceback" not in log
    assert "said goodbye (SIGTERM)" in log


def test_worker_without_tasks_registers_so(recorder: tuple[RecordingMaster, str], tmp_path: Path) -> None:
    worker = Worker(recorder[1], tmp_path, "--no-tasks")
    support = recorder[0].next_message().register.task_support
    assert support == pb.TaskSupport(available=False, reason="tasks are switched off on this worker")
    assert "no tasks can run here" not in worker.stopped()


def test_each_start_is_a_new_incarnation_of_the_same_worker(
    recorder: tuple[RecordingMaster, str], tmp_path: Path
) -> None:
    registers = []
    for _ in range(2):
        worker = Worker(recorder[1], tmp_path)
        registers.append(recorder[0].next_message().register)
        worker.stopped()
        while not recorder[0].next_message().HasField("goodbye"):
            continue
    first, second = registers
    assert first.worker_id == second.worker_id == (tmp_path / "data" / "worker_id").read_text().strip()
    assert first.incarnation_id != second.incarnation_id


# The collectors


def worker_config(data_dir: Path, **settings: Any) -> WorkerConfig:
    return WorkerConfig("localhost:50051", None, data_dir, {}, **settings)


def test_every_collector_is_there_by_default_and_can_be_switched_off(tmp_path: Path) -> None:
    config = worker_config(tmp_path)
    assert [collector.name for collector in machine_collectors(config)] == COLLECTORS
    for name in COLLECTORS:
        left = [collector.name for collector in machine_collectors(config._replace(skipped_collectors=[name]))]
        assert left == [other for other in COLLECTORS if other != name]


def test_unknown_collector_is_refused_with_the_names_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(UnknownCollector, match=r"^there is no collector 'gpus': choose of cpu, memory, "):
        machine_collectors(worker_config(tmp_path, skipped_collectors=["gpus"]))


def test_worker_without_the_gpu_collector_reports_no_gpus_and_all_else(
    recorder: tuple[RecordingMaster, str], tmp_path: Path
) -> None:
    worker = Worker(recorder[1], tmp_path, "--skip-collector", "gpu", "--skip-collector", "disk", "--no-tasks")
    assert not recorder[0].next_message().register.capacity.HasField("gpu_count")
    reports = recorder[0].next_message().heartbeat.collectors
    assert [report.collector for report in reports] == [name for name in COLLECTORS if name not in {"gpu", "disk"}]
    worker.stopped()


def test_there_are_no_custom_collectors_by_default(tmp_path: Path) -> None:
    assert custom_collectors(worker_config(tmp_path), EntryPoints()) == []


def test_custom_collectors_stand_in_the_order_of_precedence(tmp_path: Path) -> None:
    installed = EntryPoints([EntryPoint("p", "builtins:object", PLUGINS_GROUP)])
    config = worker_config(tmp_path, metrics_commands=["c=true"], textfile_dir=tmp_path)
    names = [collector.name for collector in custom_collectors(config, installed)]
    assert names == ["plugin:p", "command:c", "textfile"]
    without_plugins = custom_collectors(config._replace(uses_plugins=False), installed)
    assert [collector.name for collector in without_plugins] == names[1:]


def test_environment_of_commands_has_no_settings_of_fleetpulse() -> None:
    given = {"PATH": "/bin", "FLEETPULSE_TOKEN": "secret", "FLEETPULSE": "1", "DATABASE_URL": "postgresql://x:y@z"}
    assert command_environment(given) == {"PATH": "/bin", "FLEETPULSE": "1"}
