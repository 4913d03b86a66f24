"""worker.simulation.site, on a loop with a scripted master; tests/e2e/test_simulate.py has a real one."""

from collections import Counter
from collections.abc import Awaitable, Callable

import grpc

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import MAX_MESSAGE_BYTES, MAX_REPORT_ENTRIES
from fleetpulse.worker.simulation.fleet import SimulatedFleet, SimulationConfig
from fleetpulse.worker.simulation.status import Waiting
from tests.worker.scripted import ScriptedMaster, ScriptedStream, eventually, run, scripted_master

Refuse = Callable[[pb.Report], list[pb.Refusal]]


def take_reports(
    refuse: Refuse = lambda _: [], interval_seconds: float = 0.05
) -> Callable[[ScriptedStream], Awaitable[None]]:
    """A master that answers every report, and refuses what it is told to."""

    async def serve(stream: ScriptedStream) -> None:
        while (message := await stream.receive()) is not None:
            if message.HasField("report"):
                answer = pb.ReportAnswer(
                    heartbeat_interval_seconds=interval_seconds, inactivity_timeout_seconds=30.0,
                    refused=refuse(message.report),
                )  # fmt: skip
                await stream.send(pb.MasterMessage(report_answer=answer))

    return serve


def reports_of(stream: ScriptedStream) -> list[pb.Report]:
    return [message.report for message in stream.messages if message.HasField("report")]


def site_of(master: ScriptedMaster, workers: int, batch: int, custom_samples: int = 0) -> SimulatedFleet:
    config = SimulationConfig(
        master.target, workers, ramp_seconds=0.0, batch=batch, gpus_per_machine=16, custom_samples=custom_samples
    )
    fleet = SimulatedFleet(config, "1.0")
    fleet.start()
    return fleet


def test_every_machine_is_registered_once_and_beats_by_itself() -> None:
    async def test() -> None:
        async with scripted_master(take_reports()) as master:
            fleet = site_of(master, 250, 100)
            await eventually(lambda: fleet.status().connected == 250 and fleet.status().heartbeats_sent >= 1_000)
            await fleet.stop(5.0)
            assert fleet.status().connected == 0
        assert len(master.streams) == 3
        assert all(stream.messages[-1].goodbye.reason == "the simulation ends" for stream in master.streams)
        reports = [report for stream in master.streams for report in reports_of(stream)]
        registered = Counter(register.worker_id for report in reports for register in report.registrations)
        assert registered == Counter(SimulationConfig("m", 250).worker_ids())
        incarnations = {r.worker_id: r.incarnation_id for report in reports for r in report.registrations}
        numbers: dict[str, list[int]] = {}
        for heartbeat in (heartbeat for report in reports for heartbeat in report.heartbeats):
            assert heartbeat.incarnation_id == incarnations[heartbeat.worker_id]
            numbers.setdefault(heartbeat.worker_id, []).append(heartbeat.sequence_number)
        assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())
        assert sum(map(len, numbers.values())) == fleet.status().heartbeats_sent

    run(test())


def test_report_stays_within_the_limits_of_the_contract() -> None:
    async def test() -> None:
        async with scripted_master(take_reports()) as master:
            fleet = site_of(master, 200, 200, custom_samples=256)
            await eventually(lambda: fleet.status().connected == 200)
            fleet.cut_off()
        for message in master.streams[0].messages:
            assert len(message.report.registrations) + len(message.report.heartbeats) <= MAX_REPORT_ENTRIES
            assert message.ByteSize() <= MAX_MESSAGE_BYTES

    run(test())


def test_refused_machine_waits_alone_and_is_registered_again() -> None:
    refusals = 0

    def refuse(report: pb.Report) -> list[pb.Refusal]:
        nonlocal refusals
        if refusals == 3 or all(register.worker_id != "sim-2" for register in report.registrations):
            return []
        refusals += 1
        return [
            pb.Refusal(worker_id="sim-2", code="ALREADY_EXISTS", message="another one beats"),
            pb.Refusal(worker_id="sim-2", code="NOT_FOUND", message="register it first"),
        ]

    async def test() -> None:
        async with scripted_master(take_reports(refuse, 0.3)) as master:
            fleet = site_of(master, 5, 5)
            waiting = (Waiting(1, "ALREADY_EXISTS", "another one beats"),)
            await eventually(lambda: fleet.status().connected == 4 and fleet.status().waiting == waiting)
            await eventually(lambda: fleet.status().connected == 5)
            assert refusals == 3
            await fleet.stop(5.0)

    run(test())


def test_code_that_grpc_does_not_know_is_shown_as_unknown() -> None:
    async def test() -> None:
        def refuse(_: pb.Report) -> list[pb.Refusal]:
            return [pb.Refusal(worker_id="sim-1", code="TOO_ODD", message="odd")]

        async with scripted_master(take_reports(refuse)) as master:
            fleet = site_of(master, 2, 2)
            await eventually(lambda: fleet.status().waiting == (Waiting(1, "UNKNOWN", "odd"),))
            fleet.cut_off()

    run(test())


def test_site_returns_with_all_machines_after_its_stream_has_ended() -> None:
    async def end_soon(stream: ScriptedStream) -> None:
        await stream.receive()
        await stream.abort(grpc.StatusCode.UNAVAILABLE, "the master is stopping")

    async def test() -> None:
        async with scripted_master(end_soon, take_reports()) as master:
            fleet = site_of(master, 5, 5)
            await eventually(lambda: fleet.status().connected == 5)
            assert len(reports_of(master.streams[1])[0].registrations) == 5
            await fleet.stop(5.0)

    run(test())
