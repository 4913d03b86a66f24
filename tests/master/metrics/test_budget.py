"""master.metrics.budget, and what the exposition shows by it"""

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from fleetpulse.master.metrics.budget import NOT_ASSIGNED, TOO_MANY_DEVICES, TOO_MANY_NEW_DEVICES, NameBudget
from fleetpulse.master.metrics.exposition import FleetExposition
from fleetpulse.master.telemetry.readings import Filesystem, Reading, RunningTask
from fleetpulse.master.telemetry.records import WorkerTelemetry
from tests.master.fleet import ManualClock, wait_until
from tests.master.metrics.test_exposition import FULL, check_by_promtool, samples_of, text_of
from tests.master.tasks.cluster import Cluster, new_cluster

NAMED_DEVICES = 13
"""Of ``FULL``: 3 filesystems, a disk, an interface, 2 collectors, one that left something out, 2 GPUs, which count
twice, a part of one, and 2 sensors."""


def with_mounts(*mountpoints: str, worker_id: str = "rack-7") -> WorkerTelemetry:
    reading = Reading(filesystems=tuple(Filesystem(mountpoint, 1, 2) for mountpoint in mountpoints))
    return replace(FULL, worker_id=worker_id, reading=reading)


def shown(exposition: FleetExposition, label: str = "mountpoint") -> set[str]:
    return {sample.labels[label] for sample in samples_of(text_of(exposition)) if label in sample.labels}


def budgeted(max_new: int = 4, max_fleet: int = 100) -> tuple[FleetExposition, ManualClock]:
    clock = ManualClock()
    return FleetExposition(budget=NameBudget(max_new, max_fleet), clock=clock.port), clock


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with new_cluster() as cluster:
        yield cluster


# Tasks


def test_only_tasks_that_the_master_assigned_to_the_worker_are_shown(cluster: Cluster) -> None:
    exposition = FleetExposition(cluster.tasks.is_assigned)
    worker, other = cluster.worker("rack-7"), cluster.worker("rack-8")
    task_id = cluster.submit()
    wait_until(lambda: bool(worker.starts() or other.starts()))
    (holder,) = (one for one in (worker, other) if one.starts())
    stranger = other if holder is worker else worker
    invented = tuple(RunningTask(f"invented-{number}", 1, 1.0, 2) for number in range(1000))
    for name in (holder.worker_id, stranger.worker_id):
        reading = Reading(running_tasks=(RunningTask(task_id, 1, 1.0, 2), RunningTask(task_id, 2, 1.0, 2), *invented))
        exposition.worker_changed(replace(FULL, worker_id=name, reading=reading))
    samples = [sample for sample in samples_of(text_of(exposition)) if "task_id" in sample.labels]
    assert {(sample.labels["worker_id"], sample.labels["task_id"]) for sample in samples} == {
        (holder.worker_id, task_id)
    }
    assert len(samples) == 2
    assert exposition.budget.left_out(NOT_ASSIGNED) == 2 * 1000 + 3


def test_number_of_tasks_left_out_falls_with_them() -> None:
    exposition = FleetExposition(lambda _worker_id, task_id, _attempt: task_id == "mine")
    exposition.worker_changed(replace(FULL, reading=Reading(running_tasks=(RunningTask("other", 1),))))
    text_of(exposition)
    assert exposition.budget.left_out(NOT_ASSIGNED) == 1
    exposition.worker_changed(replace(FULL, reading=Reading(running_tasks=(RunningTask("mine", 1),))))
    text_of(exposition)
    assert exposition.budget.left_out(NOT_ASSIGNED) == 0


# Devices


def test_devices_past_the_budget_of_a_worker_are_left_out_and_counted() -> None:
    exposition, _ = budgeted(max_new=4)
    exposition.worker_changed(with_mounts(*"abcdef"))
    exposition.worker_changed(with_mounts("x", worker_id="rack-8"))
    assert shown(exposition) == {*"abcd", "x"}
    assert exposition.budget.left_out(TOO_MANY_NEW_DEVICES) == 2
    check_by_promtool(text_of(exposition))


def test_new_names_at_every_heartbeat_make_no_new_series_once_the_budget_is_used() -> None:
    exposition, clock = budgeted(max_new=4)
    names: set[str] = set()
    for beat in range(50):
        exposition.worker_changed(with_mounts("root", f"invented-{beat}"))
        names |= shown(exposition)
        clock.advance(1.0)
    assert names == {"root", "invented-0", "invented-1", "invented-2"}
    clock.advance(3600.0)
    exposition.worker_changed(with_mounts("root", "later"))
    assert shown(exposition) == {"root", "later"}


def test_leaving_gives_no_new_budget() -> None:
    exposition, _ = budgeted(max_new=4)
    exposition.worker_changed(with_mounts(*"abcd"))
    text_of(exposition)
    exposition.worker_removed("rack-7")
    exposition.worker_changed(with_mounts(*"efgh"))
    assert shown(exposition) == set()
    assert exposition.budget.left_out(TOO_MANY_NEW_DEVICES) == 4


def test_fleet_has_a_budget_and_what_is_shown_stays() -> None:
    exposition, _ = budgeted(max_new=10, max_fleet=5)
    exposition.worker_changed(with_mounts(*"abc"))
    exposition.worker_changed(with_mounts(*"wxyz", worker_id="rack-8"))
    assert shown(exposition) == set("abcwx")
    exposition.worker_changed(with_mounts(*"abcd"))
    assert shown(exposition) == set("abcwx")
    assert exposition.budget.left_out(TOO_MANY_DEVICES) == 3
    exposition.worker_removed("rack-7")
    exposition.worker_changed(with_mounts(*"wxyz", worker_id="rack-8"))
    assert shown(exposition) == set("wxyz")
    assert exposition.budget.left_out(TOO_MANY_DEVICES) == 0


def test_all_kinds_of_devices_count() -> None:
    exposition, _ = budgeted(max_new=100, max_fleet=0)
    exposition.worker_changed(FULL)
    samples = samples_of(text_of(exposition))
    labels = {label for sample in samples for label in sample.labels}
    assert labels == {"worker_id", "hostname", "version", "task_id"}
    assert exposition.budget.left_out(TOO_MANY_DEVICES) == NAMED_DEVICES + 2


def test_device_that_a_full_budget_hides_comes_when_there_is_room() -> None:
    exposition, _ = budgeted(max_new=10, max_fleet=2)
    exposition.worker_changed(with_mounts(*"abc"))
    assert shown(exposition) == set("ab")
    exposition.worker_changed(with_mounts(*"bc"))
    assert shown(exposition) == set("bc")
