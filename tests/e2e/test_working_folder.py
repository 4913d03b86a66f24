"""The working directory may be anybody's: what its files can make of the commands that run there."""

import os
import socket
import sys
from pathlib import Path

import pytest

from tests.e2e.masters import READY_SECONDS, MasterClient
from tests.e2e.processes import FLEETPULSE, CompletedCommand, Processes
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST, free_port

pytestmark = pytest.mark.e2e

NOBODY = 65534
SERVICES = ("up", "master", "worker", "simulate")
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of another user")


def refused(processes: Processes, command: str) -> CompletedCommand:
    """Runs a service with one bad setting in the environment, so that it ends after it looked for a file."""
    return processes.run(FLEETPULSE, command, FLEETPULSE_LOG_LEVEL="bad", FLEETPULSE_MASTER="bad")


@pytest.fixture
def stranger() -> socket.socket:
    """A listener to which no command may connect."""
    listener = socket.create_server((LOCALHOST, 0))
    listener.setblocking(False)
    return listener


def test_clients_and_the_completion_do_not_read_the_file(processes: Processes, stranger: socket.socket) -> None:
    (processes.folder / "token").write_text("secret")
    port = stranger.getsockname()[1]
    (processes.folder / ".env").write_text(
        f"FLEETPULSE_URL=http://{LOCALHOST}:{port}\nFLEETPULSE_TOKEN_FILE=token\nFLEETPULSE_MASTER={LOCALHOST}:{port}\n"
    )
    with stranger:
        # Whether a master runs at the default port or not: none of these asks the one in the file.
        assert str(port) not in processes.run(FLEETPULSE, "workers").err
        for words, count, offered in (("fleetpulse status ", 2, ""), ("fleetpulse worker --", 2, "--master")):
            completed = processes.run(
                FLEETPULSE, COMP_WORDS=words, COMP_CWORD=str(count), _FLEETPULSE_COMPLETE="bash_complete"
            )
            assert (offered in completed.out, completed.err) == (True, "")
        with pytest.raises(BlockingIOError):
            stranger.accept()


@pytest.mark.parametrize("command", SERVICES)
def test_a_pipe_is_not_waited_for(command: str, processes: Processes) -> None:
    os.mkfifo(processes.folder / ".env")
    assert "/.env is not read: it is not a regular file.\n" in refused(processes, command).err


def test_links_and_folders_and_long_files_are_not_read(processes: Processes) -> None:
    path = processes.folder / ".env"
    (processes.folder / "settings").write_text("HTTP_PORT=from-file\n")
    path.symlink_to("settings")
    assert "/.env is not read: it is a link.\n" in refused(processes, "master").err
    path.unlink()
    path.mkdir()
    assert "/.env is not read: it is not a regular file.\n" in refused(processes, "master").err
    path.rmdir()
    path.write_text("#" * 65536 + "\n")
    assert "/.env is not read: it has more than 65536 bytes.\n" in refused(processes, "master").err


@NEEDS_ROOT
@pytest.mark.parametrize("command", SERVICES)
def test_a_file_of_another_user_is_not_read(command: str, processes: Processes) -> None:
    path = processes.folder / ".env"
    path.write_text("HTTP_PORT=from-file\nFLEETPULSE_MASTER=from-file\n")
    os.chown(path, NOBODY, NOBODY)
    err = refused(processes, command).err
    assert "/.env is not read: it belongs to another user, nobody.\n" in err
    assert "from-file" not in err


@pytest.mark.parametrize("mode", [0o666, 0o602])
def test_a_file_that_others_may_write_is_refused(mode: int, processes: Processes) -> None:
    path = processes.folder / ".env"
    path.write_text("HTTP_PORT=from-file\n")
    path.chmod(mode)
    ended = refused(processes, "master")
    assert ended.code == 2
    assert ended.error_line() == (
        f"other users may write {path}. Say `chmod go-w .env` there if its content is yours, "
        "or set FLEETPULSE_NO_ENV_FILE=1 to go on without it"
    )
    ended = processes.run(FLEETPULSE, "master", FLEETPULSE_NO_ENV_FILE="1", GRPC_PORT="abc")
    assert ended.error_line().startswith("GRPC_PORT='abc'")


@NEEDS_ROOT
def test_a_file_that_a_group_may_write_is_refused_unless_it_is_the_owners_own(processes: Processes) -> None:
    path = processes.folder / ".env"
    path.write_text("HTTP_PORT=from-file\n")
    path.chmod(0o664)
    assert refused(processes, "master").error_line().startswith("HTTP_PORT='from-file'")
    os.chown(path, 0, NOBODY)
    assert refused(processes, "master").error_line().startswith("other users may write")


