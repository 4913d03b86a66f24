"""master.store.history: chunks and the journal in both databases."""

from collections.abc import Sequence

from sqlalchemy import create_engine, func, select

from fleetpulse.master.history.points import JournalPoint, Points, Window, decode_chunk, encode_chunk, pack
from fleetpulse.master.history.recorder import WriteResult
from fleetpulse.master.history.series_writer import HistoryBatch, PointChunk
from fleetpulse.master.store import history as module
from fleetpulse.master.store.database import parse_database_url
from fleetpulse.master.store.store import SqlTaskStore
from fleetpulse.master.store.tables import history_chunks, history_journal
from fleetpulse.master.tasks.records import LogChunk
from tests.master.fleet import wait_until
from tests.master.history.builders import NOW, point, points
from tests.master.store.builders import nothing_can_be_written, open_store, submit

NOTHING_BEFORE = {15: 0.0, 300: 0.0}


def chunk_of(*timed: tuple[int, float], worker_id: str = "rack-7", step: int = 15) -> PointChunk:
    data = encode_chunk(points(*timed), step)
    return PointChunk(worker_id, step, timed[0][0], timed[-1][0], len(timed), data)


def journal_of(*timed: tuple[int, float], worker_id: str = "rack-7") -> list[JournalPoint]:
    return [JournalPoint(worker_id, time, pack(point(cpu_usage=value))) for time, value in timed]


def batch(
    *chunks: PointChunk,
    journal: Sequence[JournalPoint] = (),
    journal_before: float = 0.0,
    chunks_before: float = 0.0,
) -> HistoryBatch:
    return HistoryBatch({15: journal} if journal else {}, chunks, {15: journal_before}, {15: chunks_before})


def saved(store: SqlTaskStore, one: HistoryBatch) -> WriteResult:
    """Hand it over, and wait for what comes of it."""
    done: list[WriteResult] = []
    store.history.save(one, done.append)
    wait_until(lambda: bool(done))
    return done[0]


def cpu(store: SqlTaskStore, start: int, stop: int, *recent: Points, step: int = 15) -> list[float | None]:
    window = Window(start, stop, step)
    return store.history.read("rack-7", step, window, ["cpu_usage"], recent)["cpu_usage"].mean


def rows(database_url: str) -> tuple[int, int]:
    """Of the journal, and chunks."""
    engine = create_engine(parse_database_url(database_url).url)
    with engine.connect() as connection:
        counted = [connection.scalar(select(func.count()).select_from(t)) for t in (history_journal, history_chunks)]
    engine.dispose()
    return counted[0] or 0, counted[1] or 0


def test_read_returns_stored_and_recent_points(store: SqlTaskStore) -> None:
    other = chunk_of((NOW, 99.0), worker_id="rack-8")
    longer = chunk_of((NOW, 77.0), step=300)
    written = saved(store, batch(chunk_of((NOW, 1.0), (NOW + 15, 2.0)), chunk_of((NOW + 45, 4.0)), other, longer))
    assert (written.error, written.rows) == (None, 4)
    assert written.size_bytes > 100
    assert cpu(store, NOW, NOW + 90, points((NOW + 60, 5.0))) == [1.0, 2.0, None, 4.0, 5.0, None]
    assert cpu(store, NOW + 15, NOW + 45) == [2.0, None]
    assert cpu(store, NOW - 300, NOW + 300, step=300) == [None, 77.0]
    assert store.history.has_worker("rack-8")
    assert not store.history.has_worker("rack-9")


def test_batch_written_twice_changes_nothing(store: SqlTaskStore) -> None:
    for _ in range(2):
        assert saved(store, batch(chunk_of((NOW, 1.0)), journal=journal_of((NOW, 1.0)))).error is None
    assert cpu(store, NOW, NOW + 15) == [1.0]


def test_journal_is_recovered_after_a_restart(database_url: str) -> None:
    with open_store(database_url) as store:
        saved(store, batch(journal=[*journal_of((NOW, 1.0)), *journal_of((NOW, 9.0), worker_id="rack-8")]))
        saved(store, batch(chunk_of((NOW, 1.0)), journal=journal_of((NOW + 15, 2.0))))
    with open_store(database_url) as store:
        remains = store.history.recover([15, 300])
    assert remains.keys() == {"rack-7", "rack-8"}
    assert list(remains["rack-7"][15].points.times) == [NOW, NOW + 15]
    assert (remains["rack-7"][15].saved, remains["rack-8"][15].saved) == (NOW, None)
    assert (list(remains["rack-7"][300].points.times), remains["rack-7"][300].saved) == ([], None)


def test_old_chunks_are_pruned_in_slices(store: SqlTaskStore, database_url: str) -> None:
    many = [chunk_of((NOW + 15 * number, 1.0)) for number in range(module.PRUNED_AT_ONCE + 5)]
    saved(store, batch(*many, journal=journal_of((NOW, 1.0))))
    saved(store, batch(journal=journal_of((NOW, 1.0), (NOW + 15, 2.0))))
    before = NOW + 15.0 * (module.PRUNED_AT_ONCE + 3)
    saved(store, batch(journal_before=NOW + 15.0, chunks_before=before))
    assert rows(database_url) == (1, 5)
    saved(store, batch(chunks_before=before))
    assert rows(database_url) == (1, 2)
    assert cpu(store, int(before), int(before) + 45) == [1.0, 1.0, None]


def test_failed_batch_is_reported_and_does_not_hold_up_tasks(store: SqlTaskStore, database_url: str) -> None:
    with nothing_can_be_written(database_url):
        done: list[WriteResult] = []
        store.history.save(batch(chunk_of((NOW, 1.0))), done.append)
        if parse_database_url(database_url).path is not None:
            wait_until(lambda: bool(done))
            assert "locked" in str(done[0].error)
    submit(store, "task-1")
    wait_until(lambda: bool(done))
    assert saved(store, batch(chunk_of((NOW, 1.0)))).error is None
    assert cpu(store, NOW, NOW + 15) == [1.0]


def test_history_is_written_after_other_writes(store: SqlTaskStore) -> None:
    order: list[str] = []
    with store._writer.queue._changed:  # the writer sees all of it at once
        store.history.save(batch(chunk_of((NOW, 1.0))), lambda _: order.append("history"))
        store.append_log(LogChunk("task-1", 1, 0, b"x"), lambda: order.append("log"))
    wait_until(lambda: len(order) == 2)
    assert order == ["log", "history"]


def test_chunk_is_stored_as_it_was_given(store: SqlTaskStore, database_url: str) -> None:
    one = chunk_of((NOW, 1.5), (NOW + 885, 2.5))
    saved(store, batch(one))
    engine = create_engine(parse_database_url(database_url).url)
    with engine.connect() as connection:
        row = connection.execute(select(history_chunks)).one()
    engine.dispose()
    assert tuple(row) == ("rack-7", 15, NOW, NOW + 885, one.data)
    assert list(decode_chunk(row.data).times) == [NOW, NOW + 885]
