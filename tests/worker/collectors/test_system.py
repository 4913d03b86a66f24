"""worker.collectors.system"""

import os
from pathlib import Path

import pytest

from fleetpulse.worker.collectors.system import LoadCollector, UptimeCollector


def test_load_has_the_three_means() -> None:
    load = LoadCollector(lambda: (0.0, 1.5, 2.25)).collect().load
    assert (load.load1, load.load5, load.load15) == (0.0, 1.5, 2.25)
    assert load.HasField("load1")


def test_load_of_this_machine() -> None:
    load = LoadCollector().collect().load
    assert (load.load1, load.load5, load.load15) == pytest.approx(os.getloadavg(), abs=1.0)


def test_uptime_is_read_from_the_boot_clock() -> None:
    assert UptimeCollector(lambda: 12.5).collect().uptime_seconds == 12.5


def test_boot_in_the_future_is_not_reported() -> None:
    assert not UptimeCollector(lambda: -3600.0).collect().HasField("uptime_seconds")


@pytest.mark.skipif(not Path("/proc/uptime").exists(), reason="needs /proc/uptime")
def test_uptime_of_this_machine() -> None:
    kernel_uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert UptimeCollector().collect().uptime_seconds == pytest.approx(kernel_uptime, abs=2.0)
