"""master.telemetry.change_log"""

import random
from collections.abc import Callable

import gevent
import pytest

from fleetpulse.master.telemetry.change_log import ChangeLog, ChangeWindow
from tests.master.fleet import Fleet, running_fleet


def observed(fleet: Fleet, max_removals: int = 100) -> ChangeLog:
    changes = ChangeLog(max_removals)
    fleet.manager.add_observer(changes)
    return changes


def test_revision_equals_that_of_the_table(fleet: Fleet) -> None:
    changes = observed(fleet)
    fleet.beat("a")
    fleet.beat("b")
    fleet.manager.unregister_worker("a")
    assert changes.revision == fleet.manager.revision > 0
    fleet.beat("a")
    fleet.pass_time(30.0)
    assert changes.revision == fleet.manager.revision
    assert len(changes) == 2


def test_each_changed_worker_is_listed_once_longest_unchanged_first(fleet: Fleet) -> None:
    changes = observed(fleet)
    for worker_id in ("a", "b", "c", "a", "a"):
        fleet.beat(worker_id)
    window = changes.since(0)
    assert list(window.worker_ids) == ["b", "c", "a"]
    assert list(window.revisions or ()) == sorted(window.revisions or ())
    assert (window.removed, window.revision) == ([], changes.revision)
    # A client with everything up to the second change misses only the third.
    assert window.revisions is not None
    assert list(changes.since(window.revisions[1]).worker_ids) == ["a"]
    assert changes.since(changes.revision) == ChangeWindow((), (), [], changes.revision)


def test_all_workers_are_listed_in_order_of_registration(fleet: Fleet) -> None:
    changes = observed(fleet)
    for worker_id in ("c", "a", "b", "c"):
        fleet.beat(worker_id)
    fleet.manager.unregister_worker("a")
    assert changes.all_workers() == ChangeWindow(["c", "b"], None, (), changes.revision)
    assert set(changes.all_workers({"a", "b", "x"}).worker_ids) == {"b"}


def test_removed_worker_is_listed_until_it_returns(fleet: Fleet) -> None:
    changes = observed(fleet)
    for worker_id in ("a", "b", "c"):
        fleet.beat(worker_id)
    before = changes.revision
    fleet.manager.unregister_worker("b")
    fleet.manager.unregister_worker("a")
    assert changes.since(before).removed == ["b", "a"]
    assert list(changes.since(before).worker_ids) == []
    fleet.beat("b")
    assert changes.since(before).removed == ["a"]
    assert list(changes.since(before).worker_ids) == ["b"]
    assert changes.since(changes.revision).removed == []


def test_only_requested_workers_are_listed(fleet: Fleet) -> None:
    changes = observed(fleet)
    for worker_id in ("a", "b", "c", "d"):
        fleet.beat(worker_id)
    before = changes.revision
    for worker_id in ("c", "b", "a"):
        fleet.beat(worker_id)
    fleet.manager.unregister_worker("d")
    window = changes.since(before, {"a", "c", "d", "x"})
    assert list(window.worker_ids) == ["c", "a"]
    assert window.removed == ["d"]
    assert window.revision == changes.revision


def test_oldest_removals_are_forgotten() -> None:
    with running_fleet() as fleet:
        changes = observed(fleet, max_removals=2)
        for worker_id in ("a", "b", "c"):
            fleet.beat(worker_id)
        before = changes.revision
        removed_at = []
        for worker_id in ("a", "b", "c"):
            fleet.manager.unregister_worker(worker_id)
            removed_at.append(changes.revision)
        assert not changes.covers(before)
        assert changes.covers(removed_at[0])
        assert changes.since(removed_at[0]).removed == ["b", "c"]
        assert not changes.covers(changes.revision + 1)
        assert changes.covers(changes.revision)


def test_every_kind_of_change_sets_the_event(fleet: Fleet) -> None:
    changes = observed(fleet)
    assert not changes.changed.is_set()
    happenings: list[Callable[[], None]] = [
        lambda: fleet.beat("a"),
        lambda: fleet.pass_time(30.0),
        lambda: fleet.manager.unregister_worker("a"),
    ]
    for happen in happenings:
        changes.changed.clear()
        waiting = gevent.spawn(changes.changed.wait)
        gevent.idle()
        assert not waiting.ready()
        happen()
        gevent.idle()
        assert waiting.ready()


@pytest.mark.parametrize("seed", range(20))
def test_client_that_polls_at_any_time_ends_up_with_the_table(seed: int) -> None:
    """Readers that ask at moments of their own hold the table when they have asked last."""
    chance = random.Random(seed)
    names = [f"worker-{number}" for number in range(12)]
    with running_fleet() as fleet:
        changes = observed(fleet, max_removals=1000)
        readers: list[tuple[int, dict[str, int], frozenset[str] | None]] = [
            (0, {}, None if number % 2 else frozenset(chance.sample(names, 4))) for number in range(6)
        ]

        def ask(number: int) -> None:
            revision, known, among = readers[number]
            window = changes.since(revision, among)
            for worker_id in window.worker_ids:
                known[worker_id] = fleet.manager.get_worker_telemetry(worker_id).revision
            for worker_id in window.removed:
                known.pop(worker_id, None)
            readers[number] = window.revision, known, among

        for _ in range(200):
            name = chance.choice(names)
            if chance.random() < 0.2 and fleet.manager.knows_worker(name):
                fleet.manager.unregister_worker(name)
            else:
                fleet.beat(name)
            if chance.random() < 0.3:
                ask(chance.randrange(len(readers)))
        table = {name: known.revision for name, known in fleet.manager.get_all_worker_telemetry().items()}
        for number, (_, _, among) in enumerate(readers):
            ask(number)
            assert readers[number][1] == {name: at for name, at in table.items() if among is None or name in among}
