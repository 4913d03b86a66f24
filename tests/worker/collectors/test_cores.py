"""worker.collectors.cores"""

from pathlib import Path

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.cores import CoreCollector


def write_stat(proc: Path, *busy: int) -> None:
    """``/proc/stat`` of cores that were busy for so many of 100 ticks more than before."""
    lines = [f"cpu{core} {ticks} 0 0 {1000 - ticks} 0 0 0 0 0 0" for core, ticks in enumerate(busy)]
    proc.mkdir(exist_ok=True)
    (proc / "stat").write_text("\n".join(["cpu  0 0 0 0", *lines, "intr 1 2", "btime 1"]) + "\n")


def test_nothing_is_read_until_somebody_asks(tmp_path: Path) -> None:
    assert CoreCollector(tmp_path / "none", tmp_path).collect() == pb.Heartbeat()


def test_cores_have_use_and_frequency_while_asked_for(tmp_path: Path) -> None:
    now = [0.0]
    proc, sys = tmp_path / "proc", tmp_path / "sys"
    folder = sys / "devices" / "system" / "cpu" / "cpu1" / "cpufreq"
    folder.mkdir(parents=True)
    (folder / "scaling_cur_freq").write_text("2400000\n")
    collector = CoreCollector(proc, sys, clock=lambda: now[0])
    collector.report_for(60.0)
    write_stat(proc, 100, 100)
    first, second = collector.collect().cores
    assert not first.HasField("usage_percent")
    assert second.frequency_hertz == 2.4e9
    assert not first.HasField("frequency_hertz")
    (proc / "stat").write_text("cpu0 150 0 0 950 0\ncpu1 100 0 0 1000 0\n")
    now[0] = 60.0
    assert [core.usage_percent for core in collector.collect().cores] == [pytest.approx(50.0), 0.0]
    now[0] = 61.0
    assert collector.collect() == pb.Heartbeat()


def test_at_most_1024_cores_are_reported_and_the_rest_counted(tmp_path: Path) -> None:
    write_stat(tmp_path, *([1] * 4096))
    collector = CoreCollector(tmp_path, tmp_path)
    collector.report_for(float("inf"))
    heartbeat = collector.collect()
    assert len(heartbeat.cores) == 1024
    assert [(part.collector, part.count) for part in heartbeat.left_out] == [("cores", 3072)]
