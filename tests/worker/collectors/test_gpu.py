"""worker.collectors.gpu"""

import logging
import threading
from pathlib import Path

import pynvml
import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.fields import MAX_GPU_PROCESSES
from fleetpulse.worker.collectors.gpu import GpuCollector, GpuInventory
from fleetpulse.worker.collectors.nvml import DEVICE_GONE, LIBRARY_GONE, NO_DRIVER, GpuUnavailable, NvmlGpu, error_code
from fleetpulse.worker.collectors.processes import ProcessNames
from tests.worker.collectors.fake_nvml import FakeGpu, FakeNvml, FakeNvmlError

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

    def inventory(self) -> GpuInventory | None:
        return self.collector.inventory

    def rounds_for(self, seconds: float) -> None:
        """Rounds whose results do not matter."""
        for _ in range(int(seconds / ROUND_SECONDS)):
            try:
                self.round()
            except GpuUnavailable:
                continue


def two_gpus() -> tuple[FakeGpu, FakeGpu]:
    return FakeGpu(uuid="GPU-a", name="A"), FakeGpu(uuid="GPU-b", name="B")


def test_every_gpu_is_read_with_one_initialization() -> None:
    machine = Machine(*two_gpus())
    machine.rounds_for(600.0)
    gpus = machine.round()
    assert [(gpu.index, gpu.uuid, gpu.utilization_percent) for gpu in gpus] == [(0, "GPU-a", 37.0), (1, "GPU-b", 37.0)]
    assert (machine.nvml.init_calls, machine.nvml.shutdown_calls) == (1, 0)
    assert machine.inventory() == (2, ("GPU-a", "GPU-b"))


def test_nvml_is_not_called_before_the_first_collect() -> None:
    machine = Machine(*two_gpus())
    assert machine.inventory() is None
    assert machine.nvml.init_calls == 0


def test_driver_without_devices_gives_an_empty_report() -> None:
    machine = Machine()
    assert machine.round() == []
    assert machine.inventory() == (0, ())


@pytest.mark.parametrize("reason", sorted(NO_DRIVER))
def test_missing_driver_gives_an_empty_report_and_is_tried_every_five_minutes(reason: int) -> None:
    machine = Machine(*two_gpus(), init_error=reason)
    assert machine.round() == []
    assert machine.inventory() == (0, ())
    machine.rounds_for(295.0)
    assert machine.nvml.init_calls == 1
    machine.nvml.init_error = None
    assert len(machine.round()) == 2
    assert machine.inventory() == (2, ("GPU-a", "GPU-b"))


@pytest.mark.parametrize(
    "reason", [pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, pynvml.NVML_ERROR_NO_PERMISSION, pynvml.NVML_ERROR_UNKNOWN]
)
def test_unusable_driver_raises_and_is_tried_every_half_minute(reason: int) -> None:
    machine = Machine(*two_gpus(), init_error=reason)
    for _ in range(6):
        with pytest.raises(GpuUnavailable, match=f"cannot be initialised: NVML error {reason}"):
            machine.round()
        assert machine.nvml.init_calls == 1
    assert machine.inventory() is None
    machine.nvml.init_error = None
    assert len(machine.round()) == 2
    assert machine.nvml.init_calls == 2


