"""master.telemetry.decoding, and what proto.rules says of custom metrics"""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.master.errors import InvalidMessage, InvalidReading
from fleetpulse.master.telemetry.decoding import decode_heartbeat
from fleetpulse.master.telemetry.readings import CustomLayout, CustomMetric
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import (
    MAX_CUSTOM_BYTES,
    MAX_CUSTOM_HELP_LENGTH,
    MAX_CUSTOM_LABEL_VALUE_LENGTH,
    MAX_CUSTOM_LABELS,
    MAX_CUSTOM_METRICS,
    MAX_CUSTOM_SAMPLES,
    is_custom_label_name,
    is_custom_name,
)
from tests.master.fleet import heartbeat
from tests.master.hostile import ANY_TEXT, NOT_NUMBERS, assert_safe_to_log

GAUGE, COUNTER = pb.CUSTOM_TYPE_GAUGE, pb.CUSTOM_TYPE_COUNTER


def metric(name: str = "fan_rpm", kind: Any = GAUGE, **fields: Any) -> pb.CustomMetric:
    fields.setdefault("samples", [sample(900.0)])
    return pb.CustomMetric(name=name, type=kind, **fields)


def sample(value: float, *label_values: str) -> pb.CustomSample:
    return pb.CustomSample(value=value, label_values=label_values)


def custom_of(*items: pb.CustomMetric) -> tuple[CustomMetric, ...]:
    return decode_heartbeat(heartbeat(custom=items)).custom


def refusal_of(*items: pb.CustomMetric) -> str:
    with pytest.raises(InvalidMessage) as caught:
        custom_of(*items)
    assert_safe_to_log(str(caught.value))
    return str(caught.value)


def test_custom_metrics_are_decoded() -> None:
    fans = metric(help="Fans.", label_names=["fan", "bay"], samples=[sample(900.0, "a", "1"), sample(0.0, "b", "")])
    runs = metric("runs_total", COUNTER, samples=[sample(3.0)])
    assert custom_of(fans, runs, metric("plain", pb.CUSTOM_TYPE_UNTYPED)) == (
        CustomMetric(
            CustomLayout("fan_rpm", "gauge", "Fans.", ((("bay", "1"), ("fan", "a")), (("fan", "b"),))), (900.0, 0.0)
        ),
        CustomMetric(CustomLayout("runs_total", "counter", "", ((),)), (3.0,)),
        CustomMetric(CustomLayout("plain", "untyped", "", ((),)), (900.0,)),
    )


def test_checked_layout_is_shared() -> None:
    (first,), (second,) = custom_of(metric()), custom_of(metric(samples=[sample(1000.0)]))
    assert first.layout is second.layout
    assert (first.values, second.values) == ((900.0,), (1000.0,))


def test_one_family_may_have_several_label_sets() -> None:
    bays = metric(label_names=["bay"], samples=[sample(1.0, "1")])
    assert len(custom_of(metric(), bays)) == 2


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_non_finite_value_is_refused(value: float) -> None:
    with pytest.raises(InvalidReading, match=r"custom\.samples\.value of 'fan_rpm' is .*finite"):
        custom_of(metric(samples=[sample(value)]))


NAMES = ["", "Fan", "_fan", "1fan", "fan-rpm", "fan:rpm", "fan rpm", "fän", "a" * 101, "fan\n"]
ENDS = ["x_bucket", "x_count", "x_sum", "x_created"]


@pytest.mark.parametrize("name", [*NAMES, *ENDS, "runs_total"])
def test_bad_name_is_refused(name: str) -> None:
    assert not is_custom_name(name, is_counter=False)
    assert refusal_of(metric(name)).startswith(f"custom.name {name[:57]!a}"[:30])


def test_counter_name_must_end_in_total() -> None:
    assert "_total for a counter alone" in refusal_of(metric("runs", COUNTER))


@pytest.mark.parametrize("label", ["", "worker_id", "le", "quantile", "job", "instance", "__name__", "1a", "a-b", "ä"])
def test_bad_label_name_is_refused(label: str) -> None:
    assert not is_custom_label_name(label)
    said = refusal_of(metric(label_names=[label], samples=[sample(1.0, "x")]))
    assert said.startswith(f"custom.label_names {label!a} is refused")


BROKEN: dict[str, tuple[Sequence[pb.CustomMetric], str]] = {
    "type": ([metric(kind=7)], "custom.type is 7"),
    "help": ([metric(help="x" * (MAX_CUSTOM_HELP_LENGTH + 1))], "custom.help"),
    "help in two lines": ([metric(help="a\nb")], "custom.help"),
    "label value": (
        [metric(label_names=["a"], samples=[sample(1.0, "x" * (MAX_CUSTOM_LABEL_VALUE_LENGTH + 1))])],
        "custom.samples.label_values",
    ),
    "label values": ([metric(label_names=["a"])], "0 entries for 1 label_names"),
    "label twice": ([metric(label_names=["a", "a"], samples=[sample(1.0, "x", "y")])], "one name twice"),
    "labels": ([metric(label_names=[f"a{n}" for n in range(MAX_CUSTOM_LABELS + 1)])], "custom.label_names has 9"),
    "series twice": ([metric(samples=[sample(1.0), sample(2.0)])], "two entries for one series"),
    "series twice in two": ([metric(), metric(label_names=["a"], samples=[sample(1.0, "")])], "two entries for one"),
    "two types": ([metric(), metric(kind=pb.CUSTOM_TYPE_UNTYPED)], "fan_rpm with two types"),
    "counter and gauge": ([metric("x"), metric("x_total", COUNTER)], "x_total with two types"),
    "metrics": ([metric(f"m{n}") for n in range(MAX_CUSTOM_METRICS + 1)], "custom has 65 entries"),
    "samples": (
        [metric(label_names=["a"], samples=[sample(1.0, str(n)) for n in range(MAX_CUSTOM_SAMPLES + 1)])],
        "custom.samples has 257 entries",
    ),
    "bytes": (
        [
            metric(
                label_names=["a", "b", "c"],
                samples=[sample(1.0, "x" * 128, "y" * 128, str(n)) for n in range(MAX_CUSTOM_SAMPLES)],
            )
        ],
        f"at most {MAX_CUSTOM_BYTES}",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_error_names_the_field_and_the_rule(case: str) -> None:
    items, expected = BROKEN[case]
    assert expected in refusal_of(*items)


@given(name=ANY_TEXT, text=ANY_TEXT, label=ANY_TEXT, value=ANY_TEXT, number=st.floats())
def test_any_custom_metric_is_decoded_or_refused(name: str, text: str, label: str, value: str, number: float) -> None:
    item = metric(name, help=text, label_names=[label], samples=[sample(number, value)])
    try:
        custom_of(item)
    except InvalidMessage as error:
        assert_safe_to_log(str(error))
