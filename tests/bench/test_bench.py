"""The benchmark runs, saves its figures and leaves no processes. The measured values are not checked."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.bench.figures import SECTIONS
from tests.bench.processes import ROOT
from tests.tools import require_tool

pytestmark = pytest.mark.e2e


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """A quick run whose children all work below ``folder``."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.bench", "--quick", *arguments],
        cwd=ROOT, env=os.environ | {"TMPDIR": str(folder)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def left_behind(folder: Path) -> list[str]:
    """The command lines of processes that work below ``folder``."""
    return [
        " ".join(process.info["cmdline"] or ())
        for process in psutil.process_iter(["cwd", "cmdline"])
        if str(process.info["cwd"] or "").startswith(str(folder))
    ]


@pytest.mark.timeout(600)
def test_quick_run_measures_every_figure(tmp_path: Path) -> None:
    require_tool("wrk")
    require_tool("prometheus-pushgateway")
    kept = tmp_path / "kept.json"
    with start(tmp_path, "--json", str(kept)) as run:
        output, progress = run.communicate()
    assert run.returncode == 0, progress
    found = json.loads(kept.read_text())
    keys = {key for section in SECTIONS for figure in section.figures for key in figure.keys}
    measured = {key for row in found["results"].values() for key, value in row.items() if value is not None}
    assert keys - measured == set()
    fleet = found["results"]["200"]
    assert fleet["heartbeats_accepted"] > 0
    assert fleet["run_heartbeats_lost"] == fleet["run_workers_inactive"] == 0
    assert {goal["workers"] for goal in found["goals"]} == {1, 200, 1000}
    assert all(section.title in output for section in SECTIONS)
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_leaves_no_processes(tmp_path: Path, number: int) -> None:
    require_tool("wrk")
    with start(tmp_path, "--skip-peers", "--json", str(tmp_path / "kept.json")) as run:
        while len(left_behind(tmp_path)) < 2:  # the arbiter and the web process of the first master
            assert run.poll() is None
            time.sleep(0.05)
        run.send_signal(number)
        run.communicate()
    assert run.returncode == 128 + number
    assert left_behind(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
