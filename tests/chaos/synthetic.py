"""Synthetic histories without violations, for the tests of the checker."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from tests.chaos import history
from tests.chaos.jobs import Job, output

TIMEOUT_SECONDS = 3.0
WORKERS = ["worker-1", "worker-2"]
EPOCH = 1_700_000_000.0


class Run(NamedTuple):
    """One attempt: its end, and the run time of its container."""

    status: str
    seconds: float = 1.0
    worker_id: str = WORKERS[0]


class SyntheticHistory:
    """Builds a history task by task, with the faults that explain each end."""

    def __init__(self, seed: int = 1) -> None:
        self.time = EPOCH
        self.records: list[history.Record] = [history.RunStarted(EPOCH, "cut", seed, TIMEOUT_SECONDS, WORKERS)]
        self._round = 0
        self._task = 0
        self._containers = 0

    def add(self, *records: history.Record) -> None:
        self.records.extend(records)

    def advance(self, seconds: float) -> float:
        self.time += seconds
        return self.time

    def quiet_round(self, files: int = 20) -> None:
        """A round without a fault."""
        self._round += 1
        self.add(
            history.RoundStarted(self.advance(0.1), self._round),
            history.WorkerListing(self.advance(0.1), dict.fromkeys(WORKERS, True)),
            history.OpenFiles(self.time, self._round, "master", 4711, files + 5),
            history.OpenFiles(self.time, self._round, "master", 4711, files),
        )

    def task(self, job: Job, *runs: Run, cancelled: bool = False, acknowledged: bool = True) -> str:
        """A task from submit to end. Each run but the last is followed by another attempt."""
        self._task += 1
        task_id = f"task-{self._task}"
        self.add(history.SubmitSent(self.advance(0.1), job._asdict()))
        if acknowledged:
            self.add(history.Acknowledged(self.advance(0.01), job.key, task_id))
        task: dict[str, Any] = {"task_id": task_id, "name": job.key, "status": "queued", "exit_code": None}
        task |= {"attempts": [], "events": [_event(self.time, "submitted")]}
        self._observe(task, 0, "queued")
        lost_on = set()
        for number, run in enumerate(runs, start=1):
            if run.worker_id in lost_on:
                self.advance(10.0)  # until it is back
            if run.status == "lost":
                lost_on.add(run.worker_id)
            if run.status == "stopped":
                self.add(history.CancelSent(self.time, task_id))
            self._attempt(task, job, number, run)
        if cancelled:
            self.add(history.CancelSent(self.time, task_id), history.CancelAccepted(self.time, task_id))
        task["status"] = _end_of(runs, cancelled=cancelled)
        task["exit_code"] = task["attempts"][-1]["exit_code"] if runs else None
        if not runs or runs[-1].status != task["status"]:
            task["events"].append(_event(self.time, task["status"]))
        self._observe(task, len(runs), task["status"])
        self.add(history.FinalTask(EPOCH + 10_000, task_id, task))
        return task_id

    def _attempt(self, task: dict[str, Any], job: Job, number: int, run: Run) -> None:
        attempt: dict[str, Any] = {"attempt": number, "worker_id": run.worker_id, "status": run.status}
        attempt |= {"assigned_at": self.advance(0.01), "container_id": self._container_id(), "exit_code": None}
        task["attempts"].append(attempt)
        self._observe(task, number, "pending")
        self._container(task, attempt, "start", self.advance(0.2))
        attempt["running_at"] = self.advance(0.01)
        self._observe(task, number, "running")
        exit_code = {"completed": 0, "failed": job.exit_code}.get(run.status, 143)
        if run.status == "lost":
            self._lose_worker(task, attempt)
        else:
            self._container(task, attempt, "die", self.advance(run.seconds), exit_code)
            attempt["exit_code"] = exit_code
        attempt["finished_at"] = self.advance(0.01)
        attempt["error"] = "nothing was heard of it in time" if run.status == "lost" else None
        attempt["reason"] = {"lost": "worker_lost", "failed": "exit_code", "stopped": "stopped"}.get(run.status)
        task["events"].append(_event(self.time, run.status, number))
        whole = output(job)
        data = whole if run.status in {"completed", "failed"} else whole[: len(whole) // 2]
        self.add(history.final_log(EPOCH + 10_000, task["task_id"], number, data))

    def _lose_worker(self, task: dict[str, Any], attempt: dict[str, Any]) -> None:
        """The worker is cut off until the attempt is lost, then comes back and stops the container."""
        worker_id = attempt["worker_id"]
        self._round += 1
        self.add(
            history.RoundStarted(self.advance(0.1), self._round),
            history.Fault(self.advance(0.1), self._round, "cut", worker_id),
            history.WorkerListing(self.advance(TIMEOUT_SECONDS), dict.fromkeys(WORKERS, True) | {worker_id: False}),
        )
        back_at = self.time + 2.0
        self.add(
            history.Fault(back_at - 0.5, self._round, "heal", worker_id),
            *(history.WorkerListing(back_at + second, dict.fromkeys(WORKERS, True)) for second in range(20)),
        )
        self._container(task, attempt, "die", back_at + 0.3, 137)

    def _observe(self, task: dict[str, Any], number: int, status: str) -> None:
        newest = task["attempts"][-1] if task["attempts"] else {}
        seen = {"task_id": task["task_id"], "status": status, "attempt": number, "exit_code": task["exit_code"]}
        seen |= {"worker_id": newest.get("worker_id"), "container_id": newest.get("container_id")}
        self.add(history.TaskObserved(self.time, seen))

    def _container(
        self, task: dict[str, Any], attempt: dict[str, Any], action: str, at: float, exit_code: int | None = None
    ) -> None:
        labels = (attempt["container_id"], task["task_id"], attempt["attempt"], attempt["worker_id"])
        self.add(history.ContainerEvent(at, *labels, action, exit_code))

    def _container_id(self) -> str:
        self._containers += 1
        return f"{self._containers:064x}"

    def finished(self) -> list[history.Record]:
        """Returns the history, with an empty final listing."""
        self.add(
            history.LoadStopped(EPOCH + 9_000),
            history.ContainerListing(EPOCH + 9_999, {}),
            history.RunEnded(EPOCH + 10_001),
        )
        return self.records


def clean_history() -> list[history.Record]:
    """A history with each kind of end, a retry, a lost attempt that moves to another worker, and a cancel."""
    result = SyntheticHistory()
    result.quiet_round()
    result.task(Job("good", lines=3), Run("completed"))
    result.task(Job("bad", exit_code=3, max_retries=1), Run("failed"), Run("failed"))
    result.task(Job("moved", max_retries=1), Run("lost"), Run("completed", worker_id=WORKERS[1]))
    result.advance(30.0)  # the cut worker is back
    result.task(Job("stopped"), Run("stopped"), cancelled=True)
    result.task(Job("never-begun"), cancelled=True)
    result.task(Job("no-answer"), Run("completed"), acknowledged=False)
    result.add(history.SubmitSent(result.advance(0.1), Job("never-arrived")._asdict()))
    for _ in range(20):
        result.quiet_round()
    return result.finished()


def _end_of(runs: Sequence[Run], *, cancelled: bool) -> str:
    last = runs[-1].status if runs else ""
    if last == "completed":
        return "completed"
    return "cancelled" if cancelled else "failed"


def _event(at: float, kind: str, attempt: int = 0) -> dict[str, Any]:
    return {"time": at, "kind": kind, "message": "", "attempt": attempt}
