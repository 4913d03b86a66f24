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
    assert first.keys() == last.keys() == {"time", "workers", "connected", "heartbeats_sent", "waiting"}
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
    eventually(lambda: [group["reason"] for group in states(fleet)[-1]["waiting"]] == ["UNAVAILABLE"])
    (group,) = states(fleet)[-1]["waiting"]
    assert group["workers"] == 3
    assert "Connection refused" in group["details"]
    fleet.send(signal.SIGTERM)
    assert fleet.wait() == 0
    assert fleet.err == ""


def test_machines_for_which_agents_report_live_and_leave_like_others(processes: Processes, master: Master) -> None:
    fleet = processes.simulate(master.target, 25, "--batch", "10")
    eventually(lambda: master.active() == 25 and states(fleet)[-1]["connected"] == 25)
    assert len(master.samples("fleetpulse_worker_up")) == 25
    eventually(lambda: states(fleet)[-1]["heartbeats_sent"] >= 100)
    fleet.send(signal.SIGTERM)
    assert fleet.wait() == 0
    assert master.workers() == {}
    sent = states(fleet)[-1]["heartbeats_sent"]
    assert master.sample("fleetpulse_heartbeats_received_total") == sent
    assert fleet.err == ""


@pytest.mark.parametrize("trouble", ["--stall", "--vanish", "--flap"])
def test_machines_in_a_batch_have_no_trouble_of_their_own(trouble: str, processes: Processes) -> None:
    ended = processes.run(FLEETPULSE, "simulate", "--workers", "5", "--batch", "5", trouble, "1")
    assert ended.code == 2
    assert "--batch: --stall, --vanish and --flap need machines with a stream of their own" in ended.err


def limited(soft: int, hard: int, *command: str) -> tuple[str, ...]:
    """The command with these limits of open files."""
    return ("sh", "-c", f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"', "sh", *command)


def test_simulation_raises_its_limit_of_open_files(processes: Processes, master: Master) -> None:
    command = (FLEETPULSE, "simulate", "--master", master.target, "--workers", "150", "--ramp", "0", "--json")
    fleet = processes.start("simulate", *limited(100, 400, *command))
    eventually(lambda: master.active() == 150)
    fleet.send(signal.SIGTERM)
    assert (fleet.wait(), fleet.err) == (0, "")


def test_simulation_that_may_not_open_enough_files_says_so_and_does_not_start(processes: Processes) -> None:
    command = (FLEETPULSE, "simulate", "--master", f"{LOCALHOST}:{free_port()}", "--workers", "1000")
    ended = processes.run(*limited(100, 400, *command))
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == (
        "Error: 1000 connections need 1200 open files, and this process may open 400 at most: raise that limit"
        " (ulimit -Hn 1200), or share connections with --streams-per-connection\n"
    )
    shared = processes.run(*limited(100, 400, *command, "--streams-per-connection", "10", "--duration", "0.2"))
    assert shared.code == 0
