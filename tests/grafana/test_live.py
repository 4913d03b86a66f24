"""Every query on a real Prometheus that scraped a real master: it is valid and returns data."""

import math
import re
from collections.abc import Iterator, Mapping

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from grafana.builder.queries import ROWS
from tests.e2e.processes import Processes
from tests.grafana.boards import UIDS, Target, every_panel, every_target, filled_in, load
from tests.grafana.live import BY_HAND, DRAINED, IN_DEPTH, VANISHING, WORKERS, Sample, Scene
from tests.grafana.promql import names_in
from tests.tools import ROOT

pytestmark = pytest.mark.e2e

EXPECTED_EMPTY = {
    ("fleetpulse-fleet", "Unusual readings"): "needs an hour of data",
    ("fleetpulse-master", "Failed transactions"): "the store of a healthy master has no failures",
    ("fleetpulse-master", "Used lifetime of certificates"): "this master has no CA",
}

NOT_SIMULATED = {("fleetpulse-worker", panel) for panel in ("Swap", "Pressure", "Temperatures")}
"""Simulated machines lack these readings; another worker has them."""

MAX_LINES = 16
"""The maximum for one query of a graph; the fleet has more workers and GPUs."""

PROMETHEUS_OWN = {
    "ALERTS": {"alertname", "alertstate", "severity", "worker_id"},
    "ALERTS_FOR_STATE": {"alertname", "severity", "worker_id"},
    "scrape_duration_seconds": set[str](),
    "scrape_samples_scraped": set[str](),
}
"""Series of Prometheus itself, with their labels but those of the scrape job."""

EVERY_TARGET = [pytest.param(target, id=str(target)) for target in every_target()]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    processes = Processes(tmp_path_factory.mktemp("scene"))
    try:
        scene = Scene(processes)
        yield scene
        scene.close()
    except BaseException:
        print("\n".join(f"{name}:\n{text}" for name, text in processes.logs()))
        raise
    finally:
        processes.close()


def variables(scene: Scene, uid: str, worker: str = IN_DEPTH) -> Mapping[str, str]:
    """The variables as Grafana sets them: every worker, the whole time range, a step and a scrape of one second."""
    return {
        "search": ".*",
        "worker": worker if uid == "fleetpulse-worker" else ".*",
        "__range": f"{math.ceil(scene.end - scene.begin)}s",
        "__rate_interval": "4s",
    }


def answer(scene: Scene, target: Target, worker: str | None = None) -> list[Sample]:
    """The series of a query that have a value."""
    worker = worker or (BY_HAND if (target.uid, target.panel) in NOT_SIMULATED else IN_DEPTH)
    expr = filled_in(target.expr, variables(scene, target.uid, worker))
    prometheus = scene.prometheus
    found = prometheus.at(scene.end, expr) if target.is_instant else prometheus.over(scene.begin, scene.end, expr)
    return [sample for sample in found if not all(math.isnan(value) for value in sample.values)]


def of(uid: str, panel: str) -> list[Target]:
    """The queries of one panel."""
    return [target for target in every_target() if (target.uid, target.panel) == (uid, panel)]


def shown(scene: Scene, uid: str, panel: str) -> list[Sample]:
    """The answer to the first query of a panel."""
    return answer(scene, of(uid, panel)[0])


@pytest.mark.timeout(180)
@pytest.mark.parametrize("target", EVERY_TARGET)
def test_query_returns_data(scene: Scene, target: Target) -> None:
    key = (target.uid, target.panel)
    found = answer(scene, target)
    assert bool(found) is (key not in EXPECTED_EMPTY)
    assert len(found) <= (ROWS if target.is_instant else MAX_LINES)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("uid", UIDS)
def test_legends_and_columns_name_existing_labels(scene: Scene, uid: str) -> None:
    for panel in (panel for of_uid, panel in every_panel() if of_uid == uid):
        targets = of(uid, panel["title"])
        labels = {label for target in targets for sample in answer(scene, target) for label in sample.labels}
        for target in panel["targets"]:
            wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert wanted <= labels or (uid, panel["title"]) in EXPECTED_EMPTY, panel["title"]
        if panel["type"] == "table":
            sources = panel["transformations"][-1]["options"]["renameByName"].keys()
            columns = {source for source in sources if not source.startswith("Value")}
            assert columns == labels, panel["title"]


