"""The master's half of a dialogue with an executor, without a wire: it keeps what it is told, and acknowledges it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.tasks.engine import DEFAULT_LOG_LIMIT_BYTES, AttemptKey, ContainerEngine
from fleetpulse.worker.tasks.executor import Executor
from fleetpulse.worker.tasks.outbox import TERMINAL


class Ears:
    """What a master has heard of tasks, over all streams."""

    def __init__(self) -> None:
        self.updates: list[pb.TaskUpdate] = []
        self.logs: dict[AttemptKey, bytes] = {}
        self.chunks = 0
        self.problems: list[str] = []
        """What a worker must never say."""

    def hear(self, message: pb.WorkerMessage) -> pb.MasterMessage | None:
        """Keep it; what is to be answered."""
        ack = None
        if message.HasField("task_update"):
            self.updates.append(message.task_update)
            ack = pb.Ack(update_number=message.task_update.update_number, id=message.task_update.id)
        elif message.HasField("log_chunk"):
            ack = self._hear_chunk(message.log_chunk)
        return pb.MasterMessage(ack=ack) if ack is not None else None

    def keeping(self, *keys: AttemptKey) -> pb.Registered:
        """The terms for a worker that is to go on with these."""
        kept = [pb.KeptAttempt(id=key.message(), log_received_bytes=len(self.logs.get(key, b""))) for key in keys]
        return pb.Registered(heartbeat_interval_seconds=1.0, attempts_to_keep=kept)

    def updates_of(self, key: AttemptKey) -> list[pb.TaskUpdate]:
        return [update for update in self.updates if AttemptKey.of(update.id) == key]

    def phases(self, key: AttemptKey) -> list[str]:
        """How far it came, each step once."""
        names = [pb.AttemptPhase.Name(update.phase)[14:].lower() for update in self.updates_of(key)]
        return list(dict.fromkeys(names))

    async def comes_to(self, key: AttemptKey, phase: str, within_seconds: float = 20.0) -> pb.TaskUpdate:
        """Wait until it has been told that an attempt has come so far."""
        await until(lambda: phase in self.phases(key), within_seconds)
        return self.updates_of(key)[-1]

    async def ends(self, key: AttemptKey, within_seconds: float = 20.0) -> pb.TaskUpdate:
        """Wait for its one end."""
        await until(lambda: self._ends_of(key), within_seconds)
        return self._ends_of(key)[0]

    def _ends_of(self, key: AttemptKey) -> list[pb.TaskUpdate]:
        return [update for update in self.updates_of(key) if update.phase in TERMINAL]

    def _hear_chunk(self, chunk: pb.LogChunk) -> pb.Ack:
        key = AttemptKey.of(chunk.id)
        log = self.logs.get(key, b"")
        self.chunks += 1
        if chunk.offset_bytes > len(log):
            self.problems.append(f"{key}: a gap from {len(log)} to {chunk.offset_bytes}")
        if self._ends_of(key) and chunk.offset_bytes >= len(log):
            self.problems.append(f"{key}: a piece of its log after its end")
        self.logs[key] = log[: chunk.offset_bytes] + chunk.data
        return pb.Ack(id=chunk.id, log=pb.LogReceived(received_bytes=len(self.logs[key])))


class Master(Ears):
    """Hears one executor on one stream at a time."""

    def __init__(self, executor: Executor) -> None:
        super().__init__()
        self.executor = executor
        self.acknowledges = True
        self._hearing: asyncio.Task[None] | None = None
        self._unacknowledged: list[pb.MasterMessage] = []

    async def connect(self, *keep: AttemptKey) -> pb.Register:
        """A new stream; what the worker says of itself. ``keep``: what it is to go on with."""
        self.disconnect()
        register = pb.Register()
        await self.executor.describe(register)
        self.executor.registered(self.keeping(*keep))
        self._hearing = asyncio.create_task(self._hear())
        return register

    def disconnect(self) -> None:
        """The stream breaks."""
        if self._hearing is not None:
            self._hearing.cancel()
            self._hearing = None
            self._unacknowledged.clear()
            self.executor.disconnected()

    def acknowledge_all(self) -> None:
        """Say now what was not said, and from now on at once."""
        self.acknowledges = True
        for message in self._unacknowledged:
            self.executor.receive(message)
        self._unacknowledged.clear()

    def start(self, task_id: str, image: str, *command: str, **more: Any) -> AttemptKey:
        """Order an attempt; see ``start_order``."""
        order = start_order(task_id, image, *command, **more)
        self.executor.receive(pb.MasterMessage(start_task=order))
        return AttemptKey.of(order.id)

    def stop(self, key: AttemptKey, grace_seconds: float = 10.0, *, forget: bool = False) -> None:
        """Order its end."""
        order = pb.StopTask(id=key.message(), grace_seconds=grace_seconds, reason="a test", forget=forget)
        self.executor.receive(pb.MasterMessage(stop_task=order))

    async def _hear(self) -> None:
        while True:
            answer = self.hear(await self.executor.next_message())
            if answer is None:
                self.problems.append("neither an update nor a piece of a log")
            elif self.acknowledges:
                self.executor.receive(answer)
            else:
                self._unacknowledged.append(answer)


def start_order(
    task_id: str,
    image: str,
    *command: str,
    attempt: int = 1,
    timeout_seconds: float | None = None,
    log_limit_bytes: int = DEFAULT_LOG_LIMIT_BYTES,
    cpu_cores: float = 0.5,
    memory_mib: int = 64,
    env: dict[str, str] | None = None,
    gpu_uuids: Sequence[str] = (),
) -> pb.StartTask:
    """An attempt of little demand."""
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
    )


async def until(condition: Callable[[], object], within_seconds: float = 20.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(within_seconds):
        while not condition():  # noqa: ASYNC110 - the condition is about threads and another machine's clock
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def executor_on(engine: ContainerEngine, *, round_seconds: float = 0.5) -> AsyncIterator[Master]:
    """An executor under way, and a master that has a stream to it."""
    executor = Executor(engine, round_seconds=round_seconds)
    executor.open()
    master = Master(executor)
    try:
        await master.connect()
        yield master
        assert master.problems == []
    finally:
        master.disconnect()
        await executor.close()
