"""worker.cli: what the commands refuse before they do anything, and what they make of their settings."""

import logging
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from fleetpulse.proto.rules import WORKER_ID_RULE
from fleetpulse.worker import cli
from fleetpulse.worker.cli import simulate_command, worker_command
from fleetpulse.worker.credentials import JoinEndpoint
from fleetpulse.worker.join_flags import door_from, token_from
from fleetpulse.worker.own_flags import commands_environment


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The commands set logging and signals up for a process of their own."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for number, handler in signals.items():
        signal.signal(number, handler)


def invoked(command: click.Command, *words: str, **env: str) -> Result:
    settings = {"FLEETPULSE_MASTER": None, "FLEETPULSE_WORKER_ID": None, "FLEETPULSE_LOG_LEVEL": None}
    return CliRunner(env={**settings, **env}).invoke(command, words)


def error_of(result: Result) -> str:
    """The one line that says why."""
    assert result.exit_code == 2
    (line,) = re.findall(r"^Error: (.*)$", result.stderr, re.MULTILINE)
    assert isinstance(line, str)
    return line


BAD_MASTERS = [
    "localhost", ":50051", "localhost:", "localhost:0", "localhost:65536", "localhost:http", "http://localhost:50051/",
    " ", "localhost:\u0665\u0660",
]  # fmt: skip


@pytest.mark.parametrize("command", [worker_command, simulate_command])
@pytest.mark.parametrize("master", BAD_MASTERS)
def test_a_master_that_is_no_address(master: str, command: click.Command, tmp_path: Path) -> None:
    expected = f"FLEETPULSE_MASTER={master!r}: expected HOST:PORT, as localhost:50051"
    assert error_of(invoked(command, FLEETPULSE_MASTER=master, FLEETPULSE_DATA_DIR=str(tmp_path))) == expected
    assert error_of(invoked(command, "--master", master, FLEETPULSE_DATA_DIR=str(tmp_path))) == expected


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("localhost:50051", "localhost:50051"),
        (" rack-7.example.org:1 ", "rack-7.example.org:1"),
        ("192.0.2.7:65535", "192.0.2.7:65535"),
        ("[::1]:50051", "[::1]:50051"),
    ],
)
def test_a_master_that_is_an_address(text: str, target: str) -> None:
    assert cli._target(text) == target


@pytest.mark.parametrize("worker_id", ["rack/7", "../etc", "a" * 129, "rack 7", "ü"])
def test_a_worker_id_against_the_rule(worker_id: str, tmp_path: Path) -> None:
    result = invoked(worker_command, FLEETPULSE_WORKER_ID=worker_id, FLEETPULSE_DATA_DIR=str(tmp_path))
    assert WORKER_ID_RULE in error_of(result)


def test_an_empty_flag_is_refused_though_an_empty_variable_is_not(tmp_path: Path) -> None:
    """A variable may be set to nothing by a template; who types an empty flag made a mistake."""
    result = invoked(worker_command, "--worker-id", "", FLEETPULSE_DATA_DIR=str(tmp_path))
    assert WORKER_ID_RULE in error_of(result)


def test_a_corrupt_id_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "worker_id").write_text("two words\n")
    assert str(tmp_path / "worker_id") in error_of(invoked(worker_command, FLEETPULSE_DATA_DIR=str(tmp_path)))


@pytest.mark.parametrize("label", ["rack", "=7", "", "="])
def test_a_label_that_is_none(label: str, tmp_path: Path) -> None:
    result = invoked(worker_command, "--label", label, FLEETPULSE_DATA_DIR=str(tmp_path))
    assert error_of(result) == f"--label {label!r}: expected NAME=VALUE"


