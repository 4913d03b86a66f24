"""A task service with a real store, and fake workers that a test controls."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fleetpulse.master.config import LeaseConfig, QueueLimits
from fleetpulse.master.store.encryption import Encryptor
from fleetpulse.master.store.store import SqlTaskStore
from fleetpulse.master.tasks.placement import Policy, best_fit
from fleetpulse.master.tasks.records import Attempt, Task
from fleetpulse.master.tasks.request import TaskRequest
from fleetpulse.master.tasks.service import TaskService
from fleetpulse.master.telemetry.decoding import decode_registration
from fleetpulse.master.telemetry.manager import LIVENESS_CHECK_SECONDS
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.fleet import Fleet, running_fleet, wait_until
from tests.master.requests import task_request
from tests.master.store.encryptor import ENCRYPTOR
from tests.master.tasks.running import running_store

GIB = 1024**3
SMALL = task_request("busybox:1", cpu_required=1.0, memory_required=256)


class FakeWorker:
    """A worker that keeps what it was sent, and reports what a test says."""

    def __init__(self, cluster: "Cluster", worker_id: str, cores: float, gpus: Sequence[str]) -> None:
        self._cluster = cluster
        self.worker_id = worker_id
        self.sent: list[pb.MasterMessage] = []
        self.kept: list[pb.KeptAttempt] = []
        self.violations: list[tuple[str, str, str]] = []
        self._register = pb.Register(
            worker_id=worker_id,
            incarnation_id="first",
            capacity=pb.Capacity(cpu_cores=cores, memory_bytes=8 * GIB, gpu_count=len(gpus), gpu_uuids=gpus),
            task_support=pb.TaskSupport(available=True),
        )
        self._updates = 0

    # What it was sent

    def send(self, message: pb.MasterMessage) -> None:
        self.sent.append(message)

    def report_violation(self, action: str, target: str, reason: str) -> None:
        self.violations.append((action, target, reason))

    def starts(self) -> list[tuple[str, int]]:
        """The attempts that it was told to run."""
        messages = [message.start_task for message in self.sent if message.WhichOneof("message") == "start_task"]
        return [(start.id.task_id, start.id.attempt) for start in messages]

    def stops(self) -> list[tuple[str, int, bool]]:
        """The attempts that it was told to end, and whether without a word."""
        messages = [message.stop_task for message in self.sent if message.WhichOneof("message") == "stop_task"]
        return [(stop.id.task_id, stop.id.attempt, stop.forget) for stop in messages]

    def acks(self) -> list[pb.Ack]:
        return [message.ack for message in self.sent if message.WhichOneof("message") == "ack"]

    # What it reports

    def register(self, *held: tuple[str, int], attempts_unknown: bool = False) -> None:
        """Open a stream: with telemetry first, as a session does."""
        register = pb.Register()
        register.CopyFrom(self._register)
        register.attempts_held.extend(pb.AttemptId(task_id=task_id, attempt=number) for task_id, number in held)
        register.attempts_unknown = attempts_unknown
        self.sent.clear()
        self._cluster.fleet.manager.register_worker(self.worker_id, decode_registration(register))
        self.kept = list(self._cluster.tasks.reports.register(register, self))
        self._cluster.tasks.reports.registered(self.worker_id, self)

    def hang_up(self) -> None:
        self._cluster.tasks.reports.unregister(self.worker_id, self)

    def report(self, task_id: str, phase: "pb.AttemptPhase.ValueType", attempt: int = 1, **fields: Any) -> int:
        """Say how far the attempt has come; the number of the update."""
        self._updates += 1
        update = pb.TaskUpdate(
            id=pb.AttemptId(task_id=task_id, attempt=attempt), update_number=self._updates, phase=phase, **fields
        )
        self._cluster.tasks.reports.update(self.worker_id, update, self)
        return self._updates

    def log(self, task_id: str, offset: int, data: bytes, attempt: int = 1) -> None:
        chunk = pb.LogChunk(id=pb.AttemptId(task_id=task_id, attempt=attempt), offset_bytes=offset, data=data)
        self._cluster.tasks.reports.log(self.worker_id, chunk, self)

    def run(self, task_id: str, attempt: int = 1) -> None:
        """Have the attempt run, and that be durable."""
        number = self.report(task_id, pb.ATTEMPT_PHASE_RUNNING, attempt, container_id=f"{task_id}-{attempt}")
        self.wait_for_ack(number)

    def wait_for_ack(self, number: int) -> None:
        wait_until(lambda: any(ack.update_number == number for ack in self.acks()))


class Cluster:
    """The service, its fleet and its store."""

    def __init__(
        self,
        fleet: Fleet,
        store: SqlTaskStore,
        policy: Policy = best_fit,
        queue_limits: QueueLimits = QueueLimits(),  # noqa: B008 - immutable
    ) -> None:
        self.fleet = fleet
        self.store = store
        self.tasks = TaskService(
            store, fleet.manager, fleet.instruments, fleet.clock.port, policy=policy, queue_limits=queue_limits
        )
        fleet.manager.add_observer(self.tasks.reports)

    def worker(self, worker_id: str = "rack-7", cores: float = 4.0, gpus: Sequence[str] = ()) -> FakeWorker:
        """A worker that has registered."""
        worker = FakeWorker(self, worker_id, cores, gpus)
        worker.register()
        return worker

    def submit(self, spec: TaskRequest = SMALL, **fields: Any) -> str:
        task, _ = self.tasks.submit(spec.model_copy(update=fields))
        return task.task_id

    def task(self, task_id: str) -> Task:
        """What is durable of it."""
        return self.store.details(task_id).task

    def attempts(self, task_id: str) -> Sequence[Attempt]:
        return self.store.details(task_id).attempts

    def placed(self, worker: FakeWorker, spec: TaskRequest = SMALL, **fields: Any) -> str:
        """A new task that the worker was told to run."""
        task_id = self.submit(spec, **fields)
        wait_until(lambda: (task_id, 1) in worker.starts())
        return task_id

    def pass_time(self, seconds: float, *active: FakeWorker) -> None:
        """Let time pass in steps, while these workers send heartbeats."""
        for _ in range(round(seconds / LIVENESS_CHECK_SECONDS)):
            for worker in active:
                self.fleet.beat(worker.worker_id, incarnation_id="first")
            self.fleet.clock.advance(LIVENESS_CHECK_SECONDS)
            self.fleet.manager.check_liveness()
            self.tasks.reports.check_lost_workers()


@contextmanager
def running_cluster(
    folder: Path,
    lease_config: LeaseConfig = LeaseConfig(),  # noqa: B008 - immutable
    policy: Policy = best_fit,
    encryptor: Encryptor = ENCRYPTOR,
    queue_limits: QueueLimits = QueueLimits(),  # noqa: B008 - immutable
) -> Iterator[Cluster]:
    """A master's tasks and fleet, on what is in the folder."""
    with running_fleet(lease_config) as fleet, running_store(folder, encryptor) as store:
        cluster = Cluster(fleet, store, policy, queue_limits)
        cluster.tasks.start()
        try:
            yield cluster
        finally:
            cluster.tasks.stop()


@contextmanager
def new_cluster() -> Iterator[Cluster]:
    """On nothing."""
    with tempfile.TemporaryDirectory() as folder, running_cluster(Path(folder)) as cluster:
        yield cluster
