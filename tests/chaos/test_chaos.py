"""A few rounds of every kind of fault on one fleet. ``make chaos`` runs the full count."""

from pathlib import Path

import pytest

from tests.chaos import history
from tests.chaos.campaign import Campaign, run_campaign
from tests.chaos.checker import check
from tests.chaos.plan import Kind
from tests.chaos.summary import summary
from tests.docker_engine import Engine

SEED = 20
ROUNDS_OF_EACH = 2


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_short_campaign_has_no_violations(docker_engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    campaign = Campaign("all", SEED, list(Kind), ROUNDS_OF_EACH, calm_after_seconds=0.2)
    run_campaign(campaign, docker_engine, tmp_path, path, print)
    records = history.load(path)
    assert [str(violation) for violation in check(records)] == []
    figures = summary(records)
    assert figures.rounds == ROUNDS_OF_EACH * len(Kind)
    assert figures.acknowledged > figures.rounds
    assert figures.survivors > 0
