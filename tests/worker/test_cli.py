"""worker.cli: settings that the commands refuse at once, and how they read the others."""

import logging
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from fleetpulse.proto.logs import configure_logging
from fleetpulse.proto.rules import WORKER_ID_RULE
from fleetpulse.worker import cli
from fleetpulse.worker.cli import (
    join_endpoint,
    read_join_token,
    simulate_command,
    worker_command,
)
from fleetpulse.worker.credentials import JoinEndpoint


@pytest.fixture(autouse=True)
def restore_logging_and_signals() -> Iterator[None]:
    """The commands set up logging and signals for the whole process."""
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
    """The one line of the error."""
    assert result.exit_code == 2
    (line,) = re.findall(r"^Error: (.*)$", result.stderr, re.MULTILINE)
    assert isinstance(line, str)
    return line


BAD_MASTERS = [
    "localhost", ":50051", "localhost:", "localhost:0", "localhost:65536", "localhost:http", "http://127.0.0.1:50051/",
    " ", "localhost:\u0665\u0660", "http://host:50051", "dns:///host:50051", "host:50051/path", "a b:1", "a\u00a0b:1",
    "user@host:50051", "::1:50051", "[::1:50051", "[host]:50051", "[fe80::1]50051", "-a:1", "a..b:1", "1.2.3:1",
    "999.1.1.1:1", "h\u00f6st:1", "a:b:1", "a/b:1", "host:-1", "host:+1", "host: 1", "*:50051", f"{'a' * 254}:1",
]  # fmt: skip


@pytest.mark.parametrize("command", [worker_command, simulate_command])
@pytest.mark.parametrize("master", BAD_MASTERS)
def test_invalid_master_address_is_refused(master: str, command: click.Command, tmp_path: Path) -> None:
    expected = f"FLEETPULSE_MASTER={master!r}: expected HOST:PORT, as 127.0.0.1:50051"
    assert error_of(invoked(command, FLEETPULSE_MASTER=master, FLEETPULSE_DATA_DIR=str(tmp_path))) == expected
    assert error_of(invoked(command, "--master", master, FLEETPULSE_DATA_DIR=str(tmp_path))) == expected


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("127.0.0.1:50051", "127.0.0.1:50051"),
        (" rack-7.example.org:1 ", "rack-7.example.org:1"),
        ("192.0.2.7:65535", "192.0.2.7:65535"),
        ("[::1]:50051", "[::1]:50051"),
        ("[fe80::1%eth0]:50051", "[fe80::1%eth0]:50051"),
        ("fleetpulse_master:50051", "fleetpulse_master:50051"),
        ("master.example.:50051", "master.example.:50051"),
    ],
)
def test_valid_master_address_becomes_the_target(text: str, target: str) -> None:
    assert cli._target(text) == target


@pytest.mark.parametrize(
    "url", ["proxy:3128", "https://proxy:3128", "http://proxy", "http://u:secret@proxy:x", "http://p:1/a"]
)
def test_invalid_proxy_is_refused_without_its_password(url: str, tmp_path: Path) -> None:
    result = invoked(worker_command, FLEETPULSE_PROXY=url, FLEETPULSE_DATA_DIR=str(tmp_path))
    assert error_of(result) == "FLEETPULSE_PROXY: expected http://[USER:PASSWORD@]HOST:PORT"


BAD_LABELS = {
    "rack nr=4": "the name must be 1 to 64 ASCII letters",
    "7=a": "the name must be",
    "r\u00e4ck=a": "the name must be",
    f"{'a' * 65}=a": "the name must be",
    "rack=a\u00a0b": "the value must be at most 256 printable characters",
    "rack=a\udce9": "the value must be",
    "rack=a\nb": "the value must be",
    f"rack={'a' * 257}": "the value must be",
    "rack": "expected NAME=VALUE",
    "=a": "expected NAME=VALUE",
}


@pytest.mark.parametrize("label", BAD_LABELS, ids=ascii)
def test_label_that_the_master_would_refuse_is_refused_at_the_start(label: str, tmp_path: Path) -> None:
    error = error_of(invoked(worker_command, "--label", label, FLEETPULSE_DATA_DIR=str(tmp_path)))
    assert error.startswith(f"--label {label[:80]!r}"[:70])
    assert BAD_LABELS[label] in error


def test_too_many_labels_are_refused_at_the_start(tmp_path: Path) -> None:
    labels = [word for number in range(65) for word in ("--label", f"l{number}=a")]
    error = error_of(invoked(worker_command, *labels, FLEETPULSE_DATA_DIR=str(tmp_path)))
    assert error == "--label: 65 labels are too many: at most 64 are taken"


