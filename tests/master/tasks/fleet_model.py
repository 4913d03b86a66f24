"""A fleet and its tasks, moved by the real transitions and the real scheduler; promises are checked at each step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fleetpulse.master.errors import StaleReport
from fleetpulse.master.tasks.placement import (
    RESERVE_AFTER_SECONDS,
    SECONDS_PER_PRIORITY_LEVEL,
    Offer,
    Plan,
    QueuedTask,
    ResourceAmounts,
    best_fit,
    satisfies,
)
from fleetpulse.master.tasks.records import Attempt, AttemptStatus, Outcome, Task, TaskStatus
from fleetpulse.master.tasks.registry import demand_of, queued
from fleetpulse.master.tasks.request import TaskRequest
from fleetpulse.master.tasks.transitions import (
    Change,
    Instruction,
    Report,
    cancelled,
    lost,
    placed,
    reported,
    submitted,
)

MIB = 1024**2
Key = tuple[str, int]


@dataclass
class ModelWorker:
    """What a worker has; CPU in thousandths of a core, to be counted exactly."""

    worker_id: str
    millicores: int
    memory_mib: int
    gpu_uuids: tuple[str, ...]
    labels: Mapping[str, str]
    is_there: bool = True
    is_drained: bool = False


@dataclass
class FleetModel:
    workers: dict[str, ModelWorker]
    now: float = 0.0
    tasks: dict[str, Task] = field(default_factory=dict)
    last_attempts: dict[str, Attempt] = field(default_factory=dict)
    """By task; one that has ended stays until the next begins, as a careless caller would keep it."""

    begun: dict[Key, str] = field(default_factory=dict)
    """Every attempt that there ever was, and its worker."""

    ended: dict[Key, AttemptStatus] = field(default_factory=dict)

    # What happens

    def submit(self, spec: TaskRequest) -> str:
        task_id = f"t{len(self.tasks):03}"
        self._apply(submitted(task_id, spec, self.now))
        return task_id

    def round(self) -> Plan:
        """Place what fits, and check what was decided against the rules."""
        offers = [self._offer(worker) for worker in self.workers.values()]
        waiting = [queued(task) for task in self.queued() if (task.not_before or 0.0) <= self.now]
        decided = best_fit(offers, waiting, self.now)
        for task_id, worker_id, gpu_uuids in decided.placements:
            worker = self.workers[worker_id]
            assert worker.is_there
            assert not worker.is_drained
            assert satisfies(self._offer(worker), self.tasks[task_id].request.constraints)
            assert len(gpu_uuids) == self.tasks[task_id].request.gpu_required
            change = placed(self.tasks[task_id], worker_id, gpu_uuids, self.now)
            assert change.instruction is Instruction.START
            self._apply(change)
        self.check_capacity()
        self._check_order(waiting, decided)
        self._check_nothing_is_left_that_fits(decided)
        return decided

    def report(self, key: Key, worker_id: str, status: AttemptStatus) -> None:
        """A worker speaks of an attempt. Unless that is its own and live, it must be told that it is stale."""
        task_id, number = key
        task, attempt = self.tasks[task_id], self.last_attempts.get(task_id)
        is_live = key in self.live() and self.begun[key] == worker_id
        try:
            change = reported(
                task, attempt, worker_id, Report(task_id, number, status, "c", _OUTCOMES[status]), self.now
            )
        except StaleReport:
            assert not is_live, "what is its own and live is no past"
            return
        assert is_live, "the past was taken for the present"
        if change is not None:
            self._apply(change)

    def cancel(self, task_id: str) -> None:
        change = cancelled(self.tasks[task_id], self.last_attempts.get(task_id), self.now)
        if change is None:
            return
        self._apply(change)
        is_live = (task_id, change.task.attempt) in self.live()
        assert (change.instruction is Instruction.STOP) == is_live
        assert change.task.status.is_terminal != is_live, "it is stopped, or it has ended at once"

    def lose(self, worker_id: str) -> None:
        self.workers[worker_id].is_there = False
        for task_id, number in self.live():
            if self.begun[task_id, number] == worker_id:
                self._apply(lost(self.tasks[task_id], self.last_attempts[task_id], "it is gone", self.now))

    # What is

    def queued(self) -> list[Task]:
        return [task for task in self.tasks.values() if task.status is TaskStatus.QUEUED]

    def unfinished(self) -> list[str]:
        return [task_id for task_id, task in self.tasks.items() if not task.status.is_terminal]

    def live(self) -> list[Key]:
        return [key for key in self.begun if key not in self.ended]

    def could_run(self, task: Task) -> bool:
        """Whether some worker would hold it, if it were idle and there."""
        return any(
            satisfies(self._offer(worker), task.request.constraints)
            and _millicores(task) <= worker.millicores
            and task.request.memory_required <= worker.memory_mib
            and task.request.gpu_required <= len(worker.gpu_uuids)
            for worker in self.workers.values()
        )

    # What must hold

    def check_capacity(self) -> None:
        for worker in self.workers.values():
            millicores, memory_mib, gpu_uuids = self._taken(worker.worker_id)
            assert millicores <= worker.millicores
            assert memory_mib <= worker.memory_mib
            assert len(gpu_uuids) == len(set(gpu_uuids)), "a GPU was given out twice"
            assert set(gpu_uuids) <= set(worker.gpu_uuids)

    def check_states(self) -> None:
        """A task's status and its live attempt tell the same story."""
        live = dict(self.live())
        assert len(live) == len(self.live()), "two live attempts of one task"
        for task_id, task in self.tasks.items():
            attempt = self.last_attempts.get(task_id)
            assert (task_id in live) == (task.status in {TaskStatus.PENDING, TaskStatus.RUNNING})
            assert task.retries_used <= task.request.max_retries
            assert (task.finished_at is not None) == task.status.is_terminal
            if task_id in live:
                assert attempt is not None
                assert live[task_id] == attempt.attempt == task.attempt
                assert (attempt.status is AttemptStatus.RUNNING) == (task.status is TaskStatus.RUNNING)

    def _apply(self, change: Change) -> None:
        """Take over the new state; what cannot be taken back is checked against the old one."""
        task, attempt = change.task, change.attempt
        before = self.tasks.get(task.task_id)
        assert before is None or not before.status.is_terminal, "a task that had ended has moved"
        self.tasks[task.task_id] = task
        assert change.events, "whatever happens to a task is told in its story"
        if attempt is None:
            return
        key = attempt.task_id, attempt.attempt
        if attempt.status is AttemptStatus.ASSIGNED and change.instruction is Instruction.START:
            assert key not in self.begun, "an attempt number was used twice"
            self.begun[key] = attempt.worker_id
        if attempt.status.is_terminal:
            assert key not in self.ended, "an attempt has ended twice"
            self.ended[key] = attempt.status
        self.last_attempts[task.task_id] = attempt

    def _check_order(self, waiting: Sequence[QueuedTask], decided: Plan) -> None:
        placed_on = {placement.task_id: placement.worker_id for placement in decided.placements}
        level = {task.task_id: self._effective_priority(task) for task in waiting}
        wanted = {task.task_id: (task.demand, tuple(sorted(task.constraints.items()))) for task in waiting}
        passed_over = [task.task_id for task in waiting if task.task_id not in placed_on]
        for first in placed_on:
            for second in passed_over:
                if wanted[first] == wanted[second]:
                    assert level[first] >= level[second] - 1e-6, "one that stands behind was placed instead"
        taking = [worker for worker in self.workers.values() if worker.is_there and not worker.is_drained]
        assert len(decided.reservations) <= max(len(taking) // 2, 1)
        for worker_id, keeper in decided.reservations.items():
            assert self.now - self.tasks[keeper].created_at >= RESERVE_AFTER_SECONDS
            assert keeper in passed_over
            on_it = [task_id for task_id, where in placed_on.items() if where == worker_id]
            assert all(level[task_id] >= level[keeper] - 1e-6 for task_id in on_it), "placed on what is reserved"

    def _check_nothing_is_left_that_fits(self, decided: Plan) -> None:
        for task in self.queued():
            if (task.not_before or 0.0) > self.now:
                continue
            for worker in self.workers.values():
                offer = self._offer(worker)
                if offer.refusal is not None or worker.worker_id in decided.reservations:
                    continue
                millicores, memory_mib, gpu_uuids = self._taken(worker.worker_id)
                assert not (
                    satisfies(offer, task.request.constraints)
                    and millicores + _millicores(task) <= worker.millicores
                    and memory_mib + task.request.memory_required <= worker.memory_mib
                    and len(gpu_uuids) + task.request.gpu_required <= len(worker.gpu_uuids)
                ), f"{task.task_id} would fit on {worker.worker_id}"

    def _effective_priority(self, task: QueuedTask) -> float:
        return task.priority + (self.now - task.queued_at) / SECONDS_PER_PRIORITY_LEVEL

    def _taken(self, worker_id: str) -> tuple[int, int, list[str]]:
        attempts = [self.last_attempts[key[0]] for key in self.live() if self.begun[key] == worker_id]
        tasks = [self.tasks[attempt.task_id] for attempt in attempts]
        return (
            sum(_millicores(task) for task in tasks),
            sum(task.request.memory_required for task in tasks),
            [uuid for attempt in attempts for uuid in attempt.gpu_uuids],
        )

    def _offer(self, worker: ModelWorker) -> Offer:
        total = ResourceAmounts(worker.millicores, worker.memory_mib * MIB, len(worker.gpu_uuids))
        free = total
        for key in self.live():
            if self.begun[key] == worker.worker_id:
                free = free.minus(demand_of(self.tasks[key[0]]))
        _, _, gpu_uuids = self._taken(worker.worker_id)
        return Offer(
            worker.worker_id,
            worker.labels,
            total,
            free,
            worker.gpu_uuids,
            tuple(uuid for uuid in worker.gpu_uuids if uuid not in gpu_uuids),
            None if worker.is_there and not worker.is_drained else "it takes none now",
        )


_OUTCOMES = {
    AttemptStatus.PREPARING: Outcome(),
    AttemptStatus.RUNNING: Outcome(),
    AttemptStatus.COMPLETED: Outcome(exit_code=0),
    AttemptStatus.FAILED: Outcome(exit_code=1, reason="exit_code"),
    AttemptStatus.STOPPED: Outcome(exit_code=137, reason="stopped"),
}


def _millicores(task: Task) -> int:
    return round(task.request.cpu_required * 1000)
