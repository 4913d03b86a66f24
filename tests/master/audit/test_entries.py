"""master.audit.entries"""

import json
import os
import pwd
import stat
import string
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from fleetpulse.master.audit.entries import (
    KEPT_FILES,
    MAX_CHARACTERS,
    AuditFiles,
    files_of,
    line_of,
    needle_of,
    record_command,
    record_of,
)
from fleetpulse.master.cli import fleetpulse
from tests.master.audit.given import entry, recorded
from tests.master.audit.trails import running_trail, written

HOSTILE = [
    'x","outcome":"ok","actor":"root',
    "a\nb\r\n{}",
    "\x1b[2J\x1b]0;title\x07\x9b31m",
    "\u202egnp.exe\u2028\u2029",
    "\x00\x7f\x85",
    "\udcff\ud800",
    "\N{PILE OF POO}" * 300,
    "\\u000a\\",
]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
@pytest.mark.parametrize("field", ["action", "actor", "client", "detail", "target"])
def test_entry_is_one_line_of_printable_ascii(field: str, text: str) -> None:
    line = line_of(1.5, entry(**{field: text}))
    assert line.endswith(b"\n")
    assert set(line[:-1].decode("ascii")) <= set(string.printable) - set("\t\n\r\x0b\x0c")
    read = record_of(line)
    assert read is not None
    assert structs.replace(read, **{field: ""}) == recorded(1.5, **{field: ""})
    if len(text) <= MAX_CHARACTERS and text.isascii():
        assert getattr(read, field) == text


@given(st.text(max_size=2 * MAX_CHARACTERS))
def test_needle_finds_a_value(text: str) -> None:
    assert needle_of("actor", text) in line_of(0.0, entry(actor=text))


def test_needle_of_one_field_does_not_match_another() -> None:
    line = line_of(0.0, entry(detail='"actor":"root",', target='","actor":"root","'))
    assert needle_of("actor", "root") not in line


def test_long_text_is_cut() -> None:
    read = record_of(line_of(0.0, entry(target="a" * 10_000)))
    assert read is not None
    assert read.target == "a" * MAX_CHARACTERS + "…"
    longest = dict.fromkeys(("actor", "client", "action", "target", "status", "detail"), "\N{PILE OF POO}" * 9_999)
    assert len(line_of(0.0, entry(**longest))) < 30_000


def test_file_of_an_older_master_is_read() -> None:
    for old, new in {"rest": "http", "rpc": "grpc", "page": "page", "cli": "cli"}.items():
        line = line_of(1.5, entry(source=old, target='"door":"rest",')).replace(b'"source":', b'"door":')
        assert record_of(line) == recorded(1.5, source=new, target='"door":"rest",')


WHOLE = json.loads(line_of(1.0, entry()))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        line_of(1.0, entry())[:-20],
        b"[]",
        b"null",
        b"\xff\xfe",
        json.dumps({**WHOLE, "time": "now"}).encode(),
        json.dumps({**WHOLE, "actor": None}).encode(),
        json.dumps({name: value for name, value in WHOLE.items() if name != "status"}).encode(),
    ],
)
def test_invalid_line_has_no_fields(line: bytes) -> None:
    assert record_of(line) is None


def test_unknown_fields_are_left_out() -> None:
    assert record_of(json.dumps({**WHOLE, "more": 1}).encode()) == recorded(1.0)


LINE = b"x" * 99 + b"\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "audit.jsonl"


def test_file_is_private(path: Path) -> None:
    before = os.umask(0)
    try:
        files = AuditFiles(path, 1000)
        files.append(LINE)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    files.close()
    path.chmod(0o644)
    files.append(LINE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    files.close()


def test_existing_lines_are_kept(path: Path) -> None:
    for number in range(3):
        files = AuditFiles(path, 1000)
        files.append(b"%d\n" % number)
        files.close()
    assert path.read_bytes() == b"0\n1\n2\n"


def test_full_file_is_rotated_and_the_oldest_removed(path: Path) -> None:
    files = AuditFiles(path, 250)
    for number in range(2 * (KEPT_FILES + 3)):
        files.append(b"%02d" % number + LINE[2:])
    files.close()
    parts = [one.read_bytes() for one in files_of(path)]
    assert len(parts) == 1 + KEPT_FILES
    assert sorted(path.parent.iterdir()) == sorted(files_of(path))
    assert [part[:2] for part in parts] == [b"14", b"12", b"10", b"08", b"06", b"04"]
    assert {len(part) for part in parts} == {200}


def test_lines_larger_than_a_file_are_written(path: Path) -> None:
    files = AuditFiles(path, 50)
    files.append(LINE)
    files.append(LINE)
    files.close()
    assert [one.read_bytes() for one in files_of(path)[:2]] == [LINE, LINE]


def test_new_line_begins_after_a_torn_one(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"time":1.0,"act')
    files = AuditFiles(path, 1000)
    files.append(LINE)
    files.close()
    assert path.read_bytes() == b'{"time":1.0,"act\n' + LINE


def test_removed_file_is_created_again(path: Path) -> None:
    files = AuditFiles(path, 1000)
    files.append(LINE)
    path.unlink()
    files.append(LINE)
    assert path.read_bytes() == LINE
    path.rename(path.with_name("elsewhere"))
    path.with_name("elsewhere").unlink()
    files.append(LINE)
    files.close()
    assert path.read_bytes() == LINE


_LIMITED = """
import resource, sys
from pathlib import Path
from fleetpulse.master.audit.entries import AuditFiles
path = Path(sys.argv[1])
files = AuditFiles(path, 10_000)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (150, hard))
files.append(b"x" * 99 + b"\\n")
for _ in range(2):
    try:
        files.append(b"y" * 99 + b"\\n")
    except OSError as error:
        print(error.strerror)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
files.append(b"z\\n")
files.close()
"""


def test_full_disk_is_an_error_and_a_new_line_begins_after_it(path: Path) -> None:
    result = subprocess.run([sys.executable, "-c", _LIMITED, path], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("File too large\nFile too large\n", "")
    assert path.read_bytes() == LINE + b"y" * 50 + b"\n" + b"z\n"


USER = f"user:{pwd.getpwuid(os.getuid()).pw_name}"


def test_command_appends_beside_the_master(tmp_path: Path) -> None:
    with running_trail(tmp_path / "audit.jsonl") as one:
        one.trail.record(entry())
        record_command(tmp_path, "create_token", "ci", "submit", clock=lambda: 1.5)
    assert {line["action"] for line in written(tmp_path / "audit.jsonl")} == {"submit_task", "create_token"}


def test_token_commands_are_recorded_without_the_secret(tmp_path: Path) -> None:
    def run(*words: str) -> str:
        result = CliRunner().invoke(fleetpulse, ["token", *words, "--data-dir", str(tmp_path)])
        assert result.exit_code == 0, result.output
        return result.stdout.strip()

    secret = run("create", "ci", "--role", "submit")
    run("revoke", "ci")
    made, revoked = written(tmp_path / "audit.jsonl")
    assert (made["actor"], made["source"], made["action"], made["target"]) == (USER, "cli", "create_token", "ci")
    assert made["detail"].endswith(", submit")
    assert (revoked["actor"], revoked["action"]) == (USER, "revoke_token")
    assert secret.rpartition("_")[2] not in (tmp_path / "audit.jsonl").read_text()


def test_unwritable_trail_does_not_stop_a_command(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    result = CliRunner().invoke(fleetpulse, ["token", "create", "ci", "--data-dir", str(tmp_path)])
    assert result.exit_code == 0
    assert "the audit trail cannot be written: Is a directory" in result.stderr
