"""master.console.history"""

import json

import pytest

from fleetpulse.master.console.history import PlotSeries, plot, runs, scale
from tests.master.console.conftest import Run
from tests.master.console.fake_master import FakeMaster, problem
from tests.master.console.records import worker

MEAN = [31.5, None, 47.0, 50.0]
ANSWER = {
    "worker_id": "w", "from": 1699286400, "to": 1699286460, "step": 15, "source": "store", "warning": None,
    "fields": {
        "cpu_usage": {"unit": "percent", "mean": MEAN, "min": MEAN, "max": MEAN},
        "gpu_usage": {"unit": "percent", "mean": [None] * 4, "min": [None] * 4, "max": [None] * 4},
    },
}  # fmt: skip


def test_plotted_line_has_gaps() -> None:
    assert runs(MEAN) == [[(0, 31.5)], [(2, 47.0), (3, 50.0)]]
    assert runs([None]) == []


def test_bytes_are_scaled() -> None:
    assert scale(PlotSeries("disk", "bytes/second", 0, 15, [3 * 2**20, None])) == (2**20, "MiB/s")
    assert scale(PlotSeries("memory", "bytes", 0, 15, [10.0])) == (1, "B")
    assert scale(PlotSeries("cpu", "percent", 0, 15, [10.0])) == (1, "percent")


@pytest.mark.parametrize("width", [40, 100])
def test_plot_fits_its_width(width: int) -> None:
    text = plot(PlotSeries("cpu_usage", "percent", 1.7e9, 15, [float(n % 100) for n in range(240)]), width, 10)
    lines = text.splitlines()
    assert len(lines) == 10
    assert max(map(len, lines)) <= width
    assert "cpu_usage, percent" in lines[0]
    assert "\x1b" not in text
    assert any("\u2801" <= char <= "\u28ff" for char in text)


def test_zeros_can_be_plotted() -> None:
    assert "load1, processes" in plot(PlotSeries("load1", "processes", 0, 15, [0.0, 0.0]), 60, 8)


def test_pipe_gets_numbers(run: Run, master: FakeMaster) -> None:
    master.get("/telemetry/w/history", ANSWER)
    lines = run("history", "w", "--since", "2h", "--step", "15").stdout.splitlines()
    assert master.requests[-1].query == {"from": "-2h", "step": "15", "fields": "cpu_usage,memory_usage,gpu_usage"}
    assert [line.split()[1:] for line in lines] == [["CPU_USAGE", "GPU_USAGE"], ["31.5", "-"], ["47", "-"], ["50", "-"]]
    assert json.loads(run("history", "w", "--json").stdout) == ANSWER


def test_plot_option_prints_plots(run: Run, master: FakeMaster) -> None:
    master.get("/telemetry/w/history", {**ANSWER, "warning": "Prometheus does not answer"})
    result = run("history", "w", "--plot", "--field", "all")
    assert "cpu_usage, percent" in result.stdout
    assert "gpu_usage" not in result.stdout
    assert "Prometheus does not answer" in result.stderr
    assert "fields" not in master.requests[-1].query


def test_missing_history_and_unknown_worker_are_told_apart(run: Run, master: FakeMaster) -> None:
    for worker_id in ("w", "x"):
        master.on("GET", f"/telemetry/{worker_id}/history", problem(404, f"no worker has the id '{worker_id}'"))
    master.get("/api/workers/w", worker("w"))
    master.get("/workers", {"w": {"is_active": True}})
    known = run("history", "w")
    assert (known.exit_code, "keeps no history" in known.stderr) == (1, True)
    assert run("history", "x").exit_code == 4
    assert run("history", "w", "--since", "1h", "--from", "2").exit_code == 2


def test_history_of_another_server_is_an_error(run: Run, master: FakeMaster) -> None:
    master.get("/telemetry/w/history", {"fields": []})
    assert run("history", "w").exit_code == 3


@pytest.mark.parametrize("form", ["--plot", "--numbers"])
def test_field_names_are_safe_for_a_terminal(run: Run, master: FakeMaster, form: str) -> None:
    evil = "\x1b]0;evil\x07\x9b2Jcpu\u202e"
    field = {"unit": evil, "mean": MEAN, "min": MEAN, "max": MEAN}
    master.get("/telemetry/w/history", {**ANSWER, "fields": {evil: field}})
    output = run("history", "w", form).stdout
    assert "cpu" in output.lower()
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(output)
