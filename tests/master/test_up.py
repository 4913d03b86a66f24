"""master.up: the log of the child processes"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetpulse.master.up import LOG_NAME, open_log


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_log_is_private_and_appended_to(tmp_path: Path) -> None:
    log = tmp_path / "new" / "x" / LOG_NAME
    for line in (b"one\n", b"two\n"):
        with open_log(log) as file:
            file.write(line)
    assert log.read_bytes() == b"one\ntwo\n"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.parent.stat().st_mode) == 0o700


def test_existing_folder_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    open_log(tmp_path / LOG_NAME).close()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750
