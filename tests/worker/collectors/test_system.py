"""worker.collectors.system"""

import os
from pathlib import Path

import pytest

from fleetpulse.worker.collectors.system import LoadCollector, UptimeCollector, read_load, seconds_since_boot


def test_load_has_the_three_means() -> None:
    load = LoadCollector(lambda: (0.0, 1.5, 2.25)).collect().load
    assert (load.load1, load.load5, load.load15) == (0.0, 1.5, 2.25)
    assert load.HasField("load1")


def test_load_of_this_machine() -> None:
    load = LoadCollector().collect().load
    assert (load.load1, load.load5, load.load15) == pytest.approx(os.getloadavg(), abs=1.0)


def test_uptime_is_read_from_the_boot_clock() -> None:
    assert UptimeCollector(lambda: 12.5).collect().uptime_seconds == 12.5


def test_boot_time_follows_a_step_of_the_wall_clock_and_no_jitter() -> None:
    uptime, wall = [100.0], [1_000_100.0]
    collector = UptimeCollector(lambda: uptime[0], lambda: wall[0])
    assert collector.collect().boot_time_unix_seconds == 1_000_000.0
    uptime[0], wall[0] = 105.0, 1_000_105.4
    assert collector.collect().boot_time_unix_seconds == 1_000_000.0
    wall[0] += 3600.0
    assert collector.collect().boot_time_unix_seconds == pytest.approx(1_003_600.4)


def test_boot_before_the_epoch_is_absent() -> None:
    """A machine without a battery for its clock starts in 1970."""
    assert not UptimeCollector(lambda: 90.0, lambda: 30.0).collect().HasField("boot_time_unix_seconds")


def test_boot_in_the_future_is_not_reported() -> None:
    assert not UptimeCollector(lambda: -3600.0).collect().HasField("uptime_seconds")


def test_machine_that_hides_its_load_and_uptime_is_asked_by_system_calls(tmp_path: Path) -> None:
    assert read_load(tmp_path) == pytest.approx(os.getloadavg(), abs=1.0)
    assert seconds_since_boot(tmp_path) == pytest.approx(seconds_since_boot(), abs=2.0)


@pytest.mark.skipif(not Path("/proc/uptime").exists(), reason="needs /proc/uptime")
def test_uptime_of_this_machine() -> None:
    kernel_uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert UptimeCollector().collect().uptime_seconds == pytest.approx(kernel_uptime, abs=2.0)
