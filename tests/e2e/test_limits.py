"""A master with a limit of two workers refuses more. Its registered workers are not affected."""

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import grpc
import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.e2e.grpc_client import GrpcClient, Refusal, a_heartbeat
from tests.e2e.healthy_worker import HealthyWorker
from tests.e2e.masters import FAST_LEASE_FLAGS, Master, started_master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually
from tests.hostile.attacks import allow_connections
from tests.ports import LOCALHOST

pytestmark = pytest.mark.e2e

MAX_WORKERS = 2
MAX_STREAMS = MAX_WORKERS + 500
MAX_CONNECTIONS = MAX_STREAMS + 1000
FULL = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture(scope="module")
def master(shared_processes: Processes) -> Iterator[Master]:
    master = started_master(shared_processes, *FAST_LEASE_FLAGS, "--max-workers", str(MAX_WORKERS))
    healthy_worker = HealthyWorker(shared_processes, master)
    yield master
    healthy_worker.assert_unharmed()
    master.close()
    master.assert_no_errors()


def test_worker_above_the_limit_is_refused_until_another_leaves(master: Master) -> None:
    with GrpcClient(master.target) as client:
        second = client.stream()
        second.register("second")
        third = client.stream()
        with pytest.raises(grpc.RpcError):
            third.register("third")
        assert third.refusal() == (FULL, f"the master is full: it was told to serve at most {MAX_WORKERS} workers")
        unary = client.send_heartbeat(a_heartbeat("third"))
        assert isinstance(unary, Refusal)
        assert unary.code is FULL
        assert master.sample("fleetpulse_worker_sessions_refused_total", "fleet_full") == 1
        assert master.sample("fleetpulse_heartbeats_rejected_total", "fleet_full") == 1

        second.send(pb.WorkerMessage(goodbye=pb.Goodbye(reason="leaves")))
        eventually(lambda: "second" not in master.workers())
        again = client.stream()
        again.register("third")
        again.send(pb.WorkerMessage(goodbye=pb.Goodbye(reason="enough")))
        eventually(lambda: "third" not in master.workers())


async def silent_streams(target: str, count: int) -> tuple[Counter[grpc.StatusCode], pb.HeartbeatAck]:
    """Opens ``count`` silent streams.

    Returns the status codes of the streams that ended at once, and the answer of a unary call during that time.
    """
    async with grpc.aio.insecure_channel(target) as channel:
        connect: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            "/fleetpulse.v1.Fleet/Connect", request_serializer=None, response_deserializer=None
        )
        send_heartbeat: grpc.aio.UnaryUnaryMultiCallable[bytes, pb.HeartbeatAck] = channel.unary_unary(
            "/fleetpulse.v1.Fleet/SendHeartbeat",
            request_serializer=None,
            response_deserializer=pb.HeartbeatAck.FromString,
        )
        calls = [connect() for _ in range(count)]
        ends = [asyncio.ensure_future(call.code()) for call in calls]
        async with asyncio.timeout(8.0):  # silent streams are ended after 10 s
            while sum(end.done() for end in ends) < count - MAX_STREAMS + 1:
                await asyncio.wait([end for end in ends if not end.done()], return_when=asyncio.FIRST_COMPLETED)
        ack = await send_heartbeat(a_heartbeat("alone").SerializeToString())
        codes = Counter(end.result() for end in ends if end.done())
        for call in calls:
            call.cancel()
        await asyncio.gather(*ends)
        return codes, ack


def test_streams_above_the_limit_are_refused_and_unary_calls_are_served(master: Master) -> None:
    codes, ack = asyncio.run(silent_streams(master.target, MAX_STREAMS + 50))
    # The healthy worker has one of the streams.
    assert codes == {FULL: 51}
    assert ack.heartbeat_interval_seconds > 0.0
    assert master.workers()["alone"]
    assert master.sample("fleetpulse_grpc_requests_total", FULL.name, "Connect") >= 51
    eventually(lambda: sum(master.samples("fleetpulse_grpc_requests_total").values()) > MAX_STREAMS + 50)


def test_connections_above_the_limit_are_cut(master: Master) -> None:
    allowed = allow_connections(MAX_CONNECTIONS + 100)
    if allowed < MAX_CONNECTIONS + 100:
        pytest.skip(f"this process may open {allowed} connections only")
    with ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            stack.enter_context(socket.create_connection((LOCALHOST, master.grpc_port), timeout=10.0))
        one_more = stack.enter_context(socket.create_connection((LOCALHOST, master.grpc_port), timeout=10.0))
        with suppress(ConnectionError):
            assert one_more.recv(1) == b""
    # The registered workers are still served, and new connections are accepted again.
    with GrpcClient(master.target) as client:
        assert isinstance(client.send_heartbeat(a_heartbeat("alone")), pb.HeartbeatAck)
