"""master.console.shell and completion"""

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from fleetpulse.master.cli import fleetpulse
from fleetpulse.master.console.shell import ExitShell, Interpreter, open_history, run_lines
from tests.master.console.conftest import Run
from tests.master.console.fake_master import FakeMaster, problem
from tests.master.console.records import task, worker


@pytest.fixture
def interpreter(master: FakeMaster) -> Interpreter:
    master.get("/api/workers", [worker("worker-1")])
    master.get("/workers", {"worker-1": {"is_active": True}, "worker-2": {"is_active": False}})
    master.get("/api/tasks", [task("task-1", name="night")])
    master.get("/api/workers/worker-1", worker("worker-1"))
    return Interpreter(["--url", master.url])


def test_lines_run_as_commands(interpreter: Interpreter, capsys: pytest.CaptureFixture[str]) -> None:
    assert interpreter.run("workers") == 0
    assert interpreter.run("status worker-1") == 0
    assert interpreter.run("fleetpulse workers --inactive") == 0
    assert interpreter.run("  # nothing") == interpreter.run("") == 0
    out = capsys.readouterr().out
    assert out.count("worker-1") == 3
    assert "12.3%" in out


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("wrokers", 2, "did you mean 'workers'?"),
        ("zzz", 2, "`help` lists them"),
        ("shell", 2, "there is no command 'shell'"),
        ("workers --nonsense", 2, "No such option"),
        ("status 'x", 2, "a quote is not closed"),
        ("status worker-3", 4, "did you mean 'worker-"),
        ("workers --url 127.0.0.1:1", 3, "Connection refused"),
    ],
)
def test_errors_are_shown_and_the_prompt_goes_on(
    interpreter: Interpreter, master: FakeMaster, capsys: pytest.CaptureFixture[str], line: str, code: int, message: str
) -> None:
    master.on("GET", "/api/workers/worker-3", problem(404, "no worker has the id 'worker-3'"))
    assert interpreter.run(line) == code
    assert message in capsys.readouterr().err


def test_help_lists_the_commands(interpreter: Interpreter, capsys: pytest.CaptureFixture[str]) -> None:
    assert interpreter.run("help") == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert listed >= {"workers", "status", "submit", "top", "help", "exit"}
    assert not listed & {"master", "worker", "up", "shell", "completion"}
    assert interpreter.run("help submit") == 0
    assert "Usage: submit [OPTIONS] IMAGE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "incomplete", "offered"),
    [
        ("", "", {"workers", "exit", "help", "top"}),
        ("work", "work", {"workers"}),
        ("help sub", "sub", {"submit"}),
        ("status ", "", {"worker-1", "worker-2"}),
        ("status worker-2", "worker-2", {"worker-2"}),
        ("drain worker-1 w", "w", {"worker-1", "worker-2"}),
        ("logs -f t", "t", {"task-1"}),
        ("tasks --st", "--st", {"--status"}),
        ("tasks --status f", "f", {"failed"}),
        ("status 'x", "", set()),
        ("nonsense x", "x", set()),
    ],
)
def test_commands_options_and_ids_are_completed(
    interpreter: Interpreter, text: str, incomplete: str, offered: set[str]
) -> None:
    word, items = interpreter.complete(text)
    assert word == incomplete
    found = {item.value for item in items}
    assert offered <= found
    assert len(found) == len(offered) or not text


def test_ids_for_completion_are_cached(interpreter: Interpreter, master: FakeMaster) -> None:
    for _ in range(3):
        interpreter.complete("status ")
    assert len(master.asked("GET", "/workers")) == 1


def test_completion_without_a_master_is_empty() -> None:
    assert Interpreter(["--url", "http://127.0.0.1:1"]).complete("status ")[1] == []


def test_exit_and_quit_leave_the_shell(interpreter: Interpreter) -> None:
    for line in ("exit", "quit"):
        with pytest.raises(ExitShell):
            interpreter.run(line)


def test_lines_from_a_pipe_end_with_the_last_exit_code(
    run: Run, master: FakeMaster, interpreter: Interpreter, tmp_path: Path
) -> None:
    env = {"FLEETPULSE_URL": master.url, "FLEETPULSE_DATA_DIR": str(tmp_path)}
    result = CliRunner().invoke(fleetpulse, ["shell"], input="workers\nstatus nobody\n", env=env)
    assert result.exit_code == 4
    assert "worker-1" in result.stdout
    assert "master>" not in result.stdout
    assert run_lines(["status nobody", "exit", "workers"], interpreter) == 4


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(run: Run, shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert "_FLEETPULSE_COMPLETE" in result.stdout


def test_bash_completes_ids(run: Run, master: FakeMaster, interpreter: Interpreter) -> None:
    words = {"COMP_WORDS": "fleetpulse status worker-", "COMP_CWORD": "2", "_FLEETPULSE_COMPLETE": "bash_complete"}
    assert run(**words).stdout.splitlines() == ["plain,worker-1", "plain,worker-2"]


def test_ids_with_control_characters_are_not_offered(run: Run, master: FakeMaster) -> None:
    master.get("/workers", {f"worker-{end}": {"is_active": True} for end in ("1", "\x1b[2J", "2\nplain,rm")})
    words = {"COMP_WORDS": "fleetpulse status worker-", "COMP_CWORD": "2", "_FLEETPULSE_COMPLETE": "bash_complete"}
    assert run(**words).stdout.splitlines() == ["plain,worker-1"]


def test_history_file_is_private(tmp_path: Path) -> None:
    path = open_history(tmp_path / "new")
    assert path is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_existing_folder_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    assert open_history(tmp_path) is not None
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750
