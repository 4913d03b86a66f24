"""master.garbage: what is collected when, and that cycles do not stay."""

import gc
import threading
import weakref
from collections.abc import Iterator

import gevent
import pytest

from fleetpulse.master.garbage import CollectionPolicy, GarbageCollector, Pass, collect
from tests.master.fleet import wait_until

HOUR = 3600.0


def passes(
    sizes: Iterator[int] | list[int], *, young: int = 100, idle: bool = True, policy: CollectionPolicy | None = None
) -> list[Pass]:
    """What a policy does that looks every second at a fleet of those sizes; young passes are left out."""
    policy = policy or CollectionPolicy(0.0)
    found = [policy.next(float(now), size, young, is_idle=idle) for now, size in enumerate(sizes)]
    return [one for one in found if one not in (None, Pass.YOUNG)]


def test_fleet_is_frozen_once_it_has_come_up() -> None:
    ramp = [100 * second for second in range(50)]
    assert passes([*ramp, *[5_000] * 50]) == [Pass.FREEZE]
    assert passes([*ramp, *[5_000] * 50, *[5_500] * 50], young=0)[:2] == [Pass.FREEZE, Pass.OLD]
    assert passes([*[5_000] * 50, *[7_000] * 30]) == [Pass.FREEZE, Pass.FREEZE]


def test_busy_hub_is_not_stopped_for_long_passes_until_they_are_overdue() -> None:
    assert passes([1_000] * 25, idle=False) == []
    assert passes([1_000] * 35, idle=False) == [Pass.FREEZE]


def test_what_is_frozen_is_looked_at_when_the_fleet_shrinks_and_once_a_day() -> None:
    assert passes([*[1_000] * 20, *[500] * 20]) == [Pass.FREEZE, Pass.THOROUGH]
    policy = CollectionPolicy(0.0)
    assert passes([10] * 50, policy=policy) == [Pass.FREEZE]
    assert policy.next(25 * HOUR, 10, 0, is_idle=True) is Pass.THOROUGH


@pytest.mark.parametrize("sizes", [[10] * 2000, [10 + 5 * (second % 7) for second in range(2000)]])
@pytest.mark.parametrize("idle", [True, False])
def test_garbage_never_waits_for_long(sizes: list[int], idle: bool) -> None:
    """Young objects 5 s, all that is not frozen some minutes, on a busy hub and with a fleet that never rests too."""
    policy = CollectionPolicy(0.0)
    young_at = old_at = 0
    for now, size in enumerate(sizes):
        found = policy.next(float(now), size, 0, is_idle=idle)
        young_at = now if found is not None else young_at
        old_at = now if found not in (None, Pass.YOUNG) else old_at
        assert now - young_at <= 5
        assert now - old_at <= 360


def test_flood_of_objects_is_collected_at_once() -> None:
    policy = CollectionPolicy(0.0)
    assert policy.next(0.5, 0, 100, is_idle=False) is None
    assert policy.next(1.0, 0, 60_000, is_idle=False) is Pass.YOUNG


class Body:
    """As an exception that keeps the frame which keeps it."""

    def __init__(self) -> None:
        self.me = self
        self.data = bytes(1024)


@pytest.fixture
def collector() -> Iterator[GarbageCollector]:
    collector = GarbageCollector(lambda: 0)
    yield collector
    collector.stop()
    assert gc.isenabled()


def test_cycles_are_freed_on_the_hub_and_in_no_other_thread(collector: GarbageCollector) -> None:
    threads = []

    def note(phase: str, info: dict[str, int]) -> None:
        threads.append(threading.get_ident())

    def make_garbage() -> None:
        kept = [[] for _ in range(200_000)]  # type: ignore[var-annotated]  # many times Python's own threshold
        del kept

    collector.start()
    gc.callbacks.append(note)
    try:
        body = weakref.ref(Body())
        thread = threading.Thread(target=make_garbage)
        thread.start()
        thread.join()
        assert not threads
        wait_until(lambda: body() is None)
    finally:
        gc.callbacks.remove(note)
    assert set(threads) == {threading.get_ident()}


def test_what_was_frozen_and_became_garbage_is_freed_by_a_thorough_pass(collector: GarbageCollector) -> None:
    collector.start()
    body = Body()
    seen = weakref.ref(body)
    collect(Pass.FREEZE)
    del body
    collect(Pass.OLD)
    assert seen() is not None
    collect(Pass.THOROUGH)
    assert seen() is None


def test_python_collects_when_the_greenlet_has_failed() -> None:
    def fail() -> int:
        raise OSError("no such fleet")

    collector = GarbageCollector(fail)
    collector.start()
    assert not gc.isenabled()
    gevent.sleep(0)
    wait_until(gc.isenabled)
    gc.unfreeze()
