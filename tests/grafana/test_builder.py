"""grafana.builder: the files are up to date, and the queries are as intended."""

import re
from pathlib import Path

import pytest

from grafana.builder.__main__ import changed_files, render
from grafana.builder.queries import MATCHING, ONE, SELECTED, distribution, quantile, top, with_info
from tests.grafana.boards import every_target

GROUPED = r"by \([^)]*worker_id"


def test_manual_changes_are_found(tmp_path: Path) -> None:
    files = render()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert changed_files(files, tmp_path) == []
    edited, deleted, *_ = sorted(files)
    (tmp_path / edited).write_text(files[edited].replace("30s", "10s", 1))
    (tmp_path / deleted).unlink()
    (tmp_path / "mine.json").write_text("{}")
    assert changed_files(files, tmp_path) == sorted([edited, deleted, "mine.json"])


def test_selectors_name_the_metric_and_the_workers() -> None:
    assert MATCHING("up") == 'fleetpulse_worker_up{worker_id=~"$search"}'
    assert ONE("up") == 'fleetpulse_worker_up{worker_id="$worker"}'
    assert SELECTED("up", 'gpu="0"') == 'fleetpulse_worker_up{worker_id=~"$search", worker_id=~"$worker", gpu="0"}'


def test_top_is_chosen_at_the_end_of_the_range() -> None:
    assert top(lambda at: f"x{at}", "y", 3) == "max by (y) (x and topk(3, x @ end()))"


def test_distribution_has_ten_cumulative_buckets() -> None:
    query = distribution("x")
    assert query.expr.count("label_replace(") == 10
    assert query.expr.startswith('label_replace(count(x <= 0.1) or vector(0), "le", "0.1", "", "") or ')
    assert query.expr.endswith('label_replace(count(x <= 1.0) or vector(0), "le", "1.0", "", "")')


@pytest.mark.parametrize(("by", "labels"), [("", "le"), ("route", "le, route")])
def test_quantile_aggregates_by_le(by: str, labels: str) -> None:
    rate = "rate(fleetpulse_x_seconds_bucket[$__rate_interval])"
    assert quantile(0.5, "x_seconds", by) == f"histogram_quantile(0.5, sum by ({labels}) ({rate}))"


def test_info_labels_may_be_missing() -> None:
    joined = with_info("x", "i", "worker_id", "hostname")
    one = "topk by (worker_id) (1, max by (worker_id, hostname) (i))"
    assert joined == f"(x) * on (worker_id) group_left (hostname) {one} or on (worker_id) (x)"


def test_range_queries_group_by_worker_only_after_topk() -> None:
    """Grouping 10,000 workers at 240 steps takes Prometheus 20 s."""
    grouped = [target for target in every_target() if not target.is_instant and re.search(GROUPED, target.expr)]
    many = [target for target in grouped if target.uid != "fleetpulse-worker"]
    assert len(many) >= 8
    assert [str(target) for target in many if " and topk(" not in target.expr] == []
