"""The reports of a run: table, JSON, docs."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench.figures import peer_ratios
from tests.bench.processes import BenchError
from tests.bench.report import BEGIN, END, Run, print_table, write_docs

HOST = dict.fromkeys(("cpu", "memory", "kernel", "python", "libraries", "fleetpulse", "pushgateway"), "some")
RUN = Run(
    date="2026-01-02 03:04",
    command="make bench",
    seconds=60.0,
    host=HOST,
    results={
        5_000: {
            "heartbeats_dropped": 3.0,
            "receipt_to_visible_p50_seconds": 0.001,
            "receipt_to_visible_p99_seconds": 0.02,
        },
        10_000: {"heartbeats_dropped": 0.0},
    },
)


def test_goals_apply_to_their_fleet_size_and_to_the_p99() -> None:
    assert [(goal["workers"], goal["figure"], goal["met"]) for goal in RUN.evaluated_goals()] == [
        (5_000, "heartbeats_dropped", False),
        (5_000, "receipt_to_visible_p99_seconds", True),
    ]


def test_run_is_the_same_after_json() -> None:
    assert Run.from_json(RUN.to_json()) == RUN


def test_unmeasured_figure_is_an_empty_cell() -> None:
    screen = io.StringIO()
    print_table(RUN, Console(file=screen, width=150))
    (line,) = (line for line in screen.getvalue().splitlines() if "from receipt" in line)
    assert [cell.strip() for cell in line.split("│")[1:-1]] == [
        "from receipt, p50 / p99", "1.00 / 20.00 ms", "", "5,000: < 50.00 ms", "yes",
    ]  # fmt: skip


def test_docs_are_rewritten_only_between_the_markers(tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    path.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    write_docs(RUN, path)
    write_docs(RUN, path)
    text = path.read_text()
    assert text.startswith(f"before\n\n{BEGIN}\n- date: 2026-01-02 03:04\n- command: `make bench`\n")
    assert text.endswith(f"{END}\n\nafter\n")
    assert "old" not in text
    assert "| dropped | 3 | 0 | 5,000: = 0 | NO |" in text


def test_docs_without_markers_are_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    path.write_text(f"{END}\n{BEGIN}\n")
    with pytest.raises(BenchError, match=r"performance\.md must hold"):
        write_docs(RUN, path)
    assert path.read_text() == f"{END}\n{BEGIN}\n"


def test_unmeasured_peer_has_no_ratio() -> None:
    assert peer_ratios({"metrics_p50_seconds": 0.02, "gateway_get_p50_seconds": 0.3, "latest_p50_seconds": None}) == {
        "faster_than_latest": None,
        "faster_than_gateway": pytest.approx(15.0),
    }
