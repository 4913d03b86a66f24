"""master.history.recorder: from updates to a store in memory."""

from collections.abc import Iterator
from typing import Any

import pytest

from fleetpulse.master.history.points import Points, Window, decode_chunk
from fleetpulse.master.history.recorder import FINISHED_IN_A_ROUND, NOTED_AT_ONCE, Recorder
from fleetpulse.master.instruments import Instruments
from tests.master.fleet import settle, wait_until
from tests.master.history.builders import DAY_SECONDS, NOW, TIERS, disk, telemetry, values_of
from tests.master.history.memory_store import MemoryStore


class Recording:
    """A recorder whose greenlet goes round whenever it may, on a clock that the test moves."""

    def __init__(self, store: MemoryStore) -> None:
        self.store, self.now = store, float(NOW)
        self.instruments = Instruments()
        self.left: set[str] = set()
        self.recorder = Recorder(
            store, TIERS, self.instruments, 30.0, lambda worker_id: worker_id not in self.left, lambda: self.now, 0.001
        )

    def record(self, time: float, worker_id: str = "rack-7", **reading: Any) -> None:
        self.now = max(self.now, time)
        self.recorder.record(worker_id, telemetry(time, worker_id, **reading))

    def metric(self, name: str) -> float | None:
        return self.instruments.registry.get_sample_value(f"fleetpulse_history_{name}")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def recording(store: MemoryStore) -> Iterator[Recording]:
    recording = Recording(store)
    recording.recorder.start()
    settle()
    yield recording
    recording.recorder.stop()


def cpu_of(points: Points) -> list[tuple[int, float | None]]:
    return list(zip(points.times, values_of(bytes(points.data), "cpu_usage"), strict=True))


def test_updates_become_points_in_the_journal(recording: Recording, store: MemoryStore) -> None:
    for second in (0, 5, 10, 15):
        recording.record(NOW + second, cpu_usage_percent=float(second), **disk(100 * second))
    wait_until(lambda: bool(store.of("rack-7", 15).times))
    assert cpu_of(store.of("rack-7", 15)) == [(NOW, 5.0)]
    assert values_of(bytes(store.of("rack-7", 15).data), "disk_read_bytes_per_second") == [100.0]
    assert values_of(bytes(store.of("rack-7", 15).data), "gpu_usage") == [None]
    assert cpu_of(recording.recorder.recent("rack-7", 15)[0]) == [(NOW, 5.0)]
    assert recording.recorder.recent("rack-8", 15) == []
    assert recording.metric("samples_total") == 4.0
    assert recording.metric("written_rows_total") == 1.0


def test_updates_are_taken_in_together_and_few_wait(recording: Recording) -> None:
    """A fleet that beats between two rounds must not pile up its readings."""
    taken_in = 0
    for number in range(1_000):
        recording.record(NOW, f"worker-{number}", cpu_usage_percent=1.0)
        assert len(recording.recorder._noted) < NOTED_AT_ONCE
        taken_in += not recording.recorder._noted
    assert taken_in == 1_000 // NOTED_AT_ONCE
    assert recording.recorder.knows_worker("worker-999")
    assert recording.metric("samples_total") == 1_000.0


def test_update_that_cannot_be_recorded_costs_no_other(recording: Recording, caplog: pytest.LogCaptureFixture) -> None:
    recording.record(NOW, "before", cpu_usage_percent=1.0)
    recording.record(NOW, "broken", disk_devices=None)
    recording.record(NOW + 5, "broken", disk_devices=None)
    recording.record(NOW, "after", cpu_usage_percent=1.0)
    assert recording.recorder.knows_worker("before")
    assert recording.recorder.knows_worker("after")
    assert "worker broken: an update could not be recorded" in caplog.text


def test_clean_stop_loses_nothing(store: MemoryStore) -> None:
    recording = Recording(store)
    recording.recorder.start()
    settle()
    recording.record(NOW, cpu_usage_percent=1.0)
    recording.record(NOW + 15, cpu_usage_percent=2.0)
    recording.recorder.stop()
    assert cpu_of(store.of("rack-7", 15)) == [(NOW, 1.0), (NOW + 15, 2.0)]


def test_next_master_continues_the_series(recording: Recording, store: MemoryStore) -> None:
    for number in range(30):
        recording.record(NOW + 15 * number, cpu_usage_percent=float(number))
    wait_until(lambda: len(store.of("rack-7", 15).times) == 29)
    after = Recording(store)
    after.now = NOW + 440.0
    after.record(NOW + 440, cpu_usage_percent=50.0)
    after.recorder.start()
    settle()
    after.record(NOW + 455, cpu_usage_percent=50.0)
    found = store.read("rack-7", 15, Window(NOW, NOW + 450, 15), ["cpu_usage"], after.recorder.recent("rack-7", 15))
    assert found["cpu_usage"].mean == [*map(float, range(29)), 50.0]
    after.recorder.stop()


