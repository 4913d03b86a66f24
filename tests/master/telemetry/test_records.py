"""master.telemetry.records"""

import pytest

from fleetpulse.master.telemetry.readings import Cpu, Filesystem, Gpu, Memory, Reading
from fleetpulse.master.telemetry.records import HeartbeatCounts, Registration, WorkerTelemetry


def telemetry(reading: Reading) -> WorkerTelemetry:
    return WorkerTelemetry("rack-7", Registration(), 0.0, True, 0.0, reading, HeartbeatCounts(), 1)


def gpu(utilization_percent: float | None) -> Gpu:
    return Gpu(0, "", "", utilization_percent, None, None, None, None)


@pytest.mark.parametrize(
    ("used", "size", "available", "expected"),
    [
        (918, 1000, 0, 1.0),
        (50, 1000, 50, 0.5),
        (0, 1000, 1000, 0.0),
        (50, 1000, None, 0.05),  # an older worker
        (50, None, 50, 0.5),
        (None, 1000, 50, None),
        (0, 0, 0, None),
        (5, 4, None, 1.0),
    ],
)
def test_used_share_of_a_filesystem_is_what_df_shows(
    used: int | None, size: int | None, available: int | None, expected: float | None
) -> None:
    assert Filesystem("/", used, size, available).used_ratio == expected


@pytest.mark.parametrize(
    ("inodes", "free", "expected"), [(1000, 250, 0.75), (1000, 0, 1.0), (0, 0, None), (None, None, None), (9, 10, 0.0)]
)
def test_inodes_of_a_filesystem(inodes: int | None, free: int | None, expected: float | None) -> None:
    assert Filesystem("/", inodes=inodes, inodes_free=free).inodes_used_ratio == expected


@pytest.mark.parametrize(
    ("state", "is_in_error", "is_broken"),
    [("ok", False, False), ("error", True, None), ("read_only", False, True), (None, None, None)],
)
def test_state_of_a_filesystem(state: str | None, is_in_error: bool | None, is_broken: bool | None) -> None:
    filesystem = Filesystem("/", state=state)
    assert (filesystem.is_in_error, filesystem.is_broken) == (is_in_error, is_broken)


@pytest.mark.parametrize(
    ("used", "size", "expected"),
    [
        (1, 4, 25.0),
        (0, 4, 0.0),
        (4, 4, 100.0),
        (5, 4, 100.0),  # read one after the other, they need not fit
        (None, 4, None),
        (1, None, None),
        (0, 0, None),
        (None, None, None),
    ],
)
def test_memory_usage(used: int | None, size: int | None, expected: float | None) -> None:
    assert telemetry(Reading(memory=Memory(used, size))).memory_usage == expected


@pytest.mark.parametrize(
    ("utilizations", "expected"),
    [([], None), ([None], None), ([0.0], 0.0), ([50.0, 100.0], 75.0), ([50.0, None], 50.0)],
)
def test_gpu_usage_is_the_mean_of_known_readings(utilizations: list[float | None], expected: float | None) -> None:
    assert telemetry(Reading(gpus=tuple(map(gpu, utilizations)))).gpu_usage == expected


def test_cpu_usage() -> None:
    assert telemetry(Reading(cpu=Cpu(0.0))).cpu_usage == 0.0
    assert telemetry(Reading()).cpu_usage is None
