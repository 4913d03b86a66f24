"""worker.tasks.outbox"""

import asyncio

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import MAX_LOG_CHUNK_BYTES
from fleetpulse.worker.tasks.container_spec import AttemptKey
from fleetpulse.worker.tasks.outbox import MAX_UNACKNOWLEDGED_LOG_BYTES, Outbox
from tests.worker.scripted import run

KEY = AttemptKey("t", 1)
OTHER = AttemptKey("u", 1)


def update(phase: "pb.AttemptPhase.ValueType", key: AttemptKey = KEY, message: str = "") -> pb.TaskUpdate:
    return pb.TaskUpdate(id=key.message(), phase=phase, message=message)


async def sent_messages(outbox: Outbox) -> list[pb.WorkerMessage]:
    """The messages that are sent now."""
    messages = []
    while True:
        try:
            async with asyncio.timeout(0.02):
                messages.append(await outbox.next_message())
        except TimeoutError:
            return messages


def summary(messages: list[pb.WorkerMessage]) -> list[object]:
    """An update as its number, a piece of a log as its offset and length."""
    return [
        message.task_update.update_number
        if message.HasField("task_update")
        else (message.log_chunk.offset_bytes, len(message.log_chunk.data))
        for message in messages
    ]


def test_terminal_update_is_sent_after_the_log() -> None:
    async def test() -> None:
        outbox = Outbox()
        outbox.open_log(KEY, 0)
        await outbox.add_log(KEY, b"x" * (MAX_LOG_CHUNK_BYTES + 5))
        outbox.add_update(update(pb.ATTEMPT_PHASE_RUNNING))
        outbox.add_update(update(pb.ATTEMPT_PHASE_COMPLETED))
        outbox.add_update(update(pb.ATTEMPT_PHASE_RUNNING, OTHER))
        outbox.add_update(update(pb.ATTEMPT_PHASE_FAILED, OTHER))
        assert summary(await sent_messages(outbox)) == [
            1, 3, 4, (0, MAX_LOG_CHUNK_BYTES), (MAX_LOG_CHUNK_BYTES, 5), 2,
        ]  # fmt: skip

    run(test())


def test_new_stream_resends_what_is_not_acknowledged() -> None:
    async def test() -> None:
        outbox = Outbox()
        outbox.open_log(KEY, 100)
        acknowledged = outbox.add_update(update(pb.ATTEMPT_PHASE_RUNNING))
        await outbox.add_log(KEY, b"0123456789")
        outbox.add_update(update(pb.ATTEMPT_PHASE_COMPLETED))
        assert summary(await sent_messages(outbox)) == [1, (100, 10), 2]
        outbox.acknowledge_update(1)
        assert acknowledged.is_set()
        outbox.acknowledge_log(KEY, 104)
        assert await sent_messages(outbox) == []
        outbox.resend()
        assert summary(await sent_messages(outbox)) == [(104, 6), 2]
        outbox.acknowledge_log(KEY, 110)
        outbox.acknowledge_update(2)
        outbox.resend()
        assert await sent_messages(outbox) == []

    run(test())


def test_impossible_acknowledgements_are_ignored() -> None:
    async def test() -> None:
        outbox = Outbox()
        outbox.open_log(KEY, 10)
        await outbox.add_log(KEY, b"12345")
        for received in (0, 10, 16, 2**40):
            outbox.acknowledge_log(KEY, received)
        outbox.acknowledge_log(OTHER, 3)
        outbox.acknowledge_update(99)
        outbox.resend()
        assert summary(await sent_messages(outbox)) == [(10, 5)]

    run(test())


def test_add_log_waits_while_too_much_is_unacknowledged() -> None:
    async def test() -> None:
        outbox = Outbox()
        outbox.open_log(KEY, 0)
        outbox.open_log(OTHER, 0)
        writing = asyncio.ensure_future(outbox.add_log(KEY, b"x" * (3 * MAX_UNACKNOWLEDGED_LOG_BYTES)))
        sent = sum(len(message.log_chunk.data) for message in await sent_messages(outbox))
        assert sent == MAX_UNACKNOWLEDGED_LOG_BYTES
        assert not writing.done()
        await outbox.add_log(OTHER, b"others go on")
        assert len(await sent_messages(outbox)) == 1
        while not writing.done():
            outbox.acknowledge_log(KEY, sent)
            sent += sum(len(message.log_chunk.data) for message in await sent_messages(outbox))
        assert sent == 3 * MAX_UNACKNOWLEDGED_LOG_BYTES

    run(test())


def test_logs_are_sent_in_turn() -> None:
    async def test() -> None:
        outbox = Outbox()
        outbox.open_log(KEY, 0)
        outbox.open_log(OTHER, 0)
        await outbox.add_log(KEY, b"x" * (10 * MAX_LOG_CHUNK_BYTES))
        await outbox.add_log(OTHER, b"me too")
        messages = [await outbox.next_message() for _ in range(2)]
        assert [message.log_chunk.id.task_id for message in messages] == ["t", "u"]

    run(test())


def test_small_pieces_of_a_log_are_joined() -> None:
    async def test() -> None:
        outbox = Outbox()
        outbox.open_log(KEY, 0)
        for _ in range(1000):
            await outbox.add_log(KEY, b"x")
        assert summary(await sent_messages(outbox)) == [(0, 1000)]

    run(test())


def test_only_the_last_pull_progress_is_kept() -> None:
    async def test() -> None:
        outbox = Outbox()
        outbox.add_update(update(pb.ATTEMPT_PHASE_PREPARING))
        for number in range(3):
            outbox.add_update(update(pb.ATTEMPT_PHASE_PREPARING, message=f"{number} of 3 layers"))
        outbox.add_update(update(pb.ATTEMPT_PHASE_PREPARING, OTHER, "1 of 1 layers"))
        assert summary(await sent_messages(outbox)) == [1, 4, 5]

    run(test())


def test_nothing_is_sent_for_a_forgotten_attempt() -> None:
    async def test() -> None:
        outbox = Outbox()
        outbox.open_log(KEY, 0)
        writing = asyncio.ensure_future(outbox.add_log(KEY, b"x" * (2 * MAX_UNACKNOWLEDGED_LOG_BYTES)))
        acknowledged = outbox.add_update(update(pb.ATTEMPT_PHASE_COMPLETED))
        outbox.add_update(update(pb.ATTEMPT_PHASE_RUNNING, OTHER))
        await asyncio.sleep(0)
        outbox.forget(KEY)
        assert summary(await sent_messages(outbox)) == [2]
        await writing
        assert acknowledged.is_set()

    run(test())
