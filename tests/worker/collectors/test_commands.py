"""worker.collectors.commands, with real commands"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from fleetpulse.worker.collectors.commands import MAX_COMMANDS, CommandCollector, configured_commands
from fleetpulse.worker.collectors.custom_metrics import MAX_TEXT_BYTES, InvalidMetrics, InvalidSource

TIMEOUT_SECONDS = 20.0
ENVIRONMENT = {"PATH": os.environ["PATH"]}


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def output(*words: str, deadline_seconds: float = TIMEOUT_SECONDS) -> bytes:
    return CommandCollector("raid", words, 1000.0, ENVIRONMENT).output(deadline_seconds)


def open_files() -> int:
    return psutil.Process().num_fds()


def is_running(pid_file: Path) -> bool:
    try:
        return psutil.Process(int(pid_file.read_text())).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_output_is_stdout() -> None:
    assert output("printf", "x 1\n") == b"x 1\n"


def test_command_has_no_shell_no_input_no_inherited_files_and_only_the_given_environment() -> None:
    assert output("echo", "$HOME;", "`id`") == b"$HOME; `id`\n"
    script = "import os, sys; print(sys.stdin.read() == '', sorted(os.environ), len(os.listdir('/proc/self/fd')))"
    before = open_files()
    # The three standard streams, and the one that lists the folder.
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
def test_failed_command_raises_with_the_reason(script: str, expected: str) -> None:
    before = open_files()
    deadline_seconds = 0.3 if "did not" in expected else TIMEOUT_SECONDS
    with pytest.raises(InvalidMetrics) as caught:
        output("sh", "-c", script, deadline_seconds=deadline_seconds)
    assert expected in str(caught.value)
    assert open_files() == before


def test_missing_command_raises_file_not_found() -> None:
    with pytest.raises(FileNotFoundError):
        output("/nowhere/raid-state")


def test_command_and_its_children_are_killed_at_the_deadline(tmp_path: Path) -> None:
    script = f"trap '' TERM; sleep 1000 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/itself; wait"
    with pytest.raises(InvalidMetrics, match=r"did not end within 0\.5 s, and was killed"):
        output("sh", "-c", script, deadline_seconds=0.5)
    eventually(lambda: not is_running(tmp_path / "child") and not is_running(tmp_path / "itself"))


def test_child_that_keeps_stdout_open_is_killed_at_the_deadline(tmp_path: Path) -> None:
    with pytest.raises(InvalidMetrics, match="did not end"):
        output("sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/child; echo x 1", deadline_seconds=0.5)
    eventually(lambda: not is_running(tmp_path / "child"))


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
    except InvalidMetrics as error:
        return str(error)
    return None


def test_collect_returns_the_metrics_of_the_last_run(collector_of: CollectorOf, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "output")
    collector = collector_of("cat", str(tmp_path / "output"))
    assert collector.name == "command:raid"
    assert values(collector) == []  # the command waits for a writer
    (tmp_path / "output").write_text("x 7\n")
    eventually(lambda: values(collector) == [7.0])


def test_command_runs_at_the_interval_and_recovers_from_failures(collector_of: CollectorOf, tmp_path: Path) -> None:
    output_file = tmp_path / "output"
    output_file.write_text("x 1\n")
    collector = collector_of("cat", str(output_file), interval_seconds=0.05)
    eventually(lambda: values(collector) == [1.0])
    output_file.write_text("x one\n")
    eventually(lambda: failure(collector) == NOT_A_NUMBER)
    output_file.unlink()
    eventually(lambda: "No such file" in (failure(collector) or ""))
    output_file.write_text("x 2\n")
    eventually(lambda: failure(collector) is None and values(collector) == [2.0])


@pytest.mark.parametrize(
    ("words", "expected"),
    [(("/nowhere/x",), "FileNotFoundError"), (("printf", "x 1\nx 1\n"), "x{} comes twice"), (("false",), "status 1")],
)
def test_collect_raises_why_the_last_run_failed(
    collector_of: CollectorOf, words: tuple[str, ...], expected: str
) -> None:
    collector = collector_of(*words)
    eventually(lambda: expected in (failure(collector) or ""))


def test_close_kills_a_running_command(collector_of: CollectorOf, tmp_path: Path) -> None:
    collector = collector_of(
        "sh", "-c", f"echo $$ > {tmp_path}/made && mv {tmp_path}/made {tmp_path}/itself; sleep 1000"
    )
    collector.collect()
    eventually((tmp_path / "itself").exists)
    collector.close()
    assert not collector._thread.is_alive()
    assert not is_running(tmp_path / "itself")


# Which commands are configured


def add_program(path: Path, mode: int = 0o755) -> None:
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)


def test_commands_come_from_assignments_and_from_executable_files(tmp_path: Path) -> None:
    add_program(tmp_path / "b")
    add_program(tmp_path / "a.sh")
    add_program(tmp_path / "README", 0o644)
    add_program(tmp_path / ".hidden")
    (tmp_path / "folder").mkdir()
    commands = configured_commands(["raid=raid-state --array 'md 0' ; rm"], tmp_path)
    assert list(commands.items()) == [
        ("raid", ("raid-state", "--array", "md 0", ";", "rm")),
        ("a.sh", (str(tmp_path / "a.sh"),)),
        ("b", (str(tmp_path / "b"),)),
    ]


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        (["raid"], "expected NAME=COMMAND"),
        (["raid="], "expected NAME=COMMAND"),
        (["raid='x"], "No closing quotation"),
        (["a b=x"], "command 'a b': a name is made of"),
        (["=x"], "command '': a name"),
        (["a=x", "a=y"], "two commands have the name a"),
        ([f"a{n}=x" for n in range(MAX_COMMANDS + 1)], "17 commands are too many"),
    ],
)
def test_invalid_assignments_are_refused(assignments: list[str], expected: str) -> None:
    with pytest.raises(InvalidSource, match=expected):
        configured_commands(assignments, None)


def test_missing_folder_of_commands_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSource, match="nowhere: No such file"):
        configured_commands([], tmp_path / "nowhere")


@pytest.mark.parametrize("what", ["folder", "program"])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of another user")
@pytest.mark.parametrize("change", ["mode", "owner"])
def test_programs_that_other_users_may_write_are_refused(what: str, change: str, tmp_path: Path) -> None:
    folder = tmp_path / "programs"
    folder.mkdir(mode=0o755)
    add_program(folder / "a")
    path = folder if what == "folder" else folder / "a"
    if change == "mode":
        path.chmod(0o777)
    else:
        os.chown(path, 65534, 65534)
    with pytest.raises(InvalidSource, match="other users may write it, and nothing of it is run"):
        configured_commands([], folder)
