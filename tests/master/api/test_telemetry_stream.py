"""master.api.stream: the fleet as server-sent events, through a real web server"""

import json
import random
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from fleetpulse.master.api.telemetry_broadcast import Timing
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.api.event_reader import Event
from tests.master.api.stream_api import PATH, MirrorReader, StreamApi, running_stream
from tests.master.api.web_server import Client, Served, served
from tests.master.fleet import settle, wait_until


@pytest.fixture
def web() -> Iterator[StreamApi]:
    with running_stream() as web:
        yield web


@pytest.fixture
def server(web: StreamApi) -> Iterator[Served]:
    with served(web.app) as server:
        yield server


def beat(web: StreamApi, worker_id: str, cpu: float = 12.5) -> None:
    web.fleet.beat(worker_id, cpu=pb.Cpu(usage_percent=cpu))


# From the present state on


def test_snapshot_then_updates_then_removals(web: StreamApi, server: Served) -> None:
    for worker_id in ("a", "b"):
        beat(web, worker_id)
    with MirrorReader(server.address) as mirror:
        assert mirror.answered.status == 200
        assert mirror.answered.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert mirror.answered.headers["cache-control"] == "no-store"
        assert mirror.answered.headers["x-accel-buffering"] == "no"
        assert mirror.learn() == Event("reset", {"reason": "start", "workers": 2})
        records = {worker_id: json.loads(web.views.record(worker_id)) for worker_id in ("a", "b")}
        assert mirror.learn() == Event("snapshot", {"workers": records, "complete": True}, web.event_id())
        beat(web, "b", 99.0)
        changed = json.loads(web.views.record("b"))
        assert changed["cpu_usage"] == 99.0
        assert mirror.learn() == Event("update", {"workers": {"b": changed}}, web.event_id())
        beat(web, "c")
        assert mirror.learn().data["workers"].keys() == {"c"}
        web.fleet.manager.unregister_worker("a")
        assert mirror.learn() == Event("removed", {"worker_ids": ["a"]}, web.event_id())
        web.fleet.pass_time(30.0)
        assert {worker["is_active"] for worker in mirror.reach(web.changes.revision).values()} == {False}
        assert mirror.workers.keys() == {"b", "c"}


def test_empty_fleet_has_a_snapshot(web: StreamApi, server: Served) -> None:
    with MirrorReader(server.address) as mirror:
        assert mirror.learn() == Event("reset", {"reason": "start", "workers": 0})
        assert mirror.learn() == Event("snapshot", {"workers": {}, "complete": True}, web.event_id(0))
        beat(web, "a")
        assert mirror.reach(web.changes.revision).keys() == {"a"}


def test_summary_form(web: StreamApi, server: Served) -> None:
    beat(web, "a", 12.3456)
    with MirrorReader(server.address, "?fields=summary") as mirror:
        assert mirror.begin()["a"]["cpu_usage"] == 12.3
        beat(web, "a", 50.0)
        assert mirror.reach(web.changes.revision)["a"]["cpu_usage"] == 50.0
        assert "collectors" not in mirror.workers["a"]


@pytest.mark.parametrize("query", ["?worker_id=a,c,late", "?worker_id=a&worker_id=c&worker_id=late"])
def test_stream_of_some_workers(web: StreamApi, server: Served, query: str) -> None:
    for worker_id in ("a", "b", "c"):
        beat(web, worker_id)
    with MirrorReader(server.address, query) as mirror:
        assert mirror.learn().data == {"reason": "start", "workers": 2}
        assert mirror.begin().keys() == {"a", "c"}
        beat(web, "b")
        beat(web, "late")
        web.fleet.manager.unregister_worker("b")
        assert mirror.learn().data["workers"].keys() == {"late"}
        web.fleet.manager.unregister_worker("c")
        assert mirror.learn().data == {"worker_ids": ["c"]}
        # What others do meanwhile is passed over, and does not make it come too late.
        assert mirror.workers.keys() == {"a", "late"}


