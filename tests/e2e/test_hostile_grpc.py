"""Hostile clients of the gRPC port: each is refused or cut, and other workers are not affected."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fleetpulse.master.rpc.standard import MAX_WATCHERS
from fleetpulse.master.rpc.stream import MAX_UNSENT_MESSAGES
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.e2e.grpc_client import GrpcClient, Refusal, a_heartbeat, new_worker_id
from tests.e2e.healthy_worker import HealthyWorker
from tests.e2e.masters import Master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST

pytestmark = pytest.mark.e2e

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
FULL = grpc.StatusCode.RESOURCE_EXHAUSTED
MIB = 1024 * 1024
NARROW = (("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0))
"""Channel options that keep the flow-control window at its initial size."""


@pytest.fixture(scope="module")
def master(shared_processes: Processes, shared_master: Master) -> Iterator[Master]:
    healthy_worker = HealthyWorker(shared_processes, shared_master)
    yield shared_master
    healthy_worker.assert_unharmed()


def frame(kind: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + bytes(4) + payload


def frames(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Yields the kind and payload of each frame until the connection ends."""
    with connection.makefile("rb") as file:
        while len(head := file.read(9)) == 9:
            yield head[3], file.read(int.from_bytes(head[:3], "big"))


def connected(master: Master) -> socket.socket:
    return socket.create_connection((LOCALHOST, master.grpc_port), timeout=30.0)


def test_flood_of_pings_is_cut_off(master: Master) -> None:
    with connected(master) as connection:
        connection.sendall(PREFACE + frame(SETTINGS))
        connection.sendall(b"".join(frame(PING, bytes(8)) for _ in range(50)))
        goodbyes = [payload for kind, payload in frames(connection) if kind == GOAWAY]
    assert b"too_many_pings" in goodbyes[-1]


@pytest.mark.parametrize("data", [b"", PREFACE], ids=["silent", "half a handshake"])
def test_connection_without_http2_is_cut(master: Master, data: bytes) -> None:
    with connected(master) as connection:
        connection.sendall(data)
        assert [kind for kind, _ in frames(connection) if kind != SETTINGS] in ([], [GOAWAY])


def test_call_with_headers_above_the_limit_is_refused(master: Master) -> None:
    with GrpcClient(master.target) as client:
        stub: Any = health_pb2_grpc.HealthStub(client.channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.Check(health_pb2.HealthCheckRequest(), timeout=10, metadata=[("x", "x" * 20_000)])
        assert refused.value.code() is FULL
        assert isinstance(client.send_heartbeat(a_heartbeat(new_worker_id())), pb.HeartbeatAck)


def test_health_watchers_above_the_limit_are_refused_and_counted(master: Master) -> None:
    with grpc.insecure_channel(master.target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watching = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=30) for _ in range(MAX_WATCHERS)]
        for watcher in watching:
            assert next(watcher).status == health_pb2.HealthCheckResponse.SERVING
        one_more = stub.Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert one_more.code() is FULL
        assert str(MAX_WATCHERS) in one_more.details()
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status == health_pb2.HealthCheckResponse.SERVING
        for watcher in watching:
            watcher.cancel()
    eventually(lambda: master.sample("fleetpulse_grpc_requests_total", FULL.name, "Watch") == 1)


def test_memory_is_bounded_under_large_messages_on_many_streams(master: Master) -> None:
    web = master.web_process()
    before = web.memory_info().rss
    with GrpcClient(master.target) as client:
        streams = [client.stream() for _ in range(20)]
        for stream in streams:
            stream.send(bytes(8 * MIB))
        ends = {stream.refusal().code for stream in streams}
    assert ends == {FULL}
    assert web.memory_info().rss < before + 128 * MIB


def test_worker_that_does_not_read_is_cut(master: Master) -> None:
    """The worker sends messages that are all answered, and reads no answer."""
    update = pb.WorkerMessage(
        task_update=pb.TaskUpdate(id=pb.AttemptId(task_id="nobodys", attempt=1), phase=pb.ATTEMPT_PHASE_RUNNING)
    ).SerializeToString()
    worker_id = new_worker_id()
    register = pb.WorkerMessage(register=pb.Register(worker_id=worker_id, incarnation_id="one")).SerializeToString()
    over = threading.Event()
    before = master.sample("fleetpulse_grpc_requests_total", "CANCELLED", "Connect")

    def updates() -> Iterator[bytes]:
        yield register
        for _ in range(20 * MAX_UNSENT_MESSAGES):
            if over.is_set():
                return
            yield update

    with grpc.insecure_channel(master.target, options=NARROW) as channel:
        connect: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            "/fleetpulse.v1.Fleet/Connect", request_serializer=None, response_deserializer=None
        )
        call = connect(updates(), timeout=60.0)
        try:
            # The worker does not see the end of its stream either; ask the master.
            eventually(lambda: master.sample("fleetpulse_grpc_requests_total", "CANCELLED", "Connect") > before, 50.0)
        finally:
            over.set()
            call.cancel()


def test_master_survives_many_idle_connections(master: Master) -> None:
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(connected(master))
        with GrpcClient(master.target) as client:
            answer = client.send_heartbeat(a_heartbeat(new_worker_id()))
            assert not isinstance(answer, Refusal)
