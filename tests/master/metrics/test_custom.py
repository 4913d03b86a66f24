"""master.metrics.custom, and its place in the exposition"""

from collections.abc import Callable

import pytest
from msgspec.structs import replace
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from fleetpulse.master.instruments import Instruments
from fleetpulse.master.metrics.custom import (
    NEGATIVE_COUNTER,
    TOO_MANY_FAMILIES,
    TOO_MANY_SAMPLES,
    TYPE_CONFLICT,
    CustomFamilies,
)
from fleetpulse.master.metrics.exposition import FleetExposition
from fleetpulse.master.telemetry.readings import CustomKind, CustomLayout, CustomMetric, CustomSeries, Reading
from tests.master.metrics.test_exposition import BARE, FULL, GOLDEN, check_by_promtool, text_of

HOSTILE = 'a "quoted" \\ word'


def metric(
    name: str = "inlet_celsius",
    kind: CustomKind = "gauge",
    text: str = "Air.",
    *series: CustomSeries,
    value: float = 21.5,
) -> CustomMetric:
    chosen = series or ((),)
    return CustomMetric(CustomLayout(name, kind, text, chosen), (value,) * len(chosen))


def shown(families: CustomFamilies, *, openmetrics: bool = False) -> str:
    return b"".join(families.chunks(openmetrics=openmetrics)).decode()


MIXED = (
    metric("inlet_celsius", "gauge", HOSTILE, (("rack", "7"), ("side", HOSTILE)), (("rack", "8"),)),
    metric("runs_total", "counter", "Runs.", value=3.0),
    metric("note", "untyped", ""),
)


def test_golden_text_of_custom_metrics() -> None:
    families = CustomFamilies()
    families.put("rack-7", MIXED)
    assert shown(families) == (
        '# HELP fleetpulse_custom_inlet_celsius a "quoted" \\\\ word\n'
        "# TYPE fleetpulse_custom_inlet_celsius gauge\n"
        'fleetpulse_custom_inlet_celsius{worker_id="rack-7",rack="7",side="a \\"quoted\\" \\\\ word"} 21.5\n'
        'fleetpulse_custom_inlet_celsius{worker_id="rack-7",rack="8"} 21.5\n'
        "# HELP fleetpulse_custom_note A custom metric of workers, without a description.\n"
        "# TYPE fleetpulse_custom_note untyped\n"
        'fleetpulse_custom_note{worker_id="rack-7"} 21.5\n'
        "# HELP fleetpulse_custom_runs_total Runs.\n"
        "# TYPE fleetpulse_custom_runs_total counter\n"
        'fleetpulse_custom_runs_total{worker_id="rack-7"} 3.0\n'
    )


def test_promtool_accepts_the_golden_text() -> None:
    exposition = FleetExposition()
    exposition.worker_changed(WITH_OWN)
    check_by_promtool(text_of(exposition))


