"""master.tasks.placement: the resources, the policy best fit, and the choice of a policy"""

from collections.abc import Sequence
from importlib.metadata import EntryPoint, EntryPoints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.master.errors import ConfigError
from fleetpulse.master.tasks.placement import (
    MAX_RESERVED_WORKERS,
    POLICIES_GROUP,
    RESERVATION_TURN_SECONDS,
    RESERVE_AFTER_SECONDS,
    SECONDS_PER_PRIORITY_LEVEL,
    Offer,
    Placement,
    QueuedTask,
    ResourceAmounts,
    best_fit,
    millicores,
    policy_named,
    satisfies,
)
from tests.master.tasks.offers import a_task, after, an_offer, places

OLD = RESERVE_AFTER_SECONDS


def test_plan_is_empty_without_offers_or_tasks() -> None:
    assert best_fit([], [], 0.0) == ([], {})
    assert best_fit([an_offer("a")], [], 0.0) == ([], {})
    assert best_fit([], [a_task("t")], 1000.0) == ([], {})


@pytest.mark.parametrize(
    ("offer", "task"),
    [
        (an_offer("a", taken=(0.0, 0.0, ())), a_task("t", cpu=4.1)),
        (an_offer("a", taken=(3.5, 0.0, ())), a_task("t")),
        (an_offer("a", taken=(0.0, 15.5, ())), a_task("t")),
        (an_offer("a"), a_task("t", gpus=1)),
        (an_offer("a", gpus=["g1", "g2"], taken=(0.0, 0.0, ["g1"])), a_task("t", gpus=2)),
        (an_offer("a", taken=(5.0, 0.0, ())), a_task("t", cpu=0.01)),
        (an_offer("a", refusal="it is drained"), a_task("t")),
        (an_offer("a", cpu=0.0, memory=0.0), a_task("t", cpu=0.0, memory=0.0)),
    ],
    ids=["too large", "cpu", "memory", "no gpu", "gpu taken", "shrunk", "refuses", "nothing at all"],
)
def test_task_that_does_not_fit_is_not_placed(offer: Offer, task: QueuedTask) -> None:
    assert places([offer], [task]) == {}


def test_worker_is_filled_completely_and_not_beyond() -> None:
    tasks = [a_task(f"t{number}", cpu=1.0, memory=4.0) for number in range(6)]
    assert places([an_offer("a")], tasks) == {f"t{number}": "a" for number in range(4)}
    tasks = [a_task(f"t{number}", cpu=0.1, memory=0.1) for number in range(50)]
    assert len(places([an_offer("a", cpu=1.0)], tasks)) == 10


@pytest.mark.parametrize("cores", [0.1, 0.3, 0.7, 0.57, 0.01, 1.001])
def test_sums_of_floats_do_not_drift(cores: float) -> None:
    """However the rest of a worker has been arrived at, as many fit one by one as fit at once."""
    tasks = [a_task(f"t{number:03}", cpu=cores, memory=0.01) for number in range(101)]
    offers = [an_offer("a", cpu=round(cores * 100, 9))]
    for task in tasks[:100]:
        decided = best_fit(offers, [task], 0.0)
        assert len(decided.placements) == 1
        offers = after(offers, [task], decided.placements)
    assert places(offers, tasks[100:]) == {}


def test_gpus_are_allocated_whole_and_lowest_ids_first() -> None:
    offer = an_offer("a", gpus=["g3", "g1", "g4", "g2"], taken=(0.0, 0.0, ["g2"]))
    tasks = [a_task("one", gpus=1), a_task("pair", gpus=2, queued_at=1.0), a_task("late", gpus=1, queued_at=2.0)]
    assert best_fit([offer], tasks, 2.0).placements == [
        Placement("one", "a", ("g1",)),
        Placement("pair", "a", ("g3", "g4")),
    ]


def test_priority_comes_first_and_then_age() -> None:
    tasks = [
        a_task("low", priority=0, queued_at=0.0),
        a_task("high-late", priority=1, queued_at=20.0),
        a_task("high-early", priority=1, queued_at=10.0),
    ]
    placed = [placement.task_id for placement in best_fit([an_offer("a")], tasks, 20.0).placements]
    assert placed == ["high-early", "high-late", "low"]


