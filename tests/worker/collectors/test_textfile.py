"""worker.collectors.textfile"""

import os
from pathlib import Path

import psutil
import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.custom_metrics import MAX_TEXT_BYTES
from fleetpulse.worker.collectors.textfile import MAX_FILES, TextfileCollector

NOW = 1_700_000_000.0


class Folder:
    def __init__(self, path: Path, max_age_seconds: float | None = 100.0) -> None:
        self.path = path
        self.now = NOW
        self.collector = TextfileCollector(path, max_age_seconds, clock=lambda: self.now)
        self.heartbeat = pb.Heartbeat()

    def write(self, name: str, text: str, at: float = NOW) -> None:
        (self.path / name).write_text(text)
        os.utime(self.path / name, (at, at))

    def read(self) -> dict[str, list[float]]:
        """The values by name, without the mtimes."""
        self.heartbeat = self.collector.collect()
        values: dict[str, list[float]] = {}
        for metric in self.heartbeat.custom:
            values.setdefault(metric.name, []).extend(sample.value for sample in metric.samples)
        values.pop("textfile_mtime_seconds", None)
        return values

    def errors(self) -> dict[str, str]:
        assert all(bool(report.error) != report.success for report in self.heartbeat.collectors)
        return {report.collector: report.error for report in self.heartbeat.collectors}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_every_file_is_read_and_reported(folder: Folder) -> None:
    folder.write("raid.prom", 'raid{array="md0"} 1\n')
    folder.write("raid2.prom", 'raid{array="md1"} 2\n', at=NOW - 7)
    for name in ("notes.txt", ".hidden.prom"):
        folder.write(name, "nonsense")
    assert folder.read() == {"raid": [1.0, 2.0]}
    assert folder.errors() == {"textfile:raid.prom": "", "textfile:raid2.prom": ""}
    mtimes = folder.heartbeat.custom[0]
    assert mtimes.name == "textfile_mtime_seconds"
    assert [(*sample.label_values, sample.value) for sample in mtimes.samples] == [
        ("raid.prom", NOW), ("raid2.prom", NOW - 7),
    ]  # fmt: skip


def test_empty_folder_gives_an_empty_heartbeat(folder: Folder) -> None:
    assert folder.read() == {}
    assert folder.heartbeat == pb.Heartbeat()


def test_missing_folder_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        TextfileCollector(tmp_path / "nowhere").collect()


def test_changed_broken_repaired_and_removed_files_are_followed(folder: Folder) -> None:
    folder.write("a.prom", "a 1\n")
    folder.write("b.prom", "b 1\n")
    assert folder.read() == {"a": [1.0], "b": [1.0]}
    folder.write("a.prom", "a 2\n", at=NOW + 1)
    assert folder.read() == {"a": [2.0], "b": [1.0]}
    folder.write("a.prom", "a two\n", at=NOW + 2)
    assert folder.read() == {"b": [1.0]}
    assert "line 1 is not Prometheus' text format" in folder.errors()["textfile:a.prom"]
    folder.write("a.prom", "a 3\n", at=NOW + 3)
    assert folder.read() == {"a": [3.0], "b": [1.0]}
    (folder.path / "a.prom").unlink()
    assert folder.read() == {"b": [1.0]}
    assert folder.errors() == {"textfile:b.prom": ""}


def test_stale_file_is_reported_with_its_age_and_gives_no_metrics(folder: Folder) -> None:
    folder.write("a.prom", "a 1\n")
    folder.now += 100
    assert folder.read() == {"a": [1.0]}
    folder.now += 1
    assert folder.read() == {}
    assert folder.errors() == {"textfile:a.prom": "stale: written 101 s ago, 100 s are allowed"}
    assert folder.heartbeat.custom[0].samples[0].value == NOW
    folder.write("a.prom", "a 1\n", at=folder.now)
    assert folder.read() == {"a": [1.0]}


def test_without_a_maximum_age_no_file_is_stale(tmp_path: Path) -> None:
    folder = Folder(tmp_path, max_age_seconds=None)
    folder.write("a.prom", "a 1\n", at=0)
    assert folder.read() == {"a": [1.0]}


def test_first_of_two_contradicting_files_wins(folder: Folder) -> None:
    folder.write("a.prom", "x 1\n")
    folder.write("b.prom", "x 2\n")
    folder.write("c.prom", "# TYPE x gauge\nx 3\n")
    folder.write("d.prom", "textfile_mtime_seconds 1\n")
    assert folder.read() == {"x": [1.0]}
    errors = folder.errors()
    assert (errors["textfile:a.prom"], errors["textfile:b.prom"]) == ("", "x{} comes twice")
    assert "two types" in errors["textfile:c.prom"]
    assert "two types" in errors["textfile:d.prom"]


def test_pipes_folders_and_big_files_are_reported_without_blocking(folder: Folder) -> None:
    os.mkfifo(folder.path / "pipe.prom")
    (folder.path / "folder.prom").mkdir()
    folder.write("big.prom", "# x\n" * MAX_TEXT_BYTES)
    folder.write("ok.prom", "ok 1\n")
    before = psutil.Process().num_fds()
    assert folder.read() == {"ok": [1.0]}
    assert psutil.Process().num_fds() == before
    assert folder.errors() == {
        "textfile:folder.prom": "is not a regular file",
        "textfile:pipe.prom": "is not a regular file",
        "textfile:big.prom": f"more than {MAX_TEXT_BYTES} bytes",
        "textfile:ok.prom": "",
    }


def test_surplus_and_badly_named_files_share_one_report(folder: Folder) -> None:
    for number in range(MAX_FILES + 1):
        folder.write(f"f{number:02}.prom", f"m{number} 1\n")
    folder.write("a b\n.prom", "x 1\n")
    assert len(folder.read()) == MAX_FILES
    assert folder.errors()["textfile:others"].startswith(r"2 not read, 'a b\n.prom' first: at most 16 files")


def test_links_are_not_read(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("x 1\n")
    (folder.path / "a.prom").symlink_to(tmp_path / "elsewhere")
    assert folder.read() == {}
    assert folder.errors() == {"textfile:a.prom": "is a link"}


@pytest.mark.parametrize(
    "text",
    [
        "SECRET:x:0:0\n", "SECRET SECRET\n", "fleetpulse_SECRET 1\n", "# TYPE SECRET histogram\nSECRET_bucket 1\n",
        "# TYPE x counter\nSECRET 1\n", 'x{SECRET="1" 1\n', 'x{__SECRET="1"} 1\n', 'x{a="SECRET\\n"} 1\n',
        "SECRET 1 1\n", "SECRET\n",
    ],
)  # fmt: skip
def test_errors_quote_nothing_of_a_file(text: str, folder: Folder) -> None:
    folder.write("a.prom", text)
    folder.read()
    assert "SECRET" not in str(folder.errors())
