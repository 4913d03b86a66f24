"""The part of time that is asked for, and what stands where in it."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetpulse.master.history.window import (
    AUTOMATIC_POINTS,
    Window,
    aligned,
    automatic_step,
    laid_out,
    rounded_step,
)
from tests.master.history.given import NOW, points

TIMES = st.lists(st.integers(min_value=0, max_value=300), max_size=80, unique=True)


def test_a_window_is_widened_to_whole_steps() -> None:
    assert aligned(NOW + 1.5, NOW + 61.0, 15) == (NOW, NOW + 75, 15)
    assert aligned(NOW, NOW + 60, 15) == Window(NOW, NOW + 60, 15)
    assert aligned(NOW, NOW, 300).length == 1


@settings(deadline=None, max_examples=60)
@given(st.floats(min_value=1.0, max_value=1e9), st.sampled_from([15, 300]))
def test_the_step_is_the_shortest_with_few_enough_points(seconds: float, at_least: int) -> None:
    step = automatic_step(seconds, at_least)
    assert step >= at_least
    assert step % at_least == 0
    assert seconds / step <= AUTOMATIC_POINTS
    if step not in (at_least, 15):
        assert seconds / step > AUTOMATIC_POINTS / 3


@pytest.mark.parametrize(
    ("asked", "given"), [(15, 15), (16, 30), (60, 60), (299, 300), (300, 300), (301, 600), (3601, 3900)]
)
def test_a_step_is_rounded_up_to_what_is_stored(asked: int, given: int) -> None:
    assert rounded_step(asked, (15, 300)) == given


def test_points_stand_at_their_times_with_gaps_between() -> None:
    (series,) = laid_out(Window(NOW, NOW + 75, 15), [points((NOW - 15, 1.0), (NOW, 2.0), (NOW + 60, 3.0))], [0])
    assert series.mean == [2.0, None, None, None, 3.0]
    assert series.low == series.high == series.mean


def test_a_field_that_was_never_there_is_nothing_but_gaps() -> None:
    (series,) = laid_out(Window(NOW, NOW + 30, 15), [points((NOW, 2.0))], [3])
    assert series.mean == series.low == series.high == [None, None]


@settings(deadline=None, max_examples=60)
@given(TIMES, st.sampled_from([15, 30, 60, 300]), st.integers(min_value=0, max_value=20))
def test_longer_steps_hold_mean_minimum_and_maximum(indexes: list[int], step: int, start: int) -> None:
    window = aligned(NOW + 15 * start, NOW + 15 * 300, step)
    timed = [(NOW + 15 * index, float(index % 50)) for index in indexes]
    (series,) = laid_out(window, [points(one) for one in timed], [0])
    assert len(series.mean) == len(series.low) == len(series.high) == window.length
    for place in range(window.length):
        begin = window.start + place * step
        inside = [value for time, value in timed if begin <= time < begin + step]
        if inside:
            assert series.mean[place] == pytest.approx(math.fsum(inside) / len(inside), rel=1e-4)
            assert (series.low[place], series.high[place]) == (min(inside), max(inside))
        else:
            assert series.mean[place] is series.low[place] is series.high[place] is None


def test_what_is_stored_and_still_in_memory_counts_once() -> None:
    twice = points((NOW, 2.0), (NOW + 15, 4.0))
    (series,) = laid_out(Window(NOW, NOW + 30, 15), [twice, twice], [0])
    assert series.mean == [2.0, 4.0]