def test_metrics_and_labels_exist(scene: Scene) -> None:
    """Names exist in /metrics, in the recording rules, or in Prometheus itself."""
    labels = dict(PROMETHEUS_OWN)
    for family in text_string_to_metric_families(scene.exposition):
        labels[family.name] = labels.setdefault(family.name, set())
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    recorded = recorded_names()
    joined = {label for own in labels.values() for label in own} | {"instance", "job", "about", "reading", "holder"}
    exprs = [target.expr for target in every_target()]
    exprs += [load(uid)["annotations"]["list"][0]["expr"] for uid in UIDS]
    for expr in exprs:
        names = names_in(expr)
        # The store has no failures to count.
        assert names.metrics - recorded - {"fleetpulse_store_errors_total"} <= labels.keys(), expr
        for metric, label in names.matched:
            assert metric in recorded or label in labels[metric], expr
        assert names.labels <= joined, expr


def recorded_names() -> set[str]:
    files = [yaml.safe_load(path.read_text()) for path in (ROOT / "monitoring" / "rules").glob("*.yml")]
    rules = [rule for file in files for group in file["groups"] for rule in group["rules"]]
    return {rule["record"] for rule in rules if "record" in rule}


def test_queries_do_not_name_a_scrape_job() -> None:
    for target in every_target():
        assert not {"instance", "job"} & {label for _, label in names_in(target.expr).matched}, target


def test_worker_variable_and_alert_annotations(scene: Scene) -> None:
    for uid in UIDS:
        board = load(uid)
        (alerts,) = board["annotations"]["list"]
        marks = scene.prometheus.over(scene.begin, scene.end, filled_in(alerts["expr"], variables(scene, uid)))
        assert marks
        assert all(mark.labels.keys() == {"alertname", "severity"} for mark in marks)
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
                assert asked is not None
                match = filled_in(asked[1], {"search": "sim-0[1-3]"})
                assert scene.prometheus.get(f"label/{asked[2]}/values", **{"match[]": match}) == [
                    "sim-01",
                    "sim-02",
                    "sim-03",
                ]


def test_fleet_counts(scene: Scene) -> None:
    active = WORKERS + 1 - len(VANISHING)
    (count,) = shown(scene, "fleetpulse-fleet", "Active")
    assert count.values == [active]
    (inactive,) = shown(scene, "fleetpulse-fleet", "Inactive")
    assert inactive.values == [len(VANISHING)]
    (gone,) = shown(scene, "fleetpulse-fleet", "Inactive share")
    assert gone.values == [pytest.approx(len(VANISHING) / (WORKERS + 1))]
    silent = shown(scene, "fleetpulse-fleet", "Inactive workers")
    assert {(s.labels["worker_id"], s.labels["hostname"]) for s in silent} == {(w, f"{w}.simulated") for w in VANISHING}
    (no_tasks,) = shown(scene, "fleetpulse-fleet", "Take no tasks")
    assert no_tasks.values == [1.0], DRAINED


@pytest.mark.parametrize("panel", ["CPU of all workers", "Memory of all workers"])
def test_heat_map_counts_each_active_worker_once(scene: Scene, panel: str) -> None:
    buckets = {sample.labels["le"]: sample.values[-1] for sample in shown(scene, "fleetpulse-fleet", panel)}
    assert buckets["1.0"] == WORKERS + 1 - len(VANISHING)
    in_order = [buckets[le] for le in sorted(buckets, key=float)]
    assert in_order == sorted(in_order)
    assert len(in_order) == 10


def test_inactive_worker_shows_its_last_heartbeat(scene: Scene) -> None:
    by_panel = {
        panel: [s.values for target in of("fleetpulse-worker", panel) for s in answer(scene, target, VANISHING[0])]
        for panel in ("State", "Last heartbeat", "Cores", "Up for")
    }
    assert by_panel["State"] == [[0.0]]
    ((silence,),) = by_panel["Last heartbeat"]
    assert 2.0 < silence < 60.0
    assert by_panel["Cores"] == by_panel["Up for"] == []