def test_driver_that_becomes_unusable_makes_the_device_count_unknown() -> None:
    machine = Machine(*two_gpus(), init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    machine.round()
    assert machine.inventory() == (0, ())
    machine.nvml.init_error = pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    machine.rounds_for(300.0)
    assert machine.inventory() is None


def test_driver_reload_costs_one_round() -> None:
    machine = Machine(*two_gpus())
    machine.round()
    machine.nvml.reload_driver()
    with pytest.raises(GpuUnavailable, match="driver was lost"):
        machine.round()
    assert machine.inventory() is None
    assert len(machine.round()) == 2
    assert machine.nvml.init_calls == 2
    assert machine.inventory() == (2, ("GPU-a", "GPU-b"))


def test_nvml_is_initialized_in_the_round_after_each_reload() -> None:
    machine = Machine(*two_gpus())
    for reloads in range(3):
        machine.round()
        machine.nvml.reload_driver()
        with pytest.raises(GpuUnavailable):
            machine.round()
        assert machine.nvml.init_calls == reloads + 1
    assert len(machine.round()) == 2


def test_reload_noticed_at_a_device_counts_as_driver_loss() -> None:
    unaware, aware = two_gpus()
    machine = Machine(unaware, aware)
    machine.round()
    aware.failing["nvmlDeviceGetPowerUsage"] = pynvml.NVML_ERROR_UNINITIALIZED
    with pytest.raises(GpuUnavailable, match="driver was lost"):
        machine.round()
    aware.failing.clear()
    assert len(machine.round()) == 2
    assert machine.nvml.init_calls == 2


def test_driver_lost_again_before_a_reading_is_tried_every_half_minute() -> None:
    gpu = FakeGpu(failing={"nvmlDeviceGetHandleByIndex": pynvml.NVML_ERROR_UNINITIALIZED})
    machine = Machine(gpu)
    machine.rounds_for(30.0)
    assert machine.nvml.init_calls == 1
    machine.rounds_for(10.0)
    assert machine.nvml.init_calls == 2
    gpu.failing.clear()
    assert len(machine.round()) == 1
    machine.rounds_for(600.0)
    assert machine.nvml.init_calls == 2


def test_driver_that_disappears_raises() -> None:
    machine = Machine(*two_gpus())
    machine.round()
    machine.nvml.reload_driver()
    machine.nvml.init_error = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    for _ in range(4):
        with pytest.raises(GpuUnavailable):
            machine.round()
    assert machine.inventory() is None
    assert machine.nvml.init_calls == 2
    machine.nvml.init_error = None
    machine.rounds_for(30.0)
    assert len(machine.round()) == 2


def states(gpus: list[pb.Gpu]) -> list[tuple[int, str, str, str]]:
    return [(gpu.index, gpu.uuid, gpu.state, gpu.state_reason) for gpu in gpus]


def test_lost_gpu_is_reported_as_lost_without_readings_and_the_other_with_its_own() -> None:
    lost, healthy = two_gpus()
    machine = Machine(lost, healthy)
    machine.round()
    lost.gone = True
    first, second = machine.round()
    assert first == pb.Gpu(index=0, uuid="GPU-a", name="A", vendor="nvidia", state="lost", state_reason="NVML error 15")
    assert (second.uuid, second.state, second.utilization_percent) == ("GPU-b", "ok", 37.0)
    assert machine.inventory() == (1, ("GPU-b",))


def test_gpu_that_must_be_reset_is_in_error() -> None:
    broken, healthy = two_gpus()
    machine = Machine(broken, healthy)
    machine.round()
    broken.failing["nvmlDeviceGetPowerUsage"] = pynvml.NVML_ERROR_RESET_REQUIRED
    assert states(machine.round()) == [(0, "GPU-a", "error", "NVML error 16"), (1, "GPU-b", "ok", "")]


def test_gpus_keep_their_uuids_when_the_driver_returns_with_fewer() -> None:
    first, second, third = (FakeGpu(uuid=f"GPU-{letter}", name=letter) for letter in "abc")
    machine = Machine(first, second, third)
    machine.round()
    machine.nvml.reload_driver()
    machine.nvml.devices = [first, third]
    with pytest.raises(GpuUnavailable):
        machine.round()
    gone = "the driver no longer counts it"
    for _ in range(3):
        assert states(machine.round()) == [
            (0, "GPU-a", "ok", ""), (1, "GPU-b", "lost", gone), (1, "GPU-c", "ok", "")
        ]  # fmt: skip
    assert machine.inventory() == (2, ("GPU-a", "GPU-c"))
    machine.nvml.devices = [first, second, third]
    machine.rounds_for(300.0)
    assert [gpu.state for gpu in machine.round()] == ["ok"] * 3


def test_silent_index_does_not_take_the_uuid_of_a_gpu_that_answers_elsewhere() -> None:
    first, second, third = (FakeGpu(uuid=f"GPU-{letter}", name=letter) for letter in "abc")
    machine = Machine(first, second, third)
    machine.round()
    machine.nvml.reload_driver()
    third.failing["nvmlDeviceGetHandleByIndex"] = pynvml.NVML_ERROR_UNKNOWN
    machine.nvml.devices = [second, third]  # at 0 and 1: which one is silent at 1 is not known
    with pytest.raises(GpuUnavailable):
        machine.round()
    gone = "the driver no longer counts it"
    assert states(machine.round()) == [
        (0, "GPU-a", "lost", gone), (0, "GPU-b", "ok", ""), (1, "", "error", "NVML error 999"),
        (2, "GPU-c", "lost", gone),
    ]  # fmt: skip


def test_known_gpus_are_in_error_while_the_driver_fails() -> None:
    machine = Machine(*two_gpus())
    machine.round()
    machine.nvml.reload_driver()
    machine.nvml.init_error = pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    for reason in ("the NVIDIA driver was lost: NVML error 1", "NVML cannot be initialised: NVML error 18"):
        with pytest.raises(GpuUnavailable) as caught:
            machine.round()
        assert caught.value.fields is not None
        assert states(list(caught.value.fields.gpus)) == [(0, "GPU-a", "error", reason), (1, "GPU-b", "error", reason)]


def test_lost_gpu_is_searched_in_the_next_round_and_then_rarely() -> None:
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


def test_gpu_that_never_answered_is_in_error_by_its_index() -> None:
    forbidden, healthy = two_gpus()
    forbidden.failing["nvmlDeviceGetHandleByIndex"] = pynvml.NVML_ERROR_NO_PERMISSION
    machine = Machine(forbidden, healthy)
    machine.rounds_for(600.0)
    assert states(machine.round()) == [(0, "", "error", "NVML error 4"), (1, "GPU-b", "ok", "")]
    assert machine.inventory() == (1, ("GPU-b",))
    assert machine.nvml.init_calls == 1  # a new one would not help


def test_every_gpu_may_be_lost() -> None:
    lost = FakeGpu()
    machine = Machine(lost)
    machine.round()
    lost.gone = True
    assert [gpu.state for gpu in machine.round()] == ["lost"]
    assert machine.inventory() == (0, ())
    lost.gone = False
    assert [gpu.state for gpu in machine.round()] == ["ok"]


def test_nvml_is_released_for_a_drained_worker_and_taken_again() -> None:
    machine = Machine(*two_gpus())
    machine.round()
    machine.collector.release(is_released=True)
    calls = machine.nvml.calls.total()
    for _ in range(3):
        reason = "NVML is released while the worker is drained"
        assert states(machine.round()) == [(0, "GPU-a", "", reason), (1, "GPU-b", "", reason)]
    assert (machine.nvml.init_calls, machine.nvml.shutdown_calls, machine.nvml.calls.total()) == (1, 1, calls)
    assert machine.inventory() == (2, ("GPU-a", "GPU-b"))
    machine.collector.release(is_released=False)
    assert [gpu.state for gpu in machine.round()] == ["ok", "ok"]
    assert machine.nvml.init_calls == 2


def test_silent_and_returning_gpu_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    lost, healthy = two_gpus()
    machine = Machine(lost, healthy)
    machine.round()
    lost.gone = True
    with caplog.at_level(logging.INFO):
        machine.rounds_for(50.0)
        assert caplog.messages == ["GPU 0 does not answer: NVML error 15"]
        lost.gone = False
        machine.rounds_for(400.0)
    assert caplog.messages[1:] == ["GPU GPU-a answers again"]


def test_collect_after_shutdown_initializes_again() -> None:
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


def test_last_xid_of_each_gpu_is_told_also_when_it_fell_off_the_bus(caplog: pytest.LogCaptureFixture) -> None:
    broken, healthy = two_gpus()
    machine = Machine(broken, healthy)
    assert not any(gpu.HasField("last_xid") for gpu in machine.round())
    broken.xids = [31, 79]
    broken.gone = True
    for _ in range(3):
        lost, well = machine.round()
        assert (lost.state, lost.last_xid) == ("lost", 79)
        assert not well.HasField("last_xid")
    assert (machine.nvml.init_calls, machine.nvml.event_sets) == (2, 1)
    assert [message for message in caplog.messages if "Xid" in message] == [
        "GPU GPU-a: the driver reports Xid 31", "GPU GPU-a: the driver reports Xid 79"
    ]  # fmt: skip


def test_events_end_with_nvml_and_may_be_unsupported() -> None:
    silent, telling = two_gpus()
    silent.failing["nvmlDeviceRegisterEvents"] = pynvml.NVML_ERROR_NOT_SUPPORTED
    machine = Machine(silent, telling)
    machine.round()
    silent.xids, telling.xids = [1], [13] * 1000
    first, second = machine.round()
    assert not first.HasField("last_xid")
    assert second.last_xid == 13
    assert len(telling.xids) == 1000 - 64  # a storm does not hold the round
    machine.collector.release(is_released=True)
    machine.round()
    assert machine.nvml.event_sets == 0
    machine.collector.release(is_released=False)
    machine.round()
    machine.collector.shutdown()
    assert machine.nvml.event_sets == 0


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


def test_inventory_and_shutdown_do_not_hang_with_a_reading() -> None:
    library = HangingNvml()
    collector = GpuCollector(library)
    reading = threading.Thread(target=collector.collect)
    reading.start()
    try:
        assert library.entered.wait(10.0)
        collector.shutdown()
        assert library.shutdown_calls == 0
        assert collector.inventory is None
    finally:
        library.released.set()
        reading.join()
    assert collector.inventory == (1, ("GPU-00000000-0000-0000-0000-000000000000",))


def test_the_real_binding_on_this_machine() -> None:
    gpus = list(Path("/proc/driver/nvidia/gpus").glob("*"))
    collector = GpuCollector(pynvml)
    try:
        assert len(collector.collect().gpus) <= len(gpus)
        assert collector.inventory is not None
    finally:
        collector.shutdown()


# The readings of one GPU

GIB = 1024**3
READINGS = ("utilization_percent", "memory_used_bytes", "memory_size_bytes", "temperature_celsius", "power_watts")


def read(gpu: FakeGpu, missing_functions: tuple[str, ...] = ()) -> pb.Gpu:
    library = FakeNvml([gpu], missing_functions=missing_functions)
    library.nvmlInit()
    return NvmlGpu(library, 0).read(0.0)


def present(gpu: pb.Gpu) -> set[str]:
    return {field.name for field, _ in gpu.ListFields()} & set(READINGS)


def test_every_field_is_read() -> None:
    gpu = read(FakeGpu(uuid="GPU-1", name="NVIDIA H100", power_milliwatts=312_500))
    assert (gpu.index, gpu.uuid, gpu.name) == (0, "GPU-1", "NVIDIA H100")
    assert gpu.utilization_percent == 37.0
    assert gpu.temperature_celsius == 54.0
    assert gpu.power_watts == 312.5
    assert (gpu.memory_used_bytes, gpu.memory_size_bytes) == (8 * GIB, 80 * GIB)


def test_idle_gpu_reads_zero_not_absent() -> None:
    gpu = read(FakeGpu(utilization_percent=0, memory_used_bytes=0, temperature_celsius=0, power_milliwatts=0))
    assert present(gpu) == set(READINGS)
    assert (gpu.utilization_percent, gpu.memory_used_bytes, gpu.temperature_celsius, gpu.power_watts) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("function", "absent"),
    [
        ("nvmlDeviceGetUtilizationRates", {"utilization_percent"}),
        ("nvmlDeviceGetMemoryInfo_v2", {"memory_used_bytes", "memory_size_bytes"}),
        ("nvmlDeviceGetTemperatureV", {"temperature_celsius"}),
        ("nvmlDeviceGetPowerUsage", {"power_watts"}),
    ],
)
@pytest.mark.parametrize(
    "error", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION, pynvml.NVML_ERROR_UNKNOWN]
)
def test_failing_field_is_absent_and_the_others_are_present(function: str, absent: set[str], error: int) -> None:
    assert present(read(FakeGpu(failing={function: error}))) == set(READINGS) - absent


