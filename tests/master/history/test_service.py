"""master.history.service: the choice of source, step and tier."""

from collections.abc import Iterator, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetpulse.master.errors import HistoryOff, PrometheusUnavailable, UnknownWorker
from fleetpulse.master.history.points import Series, Window, encode_chunk
from fleetpulse.master.history.recorder import Recorder
from fleetpulse.master.history.series_writer import PointChunk, Tier
from fleetpulse.master.history.service import (
    AUTOMATIC_POINTS,
    HistoryRequest,
    HistoryService,
    PrometheusSource,
    align,
    automatic_step,
    round_step,
)
from fleetpulse.master.instruments import Instruments
from tests.master.fleet import settle, wait_until
from tests.master.history.builders import DAY_SECONDS, NOW, TIERS, points, telemetry
from tests.master.history.memory_store import MemoryStore

CPU = ["cpu_usage"]


class Prometheus:
    """Answers the step for every value, or not at all."""

    def __init__(self) -> None:
        self.trouble: str | None = None

    def read(self, worker_id: str, window: Window, fields: Sequence[str]) -> Mapping[str, Series]:
        if self.trouble is not None:
            raise PrometheusUnavailable(self.trouble)
        values: list[float | None] = [float(window.step)] * window.length
        return {field: Series(values, values, values) for field in fields}


class Reading:
    """A history over a store in memory, at a fixed time."""

    def __init__(self, tiers: tuple[Tier, ...] = TIERS, prometheus: PrometheusSource | None = None) -> None:
        self.store, self.instruments = MemoryStore(), Instruments()
        self.known: set[str] = set()
        knows_worker = self.known.__contains__
        self.recorder = Recorder(self.store, tiers, self.instruments, 30.0, knows_worker, lambda: float(NOW), 0.001)
        self.service = HistoryService(
            self.store, self.recorder, tiers, self.instruments, knows_worker, prometheus, lambda: float(NOW)
        )

    def keep(self, step: int, *timed: tuple[int, float]) -> None:
        data = encode_chunk(points(*timed), step)
        self.store.chunks.append(PointChunk("rack-7", step, timed[0][0], timed[-1][0], len(timed), data))

    def read(self, seconds: float, step: int | None = None) -> tuple[Window, str, str | None, list[float | None]]:
        request = HistoryRequest(NOW - seconds, NOW, step, CPU)
        window, source, warning, series = self.service.read("rack-7", request)
        return window, source, warning, series["cpu_usage"].mean


@pytest.fixture
def reading() -> Iterator[Reading]:
    reading = Reading()
    yield reading
    reading.recorder.stop()


def test_hour_has_15_second_points(reading: Reading) -> None:
    reading.keep(15, (NOW - 3600, 1.0), (NOW - 15, 2.0))
    window, source, warning, values = reading.read(3600)
    assert (window, source, warning) == (Window(NOW - 3600, NOW, 15), "store", None)
    assert (values[0], values[-1], set(values[1:-1])) == (1.0, 2.0, {None})


@pytest.mark.parametrize(
    ("seconds", "step"),
    [(3600, 15), (4 * 3600, 15), (6 * 3600, 30), (DAY_SECONDS, 120), (DAY_SECONDS + 60, 300), (30 * DAY_SECONDS, 3600)],
)
def test_automatic_step_depends_on_length_and_retention(reading: Reading, seconds: float, step: int) -> None:
    reading.known.add("rack-7")
    assert reading.read(seconds)[0].step == step


def test_week_has_5_minute_points(reading: Reading) -> None:
    reading.keep(300, (NOW - 7 * 86_400, 1.0), (NOW - 7 * 86_400 + 300, 3.0))
    reading.keep(15, (NOW - 7 * 86_400, 99.0))
    window, _, _, values = reading.read(7 * DAY_SECONDS)
    assert (window.step, values[0]) == (900, 2.0)


def test_longer_steps_of_recent_hours_use_short_points(reading: Reading) -> None:
    reading.keep(15, (NOW - 30, 1.0), (NOW - 15, 3.0))
    assert reading.read(600, step=300)[3] == [None, 2.0]


