"""The telemetry stream of a real master."""

import signal

import pytest

from tests.e2e.live import LiveReader, ReaderPool
from tests.e2e.masters import FAST_LEASE_FLAGS, Master, started_master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

READERS = 20
STALLED = 3
WORKERS = 100


def test_stream_shows_workers_that_join_beat_turn_inactive_and_leave(processes: Processes, master: Master) -> None:
    with LiveReader(master.http_port) as reader, LiveReader(master.http_port, "?fields=summary") as short:
        staying = processes.simulate(master.target, 6, "--prefix", "stay")
        vanishing = processes.simulate(master.target, 4, "--prefix", "gone", "--no-goodbye")
        for one in (reader, short):
            one.read_until_active(10)
        vanishing.send(signal.SIGKILL)
        for one in (reader, short):
            one.read_until_active(6)
            assert {worker_id.partition("-")[0] for worker_id, active in one.active().items() if active} == {"stay"}
        shown = master.json("/telemetry")
        assert reader.workers.keys() == short.workers.keys() == shown.keys()
        assert reader.workers["gone-1"] == shown["gone-1"]
        staying.send(signal.SIGTERM)
        reader.read_until_active(0)
        assert reader.active() == dict.fromkeys(("gone-1", "gone-2", "gone-3", "gone-4"), False)
        assert reader.resets == ["start"]
        assert master.sample("fleetpulse_stream_readers") == 2


def test_reconnect_continues_but_not_after_a_restart_of_the_master(processes: Processes, master: Master) -> None:
    processes.simulate(master.target, 5)
    with LiveReader(master.http_port) as first:
        first.read_until_active(5)
    with LiveReader(master.http_port, last_id=first.last_id) as second:
        assert second.read_event() == ("", {})
        kind, _ = second.read_event() or ("", None)
        assert kind == "update"
        assert second.resets == []
        master.web_process().kill()
        while second.read_event() is not None:
            pass
    eventually(master.is_healthy)
    eventually(lambda: master.active() == 5)
    with LiveReader(master.http_port, last_id=second.last_id) as third:
        third.read_until_active(5)
        assert third.resets == ["unknown_id"]


def test_stopping_master_ends_streams_without_waiting_for_slow_readers(processes: Processes) -> None:
    master = started_master(processes, *FAST_LEASE_FLAGS)
    processes.simulate(master.target, WORKERS)
    eventually(lambda: master.active() == WORKERS)
    with ReaderPool(master.http_port, [""], STALLED) as readers, LiveReader(master.http_port) as reader:
        reader.read_until_active(WORKERS)
        eventually(readers.all_updated())
        master.process.send(signal.SIGTERM)
        *_, last = iter(reader.read_event, None)
        assert last == ("problem", {"status": 503, "detail": "the master is stopping; come back in a moment"})
        assert master.process.wait() == 0
        eventually(lambda: readers.ended == [0])
    master.close()
    master.assert_no_errors()


def test_many_and_stalled_readers_delay_no_heartbeat(processes: Processes, master: Master) -> None:
    processes.simulate(master.target, WORKERS)
    eventually(lambda: master.active() == WORKERS)
    queries = ["", "?fields=summary", "?worker_id=sim-001,sim-050"]
    with ReaderPool(master.http_port, [queries[number % 3] for number in range(READERS)], STALLED) as readers:
        eventually(lambda: master.sample("fleetpulse_stream_readers") == READERS + STALLED)
        for _ in range(5):
            eventually(readers.all_updated())
        assert master.active() == WORKERS
        assert readers.ended == []
    eventually(lambda: master.sample("fleetpulse_stream_readers") == 0)
    assert master.sample("fleetpulse_heartbeats_dropped_total") == 0
    assert {worker["heartbeats"]["missed"] for worker in master.json("/api/workers")} == {0}
    assert not master.log_lines("is inactive")