def test_divided_gpu_has_no_utilization() -> None:
    gpu = read(FakeGpu(failing={"nvmlDeviceGetUtilizationRates": pynvml.NVML_ERROR_NOT_SUPPORTED}))
    assert not gpu.HasField("utilization_percent")
    assert gpu.HasField("memory_used_bytes")


def test_utilization_over_100_percent_is_absent() -> None:
    assert not read(FakeGpu(utilization_percent=4_294_967_295)).HasField("utilization_percent")
    assert read(FakeGpu(utilization_percent=100)).utilization_percent == 100.0


@pytest.mark.parametrize(
    ("values", "absent"),
    [
        ({"temperature_celsius": 2**32 - 1}, {"temperature_celsius"}),
        ({"power_milliwatts": 2**32 - 1}, {"power_watts"}),
        ({"power_limit_milliwatts": 0}, {"power_limit_watts"}),
        ({"power_limit_milliwatts": 2**32 - 1}, {"power_limit_watts"}),
        ({"memory_size_bytes": 0, "memory_used_bytes": 0}, {"memory_size_bytes", "memory_used_bytes"}),
        ({"memory_size_bytes": 2**64 - 1}, {"memory_size_bytes", "memory_used_bytes"}),
        ({"memory_used_bytes": 2**64 - 1}, {"memory_used_bytes"}),
        ({"clock_megahertz": 2**32 - 1}, {"clock_hertz"}),
        ({"encoder_percent": 101}, {"encoder_utilization_percent"}),
        ({"clock_event_reasons": 2**64 - 1}, {"is_throttled"}),
        ({"ecc_corrected": 2**64 - 1}, {"ecc_corrected_errors"}),
    ],
    ids=min,
)
def test_value_that_is_none_is_absent(values: dict[str, int], absent: set[str]) -> None:
    every = {field.name for field, _ in read(FakeGpu()).ListFields()}
    assert {field.name for field, _ in read(FakeGpu(**values)).ListFields()} == every - absent  # type: ignore[arg-type]


