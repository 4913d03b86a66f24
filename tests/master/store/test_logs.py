"""master.store.logs: a log is the bytes that were appended, each once."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine

from fleetpulse.master.store.logs import ROW_BYTES, LogWriter, read_slice
from fleetpulse.master.store.store import SqlTaskStore
from fleetpulse.master.store.tables import metadata
from fleetpulse.master.tasks.records import Attempt, LogChunk, LogSlice
from tests.master.store.builders import append, place, submit


@pytest.fixture
def attempt(store: SqlTaskStore) -> Attempt:
    return place(store, submit(store, "t1"))[1]


def test_empty_log_is_read_as_empty(store: SqlTaskStore, attempt: Attempt) -> None:
    assert store.read_log("t1", 1, 0, 10) == LogSlice(0, b"", 0)
    assert store.read_log("t1", 1, -5, 10) == LogSlice(0, b"", 0)
    assert store.read_log("t1", 2, 0, 10) == LogSlice(0, b"", 0)


@pytest.mark.parametrize(
    ("offset", "limit", "expected"),
    [
        (0, 100, LogSlice(0, b"0123456789", 10)),
        (0, 4, LogSlice(0, b"0123", 10)),
        (3, 4, LogSlice(3, b"3456", 10)),
        (4, 100, LogSlice(4, b"456789", 10)),
        (9, 1, LogSlice(9, b"9", 10)),
        (10, 5, LogSlice(10, b"", 10)),
        (99, 5, LogSlice(99, b"", 10)),
        (-3, 100, LogSlice(7, b"789", 10)),
        (-3, 2, LogSlice(7, b"78", 10)),
        (-99, 100, LogSlice(0, b"0123456789", 10)),
    ],
)
def test_any_part_of_a_log_can_be_read(
    store: SqlTaskStore, attempt: Attempt, offset: int, limit: int, expected: LogSlice
) -> None:
    for start in (0, 4, 7):
        append(store, attempt, start, b"0123456789"[start : start + 4])
    assert store.read_log("t1", 1, offset, limit) == expected


def test_each_attempt_has_its_own_log(store: SqlTaskStore, attempt: Attempt) -> None:
    append(store, attempt, 0, b"first")
    append(store, attempt._replace(attempt=2), 0, b"second")
    assert store.read_log("t1", 1, 0, 100).data == b"first"
    assert store.read_log("t1", 2, 0, 100).data == b"second"


def test_log_may_hold_any_bytes(store: SqlTaskStore, attempt: Attempt) -> None:
    data = bytes(range(256)) * 1024
    append(store, attempt, 0, data)
    assert store.read_log("t1", 1, 0, len(data)).data == data


def test_stored_bytes_never_change_and_only_new_ones_are_added(store: SqlTaskStore, attempt: Attempt) -> None:
    append(store, attempt, 0, b"0123")
    append(store, attempt, 0, b"0123")
    append(store, attempt, 1, b"XX")
    append(store, attempt, 2, b"XX45")
    assert store.read_log("t1", 1, 0, 100) == LogSlice(0, b"012345", 6)


def test_hole_in_a_log_stays_and_is_skipped(
    store: SqlTaskStore, attempt: Attempt, caplog: pytest.LogCaptureFixture
) -> None:
    append(store, attempt, 0, b"01")
    append(store, attempt, 5, b"56")
    append(store, attempt, 2, b"234")
    assert "a hole from byte 2 to 5" in caplog.text
    assert store.read_log("t1", 1, 0, 100) == LogSlice(0, b"01", 7)
    assert store.read_log("t1", 1, 2, 100) == LogSlice(5, b"56", 7)
    assert store.read_log("t1", 1, -3, 100) == LogSlice(5, b"56", 7)
    assert store.read_log("t1", 1, -1, 100) == LogSlice(6, b"6", 7)


def test_consecutive_chunks_of_a_batch_are_joined() -> None:
    with create_engine("sqlite://").begin() as connection:
        metadata.create_all(connection)
        logs = LogWriter()
        for offset in range(0, 2 * ROW_BYTES, 1024):
            logs.append(connection, LogChunk("t1", 1, offset, b"x" * 1024))
        logs.flush(connection)
        assert connection.exec_driver_sql("SELECT count(*) FROM log_chunks").scalar() == 2


class Model:
    """A log as a list of bytes, ``None`` where it has a hole."""

    def __init__(self) -> None:
        self.bytes: list[int | None] = []

    def append(self, offset: int, data: bytes) -> None:
        if data and offset + len(data) > len(self.bytes):
            self.bytes += [None] * (offset - len(self.bytes))
            self.bytes += data[len(self.bytes) - offset :]

    def read(self, offset: int, limit: int) -> LogSlice:
        start = max(len(self.bytes) + offset, 0) if offset < 0 else offset
        while start < len(self.bytes) and self.bytes[start] is None:
            start += 1
        found = bytearray()
        for byte in self.bytes[start : start + limit]:
            if byte is None:
                break
            found.append(byte)
        return LogSlice(start, bytes(found), len(self.bytes))


def written(connection: Connection, batches: Sequence[Sequence[tuple[int, bytes]]], model: Model) -> None:
    logs = LogWriter()
    for batch in batches:
        for offset, data in batch:
            logs.append(connection, LogChunk("t1", 1, offset, data))
            model.append(offset, data)
        logs.flush(connection)


chunks = st.tuples(st.integers(0, 40), st.binary(max_size=12))


@settings(max_examples=150)
@given(st.lists(st.lists(chunks, max_size=4), max_size=5), st.integers(-60, 60), st.integers(1, 60))
def test_log_is_read_as_a_model_of_it(batches: list[list[tuple[int, bytes]]], offset: int, limit: int) -> None:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        metadata.create_all(connection)
        model = Model()
        written(connection, batches, model)
        assert read_slice(connection, "t1", 1, offset, limit) == model.read(offset, limit)
    engine.dispose()
