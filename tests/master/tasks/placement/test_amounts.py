"""master.tasks.placement.amounts"""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.master.tasks.placement.amounts import Amounts, demanded, free, total
from fleetpulse.master.tasks.records import Demand
from tests.master.tasks.asked import an_offer

AMOUNTS = st.builds(Amounts, *[st.integers(0, 5)] * 3)


@pytest.mark.parametrize(
    ("cores", "microcores"),
    [
        (1.0, 1_000_000),
        (0.1, 100_000),
        (1.001, 1_001_000),
        (2.007, 2_007_000),
        (0.1000004, 100_001),
        (0.0, 1),
        (1e-9, 1),
    ],
)
def test_a_demand_is_rounded_up_but_not_for_the_error_of_a_float(cores: float, microcores: int) -> None:
    assert demanded(Demand(cores, 5, 2)) == (microcores, 5, 2)


@given(st.lists(st.integers(1, 64_000), max_size=200))
def test_what_is_left_after_many_demands_is_exact(demands: list[int]) -> None:
    left = 1000.0
    for millicores in demands:
        left -= millicores / 1000
    offer = an_offer("a", cpu=1000.0)._replace(free_cpu_cores=left)
    assert free(offer).microcores == (Fraction(1000) - Fraction(sum(demands), 1000)) * 1_000_000
    assert total(offer).microcores == 1_000_000_000


@given(AMOUNTS, AMOUNTS)
def test_nothing_is_missing_exactly_when_it_fits(demand: Amounts, room: Amounts) -> None:
    missing = demand.missing_from(room)
    assert (not any(missing)) == demand.fits_into(room) == (demand.share_missing_from(room) == 0.0)
    enough = Amounts(*(have + lack for have, lack in zip(room, missing, strict=True)))
    assert demand.fits_into(enough)
    assert demand.share_missing_from(room) == pytest.approx(
        sum(lack / wanted for lack, wanted in zip(missing, demand, strict=True) if wanted)
    )
