"""Makes the pictures of docs/images: real programs on free ports, a fleet and its last hour made up.

    python -m tools.screenshots [NAME...]

Each picture is a function here. Those of the page need Chromium, and a Docker Engine for its tasks: `make tools`.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser, Page, expect

from tests.browser import running_browser, visit_to
from tests.docker_engine import own_engine
from tests.e2e.jobs import Site
from tests.e2e.masters import started_master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually
from tools.console_pictures import CONSOLE
from tools.made_up_history import plant_an_hour

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
WORKERS = 12
PREFIX = "rack-a"
TERMS = ("--heartbeat-interval", "2s", "--inactivity-timeout", "6s")
TRAINING = """
for epoch in $(seq 1 60); do
  echo "epoch $epoch/60  loss 0.$((9999 / (epoch + 1)))  learning rate 3e-4"; sleep 0.5
done"""


class Stage(NamedTuple):
    """A small fleet with tasks, and a browser."""

    browser: Browser
    site: Site
    running: str
    """The id of a task that writes a log."""


@contextmanager
def small_fleet(folder: Path) -> Iterator[Stage]:
    """Workers of which one is gone and one drains, and tasks in every state."""
    processes = Processes(folder)
    plant_an_hour(folder / "data", PREFIX, WORKERS)
    master = started_master(processes, *TERMS, "--grafana-url", "http://localhost:3000")
    with running_browser() as browser, own_engine() as engine:
        site = Site(processes, master, engine)
        try:
            gone = ("--vanish", "1", "--trouble-after", "4", "--trouble-for", "3600")
            processes.simulate(master.target, WORKERS, "--prefix", PREFIX, "--no-tasks", *gone)
            site.worker("build-1")
            eventually(lambda: master.active() == WORKERS, 30.0)
            site.jobs.post(f"/api/workers/{PREFIX}-08/drain", {"reason": "new disk"})
            yield Stage(browser, site, submit_tasks(site))
        finally:
            site.close()
            processes.close()
            master.close()


def submit_tasks(site: Site) -> str:
    """Tasks that have ended, one that waits, one that was cancelled, and one that runs: its id."""
    jobs = site.jobs
    for name, script in (("nightly report", "echo done"), ("index rebuild", "echo no space left; exit 28")):
        jobs.ended(jobs.submit("sh", "-c", script, name=name))
    jobs.cancel(jobs.submit(name="old experiment", constraints={"zone": "b"}))
    jobs.submit(name="large model", gpu_required=8, priority=5)
    running = jobs.submit("sh", "-c", TRAINING, name="train resnet-50", priority=3, env={"DATA": "/data"})
    jobs.when(running, "running")
    return running


def shoot(stage: Stage, view: str, file: str, ready: Callable[[Page], None], **reader: object) -> None:
    """Open a view, wait until it shows what the picture is of, and take it."""
    with visit_to(stage.browser, stage.site.master.url, **reader) as visit:  # type: ignore[arg-type]  # width, scheme
        page = visit.open(view)
        expect(page.locator("#connection")).to_have_text("live")
        ready(page)
        page.screenshot(path=IMAGES / file)


# The pictures of the page


def page_fleet(stage: Stage) -> None:
    """The fleet at a glance, light and dark."""
    for scheme in ("light", "dark"):
        shoot(
            stage,
            "/",
            f"page-fleet-{scheme}.png",
            lambda page: expect(page.locator(".card")).to_have_count(13),
            scheme=scheme,
        )


def page_worker(stage: Stage) -> None:
    """One worker with its last hour."""

    def ready(page: Page) -> None:
        expect(page.locator(".plot")).to_have_count(9)
        page.set_viewport_size({"width": 1280, "height": 1500})

    shoot(stage, f"/workers/{PREFIX}-04", "page-worker.png", ready)


def page_tasks(stage: Stage) -> None:
    """The tasks, and why one waits."""
    shoot(stage, "/tasks", "page-tasks.png", lambda page: expect(page.locator("tbody tr")).to_have_count(5))


def page_task(stage: Stage) -> None:
    """A task whose log is followed."""
    shoot(
        stage,
        f"/tasks/{stage.running}",
        "page-task.png",
        lambda page: expect(page.locator(".lines")).to_contain_text("epoch 12/"),
    )


def page_narrow(stage: Stage) -> None:
    """The fleet on a telephone."""
    shoot(stage, "/", "page-narrow.png", lambda page: expect(page.locator(".card")).to_have_count(13), width=360)


SMALL_FLEET = (page_fleet, page_worker, page_tasks, page_task, page_narrow)


def page_many(folder: Path) -> None:
    """Three thousand workers."""
    processes = Processes(folder)
    master = started_master(processes)
    try:
        gone = ("--vanish", "40", "--trouble-after", "30", "--trouble-for", "3600")
        processes.simulate(master.target, 3000, "--ramp", "20", "--prefix", PREFIX, "--no-tasks", *gone)
        eventually(lambda: len(master.workers()) >= 2950, 180.0)
        eventually(lambda: list(master.workers().values()).count(False) >= 20, 180.0)
        with running_browser() as browser, visit_to(browser, master.url, scheme="dark") as visit:
            page = visit.open()
            expect(page.locator("#connection")).to_have_text("live")
            expect(page.locator(".cell").first).to_be_visible()
            page.screenshot(path=IMAGES / "page-many.png")
    finally:
        processes.close()
        master.close()


def main(names: list[str]) -> None:
    """Make the named pictures, or all."""
    IMAGES.mkdir(exist_ok=True)
    wanted = [picture for picture in SMALL_FLEET if not names or picture.__name__ in names]
    of_console = [picture for picture in CONSOLE if not names or picture.__name__ in names]
    if wanted or of_console:
        with tempfile.TemporaryDirectory() as folder, small_fleet(Path(folder)) as stage:
            for picture in wanted:
                picture(stage)
            for console_picture in of_console:
                console_picture(stage.site.master.url, f"{PREFIX}-04", IMAGES)
    if not names or page_many.__name__ in names:
        with tempfile.TemporaryDirectory() as folder:
            page_many(Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
