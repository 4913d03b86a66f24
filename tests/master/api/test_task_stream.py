"""A task as server-sent events, through a real web server"""

import socket
from collections.abc import Iterator

import gevent
import pytest

from fleetpulse.master.api.subscribers import ClientGone, Subscribers, while_connected
from fleetpulse.master.api.task_logs import TaskLogs
from fleetpulse.master.errors import StoreUnavailable
from tests.master.api.event_reader import Event, EventReader
from tests.master.api.task_api import TaskApi
from tests.master.api.web_server import Client, Served, served
from tests.master.fleet import wait_until

PATH = "/api/tasks/task-1/logs?follow=true"


class Reader(EventReader):
    """Follows a log."""

    def __init__(self, address: tuple[str, int], path: str = PATH, *lines: str) -> None:
        super().__init__(address, path, *lines)

    def log(self, size: int) -> str:
        """Wait for so many characters of log."""
        text = ""
        while len(text) < size:
            event = self.next_event()
            assert event is not None
            text += event.data["logs"] if event.kind == "message" else ""
        return text


@pytest.fixture
def server(tasks: TaskApi) -> Iterator[Served]:
    tasks.submit(max_retries=1)
    with served(tasks.app) as server:
        yield server


# From before the start to the end


def test_events_of_a_task_from_queue_to_end(tasks: TaskApi, server: Served) -> None:
    fake = tasks.fake
    with Reader(server.address) as reader:
        assert reader.answered.status == 200
        assert reader.answered.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reader.answered.headers["cache-control"] == "no-store"
        assert reader.answered.headers["x-accel-buffering"] == "no"
        assert reader.take(1) == [
            Event(
                "status",
                {"status": "queued", "attempt": 0, "worker_id": None, "queue_reason": "no worker is there"},
            )
        ]
        fake.place("task-1")
        status, attempt = reader.take(2)
        assert status.data == {"status": "pending", "attempt": 1, "worker_id": "rack-7", "queue_reason": None}
        assert attempt == Event("attempt", {"attempt": 1, "worker_id": "rack-7"}, "1-0")
        fake.run("task-1")
        assert reader.take(1)[0].data["status"] == "running"
        fake.say("task-1", b"one\n")
        assert reader.take(1) == [
            Event("message", {"attempt": 1, "offset": 0, "next_offset": 4, "logs": "one\n"}, "1-4")
        ]
        fake.say("task-1", b"two")
        assert reader.take(1)[0].data["logs"] == "two"
        fake.end("task-1", oom_killed=False)
        status, end = reader
        assert status.data["status"] == "completed"
        assert end == Event(
            "end",
            {
                "attempt": 1,
                "status": "completed",
                "exit_code": 0,
                "oom_killed": False,
                "reason": None,
                "error": None,
            },
        )
        # The connection can be used again.
        reader.request("GET", "/api/tasks/task-1")
        assert reader.answer()[1]["status"] == "completed"
    wait_until(lambda: len(tasks.subscribers) == 0)


def test_events_of_a_finished_task(tasks: TaskApi, server: Served) -> None:
    fake = tasks.fake
    fake.place("task-1")
    fake.run("task-1")
    fake.say("task-1", b"x" * 200_000)
    fake.end("task-1", 3, reason="exit_code", error="it ended with code 3")
    fake.place("task-1")
    fake.run("task-1")
    fake.say("task-1", b"second")
    fake.end("task-1", 4, reason="exit_code")
    with Reader(server.address) as reader:
        kinds = [(event.kind, event.data.get("logs")) for event in reader]
        assert kinds == [("status", None), ("message", "second"), ("end", None)]
    with Reader(server.address, f"{PATH}&attempt=1") as reader:
        events = list(reader)
        assert "".join(event.data["logs"] for event in events if event.kind == "message") == "x" * 200_000
        assert events[-1].kind == "end"
        assert events[-1].data.items() >= {"attempt": 1, "status": "failed", "exit_code": 3}.items()


