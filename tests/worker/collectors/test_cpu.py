"""worker.collectors.cpu"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from fleetpulse.worker.collectors.cpu import CpuCollector, CpuUnreadable, read_cpu_times, usage_percent

Times = Mapping[str, float]

AT_REST: Times = {"user": 100.0, "nice": 5.0, "system": 50.0, "idle": 1000.0, "iowait": 20.0, "guest": 30.0}


def later(**spent_seconds: float) -> Times:
    return {state: seconds + spent_seconds.get(state, 0.0) for state, seconds in AT_REST.items()}


def readings(*times: Times) -> Callable[[], Times]:
    remaining = iter(times)
    return lambda: next(remaining)


@pytest.mark.parametrize(
    ("after", "percent"),
    [
        (later(user=1.0, idle=3.0), 25.0),
        (later(system=4.0), 100.0),
        (later(idle=4.0), 0.0),
        (later(user=1.0, iowait=3.0), 25.0),
        (later(user=2.0, guest=2.0, idle=2.0), 50.0),
    ],
    ids=["user", "busy", "idle", "a core that waits for a disk is idle", "a guest's time is the user's"],
)
def test_usage_is_the_share_of_time_that_was_not_idle(after: Times, percent: float) -> None:
    assert usage_percent(AT_REST, after) == pytest.approx(percent)


def test_usage_is_absent_when_no_time_has_passed() -> None:
    assert usage_percent(AT_REST, AT_REST) is None


def test_decreasing_counter_counts_as_no_time() -> None:
    assert usage_percent(AT_REST, later(iowait=-10.0, user=1.0, idle=1.0)) == pytest.approx(50.0)
    assert usage_percent(AT_REST, later(iowait=-10.0)) is None


def test_new_counter_counts_as_no_time() -> None:
    assert usage_percent({"user": 1.0, "idle": 1.0}, {"user": 2.0, "idle": 2.0, "steal": 500.0}) == pytest.approx(50.0)


def test_first_reading_covers_the_time_since_construction() -> None:
    collector = CpuCollector(readings(AT_REST, later(user=3.0, idle=1.0)), logical_cores=lambda: 8)
    cpu = collector.collect().cpu
    assert cpu.usage_percent == pytest.approx(75.0)
    assert cpu.logical_cores == 8


def test_each_reading_covers_the_time_since_the_previous_one() -> None:
    collector = CpuCollector(readings(AT_REST, later(user=4.0), later(user=4.0, idle=4.0)))
    assert [collector.collect().cpu.usage_percent for _ in range(2)] == [100.0, 0.0]


def test_unknown_values_are_absent() -> None:
    cpu = CpuCollector(readings(AT_REST, AT_REST), logical_cores=lambda: None).collect().cpu
    assert not cpu.HasField("usage_percent")
    assert not cpu.HasField("logical_cores")


def test_failed_reading_at_construction_is_not_fatal() -> None:
    remaining: list[Times | OSError] = [OSError("no /proc"), OSError("no /proc"), AT_REST, later(user=1.0)]

    def read() -> Times:
        reading = remaining.pop(0)
        if isinstance(reading, OSError):
            raise reading
        return reading

    collector = CpuCollector(read)
    with pytest.raises(OSError, match="no /proc"):
        collector.collect()
    assert not collector.collect().cpu.HasField("usage_percent")
    assert collector.collect().cpu.usage_percent == 100.0


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs /proc/stat")
def test_cpu_of_this_machine() -> None:
    def user_ticks() -> str:
        return Path("/proc/stat").read_text().split()[1]

    collector = CpuCollector()
    at_the_start = user_ticks()
    while user_ticks() == at_the_start:
        sum(range(1000))  # until the kernel has counted a tick of work, so that there is something to report
    cpu = collector.collect().cpu
    assert 0.0 < cpu.usage_percent <= 100.0
    cores = [line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("cpu")]
    assert cpu.logical_cores == len(cores) - 1


def test_machine_of_4096_cores_is_read_by_its_first_line(tmp_path: Path) -> None:
    cores = "".join(f"cpu{core} 2 0 2 96 0 0 0 0 0 0\n" for core in range(4096))
    stat = tmp_path / "stat"
    stat.write_text(f"cpu  8192 0 8192 393216 0 0 0 0 0 0\n{cores}intr {'7 ' * 10_000}\nbtime 1790000000\n")
    collector = CpuCollector(partial(read_cpu_times, tmp_path), logical_cores=lambda: 4096)
    stat.write_text(f"cpu  8292 0 8192 393316 0 0 0 0 0 0\n{cores}")
    cpu = collector.collect().cpu
    assert (cpu.usage_percent, cpu.logical_cores) == (50.0, 4096)


@pytest.mark.parametrize("text", ["", "intr 5\n", "cpu 1 2\n", "cpu 1 2 3 x 5\n", "cpu0 1 2 3 4\n"])
def test_times_that_are_none_are_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "stat").write_text(text)
    with pytest.raises(CpuUnreadable, match="does not begin with the times"):
        read_cpu_times(tmp_path)