@pytest.mark.parametrize(
    ("head_start_seconds", "first"),
    [
        (SECONDS_PER_PRIORITY_LEVEL * 3 - 1, "high"),
        (SECONDS_PER_PRIORITY_LEVEL * 3, "low"),
        (SECONDS_PER_PRIORITY_LEVEL * 3 + 1, "low"),
    ],
)
def test_waiting_raises_the_priority(head_start_seconds: float, first: str) -> None:
    tasks = [a_task("high", priority=3, queued_at=head_start_seconds), a_task("low", priority=0)]
    for now in (head_start_seconds, head_start_seconds + 5000.0):
        assert places([an_offer("a", cpu=1.0)], tasks, now) == {first: "a"}


def test_order_of_the_arguments_does_not_matter() -> None:
    offers = [an_offer(f"w{number}", cpu=2.0) for number in range(5)]
    tasks = [a_task(f"t{number}", cpu=1.5) for number in range(7)]
    assert best_fit(offers[::-1], tasks[::-1], 0.0) == best_fit(offers, tasks, 0.0)


def test_best_fit_leaves_the_least_free() -> None:
    offers = [an_offer("large", cpu=16.0), an_offer("tight", taken=(2.0, 8.0, ())), an_offer("middle")]
    assert places(offers, [a_task("t", cpu=2.0)]) == {"t": "tight"}
    assert places(offers, [a_task("t", cpu=3.0)]) == {"t": "middle"}
    assert places(offers, [a_task("t", cpu=5.0)]) == {"t": "large"}


def test_tasks_are_packed_on_a_worker_that_got_one_already() -> None:
    offers = [an_offer("a"), an_offer("b")]
    tasks = [a_task("1"), a_task("2", queued_at=1.0), a_task("3", cpu=0.5, queued_at=2.0)]
    assert set(places(offers, tasks).values()) == {"a"}


def test_gpu_workers_are_left_to_gpu_tasks_where_possible() -> None:
    offers = [an_offer("gpu", gpus=["g1"]), an_offer("plain", cpu=64.0, memory=256.0)]
    assert places(offers, [a_task("t")]) == {"t": "plain"}
    assert places([offers[0]], [a_task("t")]) == {"t": "gpu"}
    used = an_offer("used", cpu=64.0, gpus=["g2"], taken=(1.0, 1.0, ["g2"]))
    assert places([offers[0], used], [a_task("t")]) == {"t": "used"}, "no GPU could be wasted there"


def test_small_gpu_task_leaves_large_gpu_workers_free() -> None:
    offers = [
        an_offer("eight", gpus=[f"e{number}" for number in range(8)]),
        an_offer("two", gpus=["t1", "t2"], taken=(0.0, 0.0, ["t1"])),
        an_offer("one", cpu=64.0, gpus=["o1"]),
    ]
    tasks = [a_task(f"t{number}", gpus=1, queued_at=number) for number in range(2)]
    assert set(places(offers, tasks).values()) == {"one", "two"}


def test_gpu_task_takes_the_last_free_gpu_of_a_large_worker_first() -> None:
    eight = [f"e{number}" for number in range(8)]
    offers = [an_offer("eight", gpus=eight, taken=(0.0, 0.0, eight[:7])), an_offer("four", gpus=["1", "2", "3", "4"])]
    assert places(offers, [a_task("t", gpus=1)]) == {"t": "eight"}


@pytest.mark.parametrize(
    ("constraints", "expected"),
    [
        ({"zone": ("eu",)}, "a"),
        ({"zone": ("us", "asia")}, "b"),
        ({"zone": ("eu", "us"), "disk": ("ssd",)}, "b"),
        ({"zone": ("eu",), "disk": ("ssd",)}, None),
        ({"zone": ()}, None),
        ({"rack": ("1",)}, None),
        ({"worker_id": ("b",)}, "b"),
        ({"worker_id": ("liar",)}, None),
        ({"worker_id": ("a", "b"), "zone": ("eu",)}, "a"),
    ],
)
def test_constraints_on_labels(constraints: dict[str, tuple[str, ...]], expected: str | None) -> None:
    offers = [
        an_offer("a", labels={"zone": "eu", "worker_id": "liar"}),
        an_offer("b", labels={"zone": "us", "disk": "ssd"}),
    ]
    assert places(offers, [a_task("t", constraints=constraints)]).get("t") == expected


def test_small_tasks_fill_gaps_before_a_reservation_begins() -> None:
    offers = [an_offer("a", taken=(2.0, 0.0, ()))]
    tasks = [a_task("large", cpu=4.0), a_task("small", queued_at=OLD - 1)]
    assert best_fit(offers, tasks, OLD - 1) == ([Placement("small", "a", ())], {})


