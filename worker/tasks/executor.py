"""All attempts of one worker: starts, stops, keeps, adopts and forgets them as the master says.

The engine is the journal: a worker that starts again finds its containers there by label. At each registration the
master decides which of them go on; all others are removed before anything new starts.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Coroutine, Iterable
from itertools import islice
from typing import Any

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.cleaning import make
from fleetpulse.proto.fields import MAX_RUNNING_TASKS
from fleetpulse.proto.image import MAX_IMAGE_LENGTH
from fleetpulse.proto.policy import TaskPolicy
from fleetpulse.worker.tasks.attempt import AttemptContext, AttemptRunner, remove_container
from fleetpulse.worker.tasks.container_spec import AttemptKey, ContainerSpec, RequestRefused, container_spec
from fleetpulse.worker.tasks.engine import (
    PULL_TIMEOUT_SECONDS,
    ContainerEngine,
    ContainerInfo,
    ContainerStatus,
    EngineClient,
    EngineError,
    ImagePuller,
)
from fleetpulse.worker.tasks.log_reader import MAX_FOLLOWED
from fleetpulse.worker.tasks.outbox import Outbox

_log = logging.getLogger(__name__)

RESYNC_SECONDS = 5.0
"""Interval at which the engine's list is compared, for exits that its events missed."""

LIST_TIMEOUT_SECONDS = 15.0
DISK_SECONDS = 5.0
"""Least interval at which the disk space of the containers is read."""

_DISK_SHARE = 0.1
"""Of the time at most: the engine walks all files of a container for it."""

DESCRIBE_TIMEOUT_SECONDS = 2.0
"""A registration waits so long for a slow engine."""

_REMEMBERED = 10_000
"""Finished attempts, so that a late request to start one is recognised."""