def test_limit_clocks_and_errors_are_read() -> None:
    links = {
        pynvml.NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL: 5, pynvml.NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL: 2
    }  # fmt: skip
    gpu = read(FakeGpu(ecc_corrected=7, ecc_uncorrected=1, fields=links))
    assert (gpu.power_limit_watts, gpu.clock_hertz, gpu.memory_clock_hertz) == (700.0, 1980e6, 2619e6)
    assert (gpu.encoder_utilization_percent, gpu.decoder_utilization_percent) == (3.0, 4.0)
    assert (gpu.ecc_corrected_errors, gpu.ecc_uncorrected_errors, gpu.nvlink_errors) == (7, 1, 7)
    assert not read(FakeGpu()).HasField("nvlink_errors")


@pytest.mark.parametrize(
    ("bits", "reasons", "is_throttled"),
    [
        (0, [], False),
        (pynvml.nvmlClocksEventReasonGpuIdle, [], False),
        (pynvml.nvmlClocksEventReasonSwPowerCap, ["power_cap"], False),
        (pynvml.nvmlClocksEventReasonSwPowerCap | pynvml.nvmlClocksEventReasonHwThermalSlowdown,
         ["power_cap", "hardware_thermal"], True),
        (pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown, ["power_brake"], True),
    ],
)  # fmt: skip
def test_throttling_is_told_with_its_reasons(bits: int, reasons: list[str], is_throttled: bool) -> None:
    for older in ((), ("nvmlDeviceGetCurrentClocksEventReasons",)):
        gpu = read(FakeGpu(clock_event_reasons=bits), missing_functions=older)
        assert (list(gpu.throttle_reasons), gpu.is_throttled) == (reasons, is_throttled)
        assert gpu.HasField("is_throttled")


