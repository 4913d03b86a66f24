"""A whole worker over a driver that is slow, loses a GPU, and is let go of while the worker is drained."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import grpc
import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto import fleetpulse_pb2_grpc as pb_grpc
from tests.worker.collectors.test_gpu import states
from tests.worker.test_app import RecordingMaster, Worker

COMPILER = shutil.which("cc")
SOURCE = Path(__file__).parent / "collectors" / "fake_libnvidia_ml.c"
UUIDS = [f"GPU-0000000{number}-0000-0000-0000-000000000000" for number in range(4)]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(COMPILER is None, reason="cc is not installed"),
]


class DrainingMaster(RecordingMaster):
    """Sends what the test puts into ``to_send``, before the next message of the worker is read."""

    def __init__(self) -> None:
        super().__init__()
        self.to_send: SimpleQueue[pb.MasterMessage] = SimpleQueue()

    def Connect(self, request_iterator: Iterator[pb.WorkerMessage], _: object) -> Iterator[pb.MasterMessage]:  # noqa: N802 - grpc's
        self.messages.put(next(request_iterator))
        yield pb.MasterMessage(registered=pb.Registered(heartbeat_interval_seconds=0.2, inactivity_timeout_seconds=9.0))
        for message in request_iterator:
            self.messages.put(message)
            while not self.to_send.empty():
                yield self.to_send.get()

    def next_heartbeat(self, is_wanted: Callable[[pb.Heartbeat], bool]) -> pb.Heartbeat:
        while True:
            message = self.next_message()
            if message.HasField("heartbeat") and is_wanted(message.heartbeat):
                return message.heartbeat

    def next_register(self) -> pb.Register:
        while True:
            message = self.next_message()
            if message.HasField("register"):
                return message.register


class Driver:
    """The fake library, and the file that says what it does."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "nvml"
        subprocess.run([str(COMPILER), "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", SOURCE], check=True)
        self.environment = {"FAKE_NVML": str(self._file), "LD_LIBRARY_PATH": str(folder)}

    def set(self, **settings: int) -> None:
        changed = self._file.with_suffix(".new")
        changed.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        changed.replace(self._file)

    @property
    def users(self) -> int:
        return int(self._file.with_suffix(".open").read_text())


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return Driver(tmp_path)


@pytest.fixture
def master() -> Iterator[tuple[DrainingMaster, str]]:
    master = DrainingMaster()
    server = grpc.server(ThreadPoolExecutor(4))
    pb_grpc.add_FleetServicer_to_server(master, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield master, f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def start(
    master: tuple[DrainingMaster, str], driver: Driver, tmp_path: Path
) -> Iterator[Callable[..., DrainingMaster]]:
    workers: list[Worker] = []

    def start(*flags: str) -> DrainingMaster:
        workers.append(Worker(master[1], tmp_path, "--no-tasks", *flags, environment=driver.environment))
        return master[0]

    yield start
    for worker in workers:
        worker.process.kill()
        worker.process.communicate()


def uuids(register: pb.Register) -> Sequence[str]:
    return list(register.capacity.gpu_uuids)


def test_slow_driver_delays_no_registration_and_its_readings_come_late(
    driver: Driver, start: Callable[..., DrainingMaster]
) -> None:
    driver.set(gpus=4, delay=350)
    master = start()
    first = master.next_register()
    assert not first.capacity.HasField("gpu_count")  # not known, which is not 0
    again = master.next_register()
    assert (again.capacity.gpu_count, uuids(again)) == (4, UUIDS)
    assert again.incarnation_id == first.incarnation_id
    heartbeat = master.next_heartbeat(lambda heartbeat: len(heartbeat.gpus) > 0)
    assert [gpu.utilization_percent for gpu in heartbeat.gpus] == [37.0] * 4
    (report,) = (report for report in heartbeat.collectors if report.collector == "gpu")
    assert report.success
    assert report.age_seconds >= report.duration_seconds >= 4 * 0.35


def test_lost_gpu_is_told_and_no_longer_registered(driver: Driver, start: Callable[..., DrainingMaster]) -> None:
    driver.set(gpus=2, pid=os.getpid())
    master = start()
    assert uuids(master.next_register()) == UUIDS[:2]
    (process,) = master.next_heartbeat(lambda heartbeat: len(heartbeat.gpus) > 0).gpus[0].processes
    assert (process.pid, process.memory_used_bytes) == (os.getpid(), 5 * 1024**3)
    assert process.command == Path("/proc/self/comm").read_text().strip()
    assert process.user
    driver.set(gpus=2, lost=1)
    heartbeat = master.next_heartbeat(lambda heartbeat: any(gpu.state == "lost" for gpu in heartbeat.gpus))
    assert states(list(heartbeat.gpus)) == [(0, UUIDS[0], "ok", ""), (1, UUIDS[1], "lost", "GPU is lost")]
    assert uuids(master.next_register()) == UUIDS[:1]


def test_drained_worker_lets_go_of_the_driver(driver: Driver, start: Callable[..., DrainingMaster]) -> None:
    driver.set(gpus=1)
    master = start()
    master.next_heartbeat(lambda heartbeat: [gpu.state for gpu in heartbeat.gpus] == ["ok"])
    assert driver.users == 1
    master.to_send.put(pb.MasterMessage(drain=pb.Drain(draining=True)))
    master.next_heartbeat(lambda heartbeat: [gpu.state for gpu in heartbeat.gpus] == [""])
    assert driver.users == 0
    master.to_send.put(pb.MasterMessage(drain=pb.Drain(draining=False)))
    master.next_heartbeat(lambda heartbeat: [gpu.state for gpu in heartbeat.gpus] == ["ok"])
    assert driver.users == 1


def test_skipped_collector_touches_nothing_of_the_driver(
    driver: Driver, start: Callable[..., DrainingMaster], tmp_path: Path
) -> None:
    driver.set(gpus=1)
    master = start("--skip-collector", "gpu")
    assert not master.next_register().capacity.HasField("gpu_count")
    assert not master.next_heartbeat(lambda _: True).gpus
    assert not (tmp_path / "nvml.open").exists()
