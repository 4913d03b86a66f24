"""master.audit.files"""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fleetpulse.master.audit.files import KEPT_FILES, AuditFiles, files_of

LINE = b"x" * 99 + b"\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "audit.jsonl"


def test_the_file_is_for_its_owner_alone(path: Path) -> None:
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


def test_what_is_there_stays(path: Path) -> None:
    for number in range(3):
        files = AuditFiles(path, 1000)
        files.append(b"%d\n" % number)
        files.close()
    assert path.read_bytes() == b"0\n1\n2\n"


def test_a_full_file_is_turned_over_and_the_oldest_goes(path: Path) -> None:
    files = AuditFiles(path, 250)
    for number in range(2 * (KEPT_FILES + 3)):
        files.append(b"%02d" % number + LINE[2:])
    files.close()
    parts = [one.read_bytes() for one in files_of(path)]
    assert len(parts) == 1 + KEPT_FILES
    assert sorted(path.parent.iterdir()) == sorted(files_of(path))
    assert [part[:2] for part in parts] == [b"14", b"12", b"10", b"08", b"06", b"04"]
    assert {len(part) for part in parts} == {200}


def test_what_is_larger_than_a_file_may_be_is_written_all_the_same(path: Path) -> None:
    files = AuditFiles(path, 50)
    files.append(LINE)
    files.append(LINE)
    files.close()
    assert [one.read_bytes() for one in files_of(path)[:2]] == [LINE, LINE]


def test_after_a_torn_line_a_new_one_begins(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"time":1.0,"act')
    files = AuditFiles(path, 1000)
    files.append(LINE)
    files.close()
    assert path.read_bytes() == b'{"time":1.0,"act\n' + LINE


def test_a_file_that_was_taken_away_is_made_anew(path: Path) -> None:
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
from fleetpulse.master.audit.files import AuditFiles
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


def test_a_disk_that_is_full_is_an_error_and_then_a_new_line_begins(path: Path) -> None:
    result = subprocess.run([sys.executable, "-c", _LIMITED, path], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("File too large\nFile too large\n", "")
    assert path.read_bytes() == LINE + b"y" * 50 + b"\n" + b"z\n"
