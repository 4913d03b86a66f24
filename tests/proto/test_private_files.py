"""proto.private_files"""

import stat
from pathlib import Path

import pytest

from fleetpulse.proto.private_files import make_private_folder, write_private


def test_private_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "secret"
    make_private_folder(path.parent)
    write_private(path, b"one")
    write_private(path, b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_failed_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "worker_id"
    (path / "in the way").mkdir(parents=True)
    with pytest.raises(OSError, match="worker_id"):
        write_private(path, b"host")
    assert list(tmp_path.iterdir()) == [path]
