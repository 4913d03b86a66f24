"""A campaign: a fresh fleet, rounds of faults under a stream of submits, rest, and the last look."""

import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.chaos import history
from tests.chaos.door import Door
from tests.chaos.fleet import ChaosFleet, ChaosWorker
from tests.chaos.history import Recorder, now
from tests.chaos.load import Load
from tests.chaos.observer import DockerObserver, RestObserver, clear_away
from tests.chaos.plan import TIMEOUT_SECONDS, WORKERS, Kind, Round, rounds, submissions
from tests.chaos.proxy import Network
from tests.chaos.waiting import within
from tests.docker_engine import Engine
from tests.e2e.processes import Processes

SETTLE_SECONDS = 90.0
"""The longest task, its retries and their pauses take less."""

ORPHAN_SECONDS = 60.0
_LIVE = "queued,pending,running"

Say = Callable[[str], None]


class Campaign(NamedTuple):
    """What is to be run."""

    name: str
    seed: int
    kinds: Sequence[Kind]
    rounds_of_each: int
    calm_after_seconds: float = 2.0
    """After each round. With streams that are always short the workers would wait longer and longer before each try."""


class _Run:
    """One campaign under way."""

    def __init__(
        self, fleet: ChaosFleet, load: Load, docker: DockerObserver, rest: RestObserver, recorder: Recorder, say: Say
    ) -> None:
        self._fleet = fleet
        self._load = load
        self._docker = docker
        self._rest = rest
        self._recorder = recorder
        self._say = say

    def play(self, planned: Sequence[Round], calm_after_seconds: float) -> None:
        """All rounds, one after the other."""
        for plan in planned:
            began = time.monotonic()
            self._rest.round = plan.number
            self._recorder.add(history.RoundBegan(now(), plan.number))
            time.sleep(plan.calm)
            victim = self._fleet.workers[plan.victim]
            running = list(self._docker.running.values())
            self._break_and_mend(plan, victim)
            self._wait_until_back(plan)
            time.sleep(calm_after_seconds)
            ran = (
                f"{len(running)} containers ran, {running.count(victim.worker_id)} of them on worker {plan.victim + 1}"
            )
            took = f"{self._load.acknowledged} tasks so far, {time.monotonic() - began:.1f} s"
            self._say(f"round {plan.number}/{len(planned)} {words_of(plan)}: {ran}; {took}")

    def _break_and_mend(self, plan: Round, victim: ChaosWorker) -> None:
        fleet, number = self._fleet, plan.number
        match plan.kind:
            case Kind.MASTER:
                fleet.kill_master(number)
            case Kind.WORKER:
                fleet.kill_worker(number, victim)
                time.sleep(plan.absence)
                fleet.start_worker(number, victim)
            case Kind.BOTH:
                self._kill_both(plan, victim)
                time.sleep(plan.absence)
                fleet.start_worker(number, victim)
            case Kind.CUT:
                fleet.break_link(number, victim, stalls=plan.stalls)
                time.sleep(plan.absence)
                fleet.heal_link(number, victim)

    def _kill_both(self, plan: Round, victim: ChaosWorker) -> None:
        kills = [
            lambda: self._fleet.kill_master(plan.number),
            lambda: self._fleet.kill_worker(plan.number, victim),
        ]
        if plan.gap < 0:
            kills.reverse()
        kills[0]()
        time.sleep(abs(plan.gap))
        kills[1]()

    def _wait_until_back(self, plan: Round) -> None:
        if not self._fleet.is_back_in_time():
            self._recorder.add(history.Trouble(now(), f"the fleet did not recover from round {plan.number}"))

    def settle(self) -> None:
        """No more faults and no more submits: wait until everything has ended, or for so long that it never will."""
        self._load.stop()
        self._recorder.add(history.Settled(now()))
        self._say("settling")
        within(SETTLE_SECONDS, lambda: not self._fleet.door.json("/api/tasks", status=_LIVE, limit=1))
        within(ORPHAN_SECONDS, lambda: not self._docker.look())
        within(5.0, self._docker.has_seen_the_end)

    def look_at_everything(self, acknowledged: set[str]) -> None:
        """Every task with its attempts, its events and its logs."""
        door = self._fleet.door
        for task_id in sorted(acknowledged | {task["task_id"] for task in door.all_tasks()}):
            answer = door.ask("GET", f"/api/tasks/{task_id}")
            if answer.status_code == 404:
                self._recorder.add(history.TaskFound(now(), task_id, None))
                continue
            answer.raise_for_status()
            task = answer.json()
            self._recorder.add(history.TaskFound(now(), task_id, task))
            for attempt in task["attempts"]:
                if (data := door.log(task_id, attempt["attempt"])) is not None:
                    self._recorder.add(history.log_found(now(), task_id, attempt["attempt"], data))
        for what, looks in (("Docker", self._docker.is_looking), ("REST", self._rest.is_looking)):
            if not looks:
                self._recorder.add(history.Trouble(now(), f"the observer of {what} has ended"))
        for trouble in self._fleet.troubles():
            self._recorder.add(history.Trouble(now(), trouble))


def run_campaign(campaign: Campaign, engine: Engine, folder: Path, path: Path, say: Say) -> None:
    """Run it to its end, and record it in ``path``. What processes write goes to ``folder``."""
    prefix = f"chaos-{secrets.token_hex(3)}"
    worker_ids = [f"{prefix}-{number}" for number in range(1, WORKERS + 1)]
    planned = rounds(campaign.seed, campaign.kinds, campaign.rounds_of_each)
    processes = Processes(folder)
    with Recorder(path) as recorder, Network() as network:
        recorder.add(history.Began(now(), campaign.name, campaign.seed, TIMEOUT_SECONDS, worker_ids))
        try:
            fleet = ChaosFleet(processes, network, recorder, engine.env)
            with DockerObserver(engine.host, worker_ids, recorder) as docker:
                fleet.start_workers(worker_ids)
                with (
                    RestObserver(fleet, Door(fleet.master.url), recorder) as rest,
                    Load(fleet.door, engine.image, submissions(campaign.seed), recorder) as load,
                ):
                    run = _Run(fleet, load, docker, rest, recorder, say)
                    run.play(planned, campaign.calm_after_seconds)
                    run.settle()
                    run.look_at_everything(_acknowledged(path))
            recorder.add(history.Ended(now()))
        finally:
            processes.close()
            clear_away(engine.host, worker_ids)


def words_of(plan: Round) -> str:
    """What is broken in a round, for people."""
    match plan.kind:
        case Kind.MASTER:
            return "kill -9 the master"
        case Kind.WORKER:
            return f"kill -9 worker {plan.victim + 1}"
        case Kind.BOTH:
            return f"kill -9 the master and worker {plan.victim + 1}"
        case Kind.CUT:
            return f"{'stall' if plan.stalls else 'cut'} worker {plan.victim + 1} for {plan.absence:.1f} s"


def _acknowledged(path: Path) -> set[str]:
    return {record.task_id for record in history.of_type(history.load(path), history.Acknowledged)}
