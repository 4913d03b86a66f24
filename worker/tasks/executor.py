"""All attempts of one worker: started, stopped, kept, adopted and forgotten as the master says.

Docker is the journal: what a worker that was killed had, its next start finds there by label. The master decides at
each registration which of it goes on; everything else is ended before anything new begins.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Coroutine, Iterable
from typing import Any

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.image import MAX_IMAGE_LENGTH
from fleetpulse.proto.policy import TaskPolicy
from fleetpulse.worker.tasks.attempt import Attempt, AttemptContext
from fleetpulse.worker.tasks.engine import (
    AttemptKey,
    Container,
    ContainerEngine,
    EngineError,
    EngineUnavailable,
    Status,
)
from fleetpulse.worker.tasks.health import EngineHealth
from fleetpulse.worker.tasks.images import Images
from fleetpulse.worker.tasks.log_reader import MAX_FOLLOWED, LogContext
from fleetpulse.worker.tasks.orders import OrderRefused, admitted
from fleetpulse.worker.tasks.outbox import Outbox

_log = logging.getLogger(__name__)

ROUND_SECONDS = 5.0
"""How often the engine's list is looked through for what its events did not tell."""

LIST_SECONDS = 15.0
"""An engine that cannot list its containers in this time does not answer."""

DESCRIBE_SECONDS = 2.0
"""A registration waits so long for a slow engine."""

_REMEMBERED = 10_000
"""Attempts that are over, so that an order to start one that comes late is known for what it is."""


