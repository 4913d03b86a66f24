"""worker.docker_engine.ownership"""

import errno
import stat
from pathlib import Path

import pytest

from fleetpulse.worker.docker_engine.ownership import ContainerOwner
from fleetpulse.worker.tasks.engine import EngineRefused

ID = "a" * 64


def test_a_later_start_knows_the_containers(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "containers"
    first = ContainerOwner("w", folder)
    first.note(ID)
    first.note("b" * 64)
    first.forget("b" * 64)
    second = ContainerOwner("w", folder)
    assert second.secret == first.secret
    assert second.has_noted(ID)
    assert not second.has_noted("b" * 64)
    assert not second.has_noted("owner")
    assert stat.S_IMODE((folder / "owner").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_two_workers_have_two_secrets(tmp_path: Path) -> None:
    assert ContainerOwner("w", tmp_path / "a").secret != ContainerOwner("w", tmp_path / "b").secret
    assert ContainerOwner("w").secret != ContainerOwner("w").secret


def test_a_folder_that_cannot_be_used_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    owner = ContainerOwner("w", tmp_path / "file" / "containers")
    owner.note(ID)
    assert owner.has_noted(ID)
    assert "not recognised after a restart" in caplog.text


def test_a_damaged_secret_is_not_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "owner").write_text("short\n")
    ContainerOwner("w", tmp_path)
    assert (tmp_path / "owner").read_text() == "short\n"
    assert "32 hexadecimal digits" in caplog.text


def test_a_container_that_cannot_be_noted_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "containers"
    owner = ContainerOwner("w", folder)
    (folder / ID).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EngineRefused, match="cannot note its container") as refused:
        owner.note(ID)
    assert refused.value.reason == "container_failed"
    assert isinstance(refused.value.__cause__, OSError)
    assert refused.value.__cause__.errno == errno.ELOOP
    assert not owner.has_noted(ID)
    assert not (tmp_path / "elsewhere").exists()
