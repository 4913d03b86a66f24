"""worker.collectors.custom_metrics"""

import contextlib
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import MAX_CUSTOM_SAMPLES
from fleetpulse.worker.collectors.custom_metrics import (
    MAX_LINE_LENGTH,
    MAX_TEXT_BYTES,
    CustomMetricsBudget,
    InvalidMetrics,
    metrics_from_families,
    metrics_from_text,
)

GOOD = b"""\
# A comment.
# HELP raid_degraded 1 while an array lacks a disk.
# TYPE raid_degraded gauge
raid_degraded{array="md0",level=""} 0
raid_degraded{array="md1"} 1
raid_degraded 2

# TYPE scrubs counter
scrubs 4
errors_total 5
plain{a="say \\"hi\\""} 1.5e3
"""


def metric(name: str, kind: "pb.CustomType.ValueType", *labels: str, text: str = "") -> pb.CustomMetric:
    return pb.CustomMetric(name=name, type=kind, help=text, label_names=labels)


def test_text_is_parsed_into_metrics() -> None:
    bare = metric("raid_degraded", pb.CUSTOM_TYPE_GAUGE, text="1 while an array lacks a disk.")
    arrays = metric("raid_degraded", pb.CUSTOM_TYPE_GAUGE, "array", text="1 while an array lacks a disk.")
    arrays.samples.add(label_values=["md0"], value=0)
    arrays.samples.add(label_values=["md1"], value=1)
    bare.samples.add(value=2)
    scrubs, errors = (metric(name, pb.CUSTOM_TYPE_COUNTER) for name in ("scrubs_total", "errors_total"))
    plain = metric("plain", pb.CUSTOM_TYPE_UNTYPED, "a")
    scrubs.samples.add(value=4)
    errors.samples.add(value=5)
    plain.samples.add(label_values=['say "hi"'], value=1500)
    assert metrics_from_text(GOOD) == [arrays, bare, scrubs, errors, plain]


def test_empty_text_gives_no_metrics() -> None:
    assert metrics_from_text(b"") == []


@pytest.mark.parametrize("number", [b"NaN", b"+Inf", b"-Inf", b"1e999"])
def test_sample_that_is_not_finite_is_left_out(number: bytes) -> None:
    assert [part.name for part in metrics_from_text(b"x " + number + b"\ny 1\n")] == ["y"]


def test_counter_below_zero_is_left_out() -> None:
    text = b'# TYPE runs counter\nruns_total{a="x"} -1\nruns_total{a="y"} 2\nidle_total -1\ny -1\n'
    metrics = metrics_from_text(text)
    values = {part.name: [sample.value for sample in part.samples] for part in metrics}
    assert values == {"runs_total": [2.0], "y": [-1.0]}


