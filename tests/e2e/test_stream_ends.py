"""How streams end that their worker ends, as the master counts them."""

import grpc
import pytest

from tests.e2e.masters import Master
from tests.e2e.waiting import eventually
from tests.e2e.wire import Wire, new_worker_id

pytestmark = pytest.mark.e2e


def ended(master: Master) -> dict[tuple[str, ...], float]:
    """The streams that ended, by code and method."""
    return master.samples("fleetpulse_grpc_requests_total")


def test_cancelled_stream_differs_from_a_finished_one(shared_master: Master) -> None:
    with Wire(shared_master.target) as wire:
        finished, cancelled = wire.stream(), wire.stream()
        for stream in (finished, cancelled):
            stream.register(new_worker_id())
        cancelled.cancel()
        eventually(lambda: ended(shared_master) == {("CANCELLED", "Connect"): 1.0})
        finished.finish()
        assert finished.refusal().code is grpc.StatusCode.OK
        eventually(lambda: ended(shared_master) == {("CANCELLED", "Connect"): 1.0, ("OK", "Connect"): 1.0})


def test_broken_connection_cancels_all_its_streams(shared_master: Master) -> None:
    before = ended(shared_master)
    with Wire(shared_master.target) as wire:
        for _ in range(100):
            wire.stream().register(new_worker_id())
        wire.channel.close()
        eventually(lambda: sum(ended(shared_master).values()) == sum(before.values()) + 100.0)
    assert ended(shared_master)["CANCELLED", "Connect"] == before.get(("CANCELLED", "Connect"), 0.0) + 100.0
