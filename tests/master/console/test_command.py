"""master.console.command: the values of options"""

import click
import pytest

from fleetpulse.master.console.command import DURATION, MEMORY, Parsed, multiple_pairs, pairs


def test_pairs_and_multiple_pairs() -> None:
    assert pairs("--label", ["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    assert multiple_pairs("--constraint", ["a=1", "a=2", "b=3"]) == {"a": ["1", "2"], "b": ["3"]}
    with pytest.raises(click.UsageError, match="NAME=VALUE"):
        pairs("--label", ["nothing"])


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        (DURATION, "90", 90),
        (DURATION, "1.5h", 5400),
        (MEMORY, "512", 512),
        (MEMORY, "2G", 2048),
        (MEMORY, "512b", 1),
        (MEMORY, f"{8 * 1024**2}B", 8),
        (MEMORY, "8192k", 8),
        (MEMORY, "0.5gib", 512),
        (MEMORY, "0.5", 0.5),
        (MEMORY, "512MiB", 512),
    ],
)
def test_durations_and_sizes_have_units(kind: Parsed, given: str, value: float) -> None:
    assert kind.convert(given, None, None) == value
    with pytest.raises(click.BadParameter, match="expected"):
        kind.convert("soon", None, None)
