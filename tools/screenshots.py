"""Takes the screenshots of docs/images from real programs with a simulated fleet and an hour of history.

    python -m tools.screenshots [NAME...]

Each image has a function: PNG of the page, SVG of the command line. Requires Chromium and a Docker Engine
(`make tools`).
"""

import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import gevent
import pexpect
from playwright.sync_api import Browser, Page, expect
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from fleetpulse.master.app import history_tiers, open_store
from fleetpulse.master.config import HistoryConfig, LeaseConfig, StoreConfig
from fleetpulse.master.console.client import MasterClient
from fleetpulse.master.console.stream import FleetWatcher
from fleetpulse.master.console.top import SPARKLINE_LENGTH, View
from fleetpulse.master.console.top_app import TopApp
from fleetpulse.master.history.recorder import Recorder
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.telemetry.manager import TelemetryManager
from fleetpulse.master.telemetry.records import Clock
from fleetpulse.worker.simulation.machine import SimulatedMachine
from tests.browser import running_browser, visit_to
from tests.docker_engine import isolated_engine
from tests.e2e.jobs import DockerFleet
from tests.e2e.masters import started_master
from tests.e2e.processes import FLEETPULSE, Processes
from tests.e2e.waiting import eventually

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
WORKERS = 12
PREFIX = "rack-a"
SHOWN_WORKER = f"{PREFIX}-04"
LEASE_FLAGS = ("--heartbeat-interval", "2s", "--inactivity-timeout", "6s")
TRAINING = """
for epoch in $(seq 1 60); do
  echo "epoch $epoch/60  loss 0.$((9999 / (epoch + 1)))  learning rate 3e-4"; sleep 0.5
done"""

_HOUR_SECONDS = 3600
_HEARTBEAT_SECONDS = 5
_OUTAGE = range(1500, 1800)
"""Outage of one worker, in seconds of the hour."""

_COLUMNS = 96
_TOP_SIZE = (110, 20)


class Stage(NamedTuple):
    """A small fleet with tasks, and a browser."""

    browser: Browser
    fleet: DockerFleet
    running: str
    """The id of a task that writes a log."""


@contextmanager
def small_fleet(folder: Path) -> Iterator[Stage]:
    """Starts workers, of which one is inactive and one drained, and tasks in every status."""
    processes = Processes(folder)
    record_history(folder / "data")
    master = started_master(processes, *LEASE_FLAGS, "--grafana-url", "http://localhost:3000")
    with running_browser() as browser, isolated_engine() as engine:
        fleet = DockerFleet(processes, master, engine)
        try:
            failures = ("--vanish", "1", "--trouble-after", "4", "--trouble-for", "3600")
            processes.simulate(master.target, WORKERS, "--prefix", PREFIX, "--no-tasks", *failures)
            fleet.worker("build-1")
            eventually(lambda: master.active() == WORKERS, 30.0)
            fleet.jobs.post(f"/api/workers/{PREFIX}-08/drain", {"reason": "new disk"})
            yield Stage(browser, fleet, submit_tasks(fleet))
        finally:
            fleet.close()
            processes.close()
            master.close()


def record_history(data_dir: Path) -> None:
    """Writes an hour of history into the store, with a simulated clock. Every fourth worker has GPUs."""
    instruments, now = Instruments(), time.time()
    store = open_store(StoreConfig(data_dir), instruments)
    times = [now - _HOUR_SECONDS + second for second in range(0, _HOUR_SECONDS, _HEARTBEAT_SECONDS)]
    at = [times[0]]
    clock = Clock(monotonic=lambda: at[0], wall=lambda: at[0])
    manager = TelemetryManager(LeaseConfig(), instruments, (), clock)
    tiers = history_tiers(HistoryConfig())
    recorder = Recorder(store.history, tiers, instruments, 30.0, manager.knows_worker, lambda: at[0], 0.01)
    manager.set_update_callback(recorder.record)
    width = len(str(WORKERS))
    machines = [
        SimulatedMachine(f"{PREFIX}-{number:0{width}d}", 0 if number % 4 else 2, 1, times[0])
        for number in range(1, WORKERS + 1)
    ]
    store.start()
    recorder.start()
    for second, at[0] in zip(range(0, _HOUR_SECONDS, _HEARTBEAT_SECONDS), times, strict=True):
        for number, machine in enumerate(machines, start=1):
            heartbeat = machine.sample(at[0])
            heartbeat.worker_id = machine.worker_id
            if number != 4 or second not in _OUTAGE:
                manager.process_heartbeat(heartbeat)
        gevent.idle()
    recorder.stop()
    manager.shutdown()
    store.stop()


def submit_tasks(fleet: DockerFleet) -> str:
    """Submits ended, queued, cancelled and running tasks. Returns the id of the running one."""
    jobs = fleet.jobs
    for name, script in (("nightly report", "echo done"), ("index rebuild", "echo no space left; exit 28")):
        jobs.ended(jobs.submit("sh", "-c", script, name=name))
    jobs.cancel(jobs.submit(name="old experiment", constraints={"zone": "b"}))
    jobs.submit(name="large model", gpu_required=8, priority=5)
    running = jobs.submit("sh", "-c", TRAINING, name="train resnet-50", priority=3, env={"DATA": "/data"})
    jobs.when(running, "running")
    return running