BROKEN = {
    "no value": (b"x\n", "line 1 is not Prometheus' text format"),
    "no number": (b"ok 1\nx one\n", "line 2 is not"),
    "half a label": (b'x{a="b 1\n', "line 1 is not"),
    "not UTF-8": (b"ok 1\nx 1 # \xff\n", "line 2 is not"),
    "cut off": (b"x 12", "has no end"),
    "a long line": (b'x{a="' + b"y" * MAX_LINE_LENGTH + b'"} 1\n', "a line of more than 4096"),
    "long": (b"# x\n" * MAX_TEXT_BYTES, "more than 65536 bytes"),
    "a name": (b"Fan 1\n", "name 'Fan' is refused: it must be"),
    "an end of a name": (b"x_count 1\n", "none of _bucket, _count"),
    "a gauge as a counter": (b"# TYPE x_total gauge\nx_total 1\n", "_total for a counter alone"),
    "a label": (b'x{worker_id="b"} 1\n', "label 'worker_id' of x is refused"),
    "a label's value": (b'x{a="' + b"y" * 129 + b'"} 1\n', "at most 128 printable"),
    "a line in a label": (b'x{a="b\\nc"} 1\n', "at most 128 printable"),
    "labels": (b"x{" + b",".join(b'a%d="b"' % n for n in range(9)) + b"} 1\n", "9 labels; at most 8"),
    "a timestamp": (b"x 1 1700000000000\n", "timestamp"),
    "a histogram": (b'# TYPE x histogram\nx_bucket{le="1"} 1\n', "x is a histogram"),
    "a type": (b"# TYPE x thing\nx 1\n", "Invalid metric type"),
    "samples": (b"".join(b'x{a="%d"} 1\n' % n for n in range(MAX_CUSTOM_SAMPLES + 1)), "more than 256 samples"),
    "a number beyond all": (b"x " + b"9" * 400 + b"\n", "no number"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_invalid_text_is_refused_with_the_reason(case: str) -> None:
    text, expected = BROKEN[case]
    with pytest.raises(InvalidMetrics) as caught:
        metrics_from_text(text)
    assert expected in str(caught.value)


@given(st.binary(max_size=200) | st.text(alphabet='x{}="a,\\ \n#1 TYPEHLPgauge_\t', max_size=200).map(str.encode))
@example(b'{"x"} 1\n')
@example(b"inf\n")
@example(b"#\n# TYPE\n# HELP x\n")
def test_any_bytes_are_parsed_or_refused(text: bytes) -> None:
    with contextlib.suppress(InvalidMetrics):
        CustomMetricsBudget().add(metrics_from_text(text + b"\n"))


# Families of plug-ins


def test_counter_family_of_prometheus_client_is_converted_without_its_creation_time() -> None:
    runs = CounterMetricFamily("runs", "Runs.", labels=["queue"], created=1.0)
    runs.add_metric(["mail"], 3, created=1.0)
    (part,) = metrics_from_families([runs])
    assert (part.name, part.help, list(part.label_names)) == ("runs_total", "Runs.", ["queue"])
    assert [sample.value for sample in part.samples] == [3.0]


def test_long_description_is_cut() -> None:
    (part,) = metrics_from_families([GaugeMetricFamily("x", "two\nlines " + "y" * 300, value=1)])
    assert part.help.startswith("two lines y")
    assert len(part.help) == 256


def endless() -> Iterator[Metric]:
    for number in itertools.count():
        yield GaugeMetricFamily(f"m{number}", "")


@pytest.mark.parametrize(
    ("families", "expected"),
    [
        (endless(), "more than 256 samples"),
        (["x 1"], "a str is no metric family"),
        ([HistogramMetricFamily("x", "", buckets=[("+Inf", 1)], sum_value=1)], "x is a histogram"),
        ([GaugeMetricFamily("x", "", value="many")], "x has a value that is no number: 'many'"),  # type: ignore[arg-type]
    ],
)
def test_invalid_families_are_refused(families: list[Metric], expected: str) -> None:
    with pytest.raises(InvalidMetrics, match=expected):
        metrics_from_families(families)


def test_label_value_that_is_not_text_is_refused() -> None:
    family = GaugeMetricFamily("x", "", labels=["disk"])
    family.add_metric([7], 1)  # type: ignore[list-item]
    with pytest.raises(InvalidMetrics, match="label disk of x is '7'"):
        metrics_from_families([family])


# Several sources in one heartbeat


def test_series_of_one_metric_may_come_from_several_sources() -> None:
    budget = CustomMetricsBudget()
    budget.add(metrics_from_text(b'x{a="1"} 1\n'))
    budget.add(metrics_from_text(b'x{a="2"} 1\nx 1\n'))


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (b'y 1\nx{a="1"} 2\n', "x{a='1'} comes twice"),
        (b"# TYPE x gauge\nx 1\n", "x comes with two types"),
        (b"# TYPE x counter\nx_total 1\n", "x_total comes with two types"),
        (b"".join(b'y{a="%d"} 1\n' % n for n in range(MAX_CUSTOM_SAMPLES)), "257 samples"),
        (b"".join(b"m%d 1\n" % n for n in range(64)), "65 metrics"),
        (b"".join(b'y{a="%d",b="%s"} 1\n' % (n, b"z" * 128) for n in range(255)) + b"y 1\n", "257 samples"),
    ],
)
def test_source_that_breaks_a_rule_is_left_out_as_a_whole(second: bytes, expected: str) -> None:
    budget = CustomMetricsBudget()
    budget.add(metrics_from_text(b'x{a="1"} 1\n'))
    with pytest.raises(InvalidMetrics) as caught:
        budget.add(metrics_from_text(second))
    assert expected in str(caught.value)
    budget.add(metrics_from_text(b"y 1\n"))


def test_total_bytes_of_all_sources_are_limited() -> None:
    budget = CustomMetricsBudget()
    for letter in (b"a", b"b"):
        lines = (b'%s{a="%d",b="%s",c="%s"} 1\n' % (letter, n, b"z" * 128, b"z" * 128) for n in range(100))
        budget.add(metrics_from_text(b"".join(lines)))
    with pytest.raises(InvalidMetrics, match="bytes; at most 65536"):
        budget.add([metric("c", pb.CUSTOM_TYPE_GAUGE, text="z" * 20_000)])
