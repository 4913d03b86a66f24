"""master.tasks.transitions and master.tasks.scheduler together, in whatever order things happen to a fleet"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fleetpulse.master.tasks.records import AttemptStatus
from fleetpulse.master.tasks.request import TaskRequest
from tests.master.requests import task_request
from tests.master.tasks.fleet_model import FleetModel, ModelWorker

SAID = st.sampled_from(
    [
        AttemptStatus.PREPARING,
        AttemptStatus.RUNNING,
        AttemptStatus.COMPLETED,
        AttemptStatus.FAILED,
        AttemptStatus.STOPPED,
    ]
)
WORKERS = st.lists(
    st.tuples(
        st.sampled_from([500, 1000, 2000, 3300]),
        st.integers(1, 4),
        st.integers(0, 3),
        st.sampled_from(["eu", "us", None]),
    ),
    min_size=1,
    max_size=4,
)
SPECS = st.builds(
    TaskRequest,
    docker_image=st.just("busybox"),
    # Tenths, whose sums drift, and whole cores; few values, so that many tasks ask for the same.
    cpu_required=st.sampled_from([0.1, 0.1, 0.3, 0.7, 1.0, 2.0, 3.0]),
    memory_required=st.sampled_from([64, 64, 512, 1024, 2048]),
    gpu_required=st.sampled_from([0, 0, 0, 1, 2]),
    max_retries=st.integers(0, 2),
    constraints=st.sampled_from(
        [
            {},
            {},
            {},
            {"zone": ("eu",)},
            {"zone": ("eu", "us"), "worker_id": ("w0", "w1")},
            {"worker_id": ("w0",)},
        ]
    ),
)


class Life(RuleBasedStateMachine):
    """What people, workers and time do to a fleet."""

    model: FleetModel

    @initialize(workers=WORKERS)
    def a_fleet(self, workers: list[tuple[int, int, int, str | None]]) -> None:
        self.model = FleetModel(
            {
                f"w{number}": ModelWorker(
                    f"w{number}",
                    millicores,
                    memory_gib * 1024,
                    tuple(f"g{number}-{gpu}" for gpu in range(gpus)),
                    {} if zone is None else {"zone": zone},
                )
                for number, (millicores, memory_gib, gpus, zone) in enumerate(workers)
            }
        )

    @rule(spec=SPECS, priorities=st.lists(st.integers(0, 3), min_size=1, max_size=6), place=st.booleans())
    def submit(self, spec: TaskRequest, priorities: list[int], place: bool) -> None:
        """Several that ask for the same, as most do."""
        for priority in priorities:
            self.model.submit(spec.model_copy(update={"priority": priority}))
        if place:
            self.model.round()

    @rule()
    def place(self) -> None:
        self.model.round()

    @rule(seconds=st.sampled_from([0.5, 1.0, 10.0, 31.0, 61.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.model.now += seconds

    @precondition(lambda self: self.model.live())
    @rule(data=st.data(), status=SAID)
    def report(self, data: st.DataObject, status: AttemptStatus) -> None:
        key = data.draw(st.sampled_from(self.model.live()))
        self.model.report(key, self.model.begun[key], status)

    @precondition(lambda self: self.model.begun)
    @rule(data=st.data(), status=SAID)
    def report_of_any_time(self, data: st.DataObject, status: AttemptStatus) -> None:
        """A worker that was away, or a message that was sent twice."""
        key = data.draw(st.sampled_from(sorted(self.model.begun)))
        self.model.report(key, self.model.begun[key], status)

    @precondition(lambda self: self.model.live() and len(self.model.workers) > 1)
    @rule(data=st.data(), status=SAID)
    def report_of_another(self, data: st.DataObject, status: AttemptStatus) -> None:
        """A worker speaks of what was given to another one."""
        key = data.draw(st.sampled_from(self.model.live()))
        others = sorted(set(self.model.workers) - {self.model.begun[key]})
        self.model.report(key, data.draw(st.sampled_from(others)), status)

    @precondition(lambda self: self.model.live())
    @rule(data=st.data(), cancel=st.booleans())
    def fail(self, data: st.DataObject, cancel: bool) -> None:
        """What fails may be retried, and cancelled before it is."""
        key = data.draw(st.sampled_from(self.model.live()))
        self.model.report(key, self.model.begun[key], AttemptStatus.FAILED)
        if cancel and key[0] in self.model.unfinished():
            self.model.cancel(key[0])

    @precondition(lambda self: self.model.unfinished())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.model.cancel(data.draw(st.sampled_from(self.model.unfinished())))

    @rule(data=st.data())
    def lose_a_worker(self, data: st.DataObject) -> None:
        self.model.lose(data.draw(st.sampled_from(sorted(self.model.workers))))

    @rule(data=st.data())
    def a_worker_returns(self, data: st.DataObject) -> None:
        self.model.workers[data.draw(st.sampled_from(sorted(self.model.workers)))].is_there = True

    @rule(data=st.data(), is_drained=st.booleans())
    def drain(self, data: st.DataObject, is_drained: bool) -> None:
        self.model.workers[data.draw(st.sampled_from(sorted(self.model.workers)))].is_drained = is_drained

    @invariant()
    def what_must_hold(self) -> None:
        self.model.check_capacity()
        self.model.check_states()

    def teardown(self) -> None:
        """Whatever the fleet has come to, nobody who could run is kept waiting by those who come later."""
        if hasattr(self, "model"):
            everybody_gets_a_place(self.model)


def everybody_gets_a_place(model: FleetModel) -> None:
    """Every round is ten seconds later than the last; small urgent tasks keep coming, and each runs for a minute."""
    for worker in model.workers.values():
        worker.is_there, worker.is_drained = True, False
    started = dict.fromkeys(model.live(), model.now)
    patient = {task.task_id: task.attempt for task in model.queued() if model.could_run(task)}
    for _ in range(300):
        model.now += 10.0
        for key in model.live():
            if model.now - started.setdefault(key, model.now) >= 60.0:
                model.report(key, model.begun[key], AttemptStatus.COMPLETED)
        patient = {task_id: last for task_id, last in patient.items() if model.tasks[task_id].attempt == last}
        if not patient:
            return
        model.submit(task_request("busybox", cpu_required=0.1, memory_required=64, priority=1))
        model.round()
        model.check_states()
    raise AssertionError(f"starved: {sorted(patient)}")


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40)
