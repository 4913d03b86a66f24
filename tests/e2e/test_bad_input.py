"""Invalid heartbeats and ids are refused with the broken rule and counted. Other workers are not affected."""

import math
import socket
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import MAX_MESSAGE_BYTES, WORKER_ID_RULE
from tests.e2e.grpc_client import GrpcClient, Refusal, a_heartbeat, new_worker_id
from tests.e2e.healthy_worker import HealthyWorker
from tests.e2e.masters import Master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST
from tests.tools import require_tool

pytestmark = pytest.mark.e2e

INVALID = grpc.StatusCode.INVALID_ARGUMENT

BAD_READINGS: dict[str, dict[str, Any]] = {
    "cpu NaN": {"cpu": pb.Cpu(usage_percent=math.nan)},
    "cpu infinite": {"cpu": pb.Cpu(usage_percent=math.inf)},
    "cpu negative": {"cpu": pb.Cpu(usage_percent=-0.5)},
    "cpu over 100": {"cpu": pb.Cpu(usage_percent=100.5)},
    "gpu NaN": {"gpus": [pb.Gpu(utilization_percent=math.nan)]},
    "gpu over 100": {"gpus": [pb.Gpu(utilization_percent=5.0), pb.Gpu(index=1, utilization_percent=101.0)]},
    "gpu infinitely cold": {"gpus": [pb.Gpu(temperature_celsius=-math.inf)]},
    "gpu gives power": {"gpus": [pb.Gpu(power_watts=-1.0)]},
    "load NaN": {"load": pb.Load(load1=0.5, load5=math.nan)},
    "load negative": {"load": pb.Load(load15=-1.0)},
    "uptime infinite": {"uptime_seconds": math.inf},
    "task negative": {"running_tasks": [pb.RunningTask(task_id="t", cpu_usage_percent=-1.0)]},
    "collector NaN": {"collectors": [pb.CollectorReport(collector="cpu", duration_seconds=math.nan)]},
}

BAD_IDS = {
    "empty": "",
    "10 kB": "a" * 10_000,
    "too long by one": "a" * 129,
    "control characters": "rack\x00\x1b[2J\x7f",
    "quotes": "rack\"7'",
    "slashes": "rack/7",
    "backslash": "rack\\7",
    "newline": "rack\n7",
    "newline at the end": "rack7\n",
    "parent directory": "../../etc/passwd",
    "dots": "..",
    "label break": 'x"} 1\nfleetpulse_worker_up{worker_id="y',
    "space": "rack 7",
    "not ASCII": "r\u00e4ck\uff17",
    "percent": "rack%2f7",
}


@pytest.fixture(scope="module")
def healthy_worker(shared_processes: Processes, shared_master: Master) -> Iterator[HealthyWorker]:
    healthy_worker = HealthyWorker(shared_processes, shared_master)
    yield healthy_worker
    healthy_worker.assert_unharmed()


@pytest.fixture(scope="module")
def client(shared_master: Master, healthy_worker: HealthyWorker) -> Iterator[GrpcClient]:
    """One connection for all tests. A refusal on it must not affect later calls."""
    with GrpcClient(shared_master.target) as client:
        yield client


def rejected(master: Master, reason: str) -> float:
    return master.sample("fleetpulse_heartbeats_rejected_total", reason)


def refused_streams(master: Master, reason: str) -> float:
    return master.sample("fleetpulse_worker_sessions_refused_total", reason)


@pytest.mark.parametrize("fields", BAD_READINGS.values(), ids=BAD_READINGS.keys())
def test_impossible_reading_is_refused(fields: dict[str, Any], client: GrpcClient, shared_master: Master) -> None:
    worker_id = new_worker_id()
    before = rejected(shared_master, "invalid_reading")
    refusal = client.send_heartbeat(a_heartbeat(worker_id, **fields))
    assert isinstance(refusal, Refusal)
    assert refusal.code is INVALID
    assert "must be a" in refusal.details
    assert rejected(shared_master, "invalid_reading") == before + 1
    assert worker_id not in shared_master.workers()