class Executor:
    """Runs from ``open`` to ``close`` on one asyncio loop, to which all methods belong."""

    def __init__(
        self,
        engine: ContainerEngine,
        policy: TaskPolicy = TaskPolicy(),  # noqa: B008 - immutable
        *,
        round_seconds: float = ROUND_SECONDS,
    ) -> None:
        self._engine = engine
        self._policy = policy
        self._round_seconds = round_seconds
        self._usage_seconds = ROUND_SECONDS
        health, outbox = EngineHealth(), Outbox()
        logs = LogContext(engine, health, outbox, asyncio.Semaphore(MAX_FOLLOWED))
        self._means = AttemptContext(engine, health, outbox, Images(engine, health), logs, asyncio.Event())
        self._attempts: dict[AttemptKey, Attempt] = {}
        self._lives: dict[AttemptKey, asyncio.Task[None]] = {}
        self._over: OrderedDict[AttemptKey, None] = OrderedDict()
        self._removals: dict[AttemptKey, asyncio.Task[None]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._has_attempts = asyncio.Event()
        """So that an idle worker takes no readings; a simulated fleet has thousands of them."""
        self._is_registered = False
        self._was_registered = False
        self._is_blind = False
        self._sees = asyncio.Event()

    def open(self) -> None:
        """Begin to look after the engine."""
        self._engine.listen(self._container_changed)
        self._spawn(self._make_rounds(), "task rounds")
        self._spawn(self._take_usage(), "task usage")

    async def close(self) -> None:
        """Let go of everything. Containers go on, for the next start of this worker to adopt."""
        tasks = [*self._background, *self._lives.values(), *self._removals.values()]
        for attempt in self._attempts.values():
            attempt.abandon()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._engine.close()

    async def describe(self, register: pb.Register) -> None:
        """Say in a registration what this worker holds, or that it does not know. Takes a few seconds at most."""
        self._is_blind = False
        try:
            async with asyncio.timeout(DESCRIBE_SECONDS):
                containers = await self._list()
        except TimeoutError:
            self._means.health.failed(EngineUnavailable(f"no answer from the engine in {DESCRIBE_SECONDS:g} s"))
            self._is_blind = not self._was_registered
        except EngineError as error:
            _log.debug("a registration without a list of containers: %s", error)
            self._is_blind = not self._was_registered
        else:
            # Once registered, a container that this worker does not know is one that the master was not told of.
            if not self._was_registered:
                for container in containers:
                    self._adopt(container)
        # Who has not seen an engine for so long will hardly find on it what was running.
        self._is_blind = self._is_blind and not self._means.health.is_given_up
        register.attempts_unknown = self._is_blind
        register.attempts_held.extend(key.message() for key in self._attempts)
        register.task_support.CopyFrom(self._means.health.support)

    def registered(self, terms: pb.Registered) -> None:
        """A new stream is open. What the master does not keep is ended before anything new begins."""
        self._sees.clear()
        if self._is_blind:
            self._means.outbox.rewind()
            self._means.may_start.clear()
            return
        self._is_registered = self._was_registered = True
        self._usage_seconds = min(max(terms.heartbeat_interval_seconds, 0.5), 60.0)
        kept = {AttemptKey.of(attempt.id): attempt.log_received_bytes for attempt in terms.attempts_to_keep}
        for key in [key for key in self._attempts if key not in kept]:
            _log.info("attempt %s is not this worker's any more", key)
            self._forget(key)
        for key, received_bytes in kept.items():
            if key in self._attempts:
                self._attempts[key].keep(received_bytes)
                self._means.outbox.log_received(key, received_bytes)
        self._means.outbox.rewind()
        self._means.may_start.clear()
        self._spawn(self._clear_the_ground(), "task clearing")

    async def must_register_again(self) -> None:
        """Wait until it is known what this worker holds, after a registration that could not say it."""
        await self._sees.wait()

    def disconnected(self) -> None:
        """The stream is gone: nothing is decided any more about what is found."""
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
        """Wait for what is to be sent. Cancelling it loses nothing."""
        return await self._means.outbox.next_message()

    def report(self, heartbeat: pb.Heartbeat) -> None:
        """Add what runs, as of the last readings."""
        heartbeat.running_tasks.extend(attempt.reading() for attempt in self._attempts.values() if attempt.is_running)
        heartbeat.task_support.CopyFrom(self._means.health.support)
        heartbeat.engine_failures = self._means.health.failures

    def _start(self, order: pb.StartTask) -> None:
        key = AttemptKey.of(order.id)
        if key in self._attempts or key in self._removals or key in self._over:
            return
        spec = refusal = None
        try:
            spec = admitted(order, self._policy)
        except OrderRefused as error:
            refusal = error
        _log.info("attempt %s begins: %s", key, ascii(order.docker_image[:MAX_IMAGE_LENGTH]))
        self._live(Attempt(self._means, key, spec=spec, found=None, refusal=refusal))

    def _stop(self, order: pb.StopTask) -> None:
        key = AttemptKey.of(order.id)
        attempt = self._attempts.get(key)
        if order.forget:
            self._forget(key)
        elif attempt is not None:
            _log.info("attempt %s is to end: %s", key, ascii(order.reason[:200]))
            attempt.stop(order.grace_seconds)

    def _acknowledge(self, ack: pb.Ack) -> None:
        what = ack.WhichOneof("what")
        if what == "update_number":
            self._means.outbox.acknowledge(ack.update_number)
        elif what == "log":
            self._means.outbox.log_received(AttemptKey.of(ack.id), ack.log.received_bytes)
        if ack.stale:
            self._forget(AttemptKey.of(ack.id))

    def _adopt(self, container: Container) -> None:
        key = container.key
        if key not in self._attempts and key not in self._removals and key not in self._over:
            _log.info("attempt %s is found in container %s", key, container.container_id[:12])
            self._live(Attempt(self._means, key, spec=None, found=container))

    def _live(self, attempt: Attempt) -> None:
        self._attempts[attempt.key] = attempt
        self._has_attempts.set()
        life = asyncio.create_task(attempt.run(), name=f"attempt {attempt.key}")
        self._lives[attempt.key] = life
        life.add_done_callback(lambda _: self._is_over(attempt))

    def _is_over(self, attempt: Attempt) -> None:
        if self._attempts.get(attempt.key) is attempt:
            del self._attempts[attempt.key], self._lives[attempt.key]
        self._remember(attempt.key)
        if not self._attempts:
            self._has_attempts.clear()

    def _remember(self, key: AttemptKey) -> None:
        self._over[key] = None
        if len(self._over) > _REMEMBERED:
            self._over.popitem(last=False)

    def _forget(self, key: AttemptKey) -> None:
        """End it at once and say nothing."""
        attempt = self._attempts.pop(key, None)
        if attempt is None:
            return
        self._remember(key)
        self._lives.pop(key).cancel()
        self._means.outbox.forget(key)
        self._remove(key, attempt.remove())

    def _remove(self, key: AttemptKey, removal: Coroutine[Any, Any, None]) -> None:
        task = self._removals[key] = asyncio.create_task(removal, name=f"removal of {key}")
        task.add_done_callback(lambda _: self._removals.pop(key, None))

    async def _clear_the_ground(self) -> None:
        """Nothing may begin before everything is gone that is not this worker's, whoever started it."""
        self._look_through(await self._means.health.persist(self._engine.containers, for_ever=True))
        if self._removals:
            await asyncio.wait(list(self._removals.values()))
        self._means.may_start.set()

    async def _make_rounds(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LIST_SECONDS):
                    self._look_through(await self._list())
            except TimeoutError:
                self._means.health.failed(EngineUnavailable("the engine does not answer in time"))
            except EngineError as error:
                _log.debug("a round without a list of containers: %s", error)
            if self._means.health.is_given_up:
                self._see()
            await asyncio.sleep(self._round_seconds)

    async def _list(self) -> Iterable[Container]:
        """All containers of this worker; whether the engine answers is noted."""
        try:
            containers = await self._engine.containers()
        except EngineUnavailable as error:
            self._means.health.failed(error)
            raise
        self._means.health.answered()
        self._see()
        return containers

    def _see(self) -> None:
        if self._is_blind:
            self._sees.set()

    def _look_through(self, containers: Iterable[Container]) -> None:
        by_key = {container.key: container for container in containers}
        for key, attempt in self._attempts.items():
            container = by_key.get(key)
            if attempt.is_running and (container is None or container.status is not Status.RUNNING):
                attempt.poke()
        if not self._is_registered:
            return
        for key, container in by_key.items():
            if key not in self._attempts and key not in self._removals:
                _log.info("attempt %s: a container that nobody answers for is removed", key)
                self._remove(key, self._remove_orphan(container.container_id))

    async def _remove_orphan(self, container_id: str) -> None:
        try:
            await self._means.health.persist(lambda: self._engine.remove(container_id), for_ever=True)
        except EngineError as error:
            _log.warning("container %s stays for now: %s", container_id[:12], error)

    def _container_changed(self, container_id: str) -> None:
        for attempt in self._attempts.values():
            if container_id in {attempt.container_id, ""}:
                attempt.poke()

    async def _take_usage(self) -> None:
        while True:
            await self._has_attempts.wait()
            await asyncio.sleep(self._usage_seconds)
            running = [attempt for attempt in self._attempts.values() if attempt.is_running]
            await asyncio.gather(*(self._take_usage_of(attempt) for attempt in running))

    async def _take_usage_of(self, attempt: Attempt) -> None:
        try:
            attempt.add_usage(await self._engine.usage(attempt.container_id))
        except EngineError as error:
            _log.debug("attempt %s: no reading: %s", attempt.key, error)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._has_ended)

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a defect in %s", task.get_name(), exc_info=error)
