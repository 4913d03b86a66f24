"""``/``: the page for people, its files, and the numbers above it. What it is made of is in ``master/page``."""

import hashlib
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import falcon

from fleetpulse.master.api.answers import Count, ResponseModel, send_json
from fleetpulse.master.api.operations import HTML
from fleetpulse.master.api.reference import GeneratedDocument
from fleetpulse.master.hub_queue import give_way
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.telemetry.manager import TelemetryManager

_FOLDER = Path(__file__).resolve().parent.parent / "page"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_DIGEST_CHARACTERS = 12

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

WORKERS_PER_TURN = 1024
"""Workers that are counted before other greenlets have their turn."""


class StaticFile(NamedTuple):
    """One file and its media type."""

    content: bytes
    media_type: str


class Assets:
    """The files of the page. ``digest`` is a part of the address of each, so that browsers may keep them for ever.

    All of them change their address together when any of them changes.
    """

    def __init__(self, files: dict[str, StaticFile]) -> None:
        self.files = files
        digest = hashlib.sha256()
        for name, file in sorted(files.items()):
            digest.update(b"%b %d\n%b" % (name.encode(), len(file.content), file.content))
        self.digest = digest.hexdigest()[:_DIGEST_CHARACTERS]

    def path(self, name: str) -> str:
        """Returns where the file is served. Raises ``KeyError``."""
        self.files[name]
        return f"/static/{self.digest}/{name}"


def load_assets() -> Assets:
    """Reads the files of ``master/page/static``."""
    files = (_FOLDER / "static").iterdir()
    return Assets({f.name: StaticFile(f.read_bytes(), kind) for f in files if (kind := _MEDIA_TYPES.get(f.suffix))})


def render_page(assets: Assets, **values: object) -> bytes:
    """Returns ``/`` as HTML; every value is escaped. ``static`` in the template gives the address of a file."""
    import jinja2  # noqa: PLC0415 - heavy, and not needed before somebody wants a page

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    modules = sorted(name for name in assets.files if name.endswith(".js"))
    return environment.get_template("index.html").render(static=assets.path, modules=modules, **values).encode()


class StaticFiles:
    """``/static/{page_version}/{page_file}``: cached for ever, because another content has another address."""

    def __init__(self, assets: Assets) -> None:
        self._assets = assets

    def on_get(self, _req: falcon.Request, resp: falcon.Response, page_version: str, page_file: str) -> None:
        file = self._assets.files.get(page_file)
        if file is None or page_version != self._assets.digest:
            raise falcon.HTTPNotFound(description="there is no such file, or it is of another version: load / again")
        resp.set_header("X-Content-Type-Options", "nosniff")
        resp.set_header("Referrer-Policy", "no-referrer")
        resp.cache_control = ("public", "max-age=31536000", "immutable")
        resp.content_type = file.media_type
        resp.data = file.content

    on_head = on_get


class WorkerCounts(ResponseModel):
    """The workers by state; one that drains is active or inactive as well."""

    active: Count
    inactive: Count
    draining: Count


class TaskCounts(ResponseModel):
    """The tasks in the store by status."""

    queued: Count
    pending: Count
    running: Count
    completed: Count
    failed: Count
    cancelled: Count


class Overview(ResponseModel):
    """The fleet in numbers."""

    workers: WorkerCounts
    tasks: TaskCounts
    metrics_left_out: Count
    """What workers report and /metrics leaves out, as of its last scrape: running tasks that the master did not assign
    to them, devices past the budget, samples of custom metrics past their limits."""


class OverviewResource:
    """``/api/overview``."""

    def __init__(self, telemetry: TelemetryManager, instruments: Instruments) -> None:
        self._telemetry = telemetry
        self._tasks = instruments.tasks.tasks
        self._left_out = instruments.exposition.names_left_out, instruments.exposition.custom_samples_dropped

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        overview = Overview(self._worker_counts(), self._task_counts(), self._left_out_count())
        send_json(resp, overview, cache_control="no-store")

    on_head = on_get

    def _worker_counts(self) -> WorkerCounts:
        counts = dict.fromkeys(WorkerCounts.__struct_fields__, 0)
        for number, worker in enumerate(self._telemetry.get_all_worker_telemetry().values(), start=1):
            if number % WORKERS_PER_TURN == 0:
                give_way()
            counts["active" if worker.is_active else "inactive"] += 1
            counts["draining"] += worker.allocation.drain_reason is not None
        return WorkerCounts(**counts)

    def _left_out_count(self) -> int:
        families = chain.from_iterable(gauge.collect() for gauge in self._left_out)
        return sum(int(sample.value) for family in families for sample in family.samples)

    def _task_counts(self) -> TaskCounts:
        counts = dict.fromkeys(TaskCounts.__struct_fields__, 0)
        for family in self._tasks.collect():
            for sample in family.samples:
                counts[sample.labels["status"]] = int(sample.value)
        return TaskCounts(**counts)


def page_resources(
    telemetry: TelemetryManager, instruments: Instruments, version: str, grafana_url: str | None
) -> dict[str, object]:
    """Returns the resources by path. ``grafana_url`` has no ``/`` at its end."""
    assets = load_assets()
    html = partial(render_page, assets, version=version, grafana_url=grafana_url or "")
    return {
        "/": GeneratedDocument(html, f"{HTML}; charset=utf-8", CONTENT_SECURITY_POLICY),
        "/static/{page_version}/{page_file}": StaticFiles(assets),
        "/api/overview": OverviewResource(telemetry, instruments),
    }