def test_impossible_reading_ends_its_stream(client: GrpcClient, shared_master: Master) -> None:
    worker_id = new_worker_id()
    before = rejected(shared_master, "invalid_reading"), refused_streams(shared_master, "invalid_reading")
    stream = client.stream()
    stream.register(worker_id)
    stream.beat(a_heartbeat(worker_id, sequence_number=1, cpu=pb.Cpu(usage_percent=55.0)))
    # Of two that wait at a time, only the newer is handled.
    eventually(lambda: shared_master.json(f"/telemetry/{worker_id}")["cpu_usage"] == 55.0)
    stream.beat(a_heartbeat(worker_id, sequence_number=2, cpu=pb.Cpu(usage_percent=math.nan)))
    code, details = stream.refusal()
    assert code is INVALID
    assert details == "cpu.usage_percent is nan; it must be a number from 0 to 100"
    after = rejected(shared_master, "invalid_reading"), refused_streams(shared_master, "invalid_reading")
    heartbeats = shared_master.json(f"/api/workers/{worker_id}")["heartbeats"]
    assert (heartbeats["received"], heartbeats["refused"], heartbeats["refusal"]) == (1, 1, details)
    assert shared_master.sample("fleetpulse_worker_refused", worker_id) == 1.0
    assert after == (before[0] + 1, before[1] + 1)
    assert shared_master.json(f"/telemetry/{worker_id}")["cpu_usage"] == 55.0


@pytest.mark.parametrize("worker_id", BAD_IDS.values(), ids=BAD_IDS.keys())
def test_invalid_worker_id_is_refused(worker_id: str, client: GrpcClient, shared_master: Master) -> None:
    before = rejected(shared_master, "invalid_message"), refused_streams(shared_master, "invalid_message")
    unary = client.send_heartbeat(a_heartbeat(worker_id))
    stream = client.stream()
    stream.send(pb.WorkerMessage(register=pb.Register(worker_id=worker_id, incarnation_id="one")))
    for refusal in (unary, stream.refusal()):
        assert isinstance(refusal, Refusal)
        assert refusal.code is INVALID
        assert WORKER_ID_RULE in refusal.details
        assert len(refusal.details) < 400
        assert refusal.details.isprintable()
    after = rejected(shared_master, "invalid_message"), refused_streams(shared_master, "invalid_message")
    assert after == (before[0] + 1, before[1] + 1)
    assert worker_id not in shared_master.workers()
    if worker_id.strip("."):  # an HTTP client resolves dots as folders and requests another path
        answer = shared_master.get(f"/telemetry/{quote(worker_id, safe='')}")
        assert answer.status_code in {404, 414}


def test_invented_tasks_make_no_series_and_are_counted(client: GrpcClient, shared_master: Master) -> None:
    worker_id = new_worker_id()
    for beat in range(3):
        tasks = [pb.RunningTask(task_id=f"invented-{beat}-{number}", cpu_usage_percent=1.0) for number in range(1000)]
        answer = client.send_heartbeat(a_heartbeat(worker_id, running_tasks=tasks))
        assert isinstance(answer, pb.HeartbeatAck)
        # The worker's own record shows what it said.
        eventually(lambda: tasks[0].task_id in shared_master.get(f"/telemetry/{worker_id}").text)  # noqa: B023 - waited for
        text = shared_master.get("/metrics").text
        assert "invented" not in text
        assert shared_master.sample("fleetpulse_metrics_names_left_out", "task_not_assigned") == 1000.0
    assert shared_master.json("/api/overview")["metrics_left_out"] == 1000


def test_refused_ids_are_not_in_metrics(client: GrpcClient, shared_master: Master) -> None:
    for worker_id in BAD_IDS.values():
        client.send_heartbeat(a_heartbeat(worker_id))
    shown = {labels[0] for labels in shared_master.samples("fleetpulse_worker_up")}
    assert shown.isdisjoint(BAD_IDS.values())
    assert shown == set(shared_master.workers())
    checked = subprocess.run(
        [require_tool("promtool"), "check", "metrics"],
        input=shared_master.get("/metrics").content, capture_output=True, check=False,
    )  # fmt: skip
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


@pytest.mark.parametrize("text", ["a\nb", "a\x00", "x" * 257, "a\u202eb"], ids=["newline", "NUL", "long", "turned"])
def test_unprintable_or_long_text_in_a_heartbeat_is_refused(
    text: str, client: GrpcClient, shared_master: Master
) -> None:
    worker_id = new_worker_id()
    refusal = client.send_heartbeat(a_heartbeat(worker_id, filesystems=[pb.Filesystem(mountpoint=text)]))
    assert isinstance(refusal, Refusal)
    assert refusal.code is INVALID
    assert refusal.details.isprintable()
    assert worker_id not in shared_master.workers()


