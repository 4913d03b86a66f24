"""Streams that break the protocol, and second streams of one worker. Another worker is not affected."""

from collections.abc import Callable, Iterator

import grpc
import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.e2e.grpc_client import GrpcClient, Stream, a_heartbeat, new_worker_id
from tests.e2e.healthy_worker import HealthyWorker
from tests.e2e.masters import FAST_INTERVAL_SECONDS, FAST_TIMEOUT_SECONDS, Master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def healthy_worker(shared_processes: Processes, shared_master: Master) -> Iterator[HealthyWorker]:
    healthy_worker = HealthyWorker(shared_processes, shared_master)
    yield healthy_worker
    healthy_worker.assert_unharmed()


@pytest.fixture
def client(shared_master: Master, healthy_worker: HealthyWorker) -> Iterator[GrpcClient]:
    with GrpcClient(shared_master.target) as client:
        yield client


@pytest.fixture
def second_client(shared_master: Master) -> Iterator[GrpcClient]:
    with GrpcClient(shared_master.target) as client:
        yield client


def refused_streams(master: Master, reason: str) -> float:
    return master.sample("fleetpulse_worker_sessions_refused_total", reason)


def test_lease_config_is_sent_by_the_master(client: GrpcClient) -> None:
    registered = client.stream().register(new_worker_id())
    assert registered.heartbeat_interval_seconds == FAST_INTERVAL_SECONDS
    assert registered.inactivity_timeout_seconds == FAST_TIMEOUT_SECONDS
    assert registered.master_version


def heartbeat_first(stream: Stream) -> None:
    stream.beat(a_heartbeat("early"))


def goodbye_first(stream: Stream) -> None:
    stream.send(pb.WorkerMessage(goodbye=pb.Goodbye(reason="never came")))


def nothing_first(stream: Stream) -> None:
    stream.send(pb.WorkerMessage())


@pytest.mark.parametrize("begin", [heartbeat_first, goodbye_first, nothing_first])
def test_first_message_must_be_register(
    begin: Callable[[Stream], None], client: GrpcClient, shared_master: Master
) -> None:
    refused = refused_streams(shared_master, "protocol_violation")
    stream = client.stream()
    begin(stream)
    code, details = stream.refusal()
    assert code is INVALID
    assert "register" in details
    assert refused_streams(shared_master, "protocol_violation") == refused + 1
    assert "early" not in shared_master.workers()


def test_stream_may_be_closed_before_registration(client: GrpcClient, shared_master: Master) -> None:
    workers = shared_master.workers().keys()
    stream = client.stream()
    stream.finish()
    assert stream.refusal().code is grpc.StatusCode.OK
    assert shared_master.workers().keys() == workers


def test_second_register_is_refused(client: GrpcClient, shared_master: Master) -> None:
    worker_id = new_worker_id()
    refused = refused_streams(shared_master, "protocol_violation")
    stream = client.stream()
    stream.register(worker_id)
    stream.send(pb.WorkerMessage(register=pb.Register(worker_id=worker_id, incarnation_id="one")))
    code, details = stream.refusal()
    assert code is INVALID
    assert "twice" in details
    assert refused_streams(shared_master, "protocol_violation") == refused + 1


@pytest.mark.parametrize(("worker_id", "incarnation_id"), [(HealthyWorker.worker_id, "one"), (None, "another")])
def test_heartbeat_of_another_worker_on_a_stream_is_refused(
    worker_id: str | None, incarnation_id: str, client: GrpcClient, shared_master: Master
) -> None:
    own_id = new_worker_id()
    stream = client.stream()
    stream.register(own_id)
    stream.beat(a_heartbeat(worker_id or own_id, incarnation_id, cpu=pb.Cpu(usage_percent=99.875)))
    code, details = stream.refusal()
    assert code is INVALID
    assert own_id in details
    for shown in shared_master.json("/telemetry").values():
        assert shown["cpu_usage"] != 99.875


def test_unknown_message_of_a_newer_worker_is_ignored(client: GrpcClient, shared_master: Master) -> None:
    worker_id = new_worker_id()
    stream = client.stream()
    stream.register(worker_id)
    field_1000_with_one_byte = bytes([0xC2, 0x3E, 0x01, 0x00])
    stream.send(field_1000_with_one_byte)
    stream.beat(a_heartbeat(worker_id, cpu=pb.Cpu(usage_percent=42.0)))
    eventually(lambda: shared_master.json(f"/telemetry/{worker_id}")["cpu_usage"] == 42.0)


def test_same_incarnation_takes_over_at_once(
    client: GrpcClient, second_client: GrpcClient, shared_master: Master
) -> None:
    worker_id = new_worker_id()
    half_open, newer = client.stream(), second_client.stream()
    half_open.register(worker_id)
    half_open.beat(a_heartbeat(worker_id, sequence_number=1))
    newer.register(worker_id)
    code, details = half_open.refusal()
    assert code is grpc.StatusCode.ABORTED
    assert "newer" in details
    newer.beat(a_heartbeat(worker_id, sequence_number=2, cpu=pb.Cpu(usage_percent=43.0)))
    eventually(lambda: shared_master.json(f"/telemetry/{worker_id}")["cpu_usage"] == 43.0)
    assert newer.is_open
    assert shared_master.workers()[worker_id]


def test_other_incarnation_waits_until_the_first_is_silent(
    client: GrpcClient, second_client: GrpcClient, shared_master: Master
) -> None:
    worker_id = new_worker_id()
    first, second = client.stream(), second_client.stream()
    first.register(worker_id)
    first.beat(a_heartbeat(worker_id))
    with pytest.raises(grpc.RpcError):
        second.register(worker_id, "two")
    code, details = second.refusal()
    assert code is grpc.StatusCode.ALREADY_EXISTS
    assert "another process" in details
    assert shared_master.log_lines(f"WARNING.*worker id {worker_id} is taken")
    assert first.is_open

    def is_accepted() -> bool:
        try:
            second_client.stream().register(worker_id, "two")
        except grpc.RpcError:
            return False
        return True

    eventually(is_accepted)
    assert shared_master.workers()[worker_id]
    assert first.refusal().code is grpc.StatusCode.ABORTED


def test_other_incarnation_takes_over_at_once_after_the_connection_ended(
    client: GrpcClient, second_client: GrpcClient, shared_master: Master
) -> None:
    def only_the_healthy_worker_is_connected() -> bool:
        return shared_master.sample("fleetpulse_worker_sessions") == 1

    eventually(only_the_healthy_worker_is_connected)  # streams of earlier tests may still be ending
    worker_id = new_worker_id()
    first = client.stream()
    first.register(worker_id)
    first.beat(a_heartbeat(worker_id))
    first.cancel()
    eventually(only_the_healthy_worker_is_connected)
    second_client.stream().register(worker_id, "two")
    assert shared_master.log_lines(f"{worker_id}: a new incarnation took over")


def test_goodbye_removes_the_worker(client: GrpcClient, shared_master: Master) -> None:
    worker_id = new_worker_id()
    stream = client.stream()
    stream.register(worker_id)
    assert worker_id in shared_master.workers()
    stream.send(pb.WorkerMessage(goodbye=pb.Goodbye(reason="line\nbreak\x1b[2J")))
    eventually(lambda: worker_id not in shared_master.workers())
    stream.finish()
    assert stream.refusal().code is grpc.StatusCode.OK
    assert shared_master.get(f"/telemetry/{worker_id}").status_code == 404
    assert worker_id not in shared_master.get("/metrics").text
    (line,) = shared_master.log_lines(f"{worker_id} said goodbye")
    assert r"line\nbreak\x1b[2J" in line
