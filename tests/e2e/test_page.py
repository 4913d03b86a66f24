"""The page in a real browser with a simulated fleet, without Docker."""

import json
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.browser import Visit, visit_to
from tests.e2e.a11y import complaints
from tests.e2e.grpc_client import GrpcClient
from tests.e2e.masters import FAST_LEASE_FLAGS, Master, started_master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

FLEET = ["sim-1", "sim-2", "sim-3"]
GRAFANA = "https://grafana.example/sub"


@pytest.fixture(scope="module")
def fleet(shared_processes: Processes) -> Iterator[Master]:
    """A master with three workers. Tests restore its state."""
    master = started_master(shared_processes, *FAST_LEASE_FLAGS, "--grafana-url", GRAFANA + "/")
    shared_processes.simulate(master.target, 3, "--gpu-share", "0.5")
    eventually(lambda: master.active() == 3)
    yield master
    master.close()
    master.assert_no_errors()


@pytest.fixture
def visit(browser: Browser, fleet: Master) -> Iterator[Visit]:
    with visit_to(browser, fleet.url) as visit:
        yield visit


def shown(page: Page) -> list[str]:
    """The ids of the workers in the grid, in display order."""
    return [str(href).rpartition("/")[2] for href in page.eval_on_selector_all(".cell", "all => all.map(a => a.hash)")]


def cell(page: Page, worker_id: str) -> Any:
    return page.locator(f'.cell[href="#/workers/{worker_id}"]')


# The fleet


def test_worker_state_changes_without_a_reload(visit: Visit, fleet: Master, shared_processes: Processes) -> None:
    page = visit.open()
    expect(page.locator("#connection")).to_have_text("live")
    page.evaluate("window.isTheSame = true")
    worker = shared_processes.worker(fleet.target, "--worker-id", "lone", "--no-tasks")
    expect(cell(page, "lone")).to_have_attribute("data-state", "active")
    worker.send(signal.SIGSTOP)
    expect(cell(page, "lone")).to_have_attribute("data-state", "inactive")
    expect(cell(page, "lone")).to_contain_text("silent for")
    expect(page.locator("#announcements")).to_have_text("worker lone: inactive.")
    expect(page.locator('.tile[data-state="inactive"] .tile-value')).to_have_text("1")
    worker.send(signal.SIGCONT)
    expect(cell(page, "lone")).to_have_attribute("data-state", "active")
    worker.send(signal.SIGTERM)
    expect(cell(page, "lone")).to_have_count(0)
    assert page.evaluate("window.isTheSame")


def test_cards_show_readings_and_mark_missing_ones(visit: Visit) -> None:
    page = visit.open()
    expect(page.locator(".card")).to_have_count(3)
    values = page.locator(".bar-value").all_inner_texts()
    assert all(re.fullmatch(r"\d+%|–", value) for value in values)
    assert "–" in values
    expect(page.locator(".bar.missing")).to_have_count(values.count("–"))


def test_search_sort_and_filter_workers(visit: Visit) -> None:
    page = visit.open()
    expect(page.locator(".cell")).to_have_count(3)
    page.keyboard.press("/")
    page.keyboard.type("SIM-2")
    expect(page.locator(".cell")).to_have_count(1)
    expect(page.locator(".count")).to_have_text("1 of 3")
    page.get_by_label("Find").fill("nobody")
    expect(page.locator(".empty")).to_contain_text("No worker matches")
    page.get_by_label("Find").fill("")
    page.get_by_label("Sort by").select_option("gpu")
    gpus = page.eval_on_selector_all(
        ".cell", "all => all.map(a => parseInt(a.querySelectorAll('.bar-value')[2].textContent))"
    )
    known = [gpu for gpu in gpus if gpu is not None]
    assert gpus == sorted(known, reverse=True) + [None] * (3 - len(known))
    page.get_by_role("button", name="inactive").click()
    expect(page.locator(".cell")).to_have_count(0)
    page.get_by_role("button", name="inactive").click()
    expect(page.locator(".cell")).to_have_count(3)


