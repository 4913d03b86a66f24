"""worker.collectors.gpu and worker.collectors.nvml_session"""

import logging
import threading
from pathlib import Path

import pynvml
import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors import nvml
from fleetpulse.worker.collectors.fake_nvml import FakeGpu, FakeNvml
from fleetpulse.worker.collectors.gpu import GpuCollector
from fleetpulse.worker.collectors.nvml_session import GpuUnavailable

ROUND_SECONDS = 5.0


class Machine:
    """A collector over a fake NVML, and the time, which moves by one heartbeat before each round."""

    def __init__(self, *devices: FakeGpu, init_error: int | None = None) -> None:
        self.nvml = FakeNvml(devices, init_error=init_error)
        self.now_seconds = 1000.0
        self.collector = GpuCollector(self.nvml, clock=lambda: self.now_seconds)

    def round(self) -> list[pb.Gpu]:
        self.now_seconds += ROUND_SECONDS
        return list(self.collector.collect().gpus)

    def rounds_for(self, seconds: float) -> None:
        """Broadcaster whose outcome does not matter."""
        for _ in range(int(seconds / ROUND_SECONDS)):
            try:
                self.round()
            except GpuUnavailable:
                continue


def two_gpus() -> tuple[FakeGpu, FakeGpu]:
    return FakeGpu(uuid="GPU-a", name="A"), FakeGpu(uuid="GPU-b", name="B")


def test_every_gpu_by_index_with_one_initialization() -> None:
    machine = Machine(*two_gpus())
    machine.rounds_for(600.0)
    gpus = machine.round()
    assert [(gpu.index, gpu.uuid, gpu.utilization_percent) for gpu in gpus] == [(0, "GPU-a", 37.0), (1, "GPU-b", 37.0)]
    assert (machine.nvml.init_calls, machine.nvml.shutdown_calls) == (1, 0)
    assert machine.collector.device_count == 2


def test_nothing_is_called_before_the_first_round() -> None:
    machine = Machine(*two_gpus())
    assert machine.collector.device_count is None
    assert machine.nvml.init_calls == 0


def test_a_driver_without_devices_is_not_an_error() -> None:
    machine = Machine()
    assert machine.round() == []
    assert machine.collector.device_count == 0


@pytest.mark.parametrize("reason", sorted(nvml.NO_DRIVER))
def test_no_driver_is_not_an_error_and_is_looked_for_every_five_minutes(reason: int) -> None:
    machine = Machine(*two_gpus(), init_error=reason)
    assert machine.round() == []
    assert machine.collector.device_count == 0
    machine.rounds_for(295.0)
    assert machine.nvml.init_calls == 1
    machine.nvml.init_error = None
    assert len(machine.round()) == 2
    assert machine.collector.device_count == 2


@pytest.mark.parametrize("reason", [nvml.ERROR_LIB_RM_VERSION_MISMATCH, nvml.ERROR_NO_PERMISSION, nvml.ERROR_UNKNOWN])
def test_a_driver_that_cannot_be_used_is_an_error_and_is_tried_every_half_minute(reason: int) -> None:
    machine = Machine(*two_gpus(), init_error=reason)
    for _ in range(6):
        with pytest.raises(GpuUnavailable, match=f"cannot be initialised: NVML error {reason}"):
            machine.round()
        assert machine.nvml.init_calls == 1
    assert machine.collector.device_count is None
    machine.nvml.init_error = None
    assert len(machine.round()) == 2
    assert machine.nvml.init_calls == 2


def test_a_driver_that_turns_up_unusable_makes_the_number_of_devices_unknown() -> None:
    machine = Machine(*two_gpus(), init_error=nvml.ERROR_LIBRARY_NOT_FOUND)
    machine.round()
    assert machine.collector.device_count == 0
    machine.nvml.init_error = nvml.ERROR_LIB_RM_VERSION_MISMATCH
    machine.rounds_for(300.0)
    assert machine.collector.device_count is None


def test_a_driver_reload_costs_one_round() -> None:
    machine = Machine(*two_gpus())
    machine.round()
    machine.nvml.reload_driver()
    with pytest.raises(GpuUnavailable, match="driver was lost"):
        machine.round()
    assert machine.collector.device_count is None
    assert len(machine.round()) == 2
    assert machine.nvml.init_calls == 2
    assert machine.collector.device_count == 2


def test_every_reload_is_answered_at_the_next_round() -> None:
    machine = Machine(*two_gpus())
    for reloads in range(3):
        machine.round()
        machine.nvml.reload_driver()
        with pytest.raises(GpuUnavailable):
            machine.round()
        assert machine.nvml.init_calls == reloads + 1
    assert len(machine.round()) == 2


def test_a_reload_that_is_noticed_at_a_device_is_one_of_the_driver() -> None:
    unaware, aware = two_gpus()
    machine = Machine(unaware, aware)
    machine.round()
    aware.failing["nvmlDeviceGetPowerUsage"] = nvml.ERROR_UNINITIALIZED
    with pytest.raises(GpuUnavailable, match="driver was lost"):
        machine.round()
    aware.failing.clear()
    assert len(machine.round()) == 2
    assert machine.nvml.init_calls == 2


