"""master.cli: parsing of settings. tests/e2e runs real processes."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fleetpulse.master.cli import child_environment, fleetpulse, master_command, master_config, up_command


def refused(*arguments: str, **environment: str) -> Result:
    """Runs a command that must not start anything."""
    result = CliRunner().invoke(master_command, list(arguments), env=environment)
    assert result.exit_code == 2, result.output
    return result


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("port", ["abc", "99999", "-1", "", "host:"])
@pytest.mark.parametrize(("flag", "variable"), [("--http-port", "HTTP_PORT"), ("--grpc-port", "GRPC_PORT")])
def test_bad_port_is_one_clear_line(flag: str, variable: str, port: str) -> None:
    good = {"HTTP_PORT": "0", "GRPC_PORT": "0"}
    for result in (refused(f"{flag}={port}", **good), refused(**{**good, variable: port or ":"})):
        assert f"Error: {variable}=" in result.output
        assert "expected a port" in result.output
        assert "Traceback" not in result.output


def test_port_in_use_is_refused_before_anything_starts(taken_port: int) -> None:
    result = refused(HTTP_PORT="0", GRPC_PORT=f":{taken_port}")
    assert f"GRPC_PORT: cannot listen on 127.0.0.1:{taken_port}: Address already in use" in result.output


def test_flag_overrides_the_environment(taken_port: int) -> None:
    result = refused(f"--http-port={taken_port}", HTTP_PORT="0", GRPC_PORT="0")
    assert f"HTTP_PORT: cannot listen on 127.0.0.1:{taken_port}" in result.output


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("HEARTBEAT_INTERVAL", "soon", "HEARTBEAT_INTERVAL='soon'"),
        ("HEARTBEAT_INTERVAL", "20s", "must be at least twice HEARTBEAT_INTERVAL (20 s)"),
        ("INACTIVITY_TIMEOUT", "0", "INACTIVITY_TIMEOUT='0'"),
        ("FLEETPULSE_RETENTION", "-1s", "FLEETPULSE_RETENTION='-1s'"),
        ("FLEETPULSE_MAX_WORKERS", "0", "--max-workers"),
        ("FLEETPULSE_MAX_WORKERS", "many", "--max-workers"),
        ("FLEETPULSE_LOG_LEVEL", "loud", "--log-level"),
        ("FLEETPULSE_AUDIT_FILE_SIZE", "64 MB", "FLEETPULSE_AUDIT_FILE_SIZE='64 MB'"),
        ("WEB_CONCURRENCY", "2", "exactly one web process"),
    ],
)
def test_bad_setting_is_named(variable: str, value: str, named: str) -> None:
    assert named in refused(**{"HTTP_PORT": "0", "GRPC_PORT": "0", variable: value}).output


def test_help_names_the_variables() -> None:
    for command in (master_command, up_command):
        output = CliRunner().invoke(command, ["--help"]).output
        for variable in ("HTTP_PORT", "GRPC_PORT", "HEARTBEAT_INTERVAL", "INACTIVITY_TIMEOUT", "FLEETPULSE_RETENTION"):
            assert variable in output


def test_group_finds_its_commands() -> None:
    output = CliRunner().invoke(fleetpulse, ["--help"]).output
    assert all(f"  {command} " in output for command in ("master", "simulate", "up", "worker"))
    unknown = CliRunner().invoke(fleetpulse, ["nonsense"])
    assert unknown.exit_code == 2
    assert "No such command 'nonsense'" in unknown.output


def test_children_of_up_get_every_setting_as_a_variable(tmp_path: Path) -> None:
    flags = [
        "--http-port=0", "--grpc-port=0", f"--data-dir={tmp_path}", "--retention=90m", "--history-retention=off",
        "--log-retention=500ms", "--audit-file-size=512KiB", "--allowed-host=a.example", "--allowed-host=b.example",
        "--limit-loopback", "--insecure-network", "--max-workers=7", "--grafana-url=https://grafana.example/x/",
        "--tls-name=c.example,d.example", f"--database-url=sqlite:///{tmp_path}/x.db", "--log-level=debug",
    ]  # fmt: skip
    first = settings(*flags)
    result = master_config(first)
    with CliRunner().isolation(env=child_environment(first, result)):
        again = settings()
        assert master_config(again) == result
    assert again | {"http_port": None, "grpc_port": None} == first | {"http_port": None, "grpc_port": None}


def settings(*flags: str) -> dict[str, Any]:
    """The settings of a master with these flags."""
    parameters = master_command.make_context("master", list(flags)).params
    return {name: value for name, value in parameters.items() if name != "has_shell"}