def test_chunks_are_bounded_and_only_the_last_has_an_id(web: StreamApi, server: Served) -> None:
    for number in range(300):
        beat(web, f"worker-{number:03d}")
    with MirrorReader(server.address) as mirror:
        mirror.begin()
        assert len(mirror.workers) == 300
        assert mirror.kinds[:2] == ["reset", "snapshot"]
        assert mirror.kinds.count("snapshot") > 2
        for number in range(300):
            web.fleet.manager.process_heartbeat(pb.Heartbeat(worker_id=f"worker-{number:03d}"))
        settle()
        ids = []
        while mirror.last_id != web.event_id():
            event = mirror.learn()
            assert event.kind == "update"
            ids.append(event.event_id)
        assert len(ids) > 2
        assert None not in ids


# Coming back


def test_reconnect_with_an_event_id_continues(web: StreamApi, server: Served) -> None:
    for worker_id in ("a", "b", "c", "d"):
        beat(web, worker_id)
    with MirrorReader(server.address) as mirror:
        mirror.begin()
    beat(web, "b")
    web.fleet.manager.unregister_worker("c")
    beat(web, "a")
    with MirrorReader(server.address, last_id=mirror.last_id) as again:
        assert again.learn() == Event("removed", {"worker_ids": ["c"]})
        event = again.learn()
        assert (event.kind, list(event.data["workers"]), event.event_id) == ("update", ["b", "a"], web.event_id())
    with MirrorReader(server.address, last_id=again.last_id) as once_more:
        beat(web, "d")
        assert once_more.learn().data["workers"].keys() == {"d"}


@pytest.mark.parametrize(
    "last_id", ["5f2c9e01ab34-99", "0f2c9e01ab34-1", "1-1", "x", "5f2c9e01ab34", "5f2c9e01ab34--1", "\xe9"]
)
def test_unknown_event_id_starts_with_a_snapshot(web: StreamApi, server: Served, last_id: str) -> None:
    beat(web, "a")
    with MirrorReader(server.address, last_id=last_id) as mirror:
        assert mirror.learn().data == {"reason": "unknown_id", "workers": 1}
        assert mirror.begin().keys() == {"a"}


def test_too_old_event_id_starts_with_a_snapshot() -> None:
    with running_stream(max_removals=2) as web, served(web.app) as server:
        for worker_id in ("a", "b", "c", "d"):
            beat(web, worker_id)
        last_id = web.event_id()
        for worker_id in ("a", "b", "c"):
            web.fleet.manager.unregister_worker(worker_id)
        with MirrorReader(server.address, last_id=last_id) as mirror:
            assert mirror.learn().data == {"reason": "too_old", "workers": 1}
            assert mirror.begin().keys() == {"d"}


@pytest.mark.parametrize("seed", range(6))
def test_every_reader_converges_to_the_live_table(seed: int) -> None:
    """Workers come, beat, turn inactive and leave; readers come, go, and come back with the last id that they saw."""
    chance = random.Random(seed)
    names = [f"worker-{number}" for number in range(60)]
    queries = ["", "?fields=summary", "?worker_id=worker-1,worker-2,worker-3", ""]
    with running_stream(max_removals=20) as web, served(web.app) as server:
        mirrors = [MirrorReader(server.address, query) for query in queries]

        def happen() -> None:
            name = chance.choice(names)
            if chance.random() < 0.3 and web.fleet.manager.knows_worker(name):
                web.fleet.manager.unregister_worker(name)
            else:
                beat(web, name, chance.randrange(100))

        def come_back(number: int) -> None:
            old = mirrors[number]
            old.close()
            mirrors[number] = MirrorReader(server.address, queries[number], old.last_id)
            mirrors[number].workers, mirrors[number].is_complete = old.workers, old.is_complete

        for _ in range(60):
            for _ in range(chance.randrange(20)):
                happen()
            number = chance.randrange(len(mirrors))
            if chance.random() < 0.3:
                come_back(number)
            elif not mirrors[number].is_complete:
                mirrors[number].learn()
        # The last word is about a worker that all of them read.
        beat(web, "worker-1", 1.0)
        table = web.fleet.manager.get_all_worker_telemetry()
        expected = {worker_id: json.loads(web.views.record(worker_id)) for worker_id in table}
        for mirror, query in zip(mirrors, queries, strict=True):
            mirror.reach(web.changes.revision)
            wanted: dict[str, Any] = expected
            if "worker_id" in query:
                wanted = {
                    name: worker for name, worker in expected.items() if name in query.partition("=")[2].split(",")
                }
            if "summary" in query:
                assert {name: worker["cpu_usage"] for name, worker in mirror.workers.items()} == {
                    name: worker["cpu_usage"] for name, worker in wanted.items()
                }
            else:
                assert mirror.workers == wanted
            mirror.close()