def test_keyboard_navigation(visit: Visit) -> None:
    page = visit.open()
    expect(page.locator(".cell")).to_have_count(3)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Submit a task")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("g")
    page.keyboard.press("t")
    expect(page.get_by_role("heading", name="Tasks", level=1)).to_be_visible()
    page.keyboard.press("g")
    page.keyboard.press("f")
    page.get_by_label("Show as").focus()
    page.keyboard.press("Tab")
    expect(cell(page, "sim-1")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(cell(page, "sim-2")).to_be_focused()
    page.keyboard.press("End")
    expect(cell(page, "sim-3")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="sim-3", level=1)).to_be_visible()


def test_page_reconnects_when_the_stream_fails(visit: Visit) -> None:
    visit.page.route("**/telemetry/stream*", lambda route: route.fulfill(status=404, body="{}"))
    page = visit.open()
    expect(page.locator("#connection")).to_contain_text("reconnecting")
    expect(page.locator("#connection")).to_have_text("every 5 s")
    expect(page.locator(".cell")).to_have_count(3)


# One worker


def test_drain_and_undrain_a_worker(visit: Visit, fleet: Master) -> None:
    page = visit.open("/workers/sim-1")
    page.get_by_role("button", name="Drain").click()
    page.get_by_label("Reason").fill("new <b>disk</b>")
    page.get_by_role("dialog").get_by_role("button", name="Drain").click()
    expect(page.locator(".title-line .state")).to_have_text("draining")
    expect(page.locator(".why-line")).to_contain_text("Drained: new <b>disk</b>.")
    assert fleet.json("/api/workers/sim-1")["tasks"]["drain_reason"] == "new <b>disk</b>"
    page.get_by_role("link", name="Fleet", exact=True).first.click()
    expect(cell(page, "sim-1")).to_have_attribute("data-state", "draining")
    cell(page, "sim-1").click()
    page.get_by_role("button", name="Undrain").click()
    page.get_by_role("dialog").get_by_role("button", name="Undrain").click()
    expect(page.locator(".title-line .state")).to_have_text("active")


def test_worker_view_shows_details_and_links_to_grafana(visit: Visit) -> None:
    page = visit.open("/workers/sim-2")
    expect(page.locator(".facts")).to_contain_text("sim-2.simulated")
    expect(page.get_by_role("table", name="Resources for tasks")).to_contain_text("GiB")
    expect(page.locator(".readings")).to_contain_text("Filesystems")
    link = page.get_by_role("link", name="Grafana")
    expect(link).to_have_attribute("href", f"{GRAFANA}/d/fleetpulse-worker?var-worker=sim-2")


def test_worker_view_says_who_holds_a_gpu_and_which_is_lost(visit: Visit, fleet: Master) -> None:
    heartbeat = pb.Heartbeat(
        worker_id="held",
        gpus=[
            pb.Gpu(
                index=0, uuid="GPU-a", name="H100", state="ok", is_throttled=True, throttle_reasons=["thermal"],
                process_count=2,
                processes=[pb.GpuProcess(pid=71, user="ada", command="<b>python", memory_used_bytes=2**30)],
            ),
            pb.Gpu(index=1, uuid="GPU-b", name="H100", state="lost", state_reason="GPU is lost"),
        ],
    )  # fmt: skip
    with GrpcClient(fleet.target) as client:
        client.send_heartbeat(heartbeat)
    try:
        page = visit.open("/workers/held")
        expect(page.get_by_role("table", name="Processes on GPU 0")).to_contain_text("<b>python (71)ada1 GiB")
        expect(page.locator(".gpu-part").first).to_contain_text("throttled: thermal")
        expect(page.locator(".gpu-part").first).to_contain_text("1 more")
        expect(page.locator(".gpu-part").last).to_contain_text("lost")
        expect(page.locator(".gpu-part").last).to_contain_text("GPU is lost")
    finally:
        eventually(lambda: not fleet.workers()["held"])
        fleet.session.delete(f"{fleet.url}/api/workers/held", timeout=10)


def test_unknown_worker_is_reported(visit: Visit) -> None:
    page = visit.open("/workers/nobody")
    expect(page.locator(".detail-head .note")).to_contain_text("no worker has the id 'nobody'")


def history(**fields: list[float | None]) -> dict[str, Any]:
    return {
        "worker_id": "sim-1", "from": 1_700_000_000, "to": 1_700_000_120, "step": 15, "source": "store",
        "warning": None,
        "fields": {name: {"unit": "percent", "mean": mean, "min": mean, "max": mean} for name, mean in fields.items()},
    }  # fmt: skip


