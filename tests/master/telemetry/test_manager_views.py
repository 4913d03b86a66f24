"""The live table and both of its views, under whatever may happen to a fleet"""

import contextlib
import json

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from prometheus_client.parser import text_string_to_metric_families

from fleetpulse.master.api.views import FleetViews
from fleetpulse.master.config import LeaseConfig
from fleetpulse.master.errors import FleetFull, UnknownWorker, WorkerIdTaken
from fleetpulse.master.metrics.exposition import FleetExposition
from fleetpulse.master.metrics.families import FAMILIES
from fleetpulse.master.telemetry.records import Registration
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.fleet import Fleet, full_heartbeat, heartbeat, settle
from tests.master.metrics.expected import expected_samples

OUTLIVING = {family.name for family in FAMILIES if family.outlives_silence}
WORKERS = st.sampled_from(["a", "b", "c", "d"])
INCARNATIONS = st.sampled_from(["first", "second"])


class LiveTable(RuleBasedStateMachine):
    """Nothing is shown that is not so, and nothing is left over."""

    def __init__(self) -> None:
        super().__init__()
        self.exposition, self.views = FleetExposition(), FleetViews()
        lease_config = LeaseConfig(max_workers=3, retention_seconds=120.0)
        self.fleet = Fleet(lease_config, self.exposition, self.views)

    def teardown(self) -> None:
        self.fleet.manager.shutdown()

    @rule(worker_id=WORKERS, incarnation_id=INCARNATIONS, version=st.sampled_from(["1", "2"]))
    def register(self, worker_id: str, incarnation_id: str, version: str) -> None:
        with contextlib.suppress(FleetFull, WorkerIdTaken):
            self.fleet.manager.register_worker(worker_id, Registration(incarnation_id, version=version))

    @rule(worker_id=WORKERS, incarnation_id=INCARNATIONS, cpu=st.floats(0, 100) | st.none())
    def beat(self, worker_id: str, incarnation_id: str, cpu: float | None) -> None:
        message = heartbeat(worker_id, incarnation_id=incarnation_id, cpu=pb.Cpu(usage_percent=cpu))
        with contextlib.suppress(FleetFull, WorkerIdTaken):
            self.fleet.manager.process_heartbeat(message)

    @rule(worker_id=WORKERS)
    def beat_with_everything(self, worker_id: str) -> None:
        message = full_heartbeat(worker_id)
        message.sequence_number = 0
        with contextlib.suppress(FleetFull, WorkerIdTaken):
            self.fleet.manager.process_heartbeat(message)

    @rule(worker_id=WORKERS, incarnation_id=INCARNATIONS)
    def let_go(self, worker_id: str, incarnation_id: str) -> None:
        self.fleet.manager.release_worker(worker_id, incarnation_id)

    @rule(worker_id=WORKERS)
    def unregister(self, worker_id: str) -> None:
        with contextlib.suppress(UnknownWorker):
            self.fleet.manager.unregister_worker(worker_id)

    @rule(seconds=st.sampled_from([0.25, 5.0, 15.0, 29.75, 90.0]))
    def pass_time(self, seconds: float) -> None:
        self.fleet.pass_time(seconds)

    @rule()
    def let_the_greenlets_run(self) -> None:
        settle()

    @invariant()
    def json_shows_the_table(self) -> None:
        table = self.fleet.manager.get_all_worker_telemetry()
        records = json.loads(b"".join(self.views.all_records()))
        assert {name: (record["is_active"], record["cpu_usage"]) for name, record in records.items()} == {
            name: (telemetry.is_active, telemetry.cpu_usage) for name, telemetry in table.items()
        }
        assert json.loads(b"".join(self.views.all_summaries())).keys() == table.keys()
        assert sorted(detail["worker_id"] for detail in json.loads(b"".join(self.views.all_details()))) == sorted(table)
        assert all(json.loads(self.views.record(name)) == record for name, record in records.items())

    @invariant()
    def metrics_show_the_table(self) -> None:
        table = self.fleet.manager.get_all_worker_telemetry()
        text = b"".join(self.exposition.chunks(openmetrics=False)).decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        values = {(sample.name, *sample.labels.values()): sample.value for sample in samples}
        assert len(values) == len(samples), "a series twice"
        expected = {}
        for worker_id, telemetry in table.items():
            for family in FAMILIES:
                if telemetry.is_active or family.name in OUTLIVING:
                    for labels, value in expected_samples(family, telemetry):
                        if value is not None:
                            expected[family.name, worker_id, *labels] = value
        assert values == expected


LiveTable.TestCase.settings = settings(max_examples=30, stateful_step_count=25)
TestLiveTable = LiveTable.TestCase
