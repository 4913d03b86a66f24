"""master.history.series_writer: samples of a worker as points, chunks and the journal, and the buffer of both."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetpulse.master.history import series_writer as module
from fleetpulse.master.history.points import JournalPoint, Points, decode_chunk
from fleetpulse.master.history.series_writer import (
    NOTHING_RECOVERED,
    PointChunk,
    RecoveredState,
    SeriesWriter,
    Tier,
    WriteBuffer,
)
from tests.master.history.builders import DAY_SECONDS, NOW, TIERS, points, sample, values_of

TINY = (Tier(15, 4, DAY_SECONDS), Tier(60, 3, DAY_SECONDS))


class Recording:
    """A series writer, and what it has written."""

    def __init__(self, tiers: tuple[Tier, ...] = TIERS) -> None:
        self.buffer = WriteBuffer()
        self.series = SeriesWriter("rack-7", tiers, self.buffer)
        self.journal: dict[int, list[tuple[int, float | None]]] = {tier.step_seconds: [] for tier in tiers}
        self.chunks: dict[int, list[tuple[int, float | None]]] = {tier.step_seconds: [] for tier in tiers}
        self.chunk_lengths: list[int] = []

    def add(self, time: float, cpu_usage: float) -> None:
        self.series.bucket_at(time).add(sample(cpu_usage=cpu_usage), 0.0)

    def collect(self) -> None:
        """Take out what is finished."""
        while not self.buffer.is_empty:
            journal, chunks, _, _ = self.buffer.take({}, {})
            for step, journalled in journal.items():
                self.journal[step] += [(point.time, values_of(point.data, "cpu_usage")[0]) for point in journalled]
            for chunk in chunks:
                times = decode_chunk(chunk.data).times
                assert (chunk.first, chunk.last, chunk.points) == (times[0], times[-1], len(times))
                self.chunks[chunk.step] += timed(decode_chunk(chunk.data))
                self.chunk_lengths.append(chunk.points)
            self.buffer.commit()

    def open(self, step: int) -> list[tuple[int, float | None]]:
        found = self.series.open_points(step)
        assert found is not None
        return timed(found)


def timed(found: Points) -> list[tuple[int, float | None]]:
    return list(zip(found.times, values_of(bytes(found.data), "cpu_usage"), strict=True))


def test_later_sample_closes_the_bucket() -> None:
    recording = Recording()
    for second, value in ((0, 10.0), (5, 20.0), (14.9, 30.0)):
        recording.add(NOW + second, value)
    recording.collect()
    assert recording.journal[15] == recording.open(15) == []
    recording.add(NOW + 15, 99.0)
    recording.collect()
    assert recording.journal[15] == recording.open(15) == [(NOW, 20.0)]


def test_bucket_is_closed_when_its_time_is_over() -> None:
    recording = Recording()
    recording.add(NOW, 10.0)
    recording.series.close_until(NOW + 16.0)
    assert recording.open(15) == []
    recording.series.close_until(NOW + 17.0)
    assert recording.open(15) == [(NOW, 10.0)]
    assert recording.open(300) == []
    recording.series.close_until(NOW + 302.0)
    assert recording.open(300) == [(NOW, 10.0)]


def test_shorter_points_feed_the_longer_tier() -> None:
    recording = Recording()
    for number in range(21):
        recording.add(NOW + 15 * number, float(number))
        recording.add(NOW + 15 * number + 5, float(number))
    recording.add(NOW + 315, 0.0)
    recording.collect()
    assert recording.journal[300] == [(NOW, 9.5)]
    assert len(recording.journal[15]) == 21


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(min_value=0, max_value=12), min_size=1, max_size=60))
def test_every_point_is_journalled_once_and_in_one_chunk(steps: list[int]) -> None:
    """With silences that are longer than a chunk."""
    recording, time = Recording(TINY), NOW
    expected: dict[int, list[float]] = {}
    for number, step in enumerate(steps):
        time += 15 * step
        recording.add(time, float(number))
        expected.setdefault(time, []).append(float(number))
    recording.series.close_until(time + 3600.0)
    recording.collect()
    means = {begin: sum(values) / len(values) for begin, values in expected.items()}
    for written in (recording.journal[15], recording.chunks[15]):
        assert [begin for begin, _ in written] == list(means)
        assert dict(written) == pytest.approx(means, rel=1e-4)
    assert [begin for begin, _ in recording.chunks[60]] == sorted({begin // 60 * 60 for begin in means})
    assert max(recording.chunk_lengths) <= 4
    assert recording.series.is_empty


def test_chunks_of_a_fleet_end_at_different_times() -> None:
    buffer = WriteBuffer()
    writers = [SeriesWriter(f"worker-{number}", TIERS[:1], buffer) for number in range(300)]
    at_once = 0
    for number in range(121):
        for series in writers:
            series.bucket_at(NOW + 15 * number).add(sample(cpu_usage=1.0), 0.0)
        at_once = max(at_once, len(buffer.take({}, {}).chunks))
        buffer.commit()
    assert 1 <= at_once < 30


@pytest.mark.parametrize("back", [10, 60])
def test_clock_set_back_a_little_closes_nothing(back: int) -> None:
    recording = Recording()
    recording.add(NOW + 60, 10.0)
    recording.add(NOW + 60 - back, 30.0)
    recording.add(NOW + 75, 0.0)
    assert recording.open(15) == [(NOW + 60, 20.0)]


def test_clock_set_back_far_begins_another_chunk() -> None:
    recording = Recording()
    recording.add(NOW + 7200, 10.0)
    recording.add(NOW, 30.0)
    recording.add(NOW + 15, 40.0)
    recording.add(NOW + 30, 0.0)
    recording.collect()
    assert recording.chunks[15] == [(NOW + 7200, 10.0)]
    assert recording.open(15) == [(NOW, 30.0), (NOW + 15, 40.0)]


def test_restart_within_a_bucket_makes_one_point() -> None:
    before = Recording()
    before.add(NOW, 10.0)
    before.series.close_bucket()
    before.collect()
    after = Recording()
    after.series.restore([RecoveredState(points((NOW, 10.0)), None), NOTHING_RECOVERED])
    after.add(NOW + 10, 30.0)
    after.add(NOW + 15, 0.0)
    assert after.open(15) == [(NOW, 20.0)]


def test_restore_fills_the_open_bucket_of_the_longer_tier() -> None:
    recovered = points(*[(NOW + 15 * number, float(number)) for number in range(25)])
    recording = Recording((Tier(15, 4000, DAY_SECONDS), Tier(300, 4000, DAY_SECONDS)))
    recording.series.restore([RecoveredState(recovered, NOW + 75), RecoveredState(points((NOW, 9.5)), None)])
    assert recording.open(15) == timed(recovered)[6:]
    assert recording.open(300) == [(NOW, 9.5)]
    recording.add(NOW + 600, 0.0)
    recording.add(NOW + 615, 0.0)
    assert recording.open(300) == [(NOW, 9.5), (NOW + 300, pytest.approx(22.0))]


def test_restore_does_not_repeat_a_longer_point_that_is_in_a_chunk() -> None:
    recovered = points(*[(NOW + 15 * number, 1.0) for number in range(25)])
    recording = Recording((Tier(15, 4000, DAY_SECONDS), Tier(300, 4000, DAY_SECONDS)))
    recording.series.restore([RecoveredState(recovered, None), RecoveredState(points(), NOW)])
    recording.series.close_until(NOW + 900.0)
    recording.collect()
    assert recording.journal[300] == [(NOW + 300, 1.0)]


def test_oldest_points_tell_which_journal_is_needed() -> None:
    recording = Recording()
    assert recording.series.oldest_points() == [None, None]
    recording.add(NOW, 1.0)
    recording.add(NOW + 15, 1.0)
    assert recording.series.oldest_points() == [NOW, None]
    assert not recording.series.is_empty


def chunk(number: int, worker_id: str = "rack-7", step: int = 15) -> PointChunk:
    return PointChunk(worker_id, step, 900 * number, 900 * number + 885, 60, b"x" * 100)


def journal_point(number: int) -> JournalPoint:
    return JournalPoint("rack-7", 15 * number, b"")


def test_full_buffer_drops_the_oldest_chunk_and_counts_its_points() -> None:
    buffer = WriteBuffer(max_chunk_bytes=300)
    for number in range(5):
        buffer.add_chunk(chunk(number))
    assert buffer.points_dropped == 120
    assert [one.first for one in buffer.take({}, {}).chunks] == [1800, 2700, 3600]


def test_batch_that_was_put_back_is_dropped_first() -> None:
    buffer = WriteBuffer(max_journal_points=3, max_chunk_bytes=300)
    for number in range(2):
        buffer.add_chunk(chunk(number))
        buffer.add_point(15, journal_point(number))
    buffer.take({}, {})
    for number in range(2, 4):
        buffer.add_chunk(chunk(number))
        buffer.add_point(15, journal_point(number))
    buffer.put_back()
    journal, chunks, _, _ = buffer.take({}, {})
    assert [one.first for one in chunks] == [900, 1800, 2700]
    assert [point.time for point in journal[15]] == [15, 30, 45]
    assert buffer.points_dropped == 60
    buffer.commit()
    assert buffer.is_empty


def test_batches_are_bounded_and_complete() -> None:
    buffer = WriteBuffer()
    for number in range(module.BATCH_CHUNKS + 1):
        buffer.add_chunk(chunk(number))
    sizes = []
    while not buffer.is_empty:
        sizes.append((len(buffer.take({}, {}).chunks), buffer.has_full_batch))
        buffer.commit()
    assert sizes == [(module.BATCH_CHUNKS, False), (1, False)]


def test_chunk_can_be_read_until_it_is_stored() -> None:
    buffer = WriteBuffer()
    buffer.add_chunk(chunk(1))
    buffer.add_chunk(chunk(0, "rack-8"))
    buffer.add_chunk(chunk(2, step=300))
    buffer.take({}, {})
    buffer.add_chunk(chunk(3))
    assert buffer.chunks_of("rack-7", 15) == [chunk(1), chunk(3)]
    assert (buffer.oldest_point(15), buffer.oldest_point(300), buffer.oldest_point(60)) == (0, 1800, None)
    buffer.commit()
    assert buffer.chunks_of("rack-7", 15) == [chunk(3)]