def test_quotes_and_backslashes_in_a_name_are_escaped(client: GrpcClient, shared_master: Master) -> None:
    worker_id, name = new_worker_id(), 'C:\\"x"} 1'
    client.send_heartbeat(a_heartbeat(worker_id, filesystems=[pb.Filesystem(mountpoint=name, used_bytes=7)]))
    sample = eventually(lambda: shared_master.sample("fleetpulse_worker_filesystem_used_bytes", name, worker_id))
    assert sample == 7


def a_large_heartbeat(worker_id: str, size: int) -> pb.Heartbeat:
    return a_heartbeat(worker_id, collectors=[pb.CollectorReport(collector="cpu", error="x" * size)])


THREE_MB = 3_000_000

UNREADABLE = {
    "3 MB": a_large_heartbeat("large", THREE_MB).SerializeToString(),
    "just too large": a_large_heartbeat("large", MAX_MESSAGE_BYTES).SerializeToString(),
    "garbage": b"\xff" * 64,
    "half a message": a_heartbeat("half").SerializeToString()[:-1],
    "text": b"GET / HTTP/1.1\r\n\r\n",
    "id that is not UTF-8": b"\x0a\x02\xff\xfe",
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_unreadable_message_is_refused(data: bytes, client: GrpcClient, shared_master: Master) -> None:
    workers = shared_master.workers().keys()
    before = rejected(shared_master, "invalid_message")
    refusal = client.send_heartbeat(data)
    assert isinstance(refusal, Refusal)
    assert refusal.code is INVALID
    assert refusal.details.startswith("the message ")
    assert rejected(shared_master, "invalid_message") == before + 1
    assert shared_master.workers().keys() == workers


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_unreadable_message_ends_its_stream(data: bytes, client: GrpcClient, shared_master: Master) -> None:
    worker_id = new_worker_id()
    before = refused_streams(shared_master, "invalid_message")
    stream = client.stream()
    stream.register(worker_id)
    # Encodes the field `heartbeat` of a WorkerMessage: tag, length, value.
    length, prefix = len(data), bytearray([0x12])
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    stream.send(bytes(prefix) + bytes([length]) + data)
    assert stream.refusal().code is INVALID
    assert refused_streams(shared_master, "invalid_message") == before + 1


def test_message_above_the_grpc_limit_is_refused(client: GrpcClient) -> None:
    refusal = client.send_heartbeat(a_large_heartbeat("large", 2 * THREE_MB))
    assert isinstance(refusal, Refusal)
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("data", [b"\x00" * 1000, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n"])
def test_other_protocol_on_the_grpc_port_harms_no_worker(
    data: bytes, client: GrpcClient, shared_master: Master
) -> None:
    with socket.create_connection((LOCALHOST, shared_master.grpc_port), timeout=20.0) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            continue
    assert isinstance(client.send_heartbeat(a_heartbeat(new_worker_id())), pb.HeartbeatAck)


def test_unary_heartbeat_registers_an_unknown_worker(client: GrpcClient, shared_master: Master) -> None:
    worker_id = new_worker_id()
    ack = client.send_heartbeat(a_heartbeat(worker_id, cpu=pb.Cpu(usage_percent=61.0)))
    assert isinstance(ack, pb.HeartbeatAck)
    assert (ack.heartbeat_interval_seconds, ack.inactivity_timeout_seconds) == (0.5, 2.0)
    eventually(lambda: shared_master.json(f"/telemetry/{worker_id}")["cpu_usage"] == 61.0)
    assert shared_master.workers()[worker_id]


def test_unary_heartbeat_with_the_id_of_an_active_worker_is_refused(client: GrpcClient) -> None:
    refusal = client.send_heartbeat(a_heartbeat(HealthyWorker.worker_id))
    assert isinstance(refusal, Refusal)
    assert refusal.code is grpc.StatusCode.ALREADY_EXISTS


@pytest.mark.parametrize("service", ["", "fleetpulse.v1.Fleet"])
def test_grpc_health_service_reports_serving(service: str, client: GrpcClient) -> None:
    stub: Any = health_pb2_grpc.HealthStub(client.channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_describes_the_services(client: GrpcClient) -> None:
    database = ProtoReflectionDescriptorDatabase(client.channel)
    assert {"fleetpulse.v1.Fleet", "grpc.health.v1.Health"} <= set(database.get_services())
    described = database.FindFileContainingSymbol("fleetpulse.v1.Fleet")
    assert [method.name for method in described.service[0].method] == ["Connect", "SendHeartbeat", "Renew"]
