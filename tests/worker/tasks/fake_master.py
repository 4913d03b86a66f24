"""A fake master for an executor, without a connection: it keeps what it receives and acknowledges it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.policy import TaskPolicy
from fleetpulse.proto.rules import LOG_LIMIT_BYTES
from fleetpulse.worker.tasks.container_spec import AttemptKey
from fleetpulse.worker.tasks.engine import PULL_TIMEOUT_SECONDS, ContainerEngine
from fleetpulse.worker.tasks.executor import DISK_SECONDS, Executor
from fleetpulse.worker.tasks.outbox import TERMINAL_PHASES


class ReceivedReports:
    """Everything that a master received about tasks, over all streams."""

    def __init__(self) -> None:
        self.updates: list[pb.TaskUpdate] = []
        self.logs: dict[AttemptKey, bytes] = {}
        self.chunks = 0
        self.problems: list[str] = []
        """Violations of the contract."""

    def receive(self, message: pb.WorkerMessage) -> pb.MasterMessage | None:
        """Keeps the message. Returns the acknowledgement, if it needs one."""
        ack = None
        if message.HasField("task_update"):
            self.updates.append(message.task_update)
            ack = pb.Ack(update_number=message.task_update.update_number, id=message.task_update.id)
        elif message.HasField("log_chunk"):
            ack = self._receive_chunk(message.log_chunk)
        return pb.MasterMessage(ack=ack) if ack is not None else None

    def registered(self, *keys: AttemptKey) -> pb.Registered:
        """The answer to a worker that is to keep these attempts."""
        kept = [pb.KeptAttempt(id=key.message(), log_received_bytes=len(self.logs.get(key, b""))) for key in keys]
        return pb.Registered(heartbeat_interval_seconds=1.0, attempts_to_keep=kept)

    def updates_of(self, key: AttemptKey) -> list[pb.TaskUpdate]:
        return [update for update in self.updates if AttemptKey.of(update.id) == key]

    def phases(self, key: AttemptKey) -> list[str]:
        """The phases of an attempt, each once."""
        names = [pb.AttemptPhase.Name(update.phase)[14:].lower() for update in self.updates_of(key)]
        return list(dict.fromkeys(names))

    async def wait_for_phase(self, key: AttemptKey, phase: str, within_seconds: float = 20.0) -> pb.TaskUpdate:
        """Returns the last update of the attempt."""
        await until(lambda: phase in self.phases(key), within_seconds)
        return self.updates_of(key)[-1]

    async def wait_for_end(self, key: AttemptKey, within_seconds: float = 20.0) -> pb.TaskUpdate:
        """Returns the terminal update of the attempt."""
        await until(lambda: self._terminal_updates(key), within_seconds)
        return self._terminal_updates(key)[0]

    def _terminal_updates(self, key: AttemptKey) -> list[pb.TaskUpdate]:
        return [update for update in self.updates_of(key) if update.phase in TERMINAL_PHASES]

    def _receive_chunk(self, chunk: pb.LogChunk) -> pb.Ack:
        key = AttemptKey.of(chunk.id)
        log = self.logs.get(key, b"")
        self.chunks += 1
        if chunk.offset_bytes > len(log):
            self.problems.append(f"{key}: a gap from {len(log)} to {chunk.offset_bytes}")
        if self._terminal_updates(key) and chunk.offset_bytes >= len(log):
            self.problems.append(f"{key}: a piece of its log after its end")
        self.logs[key] = log[: chunk.offset_bytes] + chunk.data
        return pb.Ack(id=chunk.id, log=pb.LogReceived(received_bytes=len(self.logs[key])))


class FakeMaster(ReceivedReports):
    """Serves one executor, on one stream at a time."""

    def __init__(self, executor: Executor) -> None:
        super().__init__()
        self.executor = executor
        self.acknowledges = True
        self._receiving: asyncio.Task[None] | None = None
        self._unacknowledged: list[pb.MasterMessage] = []

    async def connect(self, *keep: AttemptKey) -> pb.Register:
        """Opens a new stream and returns the worker's registration. ``keep``: the attempts that go on."""
        self.disconnect()
        register = pb.Register()
        await self.executor.describe(register)
        self.executor.registered(self.registered(*keep))
        self._receiving = asyncio.create_task(self._receive_forever())
        return register

    def disconnect(self) -> None:
        """Breaks the stream."""
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None
            self._unacknowledged.clear()
            self.executor.disconnected()

    def acknowledge_all(self) -> None:
        """Sends the acknowledgements that were held back, and from now on each at once."""
        self.acknowledges = True
        for message in self._unacknowledged:
            self.executor.receive(message)
        self._unacknowledged.clear()

    def start(self, task_id: str, image: str, *command: str, **more: Any) -> AttemptKey:
        """Starts an attempt; see ``start_request``."""
        request = start_request(task_id, image, *command, **more)
        self.executor.receive(pb.MasterMessage(start_task=request))
        return AttemptKey.of(request.id)

    def stop(self, key: AttemptKey, grace_seconds: float = 10.0, *, forget: bool = False) -> None:
        request = pb.StopTask(id=key.message(), grace_seconds=grace_seconds, reason="a test", forget=forget)
        self.executor.receive(pb.MasterMessage(stop_task=request))

    async def _receive_forever(self) -> None:
        while True:
            ack = self.receive(await self.executor.next_message())
            if ack is None:
                self.problems.append("neither an update nor a piece of a log")
            elif self.acknowledges:
                self.executor.receive(ack)
            else:
                self._unacknowledged.append(ack)


def start_request(
    task_id: str,
    image: str,
    *command: str,
    attempt: int = 1,
    timeout_seconds: float | None = None,
    log_limit_bytes: int = LOG_LIMIT_BYTES,
    cpu_cores: float = 0.5,
    memory_mib: int = 64,
    env: dict[str, str] | None = None,
    gpu_uuids: Sequence[str] = (),
    read_only: bool | None = None,
) -> pb.StartTask:
    """An attempt with small resources."""
    return pb.StartTask(
        id=pb.AttemptId(task_id=task_id, attempt=attempt),
        docker_image=image,
        command=command,
        env=env or {},
        cpu_cores=cpu_cores,
        memory_bytes=memory_mib * 2**20,
        timeout_seconds=timeout_seconds,
        log_limit_bytes=log_limit_bytes,
        gpu_uuids=gpu_uuids,
        read_only=read_only,
    )


async def until(condition: Callable[[], object], within_seconds: float = 20.0) -> None:
    """Waits until the condition holds."""
    async with asyncio.timeout(within_seconds):
        while not condition():  # noqa: ASYNC110 - the condition is about threads and another machine's clock
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running_executor(
    engine: ContainerEngine,
    policy: TaskPolicy = TaskPolicy(),  # noqa: B008 - immutable
    *,
    resync_seconds: float = 0.5,
    disk_seconds: float = DISK_SECONDS,
    pull_timeout_seconds: float = PULL_TIMEOUT_SECONDS,
) -> AsyncIterator[FakeMaster]:
    """A started executor with a connected master."""
    executor = Executor(
        engine,
        policy,
        resync_seconds=resync_seconds,
        disk_seconds=disk_seconds,
        pull_timeout_seconds=pull_timeout_seconds,
    )
    executor.start()
    master = FakeMaster(executor)
    try:
        await master.connect()
        yield master
        assert master.problems == []
    finally:
        master.disconnect()
        await executor.close()
