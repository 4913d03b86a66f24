"""The checker finds what was planted, and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos import history
from tests.chaos.checker import RULES, check
from tests.chaos.fabricate import EPOCH, WORKERS, Fabricator, Run, a_clean_run
from tests.chaos.jobs import Job, output
from tests.chaos.plants import PLANTS, Plant, Records, forget_a_task, task_named
from tests.chaos.rules import fleet
from tests.tools import ROOT


def test_it_is_silent_on_a_clean_history() -> None:
    assert check(a_clean_run()) == []


@pytest.mark.parametrize(
    ("rule", "plant"), PLANTS, ids=lambda value: value if isinstance(value, str) else value.__name__
)
def test_it_finds_what_was_planted(rule: str, plant: Plant) -> None:
    records = a_clean_run()
    plant(records)
    assert rule in {violation.rule for violation in check(records)}


def test_there_is_a_plant_for_every_rule() -> None:
    assert {rule.__name__ for rule in RULES} <= {rule for rule, _ in PLANTS}


def test_a_stop_whose_sender_was_killed_may_look_like_a_failure() -> None:
    records = a_clean_run()
    task = task_named(records, "stopped")
    task["attempts"][0] |= {"status": "failed", "reason": "exit_code"}
    for event in task["events"]:
        event["kind"] = event["kind"].replace("stopped", "failed")
    assert check(records) == []
    task["attempts"][0]["exit_code"] = 1
    assert "ends_are_honest" in {violation.rule for violation in check(records)}


# Clean histories of any shape


@st.composite
def stories(draw: st.DrawFn) -> Records:
    """Tasks with any ends that are honest, one after the other, in any number."""
    told = Fabricator(draw(st.integers(0, 9)))
    for number in range(draw(st.integers(1, 8))):
        told.calm_round(draw(st.integers(10, 18)))
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
        told.task(job, *runs, cancelled=end == "stopped", acknowledged=draw(st.booleans()))
        told.later(30.0)
    return told.finished()


@given(stories())
def test_it_is_silent_on_every_clean_history(records: Records) -> None:
    assert check(records) == []


@given(stories(), st.data())
def test_it_finds_a_lost_acknowledgement_in_every_history(records: Records, data: st.DataObject) -> None:
    records.append(history.Acknowledged(EPOCH, "job-0", "lost-task"))
    assert "acknowledged_tasks_are_there" in {violation.rule for violation in check(records)}


@given(st.lists(st.integers(10, 17), min_size=10, max_size=60))
def test_files_that_come_and_go_are_no_leak(levels: list[int]) -> None:
    told = Fabricator()
    for files in levels:
        told.calm_round(files)
    assert check(told.finished()) == []


@given(st.lists(st.integers(0, 6), min_size=45, max_size=60), st.floats(0.5, 3.0))
def test_a_leak_is_found_in_the_noise(noise: list[int], a_round: float) -> None:
    told = Fabricator()
    for number, extra in enumerate(noise):
        told.calm_round(10 + extra + int(number * a_round))
    assert {violation.rule for violation in check(told.finished())} == {"open_files_are_flat"}


def test_the_slope_of_a_line() -> None:
    assert fleet.slope({1: 5, 2: 7, 3: 9, 4: 11, 5: 13, 6: 100}) == pytest.approx(2.0)
    assert fleet.slope({1: 5}) == 0.0


# A history in a file


def test_a_history_survives_its_file(tmp_path: Path) -> None:
    records = a_clean_run()
    history.save(tmp_path / "history.jsonl", records)
    assert history.load(tmp_path / "history.jsonl") == records


@pytest.mark.parametrize("line", ["{}", "[]", '{"record": "Nothing"}', '{"record": "Ended"}', "not JSON"])
def test_what_is_no_history_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "history.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=r"record|Expecting"):
        history.load(tmp_path / "history.jsonl")


def run_checker(path: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.chaos.checker", str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_it_checks_a_file(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    records = a_clean_run()
    history.save(path, records)
    assert run_checker(path).returncode == 0
    forget_a_task(records)
    history.save(path, records)
    result = run_checker(path)
    assert result.returncode == 1
    assert "acknowledged_tasks_are_there: task task-1 (good)" in result.stdout


# What a job prints


def test_the_output_of_a_job_is_known() -> None:
    assert output(Job("k", beats=2, lines=1, width=3)) == b"k 0.000\nk 1.000\nk ends"