def test_processes_that_hold_a_gpu_are_read_by_their_memory() -> None:
    gpu = read(FakeGpu(compute={71: 5 * GIB, 72: None, 73: 2**64 - 1}, graphics={71: GIB, 70: 2 * GIB}))
    assert [(process.pid, process.memory_used_bytes) for process in gpu.processes][:2] == [(71, 5 * GIB), (70, 2 * GIB)]
    assert [(process.pid, process.HasField("memory_used_bytes")) for process in gpu.processes[2:]] == [
        (72, False), (73, False)
    ]  # fmt: skip
    assert gpu.process_count == 4
    assert read(FakeGpu(compute={1: GIB}), ("nvmlDeviceGetComputeRunningProcesses_v3",)).processes[0].pid == 1
    idle = read(FakeGpu())
    assert idle.HasField("process_count")
    assert idle.process_count == 0


def test_only_the_largest_processes_are_listed_and_all_are_counted() -> None:
    gpu = read(FakeGpu(compute={pid: pid * GIB for pid in range(1, 101)}))
    assert [process.pid for process in gpu.processes] == list(range(100, 100 - MAX_GPU_PROCESSES, -1))
    assert gpu.process_count == 100


def test_processes_are_unknown_where_the_driver_does_not_tell() -> None:
    forbidden = {
        f"nvmlDeviceGet{kind}RunningProcesses_v3": pynvml.NVML_ERROR_NOT_SUPPORTED for kind in ("Compute", "Graphics")
    }
    assert not read(FakeGpu(failing=forbidden)).HasField("process_count")


