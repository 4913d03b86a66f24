"""Parsing Prometheus text."""

import math

import pytest

from tests.bench.client import percentile
from tests.bench.exposition import Scrape, fleet_families, quantile_between, quantile_of, samples

TEXT = """\
# HELP fleetpulse_worker_up 1 while it beats.
# TYPE fleetpulse_worker_up gauge
fleetpulse_worker_up{worker_id="a"} 1
fleetpulse_worker_up{worker_id="b"} 0
# HELP fleetpulse_worker_read_bytes_total Read.
# TYPE fleetpulse_worker_read_bytes_total counter
fleetpulse_worker_read_bytes_total{worker_id="a",device="one \\"two\\"\\\\n\\n}"} 1e3
# HELP wait_seconds Waited.
# TYPE wait_seconds histogram
wait_seconds_bucket{le="0.1"} 10.0
wait_seconds_bucket{le="+Inf"} 20.0
"""


def test_label_values_are_unescaped() -> None:
    (sample,) = (sample for sample in samples(TEXT) if "device" in sample.labels)
    assert sample.labels == {"worker_id": "a", "device": 'one "two"\\n\n}'}
    assert sample.value == 1000.0


def test_fleet_families_have_a_worker_id() -> None:
    assert [(family.name, family.kind, family.help, len(family.samples)) for family in fleet_families(TEXT)] == [
        ("fleetpulse_worker_up", "gauge", "1 while it beats.", 2),
        ("fleetpulse_worker_read_bytes_total", "counter", "Read.", 1),
    ]


def test_totals_and_counts_of_a_scrape() -> None:
    scrape = Scrape(TEXT)
    assert scrape.total("fleetpulse_worker_up") == 1.0
    assert scrape.total("fleetpulse_worker_up", worker_id="b") == 0.0
    assert scrape.total("absent") == 0.0
    assert scrape.count("fleetpulse_worker_up", 0.0) == 1


@pytest.mark.parametrize(
    ("quantile", "expected"),
    [(0.25, 0.5), (0.5, 1.0), (0.75, 1.5), (1.0, 2.0)],
)
def test_quantile_is_interpolated_within_its_bucket(quantile: float, expected: float) -> None:
    assert quantile_of([(1.0, 50.0), (2.0, 100.0), (math.inf, 100.0)], quantile) == pytest.approx(expected)


def test_quantile_beyond_the_last_bound_is_infinite() -> None:
    assert quantile_of([(1.0, 50.0), (math.inf, 100.0)], 0.99) == math.inf


def test_quantile_covers_only_the_time_between_two_scrapes() -> None:
    later = Scrape(TEXT.replace('0.1"} 10.0', '0.1"} 30.0').replace("20.0", "40.0"))
    assert quantile_between(Scrape(TEXT), later, "wait_seconds", 0.5) == pytest.approx(0.05)
    assert quantile_between(later, later, "wait_seconds", 0.5) is None


def test_percentile_is_one_of_the_values() -> None:
    assert [percentile([3.0, 1.0, 2.0, 4.0], percent) for percent in (50, 99, 1)] == [2.0, 4.0, 1.0]