def test_old_task_reserves_the_worker_where_least_is_missing() -> None:
    offers = [
        an_offer("a", taken=(3.0, 0.0, ())),
        an_offer("b", taken=(1.0, 0.0, ())),
        an_offer("c", cpu=2.0, memory=64.0, taken=(0.5, 0.0, ())),
        an_offer("d", taken=(0.5, 0.0, ()), refusal="it is drained"),
    ]
    tasks = [a_task("large", cpu=4.0), a_task("small", queued_at=OLD), a_task("small too", cpu=2.0, queued_at=OLD)]
    decided = best_fit(offers, tasks, OLD)
    assert decided.reservations == {"b": "large"}, "c is too small for it, d takes nothing"
    assert {placement.task_id: placement.worker_id for placement in decided.placements} == {"small": "a"}


def test_tasks_ahead_of_a_reservation_may_use_the_reserved_worker() -> None:
    offers = [an_offer("a", taken=(1.0, 0.0, ()))]
    tasks = [a_task("large", cpu=4.0), a_task("urgent", priority=5, queued_at=OLD), a_task("behind", queued_at=OLD)]
    assert best_fit(offers, tasks, OLD) == ([Placement("urgent", "a", ())], {"a": "large"})


def test_task_that_fits_no_worker_reserves_nothing() -> None:
    offers = [an_offer("a", taken=(1.0, 0.0, ())), an_offer("b", cpu=2.0, memory=64.0)]
    tasks = [
        a_task("huge", cpu=5.0),
        a_task("nowhere", constraints={"zone": ("moon",)}),
        a_task("shape", cpu=4.0, memory=64.0),
        a_task("gpu", gpus=1),
        a_task("small", queued_at=OLD),
    ]
    decided = best_fit(offers, tasks, 10 * OLD)
    assert decided.reservations == {}
    assert [placement.task_id for placement in decided.placements] == ["small"]


@pytest.mark.parametrize(("workers", "most"), [(1, 1), (2, 1), (3, 1), (4, 2), (9, 4), (100, MAX_RESERVED_WORKERS)])
def test_at_most_half_of_the_workers_are_reserved(workers: int, most: int) -> None:
    offers = [an_offer(f"w{number:03}", taken=(1.0, 0.0, ())) for number in range(workers)]
    refusing = [an_offer(f"x{number:03}", refusal="it is inactive") for number in range(workers)]
    tasks = [a_task(f"large-{number:03}", cpu=4.0, queued_at=number / 1000) for number in range(workers)]
    decided = best_fit(offers + refusing, tasks, OLD + 1)
    assert list(decided.reservations.values()) == [f"large-{number:03}" for number in range(most)]
    assert len(places(offers, [*tasks, *(a_task(f"s{n}", queued_at=OLD) for n in range(500))], OLD + 1)) == (
        3 * (workers - most)
    )


def test_later_turns_of_a_reservation_go_to_other_workers() -> None:
    """Where least is missing one task may run for ever."""
    offers = [an_offer(f"w{number}", taken=(1.0 + number / 10, 0.0, ())) for number in range(3)]
    reserved: list[str] = []
    for turn in range(6):
        turn_began = RESERVATION_TURN_SECONDS * (2**turn - 1)
        for now in (turn_began, turn_began + RESERVATION_TURN_SECONDS * 2**turn - 1):
            reserved += best_fit(offers, [a_task("large", cpu=4.0)], OLD + now).reservations
    assert reserved[0] == reserved[1] == "w0"
    assert reserved[::2] == reserved[1::2], "a turn stays with its worker"
    assert set(reserved[4:]) == {"w0", "w1", "w2"}


# ResourceAmounts

AMOUNTS = st.builds(ResourceAmounts, *[st.integers(0, 5)] * 3)


@pytest.mark.parametrize(
    ("cores", "expected"),
    [(1.0, 1000), (0.1, 100), (1.001, 1001), (2.007, 2007), (0.1000004, 101), (0.0, 1), (1e-9, 1)],
)
def test_demand_for_cores_is_rounded_up_but_not_for_the_error_of_a_float(cores: float, expected: int) -> None:
    assert millicores(cores) == expected


@given(st.lists(st.integers(1, 64_000), max_size=200))
def test_free_amounts_are_exact_after_many_allocations(demands: list[int]) -> None:
    free = ResourceAmounts(1_000_000, 0, 0)
    for demand in demands:
        free = free.minus(ResourceAmounts(millicores(demand / 1000), 0, 0))
    assert free.cpu_millicores == 1_000_000 - sum(demands)


