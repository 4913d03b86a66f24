"""worker.collectors.systemd"""

from collections.abc import Callable
from pathlib import Path

import pytest

from fleetpulse.worker.collectors.systemd import SystemdCollector, SystemdUnavailable


def program(folder: Path, script: str) -> list[str]:
    return ["sh", "-c", script.replace("HERE", str(folder))]


def collector(folder: Path, script: str, clock: Callable[[], float] = lambda: 0.0) -> SystemdCollector:
    (folder / "booted").mkdir(exist_ok=True)
    return SystemdCollector(folder / "booted", program(folder, script), clock)


def test_number_of_failed_units_is_asked_once_a_minute(tmp_path: Path) -> None:
    now = [0.0]
    asking = collector(tmp_path, "echo x >> HERE/asked; echo u $(wc -l < HERE/asked)", lambda: now[0])
    assert [asking.collect().systemd_failed_units for now[0] in (0.0, 59.0, 60.0, 61.0)] == [1, 1, 2, 2]


def test_no_failed_unit_is_zero(tmp_path: Path) -> None:
    assert collector(tmp_path, "echo u 0").collect().HasField("systemd_failed_units")


def test_machine_without_systemd_has_no_reading(tmp_path: Path) -> None:
    heartbeat = SystemdCollector(tmp_path / "none", program(tmp_path, "echo u 0")).collect()
    assert not heartbeat.HasField("systemd_failed_units")


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo Access denied >&2; exit 1", "sh gives no number of failed units: Access denied"),
        ("echo s nonsense", "sh gives no number of failed units: s nonsense"),
    ],
)
def test_refusal_is_an_error_with_what_busctl_says(script: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(SystemdUnavailable, match=why):
        collector(tmp_path, script).collect()


def test_missing_program_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemdUnavailable, match="does not answer"):
        SystemdCollector(tmp_path, [str(tmp_path / "busctl")]).collect()
