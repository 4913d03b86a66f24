"""worker.identity"""

import logging
import os
import re
import stat
from pathlib import Path

import pytest

from fleetpulse.proto.rules import WORKER_ID_MAX_LENGTH, WORKER_ID_RULE, is_worker_id
from fleetpulse.worker.identity import (
    InvalidWorkerId,
    new_incarnation_id,
    resolve_worker_id,
    worker_id_from_hostname,
)


def kept_in(data_dir: Path) -> Path:
    return data_dir / "worker_id"


def test_explicit_id_wins_and_is_not_kept(tmp_path: Path) -> None:
    kept_in(tmp_path).write_text("kept\n")
    assert resolve_worker_id("given", tmp_path, "host") == "given"
    assert kept_in(tmp_path).read_text() == "kept\n"
    assert resolve_worker_id("given", tmp_path / "none", "host") == "given"
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "worker_id", ["", "-rack", "rack/7", "rack 7", "rack\n", "ü", "a" * (WORKER_ID_MAX_LENGTH + 1)]
)
def test_invalid_explicit_id_is_refused(worker_id: str, tmp_path: Path) -> None:
    kept_in(tmp_path).write_text("kept\n")
    with pytest.raises(InvalidWorkerId, match=re.escape(WORKER_ID_RULE)):
        resolve_worker_id(worker_id, tmp_path, "host")


def test_kept_id_survives_a_new_host_name(tmp_path: Path) -> None:
    assert resolve_worker_id(None, tmp_path, "old-name") == "old-name"
    assert resolve_worker_id(None, tmp_path, "new-name") == "old-name"


def test_id_file_is_alone_in_a_private_directory(tmp_path: Path) -> None:
    data_dir = tmp_path / "state" / "fleetpulse"
    resolve_worker_id(None, data_dir, "host")
    assert kept_in(data_dir).read_text() == "host\n"
    assert list(data_dir.iterdir()) == [kept_in(data_dir)]
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines\n", b"\xff\xfe", b"rack/7\n", b"\0" * 64, b"a" * 5000])
def test_error_names_a_corrupt_id_file(content: bytes, tmp_path: Path) -> None:
    kept_in(tmp_path).write_bytes(content)
    with pytest.raises(InvalidWorkerId) as caught:
        resolve_worker_id(None, tmp_path, "host")
    assert str(kept_in(tmp_path)) in str(caught.value)
    assert WORKER_ID_RULE in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert kept_in(tmp_path).read_bytes() == content


def test_error_names_an_unreadable_id_file(tmp_path: Path) -> None:
    kept_in(tmp_path).mkdir()
    with pytest.raises(InvalidWorkerId, match=re.escape(str(kept_in(tmp_path)))) as caught:
        resolve_worker_id(None, tmp_path, "host")
    assert isinstance(caught.value.__cause__, IsADirectoryError)


def test_directory_that_cannot_be_created_is_only_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        assert resolve_worker_id(None, tmp_path / "file" / "state", "host") == "host"
    assert "worker id host is not kept" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_directory_without_write_permission_is_only_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tmp_path.chmod(0o500)
    assert resolve_worker_id(None, tmp_path, "host") == "host"
    assert "worker id host is not kept" in caplog.text


@pytest.mark.parametrize(
    ("hostname", "worker_id"),
    [
        ("rack-7.example.org", "rack-7.example.org"),
        ("gpu_box", "gpu_box"),
        ("Anna's Laptop", "Anna-s-Laptop"),
        ("bücher", "b-cher"),
        ("-._host", "host"),
        ("ünit", "nit"),
        ("h" * 300, "h" * WORKER_ID_MAX_LENGTH),
    ],
)
def test_id_is_made_of_the_host_name(hostname: str, worker_id: str) -> None:
    assert worker_id_from_hostname(hostname) == worker_id
    assert is_worker_id(worker_id)


@pytest.mark.parametrize("hostname", ["", "---", "日本"])
def test_host_name_without_a_valid_character_is_refused(hostname: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidWorkerId, match="host name"):
        resolve_worker_id(None, tmp_path, hostname)
    assert list(tmp_path.iterdir()) == []


def test_every_incarnation_id_is_new() -> None:
    incarnations = {new_incarnation_id() for _ in range(100)}
    assert len(incarnations) == 100
    assert all(re.fullmatch(r"[0-9a-f]{32}", incarnation) for incarnation in incarnations)
