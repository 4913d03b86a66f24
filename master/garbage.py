"""When the cyclic garbage collector runs: on the hub, in small steps, and over as little as possible.

Nearly all garbage is freed by its reference count. Left to itself, the collector runs in whichever thread makes an
object too many, gRPC's among them, and walks the whole live table again and again while a fleet grows: 200 ms each time
for 5,000 workers. So its automatic runs are off, and a greenlet calls it. Young objects are collected every few
seconds, whatever happens, so that a cycle with a large body in it is soon free. After a fleet has come up, all that
lives is frozen: later collections pass over it. What becomes garbage while it is frozen is found when the fleet
shrinks, and once a day.
"""

import gc
import time
from collections.abc import Callable
from enum import Enum

import gevent

_TICK_SECONDS = 0.5
_YOUNG_SECONDS = 5.0
_YOUNG_OBJECTS = 50_000
"""Made and not freed since the last collection: a flood is collected at once."""

_OLD_SECONDS = 60.0
_STEADY_SECONDS = 10.0
_THOROUGH_SECONDS = 24 * 3600.0
_MUCH = 0.25
"""Share of the fleet by which it grows before it is frozen again, or shrinks before what is frozen is looked at."""

_IDLE_LATE_SECONDS = 0.02
"""The greenlet is woken this much late at most when the hub has little to do."""

_PATIENCE = 3.0
"""A collection that is overdue by that many times its period does not wait for the hub to be idle."""


class Pass(Enum):
    """What to collect."""

    YOUNG = "young"
    OLD = "old"
    """All that is not frozen."""

    FREEZE = "freeze"
    """The same; then freeze what is left."""

    THOROUGH = "thorough"
    """All, frozen or not; then freeze what is left."""


class CollectionPolicy:
    """Decides what to collect. Pure: the caller brings the time, in seconds of a monotonic clock."""

    def __init__(self, now: float) -> None:
        self._young_at = self._old_at = self._thorough_at = self._changed_at = now
        self._size = self._frozen_size = 0

    def next(self, now: float, fleet_size: int, young_objects: int, *, is_idle: bool) -> Pass | None:
        """Returns what is due, as if it is then done. ``young_objects``: made and not freed since the last pass."""
        found = self._due(now, fleet_size, young_objects, is_idle=is_idle)
        if found is not None:
            self._young_at = now
        if found not in (None, Pass.YOUNG):
            self._old_at = now
        if found in (Pass.FREEZE, Pass.THOROUGH):
            self._frozen_size = fleet_size
        if found is Pass.THOROUGH:
            self._thorough_at = now
        return found

    def _due(self, now: float, fleet_size: int, young_objects: int, *, is_idle: bool) -> Pass | None:
        if abs(fleet_size - self._size) > 0.02 * self._size:
            self._size, self._changed_at = fleet_size, now
        if now - self._changed_at >= _STEADY_SECONDS:
            if is_idle or now - self._changed_at >= _PATIENCE * _STEADY_SECONDS:
                if now - self._thorough_at >= _THOROUGH_SECONDS or fleet_size < (1.0 - _MUCH) * self._frozen_size:
                    return Pass.THOROUGH
                if fleet_size > (1.0 + _MUCH) * self._frozen_size:
                    return Pass.FREEZE
            old_seconds = now - self._old_at
            if old_seconds >= _PATIENCE * _OLD_SECONDS or (is_idle and old_seconds >= _OLD_SECONDS):
                return Pass.OLD
        elif now - self._old_at >= 2.0 * _PATIENCE * _OLD_SECONDS:
            # A fleet that never rests must not keep its garbage.
            return Pass.OLD
        if young_objects >= _YOUNG_OBJECTS or now - self._young_at >= _YOUNG_SECONDS:
            return Pass.YOUNG
        return None


class GarbageCollector:
    """Owns the collector of the process between ``start`` and ``stop``, on the hub."""

    def __init__(self, fleet_size: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._fleet_size, self._clock = fleet_size, clock
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def start(self) -> None:
        """Freezes what lives, mostly modules, and turns automatic collections off."""
        gc.collect()
        gc.freeze()
        gc.disable()
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.name = "garbage-collector"

    def stop(self) -> None:
        """Leaves the collector to itself again."""
        if self._greenlet is not None:
            self._greenlet.kill()
            gc.unfreeze()
            gc.enable()

    def _run(self) -> None:
        policy = CollectionPolicy(self._clock())
        try:
            while True:
                due_at = self._clock() + _TICK_SECONDS
                gevent.sleep(_TICK_SECONDS)
                now = self._clock()
                is_idle = now - due_at <= _IDLE_LATE_SECONDS
                found = policy.next(now, self._fleet_size(), gc.get_count()[0], is_idle=is_idle)
                if found is not None:
                    collect(found)
        finally:
            # Should this greenlet fail, Python does it.
            gc.enable()


def collect(found: Pass) -> None:
    """Carries a decision out. Stops the hub meanwhile."""
    if found is Pass.THOROUGH:
        gc.unfreeze()
    gc.collect(0 if found is Pass.YOUNG else 2)
    if found in (Pass.FREEZE, Pass.THOROUGH):
        gc.freeze()