def test_unknown_collector_is_refused_in_one_line(tmp_path: Path) -> None:
    result = invoked(worker_command, FLEETPULSE_SKIP_COLLECTOR="cpu gpus", FLEETPULSE_DATA_DIR=str(tmp_path))
    assert error_of(result).startswith("there is no collector 'gpus': choose of cpu, ")


@pytest.mark.parametrize("worker_id", ["rack/7", "../etc", "a" * 129, "rack 7", "ü"])
def test_invalid_worker_id_is_refused(worker_id: str, tmp_path: Path) -> None:
    result = invoked(worker_command, FLEETPULSE_WORKER_ID=worker_id, FLEETPULSE_DATA_DIR=str(tmp_path))
    assert WORKER_ID_RULE in error_of(result)


def test_empty_worker_id_flag_is_refused(tmp_path: Path) -> None:
    """A template may set a variable to nothing; an empty flag is a mistake."""
    result = invoked(worker_command, "--worker-id", "", FLEETPULSE_DATA_DIR=str(tmp_path))
    assert WORKER_ID_RULE in error_of(result)


def test_error_names_a_corrupt_id_file(tmp_path: Path) -> None:
    (tmp_path / "worker_id").write_text("two words\n")
    assert str(tmp_path / "worker_id") in error_of(invoked(worker_command, FLEETPULSE_DATA_DIR=str(tmp_path)))


@pytest.mark.parametrize("label", ["rack", "=7", "", "="])
def test_invalid_label_is_refused(label: str, tmp_path: Path) -> None:
    result = invoked(worker_command, "--label", label, FLEETPULSE_DATA_DIR=str(tmp_path))
    assert error_of(result) == f"--label {label!r}: expected NAME=VALUE"


def test_label_name_ends_at_the_first_equals_sign() -> None:
    assert cli._labels(["query=a=b", "note="]) == {"query": "a=b", "note": ""}


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
def test_impossible_fleet_is_refused(words: tuple[str, ...], says: str) -> None:
    assert says in error_of(invoked(simulate_command, *words))


@pytest.mark.parametrize("prefix", ["", "-x", "rack/7", "a b", "a" * 200])
def test_prefix_that_makes_invalid_worker_ids_is_refused(prefix: str) -> None:
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
def test_invalid_settings_of_custom_metrics_are_refused(words: list[str], expected: str, tmp_path: Path) -> None:
    assert error_of(invoked(worker_command, *words, FLEETPULSE_DATA_DIR=str(tmp_path))).startswith(expected)


# Joining


BAD_TOKEN = "fpj1_" + "s3cret" * 5


@pytest.mark.parametrize("command", [worker_command, simulate_command])
def test_invalid_join_token_is_refused_and_not_shown(command: click.Command, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(BAD_TOKEN)
    for words in (("--join", BAD_TOKEN), ("--join-file", str(tmp_path / "token"))):
        result = invoked(command, *words, FLEETPULSE_DATA_DIR=str(tmp_path))
        assert "this is no join token" in error_of(result)
        assert "s3cret" not in result.output


@pytest.mark.parametrize("command", [worker_command, simulate_command])
def test_missing_token_file_is_refused(command: click.Command, tmp_path: Path) -> None:
    result = invoked(command, "--join-file", str(tmp_path / "none"), FLEETPULSE_DATA_DIR=str(tmp_path))
    assert error_of(result).endswith("none: No such file or directory")


def test_missing_token_file_is_ignored_after_joining(tmp_path: Path) -> None:
    assert read_join_token(None, tmp_path / "none", has_joined=True) is None


@pytest.mark.parametrize("text", ["localhost", "localhost:0", ":50052"])
def test_invalid_join_address_is_refused(text: str, tmp_path: Path) -> None:
    result = invoked(worker_command, "--join-address", text, FLEETPULSE_DATA_DIR=str(tmp_path))
    assert error_of(result) == f"FLEETPULSE_JOIN_ADDRESS={text!r}: expected HOST:PORT, as 127.0.0.1:50052"


def test_join_port_is_by_default_one_above_the_master_port() -> None:
    assert join_endpoint(None, "[::1]:50051") == JoinEndpoint("::1", 50052)
    assert join_endpoint("rack:7", "127.0.0.1:50051") == JoinEndpoint("rack", 7)
    assert str(JoinEndpoint("::1", 50052)) == "[::1]:50052"


def test_log_lines_name_the_logger_without_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    logging.getLogger("fleetpulse.worker.session").info("worker %s: registered", "rack-7")
    assert re.fullmatch(r"\S+ \S+ INFO worker\.session: worker rack-7: registered\n", capsys.readouterr().err)