def test_events_of_a_task_cancelled_in_the_queue(tasks: TaskApi, server: Served) -> None:
    with Reader(server.address) as reader:
        reader.take(1)
        tasks.client.simulate_delete("/api/tasks/task-1")
        status, end = reader
        assert status.data["status"] == end.data["status"] == "cancelled"
        assert end.data["exit_code"] is None


def test_stream_continues_with_the_next_attempt(tasks: TaskApi, server: Served) -> None:
    fake = tasks.fake
    with Reader(server.address) as reader, Reader(server.address, f"{PATH}&attempt=1") as only_first:
        for exit_code in (1, 0):
            fake.place("task-1")
            fake.run("task-1")
            fake.say("task-1", b"code %d" % exit_code)
            fake.end("task-1", exit_code)
        events = [event for event in reader if event.kind != "status"]
        assert [(event.kind, event.data["attempt"], event.data.get("logs")) for event in events] == [
            ("attempt", 1, None),
            ("message", 1, "code 1"),
            ("attempt", 2, None),
            ("message", 2, "code 0"),
            ("end", 2, None),
        ]
        assert [event.event_id for event in events] == ["1-0", "1-6", "2-0", "2-6", None]
        first = [event for event in only_first if event.kind != "status"]
        assert [(event.kind, event.data["attempt"]) for event in first] == [("message", 1), ("end", 1)]


# Characters, offsets, coming back


def test_split_character_is_sent_whole(tasks: TaskApi, server: Served) -> None:
    fake = tasks.fake
    fake.place("task-1")
    fake.run("task-1")
    with Reader(server.address) as reader:
        for piece, text in ((b"a\xc3", "a"), (b"\xa9\xf0", "é"), (b"\x9f\x98", ""), (b"\x80b", "😀b")):
            fake.say("task-1", piece)
            assert reader.log(len(text)) == text
        fake.say("task-1", b"\xe2\x82")
        fake.end("task-1")
        assert [event.data["logs"] for event in reader if event.kind == "message"] == ["\ufffd"]


def test_reconnects_lose_and_repeat_nothing(tasks: TaskApi, server: Served) -> None:
    fake = tasks.fake
    fake.place("task-1")
    fake.run("task-1")
    expected, found, last_id = "", "", "1-0"
    for number in range(20):
        text = f"line {number} ü€😀\n"
        fake.say("task-1", text.encode())
        expected += text
        with Reader(server.address, PATH, f"Last-Event-ID: {last_id}") as reader:
            while len(found) < len(expected):
                (event,) = reader.take(1)
                if event.kind == "message":
                    found, last_id = found + event.data["logs"], event.event_id or ""
    assert found == expected
    fake.end("task-1", 1)
    fake.place("task-1")
    fake.run("task-1")
    fake.say("task-1", b"again")
    fake.end("task-1")
    with Reader(server.address, f"{PATH}&offset=3", f"Last-Event-ID: {last_id}") as reader:
        assert [event.data["logs"] for event in reader if event.kind == "message"] == ["again"]


@pytest.mark.parametrize(
    ("query", "lines", "expected"),
    [
        ("", (), "one\ntwo\n"),
        ("&offset=4", (), "two\n"),
        ("&offset=-2", (), "o\n"),
        ("&tail=1", (), "two\n"),
        ("&attempt=1&offset=2", (), "e\ntwo\n"),
        ("&attempt=1&offset=2", ("Last-Event-ID: 1-5",), "wo\n"),
        ("&attempt=1&offset=2", ("Last-Event-ID: 2-5",), "e\ntwo\n"),
        ("&offset=8", (), ""),
        ("", ("Last-Event-ID: 1-8",), ""),
        ("", ("Last-Event-ID: 7-3",), ""),
    ],
)
def test_start_position(tasks: TaskApi, server: Served, query: str, lines: tuple[str, ...], expected: str) -> None:
    tasks.fake.place("task-1")
    tasks.fake.run("task-1")
    tasks.fake.say("task-1", b"one\ntwo\n")
    tasks.fake.end("task-1")
    with Reader(server.address, PATH + query, *lines) as reader:
        events = list(reader)
    assert "".join(event.data["logs"] for event in events if event.kind == "message") == expected
    assert events[-1].kind == "end"