@given(AMOUNTS, AMOUNTS)
def test_nothing_is_missing_exactly_when_it_fits(demand: ResourceAmounts, free: ResourceAmounts) -> None:
    missing = demand.missing_from(free)
    assert (not any(missing)) == demand.fits_into(free) == (demand.share_missing_from(free) == 0.0)
    enough = ResourceAmounts(*(have + lack for have, lack in zip(free, missing, strict=True)))
    assert demand.fits_into(enough)
    assert demand.share_missing_from(free) == pytest.approx(
        sum(lack / wanted for lack, wanted in zip(missing, demand, strict=True) if wanted)
    )


# The index finds what a look at every worker for every task would find

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
def tasks_of(draw: st.DrawFn) -> list[QueuedTask]:
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


def straightforward(offers: Sequence[Offer], waiting: Sequence[QueuedTask], kept: dict[str, str]) -> list[Placement]:
    """Each task in its turn looks at every worker. Reservations are taken as found; other tests are about them."""
    placements: list[Placement] = []
    taking = [offer for offer in offers if offer.refusal is None]
    all_cpu = sum(offer.total.cpu_millicores for offer in taking)
    all_memory = sum(offer.total.memory_bytes for offer in taking)

    def rank(offer: Offer) -> tuple[object, ...]:
        left = offer.free.cpu_millicores / all_cpu + offer.free.memory_bytes / all_memory
        return (bool(offer.gpu_uuids), offer.free.gpus, len(offer.gpu_uuids), left, offer.worker_id)

    turn = {task.task_id: number for number, task in enumerate(waiting)}
    for task in waiting:
        closed = {worker for worker, keeper in kept.items() if turn[keeper] <= turn[task.task_id]}
        fitting = [
            offer
            for offer in after(taking, waiting, placements)
            if satisfies(offer, task.constraints)
            and task.demand.fits_into(offer.free)
            and offer.worker_id not in closed
        ]
        if fitting:
            best = min(fitting, key=rank)
            gpus = tuple(sorted(best.free_gpu_uuids)[: task.demand.gpus])
            placements.append(Placement(task.task_id, best.worker_id, gpus))
    return placements


@given(offers_of(), tasks_of())
def test_index_places_as_a_straightforward_search_does(offers: list[Offer], tasks: list[QueuedTask]) -> None:
    ordered = sorted(tasks, key=lambda task: (task.queued_at - 60 * task.priority, task.queued_at, task.task_id))
    decided = best_fit(offers, tasks, 100.0)
    assert decided.placements == straightforward(offers, ordered, decided.reservations)
    assert not set(decided.reservations.values()) & {placement.task_id for placement in decided.placements}
    for offer in after(offers, tasks, decided.placements):
        assert offer.free.memory_bytes >= 0
        assert offer.free.cpu_millicores >= 0


def test_thousand_different_demands_are_all_placed() -> None:
    offers = [an_offer(f"w{number:03}", cpu=16.0, memory=64.0) for number in range(200)]
    tasks = [a_task(f"t{number:04}", cpu=1 + number / 1000, memory=1 + number / 1000) for number in range(1000)]
    decided = best_fit(offers, tasks, 0.0)
    assert len(decided.placements) == 1000
    assert min(offer.free.memory_bytes for offer in after(offers, tasks, decided.placements)) >= 0
    used = {placement.worker_id for placement in decided.placements}
    assert len(used) < 130, "they are packed"


# The choice of a policy


def installed(value: str) -> EntryPoints:
    return EntryPoints([EntryPoint("other", value, POLICIES_GROUP), EntryPoint("another", value, "something.else")])


def test_built_in_policy_needs_no_entry_point() -> None:
    assert policy_named("best-fit", EntryPoints()) is best_fit


def test_installed_policy_is_loaded_by_name() -> None:
    assert policy_named("other", installed("fleetpulse.master.tasks.placement:best_fit")) is best_fit


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("another", "x:y", "no such policy is installed; there is best-fit, other"),
        ("other", "master.nowhere:plan", "master.nowhere:plan cannot be loaded: ModuleNotFoundError"),
        ("other", "fleetpulse.master.tasks.placement:nothing", "cannot be loaded: AttributeError"),
        ("other", "fleetpulse.master.tasks.placement:MAX_RESERVED_WORKERS", "is no function"),
    ],
)
def test_policy_that_cannot_be_loaded_is_a_config_error(name: str, value: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        policy_named(name, installed(value))
    assert str(caught.value).startswith(f"FLEETPULSE_PLACEMENT={name!r}: ")
