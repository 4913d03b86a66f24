"""worker.simulation.machine"""

import itertools
from statistics import mean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import MAX_CUSTOM_SAMPLES
from fleetpulse.worker.collectors.custom_metrics import CustomMetricsBudget
from fleetpulse.worker.simulation.machine import SimulatedMachine

NOON = 1_700_000_000.0


def machine(worker_id: str = "sim-1", gpus: int = 2, seed: int = 1) -> SimulatedMachine:
    return SimulatedMachine(worker_id, gpus, seed, NOON)


def readings(simulated: SimulatedMachine, count: int, interval: float = 5.0) -> list[pb.Heartbeat]:
    return [simulated.sample(NOON + interval * number) for number in range(1, count + 1)]


def test_the_same_seed_and_times_give_the_same_readings() -> None:
    assert readings(machine(), 20) == readings(machine(), 20)
    assert machine().register("one", "1.0") == machine().register("one", "1.0")


def test_other_seed_or_id_gives_other_readings() -> None:
    usual = readings(machine(), 3)
    assert readings(machine(seed=2), 3) != usual
    assert readings(machine("sim-2"), 3) != usual


@given(st.integers(), st.integers(0, 8), st.lists(st.floats(0.0, 100_000.0), min_size=1, max_size=20))
def test_readings_are_plausible(seed: int, gpus: int, steps: list[float]) -> None:
    simulated = machine(gpus=gpus, seed=seed)
    for now in itertools.accumulate(steps, initial=NOON):
        heartbeat = simulated.sample(now)
        assert 0.0 < heartbeat.cpu.usage_percent < 100.0
        assert 0 < heartbeat.memory.used_bytes < heartbeat.memory.size_bytes
        assert 0.0 <= heartbeat.load.load1 <= heartbeat.cpu.logical_cores
        assert heartbeat.uptime_seconds > 0.0
        assert len(heartbeat.gpus) == gpus
        for gpu in heartbeat.gpus:
            assert 0.0 <= gpu.utilization_percent <= 100.0
            assert 0 < gpu.memory_used_bytes < gpu.memory_size_bytes
            assert 30.0 < gpu.temperature_celsius < 90.0
            assert 50.0 < gpu.power_watts < 410.0
        assert all(0 < disk.used_bytes < disk.size_bytes for disk in heartbeat.filesystems)
        assert all(report.success for report in heartbeat.collectors)


def test_counters_only_grow() -> None:
    for earlier, later in itertools.pairwise(readings(machine(), 100)):
        assert later.disk_devices[0].read_bytes >= earlier.disk_devices[0].read_bytes
        assert later.disk_devices[0].written_bytes >= earlier.disk_devices[0].written_bytes
        assert later.network_interfaces[0].received_bytes >= earlier.network_interfaces[0].received_bytes
        assert later.network_interfaces[0].transmitted_bytes >= earlier.network_interfaces[0].transmitted_bytes
        assert later.uptime_seconds > earlier.uptime_seconds


def test_readings_move_but_do_not_jump() -> None:
    loads = [heartbeat.cpu.usage_percent for heartbeat in readings(machine(), 500)]
    steps = [abs(later - earlier) for earlier, later in itertools.pairwise(loads)]
    assert 0.0 < mean(steps) < 5.0
    assert max(steps) < 20.0
    assert pstdev(loads) > 1.0


def test_machines_differ_from_each_other() -> None:
    fleet = [machine(f"sim-{number}") for number in range(200)]
    assert len({simulated.sample(NOON).cpu.logical_cores for simulated in fleet}) == 4
    assert pstdev(simulated.sample(NOON + 1.0).cpu.usage_percent for simulated in fleet) > 5.0


def test_clock_may_step_back() -> None:
    simulated = machine()
    before = simulated.sample(NOON + 100.0)
    after = simulated.sample(NOON + 50.0)
    assert after.disk_devices[0].read_bytes == before.disk_devices[0].read_bytes
    assert 0.0 < after.cpu.usage_percent < 100.0


def test_registration_agrees_with_readings() -> None:
    simulated = machine(gpus=3)
    register, heartbeat = simulated.register("one", "1.0"), simulated.sample(NOON)
    assert (register.worker_id, register.incarnation_id, register.version) == ("sim-1", "one", "1.0")
    assert register.capacity.cpu_cores == heartbeat.cpu.logical_cores
    assert register.capacity.memory_bytes == heartbeat.memory.size_bytes
    assert register.capacity.gpu_count == len(heartbeat.gpus) == 3
    assert NOON - heartbeat.uptime_seconds == register.boot_time_unix_seconds
    assert register.labels == {"simulated": "true"}


def test_gpus_keep_their_identity() -> None:
    first, second = readings(machine(gpus=4), 2)
    assert [gpu.uuid for gpu in first.gpus] == [gpu.uuid for gpu in second.gpus]
    assert len({gpu.uuid for gpu in first.gpus}) == 4
    assert [gpu.index for gpu in first.gpus] == [0, 1, 2, 3]
    assert {gpu.uuid for gpu in first.gpus}.isdisjoint(gpu.uuid for gpu in machine("sim-2", 4).sample(NOON).gpus)


@pytest.mark.parametrize("samples", [1, 2, 5, MAX_CUSTOM_SAMPLES])
def test_custom_metrics_have_the_requested_samples(samples: int) -> None:
    heartbeats = readings(SimulatedMachine("sim-1", 2, 1, NOON, custom_samples=samples), 10)
    for heartbeat in heartbeats:
        assert sum(len(metric.samples) for metric in heartbeat.custom) == samples
        CustomMetricsBudget().add(heartbeat.custom)
    for earlier, later in itertools.pairwise(heartbeats):
        counters = [
            [s.value for m in heartbeat.custom if m.name.endswith("_total") for s in m.samples]
            for heartbeat in (earlier, later)
        ]
        assert all(after >= before for before, after in zip(*counters, strict=True))


def test_custom_metrics_do_not_change_other_readings() -> None:
    heartbeats = readings(SimulatedMachine("sim-1", 2, 1, NOON, custom_samples=4), 5)
    for heartbeat in heartbeats:
        heartbeat.ClearField("custom")
    assert heartbeats == readings(machine(), 5)