@pytest.mark.parametrize("event_id", ["x", "1", "1-", "-1-5", "1-5-6", "1-99999999999999999", "\xe9"])
def test_malformed_last_event_id_is_a_422(tasks: TaskApi, server: Served, event_id: str) -> None:
    with Client(server.address) as client:
        client.request("GET", PATH, f"Last-Event-ID: {event_id}")
        status, problem = client.answer()
        assert (status, problem["errors"][0]["field"]) == (422, "Last-Event-ID")


def test_stream_waits_for_a_future_attempt(tasks: TaskApi, server: Served) -> None:
    with Reader(server.address, f"{PATH}&attempt=1&tail=5") as reader:
        tasks.fake.place("task-1")
        tasks.fake.run("task-1")
        tasks.fake.say("task-1", b"hello")
        assert reader.log(5) == "hello"


# Readers that leave, that are slow, that are many


def test_closed_connection_is_noticed_at_once(tasks: TaskApi, server: Served) -> None:
    readers = [Reader(server.address) for _ in range(10)]
    for reader in readers:
        reader.take(1)
    assert len(tasks.subscribers) == 10
    for reader in readers:
        reader.close()
    # Nothing is sent meanwhile: heartbeats come every 15 s.
    with gevent.Timeout(5.0):
        server.connections.join()
    assert len(tasks.subscribers) == 0
    assert len(tasks.fake.watchers) == 0


def test_pipelined_request_does_not_end_the_stream(tasks: TaskApi, server: Served) -> None:
    with Reader(server.address) as reader:
        reader.take(1)
        reader.request("GET", "/api/tasks/task-1")
        gevent.idle()
        tasks.client.simulate_delete("/api/tasks/task-1")
        assert [event.kind for event in reader] == ["status", "end"]
        assert reader.answer()[0] == 200


