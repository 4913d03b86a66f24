"""Every alert in promtool: it fires when it should, with its exact texts, and not otherwise."""

from pathlib import Path

import pytest

from tests.monitoring.cases import CASES
from tests.monitoring.mutants import mutants_of, with_rules
from tests.monitoring.promtool import as_test, run
from tests.monitoring.rules import ALERTS

every_alert = pytest.mark.parametrize("name", ALERTS)


@every_alert
def test_alert_fires_when_it_should_and_only_then(name: str, tmp_path: Path) -> None:
    cases = [case for case in CASES if case.alert == name]
    assert any(case.fires for case in cases)
    assert any(not case.fires for case in cases)
    assert all(case.quiet for case in cases)
    result = run([as_test(case) for case in cases], tmp_path, ALERTS[name].rule_files)
    assert result.returncode == 0, result.stdout + result.stderr


@every_alert
def test_cases_detect_a_changed_limit_or_wait(name: str, tmp_path: Path) -> None:
    """Each mutant is a separate rule, and the same cases run against each of them."""
    mutants = mutants_of(ALERTS[name])
    assert len(mutants) >= 2
    cases = [case for case in CASES if case.alert == name]
    tests = [as_test(case, [mutant.name for mutant in mutants]) for case in cases]
    result = run(tests, tmp_path, with_rules(ALERTS[name], mutants, tmp_path))
    survivors = [
        mutant.change for mutant in mutants if f"alertname: {mutant.name}," not in result.stdout + result.stderr
    ]
    assert (result.returncode, survivors) == (1, [])