def test_journal_is_recovered_later_when_the_store_is_unavailable(store: MemoryStore) -> None:
    store.of("rack-7", 15).append(NOW, bytes(4 * 36))
    store.trouble = "the database is starting"
    recording = Recording(store)
    recording.recorder.start()
    recording.record(NOW + 15, cpu_usage_percent=1.0)
    settle()
    assert recording.recorder.recent("rack-7", 15) == []
    store.trouble = None
    recording.record(NOW + 30, cpu_usage_percent=2.0)
    wait_until(lambda: bool(recording.recorder.recent("rack-7", 15)))
    assert list(recording.recorder.recent("rack-7", 15)[0].times) == [NOW, NOW + 15]
    recording.recorder.stop()


def test_buffer_is_bounded_during_an_outage_and_drops_are_counted(recording: Recording, store: MemoryStore) -> None:
    recording.recorder._buffer._max_chunk_bytes = 800
    store.trouble = "the disk is full"
    for number in range(600):
        recording.record(NOW + 15 * number, cpu_usage_percent=float(number % 7))
    wait_until(lambda: bool(recording.metric("points_dropped_total")))
    assert recording.recorder._buffer._chunk_bytes <= 800
    store.trouble = None
    wait_until(lambda: bool(store.chunks))
    assert store.chunks[-1].last > NOW + 15 * 500
    assert recording.recorder.health_error() is None


def test_one_batch_is_written_at_a_time_and_can_be_read_meanwhile(recording: Recording, store: MemoryStore) -> None:
    store.answers = False
    for number in range(150):
        recording.record(NOW + 15 * number, cpu_usage_percent=1.0)
        settle()
    seen = recording.recorder.recent("rack-7", 15)
    assert sum(len(points.times) for points in seen) == 149
    assert store.batches == []
    store.answer()
    wait_until(lambda: len(store.of("rack-7", 15).times) == 149)
    again = [*[decode_chunk(chunk.data) for chunk in store.chunks if chunk.step == 15],
             *recording.recorder.recent("rack-7", 15)]  # fmt: skip
    assert sum(len(points.times) for points in again) == 149


def test_journal_is_kept_for_points_that_are_in_no_chunk(recording: Recording, store: MemoryStore) -> None:
    for number in range(300):
        recording.record(NOW + 15 * number, cpu_usage_percent=1.0)
        settle()
    wait_until(lambda: store.batches[-1].journal_before[15] > NOW + 3000)
    before = store.batches[-1].journal_before[15]
    (chunk,) = [one for one in store.chunks if one.step == 15][-1:]
    assert before <= min(chunk.last + 15, recording.now - 360)
    assert store.batches[-1].chunks_before[15] == pytest.approx(recording.now - DAY_SECONDS)


def test_silent_worker_is_dropped_from_memory(recording: Recording, store: MemoryStore) -> None:
    recording.record(NOW, cpu_usage_percent=1.0)
    settle()
    assert recording.recorder.knows_worker("rack-7")
    recording.now += 4 * 3600.0
    wait_until(lambda: not recording.recorder.knows_worker("rack-7"))
    wait_until(lambda: {chunk.step for chunk in store.chunks} == {15, 300})


def test_worker_that_has_left_is_written_and_dropped_from_memory(recording: Recording, store: MemoryStore) -> None:
    for second in range(0, 60, 5):
        recording.record(NOW + second, cpu_usage_percent=float(second))
        recording.record(NOW + second, "silent", cpu_usage_percent=1.0)
    recording.left.add("rack-7")
    recording.now = NOW + 77.0
    wait_until(lambda: bool(store.chunks))
    assert [(one.worker_id, one.step, one.points) for one in store.chunks] == [("rack-7", 15, 4)]
    recording.now = NOW + 302.0
    wait_until(lambda: not recording.recorder.knows_worker("rack-7"))
    wait_until(lambda: len(store.chunks) == 2)
    assert decode_chunk(store.chunks[1].data).times == [NOW]
    assert recording.recorder.knows_worker("silent")


def test_worker_that_returns_soon_makes_no_second_chunk_of_a_longer_point(
    recording: Recording, store: MemoryStore
) -> None:
    recording.record(NOW, cpu_usage_percent=10.0)
    recording.left.add("rack-7")
    recording.now = NOW + 60.0
    wait_until(lambda: bool(store.chunks))
    recording.left.clear()
    recording.record(NOW + 120, cpu_usage_percent=30.0)
    recording.record(NOW + 135, cpu_usage_percent=50.0)
    recording.now = NOW + 4 * 3600.0
    wait_until(lambda: not recording.recorder.knows_worker("rack-7"))
    wait_until(lambda: len(store.chunks) == 3)
    (longer,) = [one for one in store.chunks if one.step == 300]
    ((begin, mean),) = cpu_of(decode_chunk(longer.data))
    assert begin == NOW
    assert mean == pytest.approx(30.0, rel=1e-3)


def test_chunks_of_a_leaving_fleet_are_closed_in_rounds(store: MemoryStore) -> None:
    recording = Recording(store)
    recording.recorder._recover()
    for number in range(500):
        recording.record(NOW, f"worker-{number}", cpu_usage_percent=1.0)
        recording.left.add(f"worker-{number}")
    closed = []
    for _ in range(6):
        recording.recorder._close_complete(NOW + 20.0)
        closed.append(len(recording.recorder._buffer._chunks))
    assert closed == [0, FINISHED_IN_A_ROUND, 2 * FINISHED_IN_A_ROUND, 500, 500, 500]