def test_openmetrics_has_the_same_samples() -> None:
    families = CustomFamilies()
    families.put("rack-7", MIXED)
    text = shown(families, openmetrics=True) + "# EOF\n"
    read = list(openmetrics_parser.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
    assert [(family.name.removeprefix("fleetpulse_custom_"), family.type) for family in read] == [
        ("inlet_celsius", "gauge"), ("note", "unknown"), ("runs", "counter"),
    ]  # fmt: skip
    assert read[0].documentation == HOSTILE
    assert text.startswith('# HELP fleetpulse_custom_inlet_celsius a \\"quoted\\" \\\\ word\n')
    plain = parser.text_string_to_metric_families(shown(families))
    assert [s for family in read for s in family.samples] == [s for family in plain for s in family.samples]


def test_one_family_with_several_label_sets_is_one_block() -> None:
    families = CustomFamilies()
    families.put("rack-7", [metric(), metric("inlet_celsius", "gauge", "Air.", (("side", "left"),))])
    families.put("rack-8", [metric()])
    assert shown(families).count("# TYPE") == 1
    assert shown(families).count("\nfleetpulse_custom_inlet_celsius{") == 3


# Across workers


def test_first_type_and_help_win_until_the_family_ends() -> None:
    families = CustomFamilies()
    families.put("rack-7", [metric(text="First.")])
    families.put("rack-8", [metric(text="Second."), metric("ok", "gauge")])
    families.put("rack-9", [metric(kind="untyped"), metric("inlet_celsius_total", "counter")])
    assert families.dropped(TYPE_CONFLICT) == 2
    assert "First." in shown(families)
    assert "Second." not in shown(families)
    assert "rack-9" not in shown(families)
    families.remove("rack-7")
    families.put("rack-8", [])
    assert (shown(families), families.dropped(TYPE_CONFLICT)) == ("", 2)
    families.put("rack-9", [metric(kind="untyped")])
    assert "# TYPE fleetpulse_custom_inlet_celsius untyped" in shown(families)
    assert families.dropped(TYPE_CONFLICT) == 0


def test_samples_over_the_limits_are_dropped_and_counted() -> None:
    families = CustomFamilies(max_families=2, max_samples=3)
    families.put("a", [metric("m1"), metric("m2"), metric("m3")])
    families.put("b", [metric("m1"), metric("m2")])
    assert families.dropped(TOO_MANY_FAMILIES) == 1
    assert families.dropped(TOO_MANY_SAMPLES) == 1
    assert shown(families).count('{worker_id="b"}') == 1
    # Shown samples stay, and freed capacity is used.
    families.put("a", [metric("m1"), metric("m2")])
    assert shown(families).count('{worker_id="a"}') == 2
    families.remove("a")
    families.put("b", [metric("m1"), metric("m2")])
    assert families.dropped(TOO_MANY_SAMPLES) == families.dropped(TOO_MANY_FAMILIES) == 0
    assert shown(families).count('{worker_id="b"}') == 2


def test_counter_below_zero_is_dropped_and_counted() -> None:
    families = CustomFamilies()
    families.put("a", [metric("runs_total", "counter", "", (("x", "1"),), (("x", "2"),), value=-1.0), metric("m1")])
    families.put("b", [metric("runs_total", "counter", value=1.0), metric("m1", value=-1.0)])
    assert families.dropped(NEGATIVE_COUNTER) == 2
    assert 'runs_total{worker_id="a"' not in shown(families)
    assert shown(families).count("\nfleetpulse_custom_m1{") == 2


def test_gauge_shows_dropped_samples_by_reason() -> None:
    instruments = Instruments()
    families = CustomFamilies(max_families=0)
    families.report_to(instruments.exposition.custom_samples_dropped)
    families.put("a", [metric()])
    shown_values = {
        reason: instruments.registry.get_sample_value("fleetpulse_custom_samples_dropped", {"reason": reason})
        for reason in (TYPE_CONFLICT, TOO_MANY_FAMILIES, TOO_MANY_SAMPLES)
    }
    assert shown_values == {TYPE_CONFLICT: 0, TOO_MANY_FAMILIES: 1, TOO_MANY_SAMPLES: 0}


# In the exposition

Leave = Callable[[FleetExposition], None]
WITH_OWN = replace(FULL, reading=replace(FULL.reading, custom=MIXED))


@pytest.mark.parametrize(
    "leave",
    [
        lambda exposition: exposition.worker_removed("rack-7"),
        lambda exposition: exposition.worker_changed(replace(WITH_OWN, is_active=False)),
        lambda exposition: exposition.worker_changed(replace(BARE, worker_id="rack-7", reading=Reading())),
    ],
    ids=["removed", "silent", "has none any more"],
)
def test_series_end_with_their_worker(leave: Leave) -> None:
    exposition = FleetExposition()
    exposition.worker_changed(WITH_OWN)
    assert 'fleetpulse_custom_runs_total{worker_id="rack-7"} 3.0' in text_of(exposition)
    leave(exposition)
    assert "fleetpulse_custom" not in text_of(exposition)
    exposition.worker_changed(WITH_OWN)
    assert "fleetpulse_custom_runs_total" in text_of(exposition)


def test_other_families_are_unchanged() -> None:
    exposition = FleetExposition()
    exposition.worker_changed(WITH_OWN)
    assert text_of(exposition).startswith((GOLDEN / "full.prom").read_text())