class Executor:
    """Runs from ``start`` to ``close`` on one asyncio loop, to which all methods belong."""

    def __init__(
        self,
        engine: ContainerEngine,
        policy: TaskPolicy = TaskPolicy(),  # noqa: B008 - immutable
        *,
        resync_seconds: float = RESYNC_SECONDS,
        disk_seconds: float = DISK_SECONDS,
        pull_timeout_seconds: float = PULL_TIMEOUT_SECONDS,
    ) -> None:
        self._policy = policy
        self._resync_seconds = resync_seconds
        self._disk_seconds = disk_seconds
        self._usage_seconds = RESYNC_SECONDS
        self._client = client = EngineClient(engine)
        self._outbox = Outbox()
        self._may_start = asyncio.Event()
        slots, images = asyncio.Semaphore(MAX_FOLLOWED), ImagePuller(client, pull_timeout_seconds)
        self._context = AttemptContext(client, self._outbox, images, slots, self._may_start)
        self._attempts: dict[AttemptKey, AttemptRunner] = {}
        self._runs: dict[AttemptKey, asyncio.Task[None]] = {}
        self._finished: OrderedDict[AttemptKey, None] = OrderedDict()
        self._removals: dict[AttemptKey, asyncio.Task[None]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._has_attempts = asyncio.Event()
        """So that an idle worker takes no readings; a simulated fleet has thousands of them."""
        self._is_registered = False
        self._was_registered = False
        self._attempts_unknown = False
        self._attempts_known = asyncio.Event()

    def start(self) -> None:
        self._client.engine.listen(self._container_exited)
        self._spawn(self._resync_forever(), "task resync")
        self._spawn(self._read_usage_forever(), "task usage")
        self._spawn(self._watch_disk_forever(), "task disk")

    async def close(self) -> None:
        """Containers go on, for the worker's next start to adopt."""
        tasks = [*self._background, *self._runs.values(), *self._removals.values()]
        for attempt in self._attempts.values():
            attempt.abandon()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._client.engine.close()

    async def describe(self, register: pb.Register) -> None:
        """Adds the attempts of this worker, or that they are unknown. Takes a few seconds at most."""
        self._attempts_unknown = False
        try:
            containers = await self._list(DESCRIBE_TIMEOUT_SECONDS)
        except EngineError as error:
            _log.debug("a registration without a list of containers: %s", error)
            self._attempts_unknown = not self._was_registered
        else:
            # Later, a container that is unknown here was never reported to the master.
            if not self._was_registered:
                for container in containers:
                    self._adopt(container)
        # An engine that comes back after its timeout hardly has the containers of before.
        self._attempts_unknown = self._attempts_unknown and not self._client.is_timed_out
        register.attempts_unknown = self._attempts_unknown
        register.attempts_held.extend(key.message() for key in self._attempts)
        register.task_support.CopyFrom(self._client.task_support)

    def registered(self, registered: pb.Registered) -> None:
        """A new stream is open. Attempts that the master does not keep end before anything new starts."""
        self._attempts_known.clear()
        self._may_start.clear()
        if self._attempts_unknown:
            self._outbox.resend()
            return
        self._is_registered = self._was_registered = True
        self._usage_seconds = min(max(registered.heartbeat_interval_seconds, 0.5), 60.0)
        kept = {AttemptKey.of(attempt.id): attempt.log_received_bytes for attempt in registered.attempts_to_keep}
        for key in [key for key in self._attempts if key not in kept]:
            _log.info("attempt %s is not this worker's any more", key)
            self._forget(key)
        for key, received_bytes in kept.items():
            if key in self._attempts:
                self._attempts[key].keep(received_bytes)
                self._outbox.acknowledge_log(key, received_bytes)
        self._outbox.resend()
        self._spawn(self._remove_orphans(), "task orphans")

    async def must_register_again(self) -> None:
        """Waits until the attempts are known, after a registration without them."""
        await self._attempts_known.wait()

    def disconnected(self) -> None:
        """The stream is gone: no container is removed as an orphan until the next registration."""
        self._is_registered = False

    def receive(self, message: pb.MasterMessage) -> None:
        """Does not wait."""
        kind = message.WhichOneof("message")
        if kind == "start_task":
            self._start(message.start_task)
        elif kind == "stop_task":
            self._stop(message.stop_task)
        elif kind == "ack":
            self._acknowledge(message.ack)
        elif kind == "drain":
            state = "takes no new tasks" if message.drain.draining else "takes tasks again"
            _log.info("this worker %s: %s", state, ascii(message.drain.reason[:200]))

    async def next_message(self) -> pb.WorkerMessage:
        """Waits for the next message to send. Cancelling loses nothing."""
        return await self._outbox.next_message()

    def report(self, heartbeat: pb.Heartbeat) -> None:
        """Adds the running attempts, with their last readings."""
        running = (attempt for attempt in self._attempts.values() if attempt.is_running)
        heartbeat.running_tasks.extend(attempt.usage_report() for attempt in islice(running, MAX_RUNNING_TASKS))
        heartbeat.task_support.CopyFrom(self._client.task_support)
        heartbeat.engine_failures = self._client.failures

    def _start(self, request: pb.StartTask) -> None:
        key = AttemptKey.of(request.id)
        if self._is_known(key):
            return
        origin: ContainerSpec | RequestRefused
        try:
            origin = container_spec(request, self._policy)
        except RequestRefused as error:
            origin = error
        _log.info("attempt %s begins: %s", key, ascii(request.docker_image[:MAX_IMAGE_LENGTH]))
        self._run(AttemptRunner(self._context, key, origin))

    def _stop(self, request: pb.StopTask) -> None:
        key = AttemptKey.of(request.id)
        attempt = self._attempts.get(key)
        if request.forget:
            self._forget(key)
        elif attempt is not None:
            _log.info("attempt %s is to end: %s", key, ascii(request.reason[:200]))
            attempt.stop(request.grace_seconds)

    def _acknowledge(self, ack: pb.Ack) -> None:
        what = ack.WhichOneof("what")
        if what == "update_number":
            self._outbox.acknowledge_update(ack.update_number)
        elif what == "log":
            self._outbox.acknowledge_log(AttemptKey.of(ack.id), ack.log.received_bytes)
        if ack.stale:
            self._forget(AttemptKey.of(ack.id))

    def _adopt(self, container: ContainerInfo) -> None:
        key = container.key
        if not self._is_known(key):
            _log.info("attempt %s is found in container %s", key, container.container_id[:12])
            self._run(AttemptRunner(self._context, key, container))

    def _is_known(self, key: AttemptKey) -> bool:
        return key in self._attempts or key in self._removals or key in self._finished

    def _run(self, attempt: AttemptRunner) -> None:
        self._attempts[attempt.key] = attempt
        self._has_attempts.set()
        task = self._runs[attempt.key] = asyncio.create_task(attempt.run(), name=f"attempt {attempt.key}")
        task.add_done_callback(lambda _: self._attempt_done(attempt))

    def _attempt_done(self, attempt: AttemptRunner) -> None:
        if self._attempts.get(attempt.key) is attempt:
            del self._attempts[attempt.key], self._runs[attempt.key]
        self._remember(attempt.key)
        if not self._attempts:
            self._has_attempts.clear()

    def _remember(self, key: AttemptKey) -> None:
        self._finished[key] = None
        if len(self._finished) > _REMEMBERED:
            self._finished.popitem(last=False)

    def _forget(self, key: AttemptKey) -> None:
        """Ends the attempt at once and reports nothing."""
        attempt = self._attempts.pop(key, None)
        if attempt is None:
            return
        self._remember(key)
        self._runs.pop(key).cancel()
        self._outbox.forget(key)
        self._remove(key, attempt.remove())

    def _remove(self, key: AttemptKey, removal: Coroutine[Any, Any, None]) -> None:
        task = self._removals[key] = asyncio.create_task(removal, name=f"removal of {key}")
        task.add_done_callback(lambda _: self._removals.pop(key, None))

    async def _remove_orphans(self) -> None:
        """Lets attempts start when every container of a foreign attempt is gone."""
        self._resync(await self._client.retry(lambda engine: engine.containers(), forever=True))
        if self._removals:
            await asyncio.wait(list(self._removals.values()))
        self._may_start.set()

    async def _resync_forever(self) -> None:
        while True:
            try:
                self._resync(await self._list(LIST_TIMEOUT_SECONDS))
            except EngineError as error:
                _log.debug("no list of containers: %s", error)
            if self._attempts_unknown and self._client.is_timed_out:
                self._attempts_known.set()
            await asyncio.sleep(self._resync_seconds)

    async def _list(self, timeout_seconds: float) -> Iterable[ContainerInfo]:
        """All containers of this worker. Raises ``EngineError``."""
        containers = await self._client.containers(timeout_seconds)
        if self._attempts_unknown:
            self._attempts_known.set()
        return containers

    def _resync(self, containers: Iterable[ContainerInfo]) -> None:
        """Notifies attempts whose container ended, and removes orphans."""
        by_key = {container.key: container for container in containers}
        for key, attempt in self._attempts.items():
            container = by_key.get(key)
            if attempt.is_running and (container is None or container.status is not ContainerStatus.RUNNING):
                attempt.notify()
        if not self._is_registered:
            return
        for key, container in by_key.items():
            if key not in self._attempts and key not in self._removals:
                _log.info("attempt %s: removing an orphaned container", key)
                self._remove(key, remove_container(self._context, container.container_id))

    def _container_exited(self, container_id: str) -> None:
        for attempt in self._attempts.values():
            if container_id in {attempt.container_id, ""}:
                attempt.notify()

    async def _read_usage_forever(self) -> None:
        while True:
            await self._has_attempts.wait()
            await asyncio.sleep(self._usage_seconds)
            running = [attempt for attempt in self._attempts.values() if attempt.is_running]
            await asyncio.gather(*(self._read_usage(attempt) for attempt in running))

    async def _read_usage(self, attempt: AttemptRunner) -> None:
        try:
            attempt.add_usage(await self._client.engine.usage(attempt.container_id))
        except EngineError as error:
            _log.debug("attempt %s: no reading: %s", attempt.key, error)

    async def _watch_disk_forever(self) -> None:
        loop, pause = asyncio.get_running_loop(), self._disk_seconds
        while True:
            await self._has_attempts.wait()
            await asyncio.sleep(pause)
            began_at = loop.time()
            for attempt in [attempt for attempt in self._attempts.values() if attempt.is_running]:
                try:
                    attempt.add_written(await self._client.engine.written_bytes(attempt.container_id))
                except EngineError as error:
                    _log.debug("attempt %s: its disk space is not known: %s", attempt.key, error)
            pause = max(self._disk_seconds, (loop.time() - began_at) / _DISK_SHARE)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background_done)

    def _background_done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a defect in %s", task.get_name(), exc_info=error)


