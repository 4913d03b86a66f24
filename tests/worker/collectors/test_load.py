"""worker.collectors.load"""

import os

import pytest

from fleetpulse.worker.collectors.load import LoadCollector


def test_the_three_means() -> None:
    load = LoadCollector(lambda: (0.0, 1.5, 2.25)).collect().load
    assert (load.load1, load.load5, load.load15) == (0.0, 1.5, 2.25)
    assert load.HasField("load1")


def test_this_machine() -> None:
    load = LoadCollector().collect().load
    assert (load.load1, load.load5, load.load15) == pytest.approx(os.getloadavg(), abs=1.0)
