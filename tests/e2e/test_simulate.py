"""``fleetpulse simulate`` with its options, seen from the master."""

import json
import signal
from typing import Any

import pytest

from tests.e2e.masters import Master
from tests.e2e.processes import FLEETPULSE, Processes, RunningProcess
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST, free_port

pytestmark = pytest.mark.e2e

FAIL_SOON = ("--trouble-after", "0.5")
FAIL_LONG = ("--trouble-for", "600")


def states(fleet: RunningProcess) -> list[dict[str, Any]]:
    """The status lines of the simulation."""
    return [json.loads(line) for line in fleet.out.splitlines()]


def sessions(master: Master) -> float:
    return master.sample("fleetpulse_worker_sessions")


def goodbyes(master: Master) -> int:
    return len(master.log_lines("said goodbye: 'the simulation ends'"))


def test_simulation_ends_after_its_duration(processes: Processes, master: Master) -> None:
    fleet = processes.simulate(master.target, 10, "--duration", "3")
    eventually(lambda: master.active() == 10)
    assert fleet.wait() == 0
    assert master.workers() == {}
    assert goodbyes(master) == 10
    first, *_, last = states(fleet)
    assert first.keys() == last.keys() == {"time", "workers", "connected", "heartbeats_sent"}
    assert (last["workers"], last["connected"]) == (10, 10)
    assert last["time"] - first["time"] == pytest.approx(3.0, abs=1.5)
    accepted = master.sample("fleetpulse_heartbeats_received_total")
    assert accepted == last["heartbeats_sent"] >= 40
    assert fleet.err == ""


def test_status_line_without_json(processes: Processes, master: Master) -> None:
    ended = processes.run(
        FLEETPULSE, "simulate", "--master", master.target, "--workers", "3", "--ramp", "0", "--duration", "1.5"
    )
    assert (ended.code, ended.out) == (0, "")
    assert "3 of 3 workers connected, " in ended.err


def test_fleet_that_leaves_without_a_goodbye_becomes_inactive(processes: Processes, master: Master) -> None:
    fleet = processes.simulate(master.target, 5, "--no-goodbye", "--prefix", "gone", "--gpu-share", "1", "--gpus", "3")
    eventually(lambda: len(master.samples("fleetpulse_worker_gpu_power_watts")) == 15)
    fleet.send(signal.SIGTERM)
    assert fleet.wait() == 0
    assert master.workers() == {f"gone-{number}": True for number in range(1, 6)}
    eventually(lambda: master.active() == 0)
    assert len(master.workers()) == 5
    assert master.samples("fleetpulse_worker_gpu_power_watts") == {}
    assert goodbyes(master) == 0


def test_stalling_workers_keep_their_stream_and_recover(processes: Processes, master: Master) -> None:
    processes.simulate(master.target, 4, "--stall", "2", *FAIL_SOON, "--trouble-for", "4")
    eventually(lambda: master.active() == 4)
    eventually(lambda: master.workers() == {"sim-1": False, "sim-2": False, "sim-3": True, "sim-4": True})
    assert sessions(master) == 4
    eventually(lambda: master.active() == 4)
    assert sessions(master) == 4
    assert not master.log_lines("a new incarnation took over")


def test_vanished_workers_stay_away(processes: Processes, master: Master) -> None:
    fleet = processes.simulate(master.target, 4, "--vanish", "2", *FAIL_SOON, "--trouble-for", "0.1")
    eventually(lambda: sessions(master) == 4)
    eventually(lambda: sessions(master) == 2)
    eventually(lambda: master.workers() == {"sim-1": False, "sim-2": False, "sim-3": True, "sim-4": True})
    eventually(lambda: states(fleet)[-1]["connected"] == 2)
    assert not master.log_lines("a new incarnation took over|said goodbye")


def test_flapping_workers_return_as_new_incarnations(processes: Processes, master: Master) -> None:
    processes.simulate(master.target, 3, "--flap", "1", *FAIL_SOON, "--trouble-for", "0.5")
    eventually(lambda: len(master.log_lines("sim-1: a new incarnation took over")) >= 2)
    assert not master.log_lines("sim-[23]: a new incarnation|is taken|said goodbye")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_connected_workers_say_goodbye_on_a_signal(
    number: signal.Signals, processes: Processes, master: Master
) -> None:
    fleet = processes.simulate(
        master.target, 10, "--stall", "3", "--vanish", "2", "--flap", "2", *FAIL_SOON, *FAIL_LONG
    )
    eventually(lambda: master.active() == 10)
    eventually(lambda: master.active() == 3 and sessions(master) == 6)
    fleet.send(number)
    assert fleet.wait() == 0
    assert goodbyes(master) == 6
    # The vanished and flapping workers had no stream for a goodbye, and did not return meanwhile.
    assert master.workers() == {f"sim-{number:02d}": False for number in range(4, 8)}


def test_simulation_waits_for_a_master_and_ends_on_sigterm(processes: Processes) -> None:
    fleet = processes.simulate(f"{LOCALHOST}:{free_port()}", 3)
    eventually(lambda: states(fleet))
    assert states(fleet)[0]["connected"] == 0
    fleet.send(signal.SIGTERM)
    assert fleet.wait() == 0
    assert fleet.err == ""