class Connection:
    """One that counts how often it is looked at."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self.looks = 0

    def fileno(self) -> int:
        self.looks += 1
        return self._end.fileno()


@pytest.mark.parametrize("sent", [b"", b"the next request"])
def test_connection_is_not_polled(sent: bytes) -> None:
    here, there = socket.socketpair()
    with here, there:
        here.sendall(sent)
        connection = Connection(there)
        with while_connected(connection):
            for _ in range(10):
                gevent.sleep(0.005)
        assert connection.looks <= 2
        if sent:
            return
        here.close()
        with pytest.raises(ClientGone), while_connected(connection):
            gevent.sleep(20.0)


def test_stalled_reader_delays_nobody(tasks: TaskApi, server: Served) -> None:
    tasks.fake.place("task-1")
    tasks.fake.run("task-1")
    stalled = Reader(server.address)
    with Reader(server.address) as reader:
        for _ in range(100):
            tasks.fake.say("task-1", b"x" * 100_000)
        assert reader.log(10_000_000) == "x" * 10_000_000
        tasks.fake.end("task-1")
        assert [event.kind for event in reader][-1] == "end"
    assert len(tasks.subscribers) == 1
    stalled.close()
    wait_until(lambda: len(tasks.subscribers) == 0)


def test_number_of_readers_is_limited(tasks: TaskApi) -> None:
    tasks.submit()
    tasks.app.add_route("/few/{task_id}/logs", TaskLogs(tasks.service, Subscribers(2)))
    path = "/few/task-1/logs?follow=true"
    with served(tasks.app) as server:
        readers = [Reader(server.address, path) for _ in range(2)]
        with Client(server.address) as client:
            client.request("GET", path)
            head = client.head()
            assert (head.status, head.headers["retry-after"]) == (503, "5")
            readers[0].close()

        def is_taken() -> bool:
            with Client(server.address) as client:
                client.request("GET", path)
                return client.head().status == 200

        wait_until(is_taken)
        readers[1].close()
        wait_until(lambda: len(tasks.fake.watchers) == 0)


def test_head_opens_no_stream(tasks: TaskApi, server: Served) -> None:
    with Client(server.address) as client:
        client.request("HEAD", PATH)
        assert client.head().headers["content-type"] == "text/event-stream; charset=utf-8"
        assert len(tasks.subscribers) == 0


def test_events_are_not_compressed(tasks: TaskApi, server: Served) -> None:
    with Reader(server.address, PATH, "Accept-Encoding: gzip") as reader:
        assert "content-encoding" not in reader.answered.headers
        assert reader.take(1)[0].kind == "status"


def test_idle_stream_sends_keepalives(tasks: TaskApi) -> None:
    tasks.submit()
    tasks.app.add_route("/quick/{task_id}/logs", TaskLogs(tasks.service, Subscribers(), keepalive_seconds=0.05))
    with served(tasks.app) as server, Reader(server.address, "/quick/task-1/logs?follow=true") as reader:
        assert reader.take(3)[1:] == [Event("comment", "still here")] * 2
        tasks.fake.place("task-1")
        assert "status" in [event.kind for event in reader.take(3)]
    wait_until(lambda: len(tasks.fake.watchers) == 0)


def test_stopping_master_ends_streams_with_a_problem(tasks: TaskApi, server: Served) -> None:
    tasks.fake.place("task-1")
    tasks.fake.run("task-1")
    stalled = Reader(server.address)
    with Reader(server.address) as reader, Reader(server.address, f"{PATH}&offset=10000000") as other:
        other.take(1)
        tasks.fake.say("task-1", b"x" * 10_000_000)
        reader.log(10_000_000)
        tasks.subscribers.close()
        for events in (list(reader), list(other)):
            assert events[-1].kind == "problem"
            assert events[-1].data == {"status": 503, "detail": "the master is stopping; come back in a moment"}
        # The connection ends with the last word, or the server would wait for the next request on it.
        assert reader.is_closed()
    with Client(server.address) as late:
        late.request("GET", PATH)
        assert late.answer()[0] == 503
    assert len(tasks.subscribers) == 1
    stalled.close()
    wait_until(lambda: len(tasks.subscribers) == 0)


def test_revoked_stream_does_not_finish_a_long_log(tasks: TaskApi, server: Served) -> None:
    tasks.fake.place("task-1")
    tasks.fake.run("task-1")
    tasks.fake.say("task-1", b"x" * 40_000_000)
    tasks.fake.end("task-1")
    with Reader(server.address) as reader:
        reader.take(2)
        tasks.subscribers.close()
        events = list(reader)
    assert events[-1].data["status"] == 503
    assert "end" not in {event.kind for event in events}
    assert sum(len(event.data["logs"]) for event in events[:-1]) < 30_000_000


def test_stopping_server_removes_all_readers(tasks: TaskApi) -> None:
    tasks.submit()
    with served(tasks.app) as server:
        reader = Reader(server.address)
        reader.take(1)
        assert len(tasks.subscribers) == 1
    wait_until(lambda: len(tasks.subscribers) == 0)
    reader.close()


# What goes wrong on the way


def test_unavailable_store_ends_the_stream_with_a_problem(tasks: TaskApi, server: Served) -> None:
    with Reader(server.address) as reader:
        reader.take(1)
        tasks.fake.failing = StoreUnavailable("the disk is full")
        tasks.fake.watchers.notify("task-1")
        assert list(reader) == [Event("problem", {"status": 503, "detail": "the disk is full"})]


def test_unexpected_error_ends_the_stream_with_a_problem_and_is_logged(
    tasks: TaskApi, server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with Reader(server.address) as reader:
        reader.take(1)
        tasks.fake._tasks["task-1"] = None  # type: ignore[assignment]  # what no code is prepared for
        tasks.fake.watchers.notify("task-1")
        (event,) = reader
        assert event.data["status"] == 500
        assert "the stream of task-1 failed" in caplog.text


def test_unknown_task_is_a_404(tasks: TaskApi, server: Served) -> None:
    with Client(server.address) as client:
        client.request("GET", "/api/tasks/task-9/logs?follow=true")
        assert client.answer()[0] == 404