# Readers that leave, that are slow, that are many


def test_closed_connection_is_noticed_at_once(web: StreamApi, server: Served) -> None:
    mirrors = [MirrorReader(server.address) for _ in range(10)]
    for mirror in mirrors:
        mirror.begin()
    assert web.readers() == 10
    for mirror in mirrors:
        mirror.close()
    with gevent.Timeout(5.0):
        server.connections.join()
    assert web.readers() == 0


def test_slow_reader_delays_nobody_and_gets_the_latest(web: StreamApi, server: Served) -> None:
    names = [f"worker-{number}" for number in range(100)]
    for name in names:
        beat(web, name)
    with MirrorReader(server.address) as stalled, MirrorReader(server.address) as mirror:
        stalled._socket.setsockopt(gevent.socket.SOL_SOCKET, gevent.socket.SO_RCVBUF, 32768)
        for number in range(40):
            for name in names:
                web.fleet.manager.process_heartbeat(pb.Heartbeat(worker_id=name, cpu=pb.Cpu(usage_percent=number)))
            settle()
            mirror.reach(web.changes.revision)
        assert {worker["cpu_usage"] for worker in mirror.workers.values()} == {39.0}
        stalled.reach(web.changes.revision)
        assert stalled.workers == mirror.workers
        # It was told of some states of a worker, and was spared most.
        assert len(stalled.kinds) < len(mirror.kinds) / 2


def test_stalled_reader_is_disconnected_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    with running_stream(Timing(pause=0.01, stall_timeout=0.3)) as web, served(web.app) as server:
        with MirrorReader(server.address) as stalled, MirrorReader(server.address) as mirror:
            while web.fleet.metric("stream_readers_cut_total") == 0:
                for number in range(50):
                    web.fleet.manager.process_heartbeat(pb.Heartbeat(worker_id=f"worker-{number}"))
                settle()
                mirror.reach(web.changes.revision)
            wait_until(lambda: web.readers() == 1)
            beat(web, "worker-1")
            mirror.reach(web.changes.revision)
            with pytest.raises((AssertionError, OSError)):
                stalled.reach(web.changes.revision)
        wait_until(lambda: web.readers() == 0)
        assert web.fleet.metric("stream_readers_cut_total") == 1
        assert "took nothing for 0 s; it is disconnected" in caplog.text
        assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_number_of_readers_is_limited() -> None:
    with running_stream(max_readers=2) as web, served(web.app) as server:
        mirrors = [MirrorReader(server.address) for _ in range(2)]
        with Client(server.address) as client:
            client.request("GET", PATH)
            head = client.head()
            assert (head.status, head.headers["retry-after"]) == (503, "5")
        mirrors[0].close()
        wait_until(lambda: web.readers() == 1)
        with MirrorReader(server.address) as late:
            late.begin()
        mirrors[1].close()
        wait_until(lambda: web.readers() == 0)


