"""A worker that runs no tasks, because somebody said so."""

import asyncio

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.tasks.outbox import Outbox


class NoTasks:
    """Speaks for a worker that only reports telemetry. All methods belong to one asyncio loop."""

    def __init__(self, reason: str) -> None:
        self._support = pb.TaskSupport(available=False, reason=reason)
        self._outbox = Outbox()

    async def describe(self, register: pb.Register) -> None:
        """It holds nothing."""
        register.task_support.CopyFrom(self._support)

    def registered(self, terms: pb.Registered) -> None:
        """Whatever was not acknowledged is said again."""
        self._outbox.rewind()

    async def must_register_again(self) -> None:
        """Never: it knows that it holds nothing."""
        await asyncio.Event().wait()

    def disconnected(self) -> None:
        """Nothing depends on it."""

    def receive(self, message: pb.MasterMessage) -> None:
        """An attempt that is sent here all the same fails."""
        kind = message.WhichOneof("message")
        if kind == "start_task":
            self._outbox.update(
                pb.TaskUpdate(
                    id=message.start_task.id,
                    phase=pb.ATTEMPT_PHASE_FAILED,
                    reason="no_task_support",
                    message=f"this worker runs no tasks: {self._support.reason}",
                )
            )
        elif kind == "ack" and message.ack.WhichOneof("what") == "update_number":
            self._outbox.acknowledge(message.ack.update_number)

    async def next_message(self) -> pb.WorkerMessage:
        """Wait for what is to be sent."""
        return await self._outbox.next_message()

    def report(self, heartbeat: pb.Heartbeat) -> None:
        """Why there are no tasks."""
        heartbeat.task_support.CopyFrom(self._support)