def test_a_label_ends_at_its_first_equals_sign() -> None:
    assert cli._label("query=a=b") == ("query", "a=b")
    assert cli._label("note=") == ("note", "")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--workers", "0"), "--workers"),
        (("--workers", "many"), "--workers"),
        (("--gpu-share", "1.5"), "--gpu-share"),
        (("--gpus", "-1"), "--gpus"),
        (("--duration", "0"), "--duration"),
        (("--workers", "3", "--stall", "1", "--vanish", "2", "--flap", "1"), "more machines than --workers"),
    ],
)
def test_a_fleet_that_cannot_be(words: tuple[str, ...], says: str) -> None:
    assert says in error_of(invoked(simulate_command, *words))


@pytest.mark.parametrize("prefix", ["", "-x", "rack/7", "a b", "a" * 200])
def test_a_prefix_that_makes_no_worker_ids(prefix: str) -> None:
    assert WORKER_ID_RULE in error_of(invoked(simulate_command, "--prefix", prefix, "--duration", "0.01"))


@pytest.mark.parametrize("command", [worker_command, simulate_command])
def test_help_names_every_variable(command: click.Command) -> None:
    result = invoked(command, "--help")
    assert result.exit_code == 0
    for option in command.params:
        assert isinstance(option, click.Option)
        assert option.opts[0] in result.output
        if option.envvar is not None:
            assert str(option.envvar) in result.output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--metrics-command", "raid"], "'raid': expected NAME=COMMAND, as raid='/usr/local/bin/raid-state --all'"),
        (["--metrics-dir", "/nowhere"], "/nowhere: No such file or directory"),
        (["--metrics-interval", "0.5"], "Invalid value for '--metrics-interval'"),
        (["--metrics-interval", "nan"], "nan is no number of seconds"),
        (["--textfile-max-age", "nan"], "nan is no number of seconds"),
    ],
)
def test_own_metrics_that_cannot_be(words: list[str], expected: str, tmp_path: Path) -> None:
    assert error_of(invoked(worker_command, *words, FLEETPULSE_DATA_DIR=str(tmp_path))).startswith(expected)


def test_commands_get_no_setting_of_the_project() -> None:
    given = {"PATH": "/bin", "FLEETPULSE_TOKEN": "secret", "FLEETPULSE": "1", "DATABASE_URL": "postgresql://x:y@z"}
    assert commands_environment(given) == {"PATH": "/bin", "FLEETPULSE": "1"}


# Joining


BAD_TOKEN = "fpj1_" + "s3cret" * 5


@pytest.mark.parametrize("command", [worker_command, simulate_command])
def test_what_is_no_join_token_is_refused_and_not_repeated(command: click.Command, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(BAD_TOKEN)
    for words in (("--join", BAD_TOKEN), ("--join-file", str(tmp_path / "token"))):
        result = invoked(command, *words, FLEETPULSE_DATA_DIR=str(tmp_path))
        assert "this is no join token" in error_of(result)
        assert "s3cret" not in result.output


@pytest.mark.parametrize("command", [worker_command, simulate_command])
def test_a_file_for_the_token_that_is_not_there(command: click.Command, tmp_path: Path) -> None:
    result = invoked(command, "--join-file", str(tmp_path / "none"), FLEETPULSE_DATA_DIR=str(tmp_path))
    assert error_of(result).endswith("none: No such file or directory")


def test_a_file_that_is_gone_is_no_matter_to_who_has_joined(tmp_path: Path) -> None:
    assert token_from(None, tmp_path / "none", has_joined=True) is None


@pytest.mark.parametrize("text", ["localhost", "localhost:0", ":50052"])
def test_a_join_address_that_is_none(text: str, tmp_path: Path) -> None:
    result = invoked(worker_command, "--join-address", text, FLEETPULSE_DATA_DIR=str(tmp_path))
    assert error_of(result) == f"FLEETPULSE_JOIN_ADDRESS={text!r}: expected HOST:PORT, as localhost:50052"


def test_a_worker_joins_one_port_after_its_master() -> None:
    assert door_from(None, "[::1]:50051") == JoinEndpoint("::1", 50052)
    assert door_from("rack:7", "localhost:50051") == JoinEndpoint("rack", 7)
    assert str(JoinEndpoint("::1", 50052)) == "[::1]:50052"