def test_processes_are_named_by_user_and_command_only_if_wanted(tmp_path: Path) -> None:
    mine = tmp_path / "71"
    mine.mkdir()
    (mine / "comm").write_bytes(b"pt_main_\xe9\n")
    gpu = FakeGpu(compute={71: GIB, 72: GIB})
    names = ProcessNames(tmp_path, user_name={mine.stat().st_uid: "ada"}.__getitem__)
    named, hidden = GpuCollector(FakeNvml([gpu]), process_names=names).collect().gpus[0].processes
    assert (named.user, named.command) == ("ada", "pt_main_\\xe9")
    assert (hidden.pid, hidden.user, hidden.command) == (72, "", "")
    assert all(not process.user for process in GpuCollector(FakeNvml([gpu])).collect().gpus[0].processes)


def test_parts_of_a_divided_gpu_are_read_and_are_what_tasks_get() -> None:
    parts = [
        FakeGpu(
            uuid=f"MIG-{number}", name="H100 MIG 1g.10gb", memory_size_bytes=10 * GIB, memory_used_bytes=number * GIB
        )
        for number in range(2)
    ]
    divided = FakeGpu(
        uuid="GPU-a", parts=parts, failing={"nvmlDeviceGetUtilizationRates": pynvml.NVML_ERROR_NOT_SUPPORTED}
    )
    machine = Machine(divided, FakeGpu(uuid="GPU-b"))
    gpu, whole = machine.round()
    assert gpu.instances == [
        pb.GpuInstance(
            uuid=f"MIG-{number}", name="H100 MIG 1g.10gb", memory_size_bytes=10 * GIB, gpu=0,
            memory_used_bytes=number * GIB + parts[0].memory_reserved_bytes,
        )
        for number in range(2)
    ]  # fmt: skip
    assert not whole.instances
    assert machine.inventory() == (2, ("MIG-0", "MIG-1", "GPU-b"))
    divided.parts = parts[:1]
    machine.rounds_for(60.0)
    assert [part.uuid for part in machine.round()[0].instances] == ["MIG-0"]


def test_round_reads_only_what_changes_and_what_the_device_supports() -> None:
    gpu = FakeGpu(failing={"nvmlDeviceGetEncoderUtilization": pynvml.NVML_ERROR_NOT_SUPPORTED})
    machine = Machine(gpu)
    machine.round()
    machine.nvml.calls.clear()
    machine.round()
    once = [
        "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetTemperatureV",
        "nvmlDeviceGetPowerUsage", "nvmlDeviceGetDecoderUtilization", "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v3",
    ]  # fmt: skip
    assert machine.nvml.calls == dict.fromkeys(once, 1) | {"nvmlDeviceGetClockInfo": 2}
    gpu.failing.clear()
    gpu.ecc_corrected = 9
    machine.rounds_for(60.0)
    (after,) = machine.round()
    assert (after.ecc_corrected_errors, after.encoder_utilization_percent) == (9, 3.0)


def test_memory_reserved_by_the_driver_does_not_count_as_used() -> None:
    assert read(FakeGpu(memory_used_bytes=0, memory_reserved_bytes=GIB)).memory_used_bytes == 0


def test_older_driver_is_read_by_its_older_functions() -> None:
    older = FakeGpu(memory_reserved_bytes=0)
    gpu = read(older, missing_functions=("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetTemperatureV"))
    assert present(gpu) == set(READINGS)
    assert (gpu.memory_used_bytes, gpu.temperature_celsius) == (8 * GIB, 54.0)


def test_newer_driver_without_deprecated_functions_is_read() -> None:
    newer = ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetTemperature")
    assert present(read(FakeGpu(), missing_functions=newer)) == set(READINGS)


def test_identity_may_be_bytes_or_missing() -> None:
    gpu = read(FakeGpu(uuid=b"GPU-1", name=b"caf\xe9"))
    assert (gpu.uuid, gpu.name) == ("GPU-1", "caf\ufffd")
    unnamed = read(FakeGpu(failing={"nvmlDeviceGetName": pynvml.NVML_ERROR_UNKNOWN}))
    assert unnamed.name == ""
    assert present(unnamed) == set(READINGS)


@pytest.mark.parametrize("error", sorted(LIBRARY_GONE | DEVICE_GONE))
@pytest.mark.parametrize("function", ["nvmlDeviceGetHandleByIndex", "nvmlDeviceGetName", "nvmlDeviceGetPowerUsage"])
def test_lost_device_or_library_raises(function: str, error: int) -> None:
    with pytest.raises(FakeNvmlError) as caught:
        read(FakeGpu(failing={function: error}))
    assert error_code(caught.value) == error
