"""What waits to be written, while the store is away."""

from fleetpulse.master.history import outbox as module
from fleetpulse.master.history.outbox import Outbox
from fleetpulse.master.history.points import JournalPoint
from fleetpulse.master.history.ports import Chunk


def chunk(number: int, worker_id: str = "rack-7", step: int = 15) -> Chunk:
    return Chunk(worker_id, step, 900 * number, 900 * number + 885, 60, b"x" * 100)


def journal_point(number: int) -> JournalPoint:
    return JournalPoint("rack-7", 15 * number, b"")


def test_the_oldest_chunk_makes_room_and_its_points_are_counted() -> None:
    outbox = Outbox(max_chunk_bytes=300)
    for number in range(5):
        outbox.add_chunk(chunk(number))
    assert outbox.points_dropped == 120
    assert [one.first for one in outbox.take().chunks] == [1800, 2700, 3600]


def test_what_could_not_be_written_is_the_first_to_go() -> None:
    outbox = Outbox(max_journal_points=3, max_chunk_bytes=300)
    for number in range(2):
        outbox.add_chunk(chunk(number))
        outbox.add_point(15, journal_point(number))
    outbox.take()
    for number in range(2, 4):
        outbox.add_chunk(chunk(number))
        outbox.add_point(15, journal_point(number))
    outbox.put_back()
    journal, chunks = outbox.take()
    assert [one.first for one in chunks] == [900, 1800, 2700]
    assert [point.time for point in journal[15]] == [15, 30, 45]
    assert outbox.points_dropped == 60
    outbox.written()
    assert outbox.is_empty


def test_a_batch_is_bounded_and_nothing_is_left_out() -> None:
    outbox = Outbox()
    for number in range(module.BATCH_CHUNKS + 1):
        outbox.add_chunk(chunk(number))
    sizes = []
    while not outbox.is_empty:
        sizes.append((len(outbox.take().chunks), outbox.has_a_full_parcel))
        outbox.written()
    assert sizes == [(module.BATCH_CHUNKS, False), (1, False)]


def test_a_chunk_is_there_to_be_read_until_it_is_stored() -> None:
    outbox = Outbox()
    outbox.add_chunk(chunk(1))
    outbox.add_chunk(chunk(0, "rack-8"))
    outbox.add_chunk(chunk(2, step=300))
    outbox.take()
    outbox.add_chunk(chunk(3))
    assert outbox.chunks_of("rack-7", 15) == [chunk(1), chunk(3)]
    assert (outbox.oldest_chunk(15), outbox.oldest_chunk(300), outbox.oldest_chunk(60)) == (0, 1800, None)
    outbox.written()
    assert outbox.chunks_of("rack-7", 15) == [chunk(3)]
