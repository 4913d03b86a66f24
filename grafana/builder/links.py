"""Where a click leads: another dashboard with the time and the data source kept, or the runbook of an alert."""

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.models import dashboard as sdk

RUNBOOKS = "https://fleetpulse.example/docs/runbooks.md"

TITLES: Mapping[str, str] = {
    "fleetpulse-fleet": "Fleet",
    "fleetpulse-worker": "Worker",
    "fleetpulse-tasks": "Tasks",
    "fleetpulse-gpus": "GPUs",
    "fleetpulse-master": "Master",
}
"""The dashboards by their uids, in the order in which they are linked."""

_KEPT = "${datasource:queryparam}&${__url_time_range}"


def to_worker(worker_id: str) -> str:
    """The address of a worker's dashboard. ``worker_id`` is what Grafana replaces by the id."""
    return f"/d/fleetpulse-worker?var-worker={worker_id}&{_KEPT}"


def data_link(title: str, url: str) -> sdk.DashboardLink:
    """A link of a series, for its menu."""
    return sdk.DashboardLink(title=title, url=url)


WORKER_OF_SERIES = [data_link("Worker ${__field.labels.worker_id}", to_worker("${__field.labels.worker_id}"))]
WORKER_OF_ROW = to_worker("${__value.text}")
RUNBOOK_OF_ROW = f"{RUNBOOKS}#${{__value.text}}"


def board_links(uid: str) -> Sequence[sdk.DashboardLink]:
    """What stands at the head of a dashboard: the others, with time and variables kept, and the runbooks."""
    kind = sdk.DashboardLinkType.LINK
    others = [
        sdk.DashboardLink(
            title, kind, icon="dashboard", tooltip=f"{title}, at the same time", url=f"/d/{other}",
            keep_time=True, include_vars=True,
        )
        for other, title in TITLES.items()
        if other != uid
    ]  # fmt: skip
    runbooks = sdk.DashboardLink(
        "Runbooks", kind, icon="doc", tooltip="What to do about each alert", url=RUNBOOKS, target_blank=True
    )
    return [*others, runbooks]
