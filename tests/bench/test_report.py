"""What a run becomes for its readers."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench.figures import compared
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


def test_goals_are_judged_at_their_number_of_workers_and_by_the_p99() -> None:
    assert [(goal["workers"], goal["figure"], goal["met"]) for goal in RUN.judged()] == [
        (5_000, "heartbeats_dropped", False),
        (5_000, "receipt_to_visible_p99_seconds", True),
    ]


def test_a_run_survives_being_kept() -> None:
    assert Run.from_json(RUN.to_json()) == RUN


def test_a_figure_that_was_not_measured_is_an_empty_cell() -> None:
    screen = io.StringIO()
    print_table(RUN, Console(file=screen, width=150))
    (line,) = (line for line in screen.getvalue().splitlines() if "from receipt" in line)
    assert [cell.strip() for cell in line.split("│")[1:-1]] == [
        "from receipt, p50 / p99", "1.00 / 20.00 ms", "", "5,000: < 50.00 ms", "yes",
    ]  # fmt: skip


def test_the_docs_are_rewritten_between_the_markers_only(tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    path.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    write_docs(RUN, path)
    write_docs(RUN, path)
    text = path.read_text()
    assert text.startswith(f"before\n\n{BEGIN}\n- date: 2026-01-02 03:04\n- command: `make bench`\n")
    assert text.endswith(f"{END}\n\nafter\n")
    assert "old" not in text
    assert "| dropped | 3 | 0 | 5,000: = 0 | NO |" in text


def test_docs_without_the_markers_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    path.write_text(f"{END}\n{BEGIN}\n")
    with pytest.raises(BenchError, match=r"performance\.md must hold"):
        write_docs(RUN, path)
    assert path.read_text() == f"{END}\n{BEGIN}\n"


def test_a_peer_that_was_not_measured_has_no_ratio() -> None:
    assert compared({"metrics_p50_seconds": 0.02, "gateway_get_p50_seconds": 0.3, "latest_p50_seconds": None}) == {
        "faster_than_latest": None,
        "faster_than_gateway": pytest.approx(15.0),
    }
