"""The master's counters of streams that their worker finished or cancelled."""

import grpc
import pytest

from tests.e2e.grpc_client import GrpcClient, new_worker_id
from tests.e2e.masters import Master
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e


def ended(master: Master) -> dict[tuple[str, ...], float]:
    """The number of ended streams by code and method."""
    return master.samples("fleetpulse_grpc_requests_total")


def test_cancelled_stream_differs_from_a_finished_one(shared_master: Master) -> None:
    with GrpcClient(shared_master.target) as client:
        finished, cancelled = client.stream(), client.stream()
        for stream in (finished, cancelled):
            stream.register(new_worker_id())
        cancelled.cancel()
        eventually(lambda: ended(shared_master) == {("CANCELLED", "Connect"): 1.0})
        finished.finish()
        assert finished.refusal().code is grpc.StatusCode.OK
        eventually(lambda: ended(shared_master) == {("CANCELLED", "Connect"): 1.0, ("OK", "Connect"): 1.0})


def test_broken_connection_cancels_all_its_streams(shared_master: Master) -> None:
    before = ended(shared_master)
    with GrpcClient(shared_master.target) as client:
        for _ in range(100):
            client.stream().register(new_worker_id())
        client.channel.close()
        eventually(lambda: sum(ended(shared_master).values()) == sum(before.values()) + 100.0)
    assert ended(shared_master)["CANCELLED", "Connect"] == before.get(("CANCELLED", "Connect"), 0.0) + 100.0