class DisabledExecutor:
    """Of a worker that only reports telemetry: every attempt fails. All methods belong to one asyncio loop."""

    def __init__(self, reason: str) -> None:
        self._support = make(pb.TaskSupport, available=False, reason=reason)
        self._outbox = Outbox()

    async def describe(self, register: pb.Register) -> None:
        register.task_support.CopyFrom(self._support)

    def registered(self, registered: pb.Registered) -> None:
        self._outbox.resend()

    async def must_register_again(self) -> None:
        """Waits for ever: that there are no attempts is known."""
        await asyncio.Event().wait()

    def disconnected(self) -> None:
        """Does nothing."""

    def receive(self, message: pb.MasterMessage) -> None:
        kind = message.WhichOneof("message")
        if kind == "start_task":
            text = f"this worker runs no tasks: {self._support.reason}"
            self._outbox.add_update(
                pb.TaskUpdate(
                    id=message.start_task.id, phase=pb.ATTEMPT_PHASE_FAILED, reason="no_task_support", message=text
                )
            )
        elif kind == "ack" and message.ack.WhichOneof("what") == "update_number":
            self._outbox.acknowledge_update(message.ack.update_number)

    async def next_message(self) -> pb.WorkerMessage:
        return await self._outbox.next_message()

    def report(self, heartbeat: pb.Heartbeat) -> None:
        heartbeat.task_support.CopyFrom(self._support)
