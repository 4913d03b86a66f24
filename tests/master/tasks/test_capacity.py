"""master.tasks.capacity: what the workers offer, what is taken of it, and why one offers nothing"""

import pytest
from msgspec.structs import replace

from fleetpulse.master.tasks.capacity import FleetCapacity
from fleetpulse.master.tasks.placement import ResourceAmounts, millicores
from fleetpulse.master.tasks.records import Drain
from fleetpulse.master.telemetry.readings import Load, Reading, TaskSupport
from fleetpulse.master.telemetry.records import HeartbeatCounts, Registration, Resources, WorkerTelemetry

GIB = 1024**3
READY = WorkerTelemetry(
    "rack-7",
    Registration(
        capacity=Resources(cpu_cores=4.0, memory_bytes=8 * GIB, gpu_count=2, gpu_uuids=("GPU-a", "GPU-b")),
        labels={"zone": "eu"},
        task_support=TaskSupport(available=True),
    ),
    *(0.0, True, 0.0, Reading(), HeartbeatCounts(), 0),
)


@pytest.fixture
def fleet() -> FleetCapacity:
    fleet = FleetCapacity()
    fleet.observe(READY)
    fleet.set_connected("rack-7", is_connected=True)
    return fleet


def test_idle_worker_offers_its_whole_capacity(fleet: FleetCapacity) -> None:
    (offer,) = fleet.offers()
    assert (offer.total, offer.gpu_uuids) == ((4000, 8 * GIB, 2), ("GPU-a", "GPU-b"))
    assert offer.free == offer.total
    assert (offer.free_gpu_uuids, offer.labels, offer.refusal) == (("GPU-a", "GPU-b"), {"zone": "eu"}, None)


def test_allocated_resources_are_not_offered_until_they_are_released(fleet: FleetCapacity) -> None:
    fleet.allocate("rack-7", ("task-1", 1), ResourceAmounts(1500, GIB, 1), ("GPU-a",))
    (offer,) = fleet.offers()
    assert (offer.free, offer.free_gpu_uuids) == ((2500, 7 * GIB, 1), ("GPU-b",))
    allocation = fleet.allocation("rack-7")
    assert (allocation.cpu_cores, allocation.memory_bytes, allocation.gpu_uuids, allocation.tasks) == (
        *(1.5, GIB),
        *(("GPU-a",), 1),
    )
    fleet.release("rack-7", ("task-1", 1))
    (offer,) = fleet.offers()
    assert (offer.free.cpu_millicores, offer.free_gpu_uuids) == (4000, ("GPU-a", "GPU-b"))


def test_sums_of_tenths_of_cores_are_exact(fleet: FleetCapacity) -> None:
    for number in range(40):
        fleet.allocate("rack-7", (f"task-{number}", 1), ResourceAmounts(100, 0, 0), ())
    assert fleet.offers()[0].free.cpu_millicores == 0
    for number in range(40):
        fleet.release("rack-7", (f"task-{number}", 1))
    assert fleet.offers()[0].free.cpu_millicores == 4000


def test_demand_is_rounded_up_to_a_millicore(fleet: FleetCapacity) -> None:
    fleet.allocate("rack-7", ("task-1", 1), ResourceAmounts(millicores(0.0101), 0, 0), ())
    assert fleet.allocation("rack-7").cpu_cores == 0.011


def test_heartbeat_without_changes_keeps_the_revision(fleet: FleetCapacity) -> None:
    before = fleet.revision
    assert not fleet.observe(replace(READY, last_update=99.0, reading=Reading(load=Load(load1=1.0))))
    assert fleet.revision == before


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (replace(READY, is_active=False), "it is inactive"),
        (replace(READY, reading=Reading(task_support=TaskSupport(False, "no Docker"))), "no Docker"),
        (replace(READY, registration=Registration()), "it only reports telemetry"),
    ],
)
def test_offer_says_why_a_worker_takes_no_tasks(fleet: FleetCapacity, change: WorkerTelemetry, why: str) -> None:
    assert fleet.observe(change)
    assert fleet.offers()[0].refusal == why
    assert fleet.observe(READY)
    assert fleet.offers()[0].refusal is None


def test_disconnected_worker_takes_no_tasks(fleet: FleetCapacity) -> None:
    fleet.set_connected("rack-7", is_connected=False)
    assert fleet.allocation("rack-7").refusal == "its connection is broken"


def test_drain_is_kept_while_the_worker_is_away(fleet: FleetCapacity) -> None:
    fleet.set_drain("rack-7", Drain("rack-7", "new disks", since=1.0))
    assert fleet.offers()[0].refusal == "it is drained: new disks"
    assert fleet.allocation("rack-7").drain_reason == "new disks"
    fleet.forget("rack-7")
    assert fleet.offers() == ()
    fleet.observe(READY)
    assert fleet.offers()[0].refusal == "it is drained: new disks"
    fleet.set_drain("rack-7", None)
    assert fleet.offers()[0].refusal is None
    assert fleet.allocation("rack-7").drain_reason is None


def test_allocation_of_a_removed_worker_is_kept_until_it_is_released(fleet: FleetCapacity) -> None:
    fleet.allocate("rack-7", ("task-1", 1), ResourceAmounts(1000, 0, 0), ())
    fleet.forget("rack-7")
    fleet.observe(READY)
    assert fleet.offers()[0].free.cpu_millicores == 3000
