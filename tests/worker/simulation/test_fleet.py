"""worker.simulation.fleet, on a loop with a scripted master; tests/e2e/test_simulate.py has a real one."""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from fleetpulse.worker.connection import Failure
from fleetpulse.worker.simulation.fleet import FailureMode, SimulatedFleet, SimulationConfig
from fleetpulse.worker.simulation.status import FleetStatus, Waiting, group_waiting
from tests.worker.scripted import ScriptedMaster, ScriptedStream, eventually, refuse, run, scripted_master, serve
from tests.worker.tasks.grpc_master import grpc_master


@contextlib.asynccontextmanager
async def fleet_at(master: ScriptedMaster, workers: int, **settings: Any) -> AsyncIterator[SimulatedFleet]:
    """A running fleet, which is cut off at the end."""
    fleet = SimulatedFleet(SimulationConfig(master.target, workers, ramp_seconds=0.0, **settings), "1.0")
    fleet.start()
    try:
        yield fleet
    finally:
        fleet.cut_off()


def incarnations(master: ScriptedMaster, worker_id: str) -> list[str]:
    """The incarnation of each stream of this worker."""
    return [
        stream.messages[0].register.incarnation_id
        for stream in master.streams
        if stream.messages and stream.messages[0].register.worker_id == worker_id
    ]


def test_failing_workers_come_first() -> None:
    modes = list(SimulationConfig("m", 7, stall=1, vanish=2, flap=3).failure_modes())
    assert modes == [
        FailureMode.STALL, FailureMode.VANISH, FailureMode.VANISH, FailureMode.FLAP, FailureMode.FLAP, FailureMode.FLAP,
        FailureMode.NONE,
    ]  # fmt: skip


@pytest.mark.parametrize(("workers", "share", "machines"), [(8, 0.25, 2), (100, 0.1, 10), (3, 0.5, 1), (5, 1.0, 5)])
def test_gpu_share_holds_for_any_number(workers: int, share: float, machines: int) -> None:
    async def test() -> None:
        async with scripted_master(serve) as master, fleet_at(master, workers, gpu_share=share, gpus_per_machine=3):
            await eventually(lambda: len(master.streams) == workers and all(s.heartbeats for s in master.streams))
        counts = Counter(len(stream.heartbeats[0].gpus) for stream in master.streams)
        assert counts[3] == machines
        assert counts[0] == workers - machines

    run(test())


def test_ids_are_zero_padded() -> None:
    async def test() -> None:
        async with scripted_master(serve) as master, fleet_at(master, 12, prefix="rack"):
            await eventually(lambda: len(master.streams) == 12 and all(stream.messages for stream in master.streams))
        ids = sorted(stream.messages[0].register.worker_id for stream in master.streams)
        assert ids == [f"rack-{number:02d}" for number in range(1, 13)]

    run(test())


def test_status_counts_connections_and_heartbeats() -> None:
    async def test() -> None:
        async with scripted_master(serve) as master, fleet_at(master, 3) as fleet:
            assert fleet.status() == FleetStatus(3, 0, 0, (Waiting(3, "not started"),))
            await eventually(lambda: fleet.status().connected == 3 and fleet.status().heartbeats_sent >= 9)
            await fleet.stop(5.0)
            assert fleet.status().connected == 0
            assert fleet.status().heartbeats_sent == sum(len(stream.heartbeats) for stream in master.streams)

    run(test())


def test_flapping_worker_returns_as_a_new_incarnation() -> None:
    async def test() -> None:
        failures = {"flap": 1, "trouble_after_seconds": 0.1, "trouble_seconds": 0.02}
        async with scripted_master(serve) as master, fleet_at(master, 1, **failures) as fleet:
            await eventually(lambda: len(incarnations(master, "sim-1")) >= 4)
            assert len(set(incarnations(master, "sim-1"))) == len(incarnations(master, "sim-1"))
            assert fleet.status().heartbeats_sent >= sum(len(stream.heartbeats) for stream in master.streams[:3])
        assert not any(message.HasField("goodbye") for stream in master.streams[:3] for message in stream.messages)

    run(test())


def test_vanished_worker_stays_away() -> None:
    async def test() -> None:
        failures = {"vanish": 1, "trouble_after_seconds": 0.05, "trouble_seconds": 0.01}
        async with scripted_master(serve) as master, fleet_at(master, 2, **failures) as fleet:
            await eventually(lambda: incarnations(master, "sim-1") and fleet.status().connected == 1)
            sent = fleet.status().heartbeats_sent
            await eventually(lambda: fleet.status().heartbeats_sent > sent + 20)
            assert len(incarnations(master, "sim-1")) == 1

    run(test())


def test_stalling_worker_keeps_its_stream() -> None:
    async def test() -> None:
        failures = {"stall": 1, "trouble_after_seconds": 0.05, "trouble_seconds": 0.3}
        async with scripted_master(serve) as master, fleet_at(master, 1, **failures):
            await eventually(lambda: master.streams and len(master.streams[0].heartbeats) > 8)
            times = [heartbeat.sent_time_unix_seconds for heartbeat in master.streams[0].heartbeats]
            assert max(later - earlier for earlier, later in itertools.pairwise(times)) > 0.25
            assert len(master.streams) == 1

    run(test())


