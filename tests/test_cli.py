"""The ``fleetpulse`` command: help, refusals, and the order of flags, environment and file."""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

FLEETPULSE = str(Path(sys.executable).parent / "fleetpulse")
COMMANDS = (
    "audit", "ca", "cancel", "completion", "drain", "events", "gpus", "history", "logs", "master", "shell", "simulate",
    "status", "submit", "task", "tasks", "token", "top", "undrain", "up", "worker", "workers",
)  # fmt: skip
SETTINGS = ("HTTP_PORT", "GRPC_PORT", "HEARTBEAT_INTERVAL", "INACTIVITY_TIMEOUT", "WEB_CONCURRENCY")


def run(folder: Path, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in the folder with only the settings in ``env``."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("FLEETPULSE_") and name not in SETTINGS
    }
    return subprocess.run(
        command, cwd=folder, env={**inherited, "FLEETPULSE_DATA_DIR": str(folder / "data"), **env},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    """The one-line error of a refused command."""
    assert (result.returncode, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
    (line,) = re.findall(r"^Error: (.*)$", result.stderr, re.MULTILINE)
    assert isinstance(line, str)
    return line


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_the_commands(flag: str, tmp_path: Path) -> None:
    result = run(tmp_path, FLEETPULSE, flag)
    assert (result.returncode, result.stderr) == (0, "")
    listed = re.findall(r"^  (\w+)  ", result.stdout.partition("Commands:")[2], re.MULTILINE)
    assert tuple(listed) == COMMANDS
    assert ".env" in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str, tmp_path: Path) -> None:
    result = run(tmp_path, FLEETPULSE, command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"Usage: fleetpulse {command} ")


@pytest.mark.parametrize("module", ["fleetpulse.master", "fleetpulse.worker"])
def test_packages_run_as_commands(module: str, tmp_path: Path) -> None:
    result = run(tmp_path, sys.executable, "-m", module, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"Usage: python -m {module} ")


def test_version_is_the_version_of_the_distribution(tmp_path: Path) -> None:
    result = run(tmp_path, FLEETPULSE, "--version")
    assert (result.returncode, result.stdout) == (0, f"fleetpulse, version {version('fleetpulse')}\n")


def test_unknown_command_is_refused(tmp_path: Path) -> None:
    assert error_of(run(tmp_path, FLEETPULSE, "wroker")).startswith("No such command 'wroker'")


def test_unknown_flag_is_refused(tmp_path: Path) -> None:
    assert error_of(run(tmp_path, FLEETPULSE, "worker", "--mster", "x")).startswith("No such option")


def test_no_command_shows_the_help(tmp_path: Path) -> None:
    result = run(tmp_path, FLEETPULSE)
    assert result.returncode == 2
    assert "Usage: fleetpulse" in result.stdout + result.stderr


def test_worker_does_not_load_the_master(tmp_path: Path) -> None:
    code = (
        "import sys; from importlib.metadata import entry_points;"
        "(entry,) = entry_points(group='fleetpulse.commands', name='worker'); entry.load();"
        "print([name for name in sys.modules if name.partition('.')[0] in {'gevent', 'gunicorn', 'falcon'}],"
        "[name for name in sys.modules if name.startswith('fleetpulse.master')])"
    )
    result = run(tmp_path, sys.executable, "-c", code)
    assert (result.returncode, result.stdout) == (0, "[] []\n")


def test_arbiter_does_not_load_what_only_the_web_process_or_a_client_needs(tmp_path: Path) -> None:
    code = (
        "import sys, fleetpulse.master.cli, fleetpulse.master.server;"
        "large = {'cryptography', 'gevent', 'grpc', 'prometheus_client', 'pydantic', 'requests', 'sqlalchemy'};"
        "print(sorted(large & set(sys.modules)))"
    )
    result = run(tmp_path, sys.executable, "-c", code)
    assert (result.returncode, result.stdout) == (0, "[]\n")


# Each bad setting is refused by name, which shows where it was read.

FROM_FILE = "HTTP_PORT=from-file\n"


@pytest.mark.parametrize(
    "command", [(FLEETPULSE, "master"), (FLEETPULSE, "up"), (sys.executable, "-m", "fleetpulse.master")]
)
def test_flag_overrides_environment_and_environment_overrides_file(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(FROM_FILE)
    assert error_of(run(tmp_path, *command)).startswith("HTTP_PORT='from-file':")
    in_environment = error_of(run(tmp_path, *command, HTTP_PORT="from-environment"))
    assert in_environment.startswith("HTTP_PORT='from-environment':")
    by_flag = error_of(run(tmp_path, *command, "--http-port", "from-flag", HTTP_PORT="from-environment"))
    assert by_flag.startswith("HTTP_PORT='from-flag':")


@pytest.mark.parametrize(
    "command", [(FLEETPULSE, "worker"), (FLEETPULSE, "simulate"), (sys.executable, "-m", "fleetpulse.worker")]
)
def test_worker_flag_overrides_environment_and_environment_overrides_file(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("FLEETPULSE_MASTER=from-file\n")
    assert error_of(run(tmp_path, *command)).startswith("FLEETPULSE_MASTER='from-file':")
    in_environment = error_of(run(tmp_path, *command, FLEETPULSE_MASTER="from-environment"))
    assert in_environment.startswith("FLEETPULSE_MASTER='from-environment':")
    by_flag = error_of(run(tmp_path, *command, "--master", "from-flag", FLEETPULSE_MASTER="from-environment"))
    assert by_flag.startswith("FLEETPULSE_MASTER='from-flag':")


def test_only_the_env_file_in_this_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HTTP_PORT=from-above\n")
    folder = tmp_path / "folder"
    folder.mkdir()
    assert error_of(run(folder, FLEETPULSE, "master", GRPC_PORT="abc")).startswith("GRPC_PORT='abc':")


def test_empty_variable_is_ignored(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GRPC_PORT=abc\n")
    assert error_of(run(tmp_path, FLEETPULSE, "master", HTTP_PORT="")).startswith("GRPC_PORT='abc':")