def test_week_without_the_long_tier_uses_short_points() -> None:
    reading = Reading(TIERS[:1])
    reading.keep(15, (NOW - 15, 3.0))
    window, _, _, values = reading.read(7 * DAY_SECONDS)
    assert (window.step, values[-1]) == (900, 3.0)


def test_answer_has_points_that_are_not_stored_yet(reading: Reading) -> None:
    reading.recorder.start()
    settle()
    reading.recorder.record("rack-7", telemetry(NOW - 40, cpu_usage_percent=1.0))
    reading.recorder.record("rack-7", telemetry(NOW - 20, cpu_usage_percent=2.0))
    reading.recorder.record("rack-7", telemetry(NOW, cpu_usage_percent=3.0))
    wait_until(lambda: reading.read(45)[3] == [1.0, 2.0, None])


def test_removed_worker_has_history_and_unknown_worker_is_an_error(reading: Reading) -> None:
    with pytest.raises(UnknownWorker):
        reading.read(3600)
    reading.keep(15, (NOW - 7200, 1.0))
    assert set(reading.read(3600)[3]) == {None}
    assert 1.0 in reading.read(7200)[3]


def test_worker_without_points_is_all_gaps(reading: Reading) -> None:
    reading.known.add("rack-7")
    assert set(reading.read(3600)[3]) == {None}


def test_history_off_is_an_error() -> None:
    reading = Reading(())
    reading.recorder.start()
    assert reading.recorder.health_error() is None
    with pytest.raises(HistoryOff, match="history-retention off"):
        reading.read(3600)


def test_prometheus_is_preferred_and_the_store_is_the_fallback() -> None:
    prometheus = Prometheus()
    reading = Reading(prometheus=prometheus)
    reading.keep(15, (NOW - 15, 2.0))
    window, source, warning, values = reading.read(90 * DAY_SECONDS)
    assert (window.step, source, warning, values[0]) == (10_800, "prometheus", None, 10_800.0)
    prometheus.trouble = "Prometheus does not answer: no connection"
    _, source, warning, values = reading.read(60)
    assert (source, warning, values[-1]) == ("store", prometheus.trouble, 2.0)
    failures = "fleetpulse_history_prometheus_failures_total"
    assert reading.instruments.registry.get_sample_value(failures) == 1.0


def test_prometheus_error_is_raised_without_a_store() -> None:
    prometheus = Prometheus()
    reading = Reading((), prometheus)
    assert reading.read(60)[1] == "prometheus"
    prometheus.trouble = "no connection"
    with pytest.raises(PrometheusUnavailable):
        reading.read(60)


@pytest.mark.parametrize(("tiers", "expected"), [(TIERS, 600), (TIERS[:1], 315), ((), 600)])
def test_requested_step_is_rounded_to_the_tiers(tiers: tuple[Tier, ...], expected: int) -> None:
    assert Reading(tiers).service.rounded_step(301) == expected


def test_window_is_aligned_to_whole_steps() -> None:
    assert align(NOW + 1.5, NOW + 61.0, 15) == (NOW, NOW + 75, 15)
    assert align(NOW, NOW + 60, 15) == Window(NOW, NOW + 60, 15)
    assert align(NOW, NOW, 300).length == 1


@settings(deadline=None, max_examples=60)
@given(st.floats(min_value=1.0, max_value=1e9), st.sampled_from([15, 300]))
def test_automatic_step_is_the_shortest_with_few_enough_points(seconds: float, at_least: int) -> None:
    step = automatic_step(seconds, at_least)
    assert step >= at_least
    assert step % at_least == 0
    assert seconds / step <= AUTOMATIC_POINTS
    if step not in (at_least, 15):
        assert seconds / step > AUTOMATIC_POINTS / 3


@pytest.mark.parametrize(
    ("asked", "given"), [(15, 15), (16, 30), (60, 60), (299, 300), (300, 300), (301, 600), (3601, 3900)]
)
def test_step_is_rounded_up_to_a_stored_length(asked: int, given: int) -> None:
    assert round_step(asked, (15, 300)) == given
