"""master.rpc.server: a real server whose hub stands still, with clients in threads"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import gevent
import grpc
import pytest

from fleetpulse.master.addresses import Address
from fleetpulse.master.config import LeaseConfig
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.rpc.server import RpcServer
from fleetpulse.master.telemetry.leases import Receipts
from fleetpulse.master.telemetry.manager import TelemetryManager
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.e2e.grpc_client import GrpcClient, Refusal, Stream, a_heartbeat
from tests.master.fleet import wait_until
from tests.master.rpc.test_session import FakeAttemptReports
from tests.ports import LOCALHOST, free_port

TIMEOUT_SECONDS = 2.0

T = TypeVar("T")


class ManagerWithReceipts(TelemetryManager):
    """Shows what the server has received."""

    receipts = Receipts()

    def set_receipts(self, receipts: Receipts) -> None:
        self.receipts = receipts
        super().set_receipts(receipts)


class Served:
    """A manager behind a real gRPC server. The hub runs only in ``wait_until`` and ``on_a_thread``."""

    def __init__(self) -> None:
        self.instruments = Instruments()
        lease = LeaseConfig(heartbeat_interval_seconds=0.5, inactivity_timeout_seconds=TIMEOUT_SECONDS)
        self.manager = ManagerWithReceipts(lease, self.instruments)
        address = Address(LOCALHOST, free_port())
        self.target = str(address)
        self.server = RpcServer(address, self.manager, FakeAttemptReports(), self.instruments, max_streams=100)
        self.manager.start()
        self.server.start()

    def stop(self) -> None:
        self.server.stop(grace_seconds=0.1)
        self.manager.shutdown(timeout_seconds=1.0)

    def metric(self, name: str, **labels: str) -> float:
        return self.instruments.registry.get_sample_value(f"fleetpulse_{name}", labels) or 0.0

    def heard_at(self, worker_id: str) -> float | None:
        """When the server last read something of the worker's stream. From any thread."""
        return self.manager.receipts.last_heard(worker_id, "one")

    def is_active(self, worker_id: str) -> bool:
        return self.manager.get_worker_telemetry(worker_id).is_active


def on_a_thread(function: Callable[[], T]) -> T:
    """Runs it in a native thread while the hub runs."""
    result: T = gevent.get_hub().threadpool.apply(function)
    return result


def with_hub_stopped(function: Callable[[], None]) -> None:
    """Runs it in a native thread while the hub stands still."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def with_hub_behind(served: Served, function: Callable[[], None]) -> None:
    """Does the same, but the check for silent workers runs all the time."""
    thread = threading.Thread(target=function)
    thread.start()
    while thread.is_alive():
        served.manager.check_liveness()
        thread.join(0.1)


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.stop()


@pytest.fixture
def client(served: Served) -> Iterator[GrpcClient]:
    with GrpcClient(served.target) as client:
        yield client


def registered(client: GrpcClient, worker_id: str) -> Stream:
    stream = client.stream()
    on_a_thread(lambda: stream.register(worker_id))
    return stream


def test_newest_of_many_heartbeats_is_kept_while_the_hub_stands_still(served: Served, client: GrpcClient) -> None:
    stream = registered(client, "rack-7")

    def beat() -> None:
        # Two are read while nobody handles them, and then the others while the hub runs again.
        for numbers in (range(1, 2), range(2, 201)):
            before = served.heard_at("rack-7")
            for number in numbers:
                stream.beat(a_heartbeat("rack-7", sequence_number=number, load=pb.Load(load1=float(number))))
            while served.heard_at("rack-7") == before:
                time.sleep(0.01)

    with_hub_stopped(beat)
    wait_until(lambda: served.manager.get_worker_telemetry("rack-7").reading.load.load1 == 200.0)
    counts = served.manager.get_worker_telemetry("rack-7").counts
    assert counts.missed == 0
    assert counts.received + served.metric("heartbeats_superseded_total") == 200
    assert served.metric("heartbeats_superseded_total") > 0


def test_beating_workers_stay_active_while_the_hub_is_behind_for_longer_than_the_lease(
    served: Served, client: GrpcClient
) -> None:
    stream = registered(client, "on-a-stream")
    on_a_thread(lambda: client.send_heartbeat(a_heartbeat("by-single-calls")))
    seen: list[bool] = []

    def beat() -> None:
        ends_at = time.monotonic() + TIMEOUT_SECONDS + 1.0
        number = 0
        while time.monotonic() < ends_at:
            number += 1
            stream.beat(a_heartbeat("on-a-stream", sequence_number=number))
            # Nobody waits for its answer.
            client.send_heartbeat_soon(a_heartbeat("by-single-calls", sequence_number=number + 1))
            time.sleep(0.1)
        seen.append(served.metric("grpc_backlog_age_seconds") > TIMEOUT_SECONDS)

    with_hub_behind(served, beat)
    assert seen == [True]
    served.manager.check_liveness()
    assert served.is_active("on-a-stream")
    assert served.is_active("by-single-calls")
    # Both are silent from here on.
    wait_until(lambda: not served.is_active("on-a-stream") and not served.is_active("by-single-calls"))


def test_registration_above_the_line_is_told_when_to_come(served: Served, client: GrpcClient) -> None:
    served.server.registrations.cost_seconds = 6.0
    first, second = client.stream(), client.stream()
    ended: list[tuple[grpc.StatusCode, str]] = []

    def register() -> None:
        first.send(pb.WorkerMessage(register=pb.Register(worker_id="first", incarnation_id="one")))
        while served.server.registrations.waiting == 0:
            time.sleep(0.01)
        second.send(pb.WorkerMessage(register=pb.Register(worker_id="second", incarnation_id="one")))
        ended.append(second.refusal())

    with_hub_stopped(register)
    ((code, details),) = ended
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "come back in" in details
    assert 0 < int(second.trailing_metadata()["grpc-retry-pushback-ms"]) <= 10_000
    assert served.metric("worker_sessions_refused_total", reason="master_busy") == 1
    assert not served.manager.knows_worker("second")
    # The one in the line is registered, and then there is room.
    assert on_a_thread(first.next_message).HasField("registered")
    assert served.manager.knows_worker("first")
    registered(client, "second")


def test_worker_whose_single_heartbeat_was_turned_away_is_not_silent(served: Served, client: GrpcClient) -> None:
    another = registered(client, "another")
    on_a_thread(lambda: client.send_heartbeat(a_heartbeat("turned-away")))
    refusals: list[object] = []

    def beat() -> None:
        # This one waits for the hub, and makes the master so late that the next one is refused.
        another.beat(a_heartbeat("another"))
        while served.metric("grpc_backlog_age_seconds") < 5.1:
            time.sleep(0.05)
        refusals.append(client.send_heartbeat(a_heartbeat("turned-away", sequence_number=2)))

    with_hub_behind(served, beat)
    (refusal,) = refusals
    assert isinstance(refusal, Refusal)
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    wait_until(lambda: served.metric("grpc_backlog_age_seconds") == 0.0)
    # Its lease has ended, and nothing of it waits to be handled.
    served.manager.check_liveness()
    assert served.is_active("turned-away")


def test_stream_on_which_nothing_arrives_is_ended(served: Served, client: GrpcClient) -> None:
    served.server.first_message_seconds = 0.5
    silent = client.stream()
    refusal = on_a_thread(silent.refusal)
    assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "nobody registered on this stream within 60 s" in refusal.details
    assert served.metric("worker_sessions_refused_total", reason="registration_timeout") == 1