def screenshot(stage: Stage, view: str, file: str, ready: Callable[[Page], None], **reader: object) -> None:
    """Opens a view and takes a screenshot when it is ready."""
    with visit_to(stage.browser, stage.fleet.master.url, **reader) as visit:  # type: ignore[arg-type]  # width, scheme
        page = visit.open(view)
        expect(page.locator("#connection")).to_have_text("live")
        ready(page)
        page.screenshot(path=IMAGES / file)


def cards(page: Page) -> None:
    """Waits for the cards of all workers."""
    expect(page.locator(".card")).to_have_count(WORKERS + 1)


def page_fleet(stage: Stage) -> None:
    """The fleet, light and dark."""
    for scheme in ("light", "dark"):
        screenshot(stage, "/", f"page-fleet-{scheme}.png", cards, scheme=scheme)


def page_worker(stage: Stage) -> None:
    """One worker with an hour of history."""

    def ready(page: Page) -> None:
        expect(page.locator(".plot")).to_have_count(9)
        page.set_viewport_size({"width": 1280, "height": 1500})

    screenshot(stage, f"/workers/{SHOWN_WORKER}", "page-worker.png", ready)


def page_tasks(stage: Stage) -> None:
    """The tasks, with the reason why one is queued."""
    screenshot(stage, "/tasks", "page-tasks.png", lambda page: expect(page.locator("tbody tr")).to_have_count(5))


def page_task(stage: Stage) -> None:
    """A task with its live log."""

    def ready(page: Page) -> None:
        expect(page.locator(".lines")).to_contain_text("epoch 12/")

    screenshot(stage, f"/tasks/{stage.running}", "page-task.png", ready)


def page_narrow(stage: Stage) -> None:
    """The fleet on a phone."""
    screenshot(stage, "/", "page-narrow.png", cards, width=360)


def run_on_terminal(url: str, *words: str) -> str:
    """Returns the output of a command, with colours."""
    env = {**os.environ, "FLEETPULSE_URL": url, "TERM": "xterm-256color"}
    child = pexpect.spawn(FLEETPULSE, list(words), env=env, timeout=60, dimensions=(60, _COLUMNS), encoding="utf-8")
    child.expect(pexpect.EOF)
    child.close()
    return str(child.before).replace("\r\n", "\n")


def save_svg(file: str, title: str, text: str) -> None:
    """Writes coloured text as SVG."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=_COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text.from_ansi(text))
        (IMAGES / file).write_text(without_fonts(console.export_svg(title=title, theme=MONOKAI)))


def without_fonts(svg: str) -> str:
    """Removes fonts that would be loaded from other servers."""
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def console_prompt(stage: Stage) -> None:
    """A session of the shell."""
    url = stage.fleet.master.url
    lines = ("workers", f"status {SHOWN_WORKER}")
    session = [f"master> {line}\n{run_on_terminal(url, *line.split())}" for line in lines]
    save_svg("console-prompt.svg", "fleetpulse shell", "".join(session) + "master> ")


def console_tasks(stage: Stage) -> None:
    """The tasks, with the reason why one is queued."""
    save_svg("console-tasks.svg", "fleetpulse tasks", run_on_terminal(stage.fleet.master.url, "tasks"))


def console_history(stage: Stage) -> None:
    """Plots of an hour of history."""
    fields = ("--field", "cpu_usage", "--field", "memory_usage")
    text = run_on_terminal(stage.fleet.master.url, "history", SHOWN_WORKER, *fields)
    save_svg("console-history.svg", f"fleetpulse history {SHOWN_WORKER}", text)


def console_top(stage: Stage) -> None:
    """The live table with filled sparklines."""

    async def take() -> None:
        client = MasterClient(stage.fleet.master.url)
        app = TopApp(View(), client.now)
        watcher = FleetWatcher(client, on_fleet=app.show_fleet, on_error=app.show_error)
        watcher.start()
        try:
            async with app.run_test(size=_TOP_SIZE) as pilot:
                await pilot.pause(SPARKLINE_LENGTH + 1.0)
                picture = without_fonts(app.export_screenshot(title="fleetpulse top"))
                (IMAGES / "console-top.svg").write_text(picture)
        finally:
            watcher.stop()

    asyncio.run(take())


SMALL_FLEET = (
    page_fleet, page_worker, page_tasks, page_task, page_narrow,
    console_prompt, console_tasks, console_history, console_top,
)  # fmt: skip


def page_many(folder: Path) -> None:
    """Three thousand workers."""
    processes = Processes(folder)
    master = started_master(processes)
    try:
        failures = ("--vanish", "40", "--trouble-after", "30", "--trouble-for", "3600")
        processes.simulate(master.target, 3000, "--ramp", "20", "--prefix", PREFIX, "--no-tasks", *failures)
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
    """Takes the named screenshots, or all."""
    IMAGES.mkdir(exist_ok=True)
    wanted = [picture for picture in SMALL_FLEET if not names or picture.__name__ in names]
    if wanted:
        with tempfile.TemporaryDirectory() as folder, small_fleet(Path(folder)) as stage:
            for picture in wanted:
                picture(stage)
    if not names or page_many.__name__ in names:
        with tempfile.TemporaryDirectory() as folder:
            page_many(Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
