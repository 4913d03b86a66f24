"""worker.collectors.custom.commands and process: real commands"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from fleetpulse.worker.collectors.custom.commands import CommandCollector
from fleetpulse.worker.collectors.custom.process import CommandProcess
from fleetpulse.worker.collectors.custom.text import MAX_TEXT_BYTES
from fleetpulse.worker.collectors.custom.wire import BadMetrics

PATIENCE_SECONDS = 20.0
ENVIRONMENT = {"PATH": os.environ["PATH"]}


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def output(*words: str, deadline_seconds: float = PATIENCE_SECONDS) -> bytes:
    return CommandProcess(words, ENVIRONMENT).output(deadline_seconds)


def open_files() -> int:
    return psutil.Process().num_fds()


def lives(pid_file: Path) -> bool:
    try:
        return psutil.Process(int(pid_file.read_text())).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_it_writes() -> None:
    assert output("printf", "x 1\n") == b"x 1\n"


def test_it_has_no_shell_no_input_no_open_files_and_the_environment_that_it_is_given() -> None:
    assert output("echo", "$HOME;", "`id`") == b"$HOME; `id`\n"
    script = "import os, sys; print(sys.stdin.read() == '', sorted(os.environ), len(os.listdir('/proc/self/fd')))"
    before = open_files()
    # Beside the three that everybody has, the one that lists them.
    assert output(sys.executable, "-I", "-c", script).startswith(b"True ['LC_CTYPE', 'PATH'] 4")
    assert open_files() == before


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo no disk >&2; exit 3", "ended with status 3: no disk"),
        ("exit 1", "ended with status 1"),
        ("kill -9 $$", "was ended by SIGKILL"),
        ("yes", f"wrote more than {MAX_TEXT_BYTES} bytes, and was killed"),
        ("yes >&2 | true; yes >&2 & exit 4", "did not end within"),
    ],
)
def test_what_was_wrong_is_said(script: str, expected: str) -> None:
    before = open_files()
    deadline_seconds = 0.3 if "did not" in expected else PATIENCE_SECONDS
    with pytest.raises(BadMetrics) as caught:
        output("sh", "-c", script, deadline_seconds=deadline_seconds)
    assert expected in str(caught.value)
    assert open_files() == before


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        output("/nowhere/raid-state")


def test_at_the_deadline_its_children_die_with_it(tmp_path: Path) -> None:
    script = f"trap '' TERM; sleep 1000 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/itself; wait"
    with pytest.raises(BadMetrics, match=r"did not end within 0\.5 s, and was killed"):
        output("sh", "-c", script, deadline_seconds=0.5)
    eventually(lambda: not lives(tmp_path / "child") and not lives(tmp_path / "itself"))


def test_a_child_that_keeps_the_output_open_is_waited_for_and_killed(tmp_path: Path) -> None:
    with pytest.raises(BadMetrics, match="did not end"):
        output("sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/child; echo x 1", deadline_seconds=0.5)
    eventually(lambda: not lives(tmp_path / "child"))


# As a collector

NOT_A_NUMBER = "line 1 is not Prometheus' text format: could not convert string to float: 'one'"


@pytest.fixture
def collector_of() -> Iterator[Callable[..., CommandCollector]]:
    made: list[CommandCollector] = []

    def make(*words: str, interval_seconds: float = 1000.0) -> CommandCollector:
        made.append(CommandCollector("raid", words, interval_seconds, ENVIRONMENT))
        return made[-1]

    yield make
    for collector in made:
        collector.close()


CollectorOf = Callable[..., CommandCollector]


def values(collector: CommandCollector) -> list[float]:
    return [sample.value for metric in collector.collect().custom for sample in metric.samples]


def failure(collector: CommandCollector) -> str | None:
    try:
        collector.collect()
    except BadMetrics as error:
        return str(error)
    return None


def test_the_last_run_is_what_is_said(collector_of: CollectorOf, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "said")
    collector = collector_of("cat", str(tmp_path / "said"))
    assert collector.name == "command:raid"
    assert values(collector) == []  # it waits for somebody who writes
    (tmp_path / "said").write_text("x 7\n")
    eventually(lambda: values(collector) == [7.0])


def test_it_runs_again_and_again_breaks_and_recovers(collector_of: CollectorOf, tmp_path: Path) -> None:
    said = tmp_path / "said"
    said.write_text("x 1\n")
    collector = collector_of("cat", str(said), interval_seconds=0.05)
    eventually(lambda: values(collector) == [1.0])
    said.write_text("x one\n")
    eventually(
        lambda: failure(collector) == "line 1 is not Prometheus' text format: could not convert string to float: 'one'"
    )
    said.unlink()
    eventually(lambda: "No such file" in (failure(collector) or ""))
    said.write_text("x 2\n")
    eventually(lambda: failure(collector) is None and values(collector) == [2.0])


@pytest.mark.parametrize(
    ("words", "expected"),
    [(("/nowhere/x",), "FileNotFoundError"), (("printf", "x 1\nx 1\n"), "x{} comes twice"), (("false",), "status 1")],
)
def test_what_is_wrong_is_reported(collector_of: CollectorOf, words: tuple[str, ...], expected: str) -> None:
    collector = collector_of(*words)
    eventually(lambda: expected in (failure(collector) or ""))


def test_at_the_end_a_run_under_way_is_killed(collector_of: CollectorOf, tmp_path: Path) -> None:
    collector = collector_of(
        "sh", "-c", f"echo $$ > {tmp_path}/made && mv {tmp_path}/made {tmp_path}/itself; sleep 1000"
    )
    collector.collect()
    eventually((tmp_path / "itself").exists)
    collector.close()
    assert not collector._thread.is_alive()
    assert not lives(tmp_path / "itself")