def test_plots_have_gaps_a_readout_and_a_table(visit: Visit) -> None:
    answer = history(cpu_usage=[10, 20, None, None, 50, 60, 70, 80], gpu_usage=[None] * 8)
    visit.page.route("**/history?*", lambda route: route.fulfill(json=answer))
    page = visit.open("/workers/sim-1")
    expect(page.locator(".plot")).to_have_count(1)
    path = str(page.locator(".plot .line").get_attribute("d"))
    assert path.count("M") == 2
    page.locator(".plot .drawing").focus()
    expect(page.locator(".plot .readout")).to_contain_text("80%")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".plot .readout")).to_contain_text("20%")
    page.locator(".plot summary").click()
    assert page.locator(".plot .rule").count() == 5
    assert page.locator(".plot td").all_inner_texts() == ["10%", "20%", "–", "–", "50%", "60%", "70%", "80%"]


# Large fleets


def stream_of(count: int) -> str:
    """The events of a fleet of this size, without updates."""
    workers: dict[str, dict[str, Any]] = {
        f"rack-{number}": {
            "worker_id": f"rack-{number}", "is_active": number % 50 > 0, "last_update": 1_700_000_000, "hostname": None,
            "cpu_usage": number % 100, "memory_usage": 40.5, "gpu_usage": None, "gpus": [], "cpu_cores": 8,
            "memory_used_bytes": 1, "memory_size_bytes": 2, "load1": 0.5, "running_tasks_count": 0,
            "accepts_tasks": True, "draining": number % 70 == 1,
        }
        for number in range(count)
    }  # fmt: skip
    reset = f'retry: 600000\n\nevent: reset\ndata: {{"reason":"start","workers":{count}}}\n\n'
    return f"{reset}event: snapshot\nid: a-1\ndata: {json.dumps({'workers': workers, 'complete': True})}\n\n"


def test_grid_of_three_thousand_workers(visit: Visit) -> None:
    def answer(route: Route) -> None:
        route.fulfill(content_type="text/event-stream", body=stream_of(3000))

    visit.page.route("**/telemetry/stream*", answer)
    page = visit.open()
    expect(page.locator(".cell")).to_have_count(3000)
    assert page.evaluate("document.querySelectorAll('.grid *').length") == 3000
    assert page.evaluate("document.querySelectorAll('*').length") < 3200
    expect(page.locator(".grid")).to_have_attribute("data-density", "dots")
    expect(page.locator('.tile[data-state="inactive"] .tile-value')).to_have_text("60")
    assert shown(page)[:3] == ["rack-0", "rack-1", "rack-2"]
    page.get_by_label("Sort by").select_option("cpu")
    assert shown(page)[0] == "rack-99"
    assert cell(page, "rack-99").get_attribute("aria-label") == "rack-99, active, CPU 99%, Memory 41%, 0 tasks"
    page.get_by_label("Find").fill("rack-29")
    expect(page.locator(".cell")).to_have_count(111)
    expect(page.locator(".grid")).to_have_attribute("data-density", "names")
    assert page.evaluate("document.querySelectorAll('.grid *').length") == 111
    cell(page, "rack-299").focus()
    page.keyboard.press("ArrowRight")
    expect(cell(page, "rack-299")).not_to_be_focused()
    assert page.locator('.cell[tabindex="0"]').count() == 1


# Accessibility

VIEWS = ["/", "/tasks", "/workers/sim-1", "/tasks/task-0000000000000000"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_is_accessible(browser: Browser, fleet: Master, scheme: str) -> None:
    with visit_to(browser, fleet.url, scheme=scheme) as visit:
        for view in VIEWS:
            page = visit.open(view)
            expect(page.locator("#connection")).to_have_text("live")
            expect(page.locator("main h1")).to_have_count(1)
            assert complaints(page) == [], view
        visit.page.keyboard.press("n")
        assert complaints(visit.page) == []


def test_narrow_screen_needs_no_horizontal_scrolling(browser: Browser, fleet: Master) -> None:
    with visit_to(browser, fleet.url, width=320) as visit:
        for view in VIEWS:
            page = visit.open(view)
            expect(page.locator("#connection")).to_have_text("live")
            assert page.evaluate("document.documentElement.scrollWidth") == 320, view
