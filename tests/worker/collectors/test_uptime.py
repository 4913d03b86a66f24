"""worker.collectors.uptime"""

from pathlib import Path

import pytest

from fleetpulse.worker.collectors.uptime import UptimeCollector


def test_seconds_of_the_boot_clock() -> None:
    assert UptimeCollector(lambda: 12.5).collect().uptime_seconds == 12.5


def test_a_boot_in_the_future_is_not_reported() -> None:
    assert not UptimeCollector(lambda: -3600.0).collect().HasField("uptime_seconds")


@pytest.mark.skipif(not Path("/proc/uptime").exists(), reason="needs /proc/uptime")
def test_this_machine() -> None:
    kernel_says = float(Path("/proc/uptime").read_text().split()[0])
    assert UptimeCollector().collect().uptime_seconds == pytest.approx(kernel_says, abs=2.0)