def test_a_driver_lost_again_before_it_gave_a_reading_is_tried_every_half_minute() -> None:
    gpu = FakeGpu(failing={"nvmlDeviceGetHandleByIndex": nvml.ERROR_UNINITIALIZED})
    machine = Machine(gpu)
    machine.rounds_for(30.0)
    assert machine.nvml.init_calls == 1
    machine.rounds_for(10.0)
    assert machine.nvml.init_calls == 2
    gpu.failing.clear()
    assert len(machine.round()) == 1
    machine.rounds_for(600.0)
    assert machine.nvml.init_calls == 2


def test_a_driver_that_was_there_and_is_gone_is_an_error() -> None:
    machine = Machine(*two_gpus())
    machine.round()
    machine.nvml.reload_driver()
    machine.nvml.init_error = nvml.ERROR_DRIVER_NOT_LOADED
    for _ in range(4):
        with pytest.raises(GpuUnavailable):
            machine.round()
    assert machine.collector.device_count is None
    assert machine.nvml.init_calls == 2
    machine.nvml.init_error = None
    machine.rounds_for(30.0)
    assert len(machine.round()) == 2


def test_a_lost_gpu_keeps_its_identity_and_the_other_one_its_readings() -> None:
    lost, healthy = two_gpus()
    machine = Machine(lost, healthy)
    machine.round()
    lost.gone = True
    first, second = machine.round()
    assert first == pb.Gpu(index=0, uuid="GPU-a", name="A")
    assert (second.uuid, second.utilization_percent) == ("GPU-b", 37.0)
    assert machine.collector.device_count == 2


def test_a_lost_gpu_is_looked_for_at_the_next_round_and_then_rarely() -> None:
    lost, healthy = two_gpus()
    machine = Machine(lost, healthy)
    machine.round()
    lost.gone = True
    machine.round()
    assert machine.nvml.init_calls == 1
    machine.round()
    assert (machine.nvml.init_calls, machine.nvml.shutdown_calls) == (2, 1)
    machine.rounds_for(295.0)
    assert machine.nvml.init_calls == 2
    lost.gone = False
    assert [gpu.HasField("utilization_percent") for gpu in machine.round()] == [True, True]
    assert machine.nvml.init_calls == 3


def test_a_gpu_that_never_answered_is_left_out() -> None:
    forbidden, healthy = two_gpus()
    forbidden.failing["nvmlDeviceGetHandleByIndex"] = nvml.ERROR_NO_PERMISSION
    machine = Machine(forbidden, healthy)
    machine.rounds_for(600.0)
    assert [gpu.index for gpu in machine.round()] == [1]
    assert machine.nvml.init_calls == 1  # a new one would not help


def test_an_error_when_no_gpu_answers() -> None:
    lost = FakeGpu()
    machine = Machine(lost)
    machine.round()
    lost.gone = True
    with pytest.raises(GpuUnavailable, match="no GPU answers: NVML error 15"):
        machine.round()
    assert machine.collector.device_count == 1
    lost.gone = False
    assert len(machine.round()) == 1


def test_silence_and_return_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    lost, healthy = two_gpus()
    machine = Machine(lost, healthy)
    machine.round()
    lost.gone = True
    with caplog.at_level(logging.INFO):
        machine.rounds_for(50.0)
        assert caplog.messages == ["GPU 0 does not answer: NVML error 15"]
        lost.gone = False
        machine.rounds_for(400.0)
    assert caplog.messages[1:] == ["GPU 0 answers again, or is no longer counted"]


def test_shutdown_lets_go_and_a_later_round_begins_again() -> None:
    machine = Machine(*two_gpus())
    machine.collector.shutdown()
    assert machine.nvml.shutdown_calls == 0
    machine.round()
    machine.collector.shutdown()
    machine.collector.shutdown()
    assert machine.nvml.shutdown_calls == 1
    machine.now_seconds += 1000.0
    assert len(machine.round()) == 2


def test_shutdown_after_a_driver_reload() -> None:
    machine = Machine(*two_gpus())
    machine.round()
    machine.nvml.reload_driver()
    machine.collector.shutdown()
    assert machine.nvml.shutdown_calls == 1


class HangingNvml(FakeNvml):
    """A driver that does not return from a call until it is released."""

    def __init__(self) -> None:
        super().__init__([FakeGpu()])
        self.entered = threading.Event()
        self.released = threading.Event()

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 - the name is NVIDIA's
        self.entered.set()
        self.released.wait()
        return super().nvmlDeviceGetCount()


def test_while_a_reading_hangs_nothing_else_does() -> None:
    library = HangingNvml()
    collector = GpuCollector(library)
    reading = threading.Thread(target=collector.collect)
    reading.start()
    try:
        assert library.entered.wait(10.0)
        collector.shutdown()
        assert library.shutdown_calls == 0
        assert collector.device_count is None
    finally:
        library.released.set()
        reading.join()
    assert collector.device_count == 1


def test_the_real_binding_on_this_machine() -> None:
    gpus = list(Path("/proc/driver/nvidia/gpus").glob("*"))
    collector = GpuCollector(pynvml)
    try:
        assert len(collector.collect().gpus) <= len(gpus)
        assert collector.device_count is not None
    finally:
        collector.shutdown()