def test_idle_stream_sends_keepalives() -> None:
    with running_stream(Timing(pause=0.01, keepalive=0.05)) as web, served(web.app) as server:
        beat(web, "a")
        with MirrorReader(server.address) as mirror:
            mirror.begin()
            assert [mirror.learn() for _ in range(2)] == [Event("comment", "still here")] * 2
            beat(web, "a")
            mirror.reach(web.changes.revision)


def test_head_opens_no_stream(web: StreamApi, server: Served) -> None:
    with Client(server.address) as client:
        client.request("HEAD", PATH)
        assert client.head().headers["content-type"] == "text/event-stream; charset=utf-8"
        assert web.readers() == 0


def test_events_are_counted_and_not_compressed(web: StreamApi, server: Served) -> None:
    for worker_id in ("a", "b"):
        beat(web, worker_id)
    with MirrorReader(server.address) as mirror:
        mirror.begin()
        web.fleet.manager.unregister_worker("a")
        mirror.reach(web.changes.revision)
        counted = {
            kind: web.fleet.metric("stream_events_total", event=kind) for kind in ("reset", "snapshot", "removed")
        }
        assert counted == {"reset": 1, "snapshot": 1, "removed": 1}


# What is wrong with a request, and the end


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?worker_id=a,-b", "worker_id[1]"),
        ("?worker_id=", "worker_id[0]"),
        ("?fields=some", "fields"),
        ("?fields=all&fields=summary", "fields"),
        ("?worker=a", "worker"),
        ("?worker_id=" + ",".join(map(str, range(1001))), "worker_id"),
    ],
)
def test_invalid_query_is_a_422(web: StreamApi, server: Served, query: str, field: str) -> None:
    with Client(server.address) as client:
        client.request("GET", PATH + query)
        status, problem = client.answer()
        assert (status, problem["errors"][0]["field"]) == (422, field)
        assert web.readers() == 0


def test_stopping_master_ends_streams_with_a_problem(web: StreamApi, server: Served) -> None:
    beat(web, "a")
    with MirrorReader(server.address) as mirror:
        mirror.begin()
        web.subscribers.close()
        assert mirror.learn() == Event(
            "problem", {"status": 503, "detail": "the master is stopping; come back in a moment"}
        )
        assert mirror.next_event() is None
        assert mirror.is_closed()
    with Client(server.address) as late:
        late.request("GET", PATH)
        assert late.answer()[0] == 503
    assert web.readers() == 0


def test_stopping_master_does_not_wait_for_a_stalled_reader(web: StreamApi, server: Served) -> None:
    names = [f"worker-{number}" for number in range(50)]
    with MirrorReader(server.address), MirrorReader(server.address) as mirror:
        for _ in range(60):
            for name in names:
                web.fleet.manager.process_heartbeat(pb.Heartbeat(worker_id=name))
            settle()
            mirror.reach(web.changes.revision)
        web.subscribers.close()
        with gevent.Timeout(5.0):
            wait_until(lambda: web.readers() == 0)
    assert web.fleet.metric("stream_readers_cut_total") == 0


def test_worker_that_cannot_be_rendered_is_left_out(web: StreamApi, caplog: pytest.LogCaptureFixture) -> None:
    def member(worker_id: str) -> bytes | None:
        if worker_id == "bad":
            raise RuntimeError("nobody can render this")
        return web.views.member(worker_id)

    web.stream._encoders["all"]._member = member
    for worker_id in ("a", "bad", "c"):
        beat(web, worker_id)
    with served(web.app) as server, MirrorReader(server.address) as mirror:
        assert mirror.begin().keys() == {"a", "c"}
    assert "worker bad: its telemetry could not be rendered" in caplog.text


def test_unexpected_error_ends_the_stream_with_a_problem_and_is_logged(
    web: StreamApi, server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with MirrorReader(server.address) as mirror:
        mirror.begin()
        web.changes._changes = None  # type: ignore[assignment]  # what no code is prepared for
        web.changes.changed.set()
        event = mirror.learn()
        assert (event.kind, event.data["status"]) == ("problem", 500)
        assert "the telemetry stream failed" in caplog.text
