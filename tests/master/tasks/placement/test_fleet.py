"""master.tasks.placement.fleet: the index finds what a look at every worker for every task would find"""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.master.tasks.placement.amounts import demanded, free, total
from fleetpulse.master.tasks.placement.records import Offer, Placement, Waiting, satisfies
from fleetpulse.master.tasks.scheduler import plan
from tests.master.tasks.asked import a_task, after, an_offer

LABELS = st.dictionaries(st.sampled_from(["zone", "disk"]), st.sampled_from(["1", "2"]))
CONSTRAINTS = st.dictionaries(
    st.sampled_from(["zone", "disk", "worker_id"]),
    st.lists(st.sampled_from(["1", "2", "w0", "w1"]), max_size=3).map(tuple),
    max_size=2,
)


@st.composite
def offers_of(draw: st.DrawFn) -> list[Offer]:
    offers = []
    for number in range(draw(st.integers(0, 6))):
        gpus = [f"g{number}-{gpu}" for gpu in range(draw(st.integers(0, 3)))]
        cpu, memory = draw(st.integers(1, 8)), draw(st.integers(1, 8))
        taken = draw(st.integers(0, cpu * 2)) / 2, draw(st.integers(0, memory)), gpus[: draw(st.integers(0, 2))]
        refusal = draw(st.sampled_from([None, None, None, "it is drained"]))
        offers.append(an_offer(f"w{number}", cpu, memory, gpus, taken=taken, labels=draw(LABELS), refusal=refusal))
    return offers


@st.composite
def tasks_of(draw: st.DrawFn) -> list[Waiting]:
    return [
        a_task(
            f"t{number}",
            draw(st.integers(1, 12)) / 2,
            draw(st.integers(1, 6)),
            draw(st.sampled_from([0, 0, 0, 1, 2])),
            priority=draw(st.integers(0, 2)),
            queued_at=draw(st.sampled_from([0.0, 1.0, 60.0, 90.0])),
            constraints=draw(st.one_of(st.just({}), CONSTRAINTS)),
        )
        for number in range(draw(st.integers(0, 14)))
    ]


def straightforward(offers: Sequence[Offer], waiting: Sequence[Waiting], kept: dict[str, str]) -> list[Placement]:
    """Each task in its turn looks at every worker. Reservations are taken as found; other tests are about them."""
    placements: list[Placement] = []
    taking = [offer for offer in offers if offer.refusal is None]
    all_cpu = sum(total(offer).microcores for offer in taking)
    all_memory = sum(offer.memory_bytes for offer in taking)

    def rank(offer: Offer) -> tuple[object, ...]:
        room = free(offer)
        left = room.microcores / all_cpu + room.memory_bytes / all_memory
        return (bool(offer.gpu_uuids), room.gpus, len(offer.gpu_uuids), left, offer.worker_id)

    turn = {task.task_id: number for number, task in enumerate(waiting)}
    for task in waiting:
        closed = {worker for worker, keeper in kept.items() if turn[keeper] <= turn[task.task_id]}
        fitting = [
            offer
            for offer in after(taking, waiting, placements)
            if satisfies(offer, task.constraints)
            and demanded(task.demand).fits_into(free(offer))
            and offer.worker_id not in closed
        ]
        if fitting:
            best = min(fitting, key=rank)
            gpus = tuple(sorted(best.free_gpu_uuids)[: task.demand.gpus])
            placements.append(Placement(task.task_id, best.worker_id, gpus))
    return placements


@given(offers_of(), tasks_of())
def test_the_index_changes_nothing_but_the_time(offers: list[Offer], tasks: list[Waiting]) -> None:
    ordered = sorted(tasks, key=lambda task: (task.queued_at - 60 * task.priority, task.queued_at, task.task_id))
    decided = plan(offers, tasks, 100.0)
    assert decided.placements == straightforward(offers, ordered, decided.reservations)
    assert not set(decided.reservations.values()) & {placement.task_id for placement in decided.placements}
    for offer in after(offers, tasks, decided.placements):
        assert offer.free_memory_bytes >= 0
        assert free(offer).microcores >= 0


def test_a_thousand_demands_on_many_workers_all_find_a_place() -> None:
    offers = [an_offer(f"w{number:03}", cpu=16.0, memory=64.0) for number in range(200)]
    tasks = [a_task(f"t{number:04}", cpu=1 + number / 1000, memory=1 + number / 1000) for number in range(1000)]
    decided = plan(offers, tasks, 0.0)
    assert len(decided.placements) == 1000
    assert min(offer.free_memory_bytes for offer in after(offers, tasks, decided.placements)) >= 0
    used = {placement.worker_id for placement in decided.placements}
    assert len(used) < 130, "they are packed"