@pytest.mark.parametrize("mode", ["stall", "vanish", "flap"])
def test_stop_does_not_wait_for_failures_to_end(mode: str) -> None:
    async def test() -> None:
        failures = {mode: 2, "trouble_after_seconds": 0.05, "trouble_seconds": 600.0}
        async with scripted_master(serve) as master, fleet_at(master, 2, **failures) as fleet:
            await eventually(lambda: len(master.streams) == 2 and all(stream.messages for stream in master.streams))
            workers: Any = fleet._workers
            if mode == "stall":
                await eventually(lambda: all(worker._stalled_until for worker in workers))
            else:
                await eventually(lambda: all(worker._session is None for worker in workers))
            async with asyncio.timeout(30.0):
                await fleet.stop(60.0)
            goodbyes = [stream.messages[-1].HasField("goodbye") for stream in master.streams]
            assert goodbyes == ([True, True] if mode == "stall" else [False, False])
            assert len(master.streams) == 2

    run(test())


def test_stop_during_ramp_up() -> None:
    async def test() -> None:
        async with scripted_master(serve) as master:
            fleet = SimulatedFleet(SimulationConfig(master.target, 5, ramp_seconds=600.0), "1.0")
            fleet.start()
            await asyncio.sleep(0)
            async with asyncio.timeout(30.0):
                await fleet.stop(60.0)
            assert len(master.streams) < 5

    run(test())


def test_flapping_worker_adopts_its_containers() -> None:
    async def test() -> None:
        async with grpc_master() as master:
            config = SimulationConfig(
                master.target, 1, ramp_seconds=0.0, flap=1, trouble_after_seconds=0.3, trouble_seconds=0.02
            )
            fleet = SimulatedFleet(config, "1.0")
            fleet.start()
            await master.wait_for_registration()
            key = await master.start("busybox", "sh", "-c", "echo one; sleep 0.8; echo two; exit 4")
            end = await master.wait_for_end(key)
            assert (end.exit_code, master.logs[key]) == (4, b"one\ntwo\n")
            assert len(master.registers) >= 2
            assert len({register.incarnation_id for register in master.registers}) >= 2
            await fleet.stop(5.0)

    run(test())


def test_fleet_without_tasks() -> None:
    async def test() -> None:
        async with scripted_master(serve) as master, fleet_at(master, 1, runs_tasks=False):
            await eventually(lambda: master.streams and master.streams[0].heartbeats)
        assert not master.streams[0].messages[0].register.HasField("task_support")
        assert not master.streams[0].heartbeats[0].HasField("task_support")

    run(test())


@pytest.mark.parametrize(("streams", "connections"), [(1, 6), (2, 3), (4, 2), (1_000, 1)])
def test_workers_share_connections(streams: int, connections: int) -> None:
    async def test() -> None:
        async with scripted_master(serve) as master, fleet_at(master, 6, streams_per_connection=streams) as fleet:
            await eventually(lambda: fleet.status().connected == 6)
            assert len({stream.peer for stream in master.streams}) == connections
            assert SimulationConfig("m", 6, streams_per_connection=streams).connections == connections
            await fleet.stop(5.0)
            assert all(stream.messages[-1].HasField("goodbye") for stream in master.streams)

    run(test())


def test_workers_on_one_connection_return_after_its_end() -> None:
    async def serve_once(stream: ScriptedStream) -> None:
        await stream.register()
        await stream.receive_heartbeats(1)
        await stream.abort(grpc.StatusCode.UNAVAILABLE, "the master is stopping")

    async def test() -> None:
        behaviors = (serve_once,) * 4
        async with scripted_master(*behaviors, serve) as master, fleet_at(master, 4, streams_per_connection=4) as fleet:
            await eventually(lambda: len(master.streams) == 8 and fleet.status().connected == 4)

    run(test())


def test_status_tells_why_workers_wait() -> None:
    async def test() -> None:
        async with scripted_master(serve, serve, refuse) as master, fleet_at(master, 5) as fleet:
            waiting = (Waiting(3, "ALREADY_EXISTS", "another one is connected"),)
            await eventually(lambda: fleet.status().connected == 2 and fleet.status().waiting == waiting)

    run(test())


def test_status_tells_which_workers_are_cut_off_by_intent() -> None:
    async def test() -> None:
        failures = {"vanish": 1, "trouble_after_seconds": 0.05, "trouble_seconds": 0.01}
        async with scripted_master(serve) as master, fleet_at(master, 2, **failures) as fleet:
            await eventually(lambda: fleet.status().waiting == (Waiting(1, "cut off"),))

    run(test())


def test_reasons_are_grouped_by_code() -> None:
    refused = [Failure(grpc.StatusCode.UNAVAILABLE, f"connection refused, {number % 2}") for number in range(5)]
    late = Failure(grpc.StatusCode.DEADLINE_EXCEEDED, "x" * 1_000)
    assert group_waiting([None, "connecting", *refused, late, None, late]) == [
        Waiting(5, "UNAVAILABLE", "connection refused, 0"),
        Waiting(2, "DEADLINE_EXCEEDED", "x" * 160),
        Waiting(1, "connecting"),
    ]


@pytest.mark.parametrize(
    ("workers", "asked", "ramp"),
    [(1, None, 5.0), (2_000, None, 5.0), (10_000, None, 25.0), (10_000, 3.0, 3.0), (5_000, 0.0, 0.0)],
)
def test_ramp_grows_with_the_fleet_unless_it_is_given(workers: int, asked: float | None, ramp: float) -> None:
    assert SimulationConfig("m", workers, ramp_seconds=asked).ramp == ramp
