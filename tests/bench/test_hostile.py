"""tests.bench.hostile runs. The measured values are not checked."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench.hostile import measure_hostile, print_hostile

pytestmark = pytest.mark.e2e


def test_one_attack_and_one_period_without_an_attack(tmp_path: Path) -> None:
    results = list(measure_hostile(tmp_path, 1.0, ["deep-json"]))
    quiet, attacked = results
    assert quiet.outcomes == {}
    assert attacked.outcomes["400"] > 0
    for result in results:
        assert result.neighbour["answers"] > 0
        assert result.neighbour["failures"] == []
        assert result.cpu_cores > 0.0
    shown = io.StringIO()
    print_hostile(results, Console(file=shown, width=150))
    assert "deep-json" in shown.getvalue()
    assert "400: " in shown.getvalue()