def test_values_are_not_interpolated(processes: Processes) -> None:
    (processes.folder / ".env").write_text("HTTP_PORT=${SECRET}\n")
    ended = processes.run(FLEETPULSE, "master", SECRET="hunter2")
    assert ended.error_line().startswith("HTTP_PORT='${SECRET}'")


def test_a_file_sets_ports_and_the_worker_but_runs_no_code_and_opens_nothing(processes: Processes) -> None:
    """As the quick reference says: `HTTP_PORT=":8080"` in `.env`."""
    evil = processes.folder / "evil"
    evil.mkdir()
    mark = processes.folder / "code-was-run"
    (evil / "sitecustomize.py").write_text(f"open({str(mark)!r}, 'w')\n")
    program = evil / "program"
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    http_port = free_port()
    path = processes.folder / ".env"
    path.write_text(
        f'HTTP_PORT=":{http_port}"\nGRPC_PORT={free_port()}\nFLEETPULSE_WORKER_ID=from-file\nFLEETPULSE_TASKS=false\n'
        f"PYTHONPATH={evil}\nFLEETPULSE_METRICS_DIR={evil}\nFLEETPULSE_INSECURE_NETWORK=true\nGRAFANA_PORT=3000\n"
    )
    up = processes.start("up", FLEETPULSE, "up")
    master = MasterClient(http_port)
    eventually(lambda: master.is_healthy() and master.workers().get("from-file"), READY_SECONDS)
    (line,) = [line for line in up.err.splitlines() if "/.env" in line]
    assert line == (
        f"Read {path}: FLEETPULSE_TASKS, FLEETPULSE_WORKER_ID, GRPC_PORT, HTTP_PORT. "
        "Not taken from a file: FLEETPULSE_INSECURE_NETWORK, FLEETPULSE_METRICS_DIR, PYTHONPATH."
    )
    children = [child.environ() for child in up.children()]
    assert len(children) >= 2
    for environment in children:
        assert {"PYTHONPATH", "FLEETPULSE_METRICS_DIR", "GRAFANA_PORT"}.isdisjoint(environment)
        assert environment.get("FLEETPULSE_INSECURE_NETWORK") in ("", "False", None)
        assert environment["FLEETPULSE_TASKS"] == "false"
    assert not Path(mark).exists()


HOSTILE_MODULES = (
    "alembic", "anyio", "click", "docker", "dotenv", "falcon", "gevent", "grpc", "gunicorn", "logging", "master",
    "platformdirs", "proto", "psutil", "pydantic", "random", "sitecustomize", "sqlalchemy", "tomllib", "usercustomize",
    "worker",
)  # fmt: skip
LOADED_BEFORE_ANY_LINE_OF_OURS = {"logging", "random", "sitecustomize", "usercustomize"}


@pytest.fixture
def hostile(processes: Processes) -> Path:
    """A working directory with modules and a plug-in that leave a mark. Returns the folder of the marks."""
    marks = processes.folder / "marks"
    marks.mkdir()
    for name in HOSTILE_MODULES:
        (processes.folder / f"{name}.py").write_text(f"open({str(marks / name)!r}, 'w')\n")
    package = processes.folder / "hostile-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[fleetpulse.collectors]\nhostile = click:main\n")
    return marks


def test_up_and_the_client_import_nothing_from_the_working_directory(hostile: Path, processes: Processes) -> None:
    http_port, grpc_port = free_port(), free_port()
    ports = ("--http-port", str(http_port), "--grpc-port", str(grpc_port))
    processes.start("up", FLEETPULSE, "up", *ports, "--worker-id", "safe", FLEETPULSE_TASKS="false")
    master = MasterClient(http_port)
    eventually(lambda: master.is_healthy() and master.workers().get("safe"), READY_SECONDS)
    ended = processes.run(FLEETPULSE, "workers", FLEETPULSE_URL=f":{http_port}")
    assert (ended.code, "safe" in ended.out) == (0, True)
    assert sorted(path.name for path in hostile.iterdir()) == []


@pytest.mark.parametrize("module", ["fleetpulse.master", "fleetpulse.worker"])
@pytest.mark.parametrize("flags", [("-P",), ()])
def test_modules_that_run_as_commands_import_nothing_from_it(
    module: str, flags: tuple[str, ...], hostile: Path, processes: Processes
) -> None:
    """Without -P, Python itself may load a module before ours can prevent it."""
    if not flags:
        for name in LOADED_BEFORE_ANY_LINE_OF_OURS:
            (processes.folder / f"{name}.py").unlink()
    assert processes.run(sys.executable, *flags, "-m", module, "--help").code == 0
    assert sorted(path.name for path in hostile.iterdir()) == []
