"""A campaign: a new fleet, rounds of faults under a stream of submits, then the final state."""

import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.chaos import history
from tests.chaos.fleet import ChaosFleet, ChaosWorker
from tests.chaos.history import Recorder, now
from tests.chaos.load import Load
from tests.chaos.observer import DockerObserver, RestObserver, remove_containers
from tests.chaos.plan import TIMEOUT_SECONDS, WORKERS, Kind, Round, rounds, submissions
from tests.chaos.proxy import Network
from tests.chaos.rest import RestClient
from tests.chaos.waiting import within
from tests.docker_engine import Engine
from tests.e2e.processes import Processes

SETTLE_SECONDS = 90.0
"""Longer than the longest task with its retries and their pauses."""

ORPHAN_SECONDS = 60.0
_LIVE = "queued,pending,running"

Log = Callable[[str], None]


class Campaign(NamedTuple):
    """A campaign to run."""

    name: str
    seed: int
    kinds: Sequence[Kind]
    rounds_of_each: int
    calm_after_seconds: float = 2.0
    """The pause after each round. Without it the workers' backoff would grow, because all their streams are short."""


class _Run:
    """A running campaign."""

    def __init__(
        self, fleet: ChaosFleet, load: Load, docker: DockerObserver, rest: RestObserver, recorder: Recorder, log: Log
    ) -> None:
        self._fleet = fleet
        self._load = load
        self._docker = docker
        self._rest = rest
        self._recorder = recorder
        self._log = log

    def run_rounds(self, planned: Sequence[Round], calm_after_seconds: float) -> None:
        """Runs all rounds."""
        for plan in planned:
            started_at = time.monotonic()
            self._rest.round = plan.number
            self._recorder.add(history.RoundStarted(now(), plan.number))
            time.sleep(plan.calm_seconds)
            victim = self._fleet.workers[plan.victim]
            running = list(self._docker.running.values())
            self._inject_fault(plan, victim)
            self._wait_for_recovery(plan)
            time.sleep(calm_after_seconds)
            ran = (
                f"{len(running)} containers ran, {running.count(victim.worker_id)} of them on worker {plan.victim + 1}"
            )
            took = f"{self._load.acknowledged} tasks so far, {time.monotonic() - started_at:.1f} s"
            self._log(f"round {plan.number}/{len(planned)} {describe(plan)}: {ran}; {took}")

    def _inject_fault(self, plan: Round, victim: ChaosWorker) -> None:
        fleet, number = self._fleet, plan.number
        match plan.kind:
            case Kind.MASTER:
                fleet.kill_master(number)
            case Kind.WORKER:
                fleet.kill_worker(number, victim)
                time.sleep(plan.outage_seconds)
                fleet.start_worker(number, victim)
            case Kind.BOTH:
                self._kill_both(plan, victim)
                time.sleep(plan.outage_seconds)
                fleet.start_worker(number, victim)
            case Kind.CUT:
                fleet.break_link(number, victim, stalls=plan.stalls)
                time.sleep(plan.outage_seconds)
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

    def _wait_for_recovery(self, plan: Round) -> None:
        if not self._fleet.wait_for_recovery():
            self._recorder.add(history.Anomaly(now(), f"the fleet did not recover from round {plan.number}"))

    def settle(self) -> None:
        """Stops the load and waits until every task and container has ended, or until the time is up."""
        self._load.stop()
        self._recorder.add(history.LoadStopped(now()))
        self._log("settling")
        within(SETTLE_SECONDS, lambda: not self._fleet.client.json("/api/tasks", status=_LIVE, limit=1))
        within(ORPHAN_SECONDS, lambda: not self._docker.list_containers())
        within(5.0, self._docker.has_seen_all_ends)

    def record_final_state(self, acknowledged: set[str]) -> None:
        """Records every task with its attempts, events and logs."""
        client = self._fleet.client
        for task_id in sorted(acknowledged | {task["task_id"] for task in client.all_tasks()}):
            answer = client.ask("GET", f"/api/tasks/{task_id}")
            if answer.status_code == 404:
                self._recorder.add(history.FinalTask(now(), task_id, None))
                continue
            answer.raise_for_status()
            task = answer.json()
            self._recorder.add(history.FinalTask(now(), task_id, task))
            for attempt in task["attempts"]:
                if (data := client.log(task_id, attempt["attempt"])) is not None:
                    self._recorder.add(history.final_log(now(), task_id, attempt["attempt"], data))
        for what, alive in (("Docker", self._docker.is_alive), ("REST", self._rest.is_alive)):
            if not alive:
                self._recorder.add(history.Anomaly(now(), f"the observer of {what} has ended"))
        for anomaly in self._fleet.anomalies():
            self._recorder.add(history.Anomaly(now(), anomaly))


def run_campaign(campaign: Campaign, engine: Engine, folder: Path, path: Path, log: Log) -> None:
    """Runs a campaign and records it in ``path``. The processes write to ``folder``."""
    prefix = f"chaos-{secrets.token_hex(3)}"
    worker_ids = [f"{prefix}-{number}" for number in range(1, WORKERS + 1)]
    planned = rounds(campaign.seed, campaign.kinds, campaign.rounds_of_each)
    processes = Processes(folder)
    with Recorder(path) as recorder, Network() as network:
        recorder.add(history.RunStarted(now(), campaign.name, campaign.seed, TIMEOUT_SECONDS, worker_ids))
        try:
            fleet = ChaosFleet(processes, network, recorder, engine.env)
            with DockerObserver(engine.host, worker_ids, recorder) as docker:
                fleet.start_workers(worker_ids)
                with (
                    RestObserver(fleet, RestClient(fleet.master.url), recorder) as rest,
                    Load(fleet.client, engine.image, submissions(campaign.seed), recorder) as load,
                ):
                    run = _Run(fleet, load, docker, rest, recorder, log)
                    run.run_rounds(planned, campaign.calm_after_seconds)
                    run.settle()
                    run.record_final_state(_acknowledged(path))
            recorder.add(history.RunEnded(now()))
        finally:
            processes.close()
            remove_containers(engine.host, worker_ids)


def describe(plan: Round) -> str:
    """Describes the fault of a round."""
    match plan.kind:
        case Kind.MASTER:
            return "kill -9 the master"
        case Kind.WORKER:
            return f"kill -9 worker {plan.victim + 1}"
        case Kind.BOTH:
            return f"kill -9 the master and worker {plan.victim + 1}"
        case Kind.CUT:
            return f"{'stall' if plan.stalls else 'cut'} worker {plan.victim + 1} for {plan.outage_seconds:.1f} s"


def _acknowledged(path: Path) -> set[str]:
    return {record.task_id for record in history.of_type(history.load(path), history.Acknowledged)}
