"""The checker finds every mutation, and nothing in clean histories."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos import history
from tests.chaos.checker import RULES, check
from tests.chaos.jobs import Job, output
from tests.chaos.mutations import MUTATIONS, Mutation, Records, forget_a_task, task_named
from tests.chaos.rules import fleet
from tests.chaos.synthetic import EPOCH, WORKERS, Run, SyntheticHistory, clean_history
from tests.tools import ROOT


def test_clean_history_has_no_violations() -> None:
    assert check(clean_history()) == []


@pytest.mark.parametrize(
    ("rule", "mutate"), MUTATIONS, ids=lambda value: value if isinstance(value, str) else value.__name__
)
def test_each_mutation_is_found_by_its_rule(rule: str, mutate: Mutation) -> None:
    records = clean_history()
    mutate(records)
    assert rule in {violation.rule for violation in check(records)}


def test_every_rule_has_a_mutation() -> None:
    assert {rule.__name__ for rule in RULES} <= {rule for rule, _ in MUTATIONS}


def test_cancelled_attempt_may_fail_with_a_signal_when_its_worker_was_killed() -> None:
    records = clean_history()
    task = task_named(records, "stopped")
    task["attempts"][0] |= {"status": "failed", "reason": "exit_code"}
    for event in task["events"]:
        event["kind"] = event["kind"].replace("stopped", "failed")
    assert check(records) == []
    task["attempts"][0]["exit_code"] = 1
    assert "ends_have_a_cause" in {violation.rule for violation in check(records)}


# Generated histories


@st.composite
def clean_histories(draw: st.DrawFn) -> Records:
    """Draws histories of one to eight tasks, one after the other, without violations."""
    synthetic = SyntheticHistory(draw(st.integers(0, 9)))
    for number in range(draw(st.integers(1, 8))):
        synthetic.quiet_round(draw(st.integers(10, 18)))
        bad = draw(st.lists(st.sampled_from(["failed", "lost"]), max_size=3))
        end = draw(st.sampled_from(["completed", "stopped", "bad"]))
        job = Job(
            f"job-{number}",
            beats=draw(st.integers(1, 3)),
            lines=draw(st.integers(0, 3)),
            exit_code=0 if end == "completed" or not bad else draw(st.integers(1, 255)),
            max_retries=max(len(bad) - (end == "bad"), 0),
        )
        if job.exit_code == 0:
            bad = ["lost"] * len(bad)
        worker_ids = draw(st.lists(st.sampled_from(WORKERS), min_size=len(bad) + 1, max_size=len(bad) + 1))
        runs = []
        for worker_id, status in zip(worker_ids, bad, strict=False):
            runs.append(Run(status, worker_id=worker_id))
        if end != "bad" or not runs:
            runs.append(Run("stopped" if end == "stopped" else "completed", worker_id=worker_ids[-1]))
        synthetic.task(job, *runs, cancelled=end == "stopped", acknowledged=draw(st.booleans()))
        synthetic.advance(30.0)
    return synthetic.finished()


@given(clean_histories())
def test_generated_clean_histories_have_no_violations(records: Records) -> None:
    assert check(records) == []


@given(clean_histories(), st.data())
def test_lost_acknowledged_task_is_found_in_every_history(records: Records, data: st.DataObject) -> None:
    records.append(history.Acknowledged(EPOCH, "job-0", "lost-task"))
    assert "acknowledged_tasks_exist" in {violation.rule for violation in check(records)}


@given(st.lists(st.integers(10, 17), min_size=10, max_size=60))
def test_varying_open_files_are_no_leak(levels: list[int]) -> None:
    synthetic = SyntheticHistory()
    for files in levels:
        synthetic.quiet_round(files)
    assert check(synthetic.finished()) == []


@given(st.lists(st.integers(0, 6), min_size=45, max_size=60), st.floats(0.5, 3.0))
def test_leak_is_found_in_noise(noise: list[int], a_round: float) -> None:
    synthetic = SyntheticHistory()
    for number, extra in enumerate(noise):
        synthetic.quiet_round(10 + extra + int(number * a_round))
    assert {violation.rule for violation in check(synthetic.finished())} == {"open_files_do_not_grow"}


def test_slope_of_a_line() -> None:
    assert fleet.slope({1: 5, 2: 7, 3: 9, 4: 11, 5: 13, 6: 100}) == pytest.approx(2.0)
    assert fleet.slope({1: 5}) == 0.0


# Saved histories


def test_history_is_the_same_after_save_and_load(tmp_path: Path) -> None:
    records = clean_history()
    history.save(tmp_path / "history.jsonl", records)
    assert history.load(tmp_path / "history.jsonl") == records


@pytest.mark.parametrize("line", ["{}", "[]", '{"record": "Nothing"}', '{"record": "RunEnded"}', "not JSON"])
def test_invalid_history_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "history.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=r"record|Expecting"):
        history.load(tmp_path / "history.jsonl")


def run_checker(path: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.chaos.checker", str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_checker_command_checks_a_file(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    records = clean_history()
    history.save(path, records)
    assert run_checker(path).returncode == 0
    forget_a_task(records)
    history.save(path, records)
    result = run_checker(path)
    assert result.returncode == 1
    assert "acknowledged_tasks_exist: task task-1 (good)" in result.stdout


# Jobs


def test_output_of_a_job() -> None:
    assert output(Job("k", beats=2, lines=1, width=3)) == b"k 0.000\nk 1.000\nk ends"
