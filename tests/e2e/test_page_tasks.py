"""The page in a real browser: tasks on a real Docker Engine, from the form to the exit code."""

import contextlib
import json
import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from fleetpulse.master.api.subscribers import MAX_SUBSCRIBERS
from tests.browser import Visit, visit_to
from tests.docker_engine import Engine
from tests.e2e.a11y import complaints
from tests.e2e.jobs import DockerFleet
from tests.e2e.masters import FAST_LEASE_FLAGS, Master, started_master
from tests.e2e.processes import Processes
from tests.e2e.raw import RawConnection
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

MARKUP = "<img src=x onerror=window.isBroken=1>"


@pytest.fixture(scope="module")
def fleet(shared_processes: Processes, shared_master: Master, docker_engine: Engine) -> Iterator[DockerFleet]:
    fleet = DockerFleet(shared_processes, shared_master, docker_engine)
    fleet.worker("dock-page")
    yield fleet
    fleet.close()


@pytest.fixture
def visit(browser: Browser, fleet: DockerFleet) -> Iterator[Visit]:
    with visit_to(browser, fleet.master.url) as visit:
        yield visit


def fill(page: Page, **fields: str) -> None:
    """Opens the form and fills these fields."""
    page.get_by_role("button", name="Submit a task").click()
    for name, value in fields.items():
        page.locator(f"dialog [name={name}]").fill(value)


def send(page: Page) -> None:
    page.get_by_role("dialog").get_by_role("button", name="Submit").click()


def test_submit_a_task_and_follow_it_to_its_exit_code(visit: Visit, fleet: DockerFleet) -> None:
    page = visit.open()
    command = "sh -c 'echo one; sleep 1; echo two; exit 3'"
    fill(
        page, docker_image=fleet.engine.image, command=command, name="counts", cpu_required="0.1", memory_required="32"
    )
    page.locator("dialog [name=env]").fill("A=1\nB=x=y")
    page.locator("dialog [name=constraints]").fill("worker_id=dock-page")
    send(page)
    expect(page.get_by_role("heading", name="counts", level=1)).to_be_visible()
    expect(page.locator(".lines")).to_have_text("one\ntwo\n")
    expect(page.locator(".title-line .status")).to_have_text("failed · exit code 3")
    expect(page.locator(".log-head .note")).to_have_text("failed, exit code 3")
    expect(page.locator("#announcements")).to_contain_text("failed, exit code 3")
    expect(page.locator(".facts")).to_contain_text("A, B")
    expect(page.get_by_role("table", name="Attempts")).to_contain_text("dock-page")
    assert complaints(page) == []
    page.get_by_role("link", name="Tasks", exact=True).first.click()
    row = page.locator("tbody tr", has_text="counts")
    expect(row.locator(".status")).to_have_text("failed")
    expect(row).to_contain_text("dock-page")
    expect(row.locator('[data-title="Exit code"]')).to_have_text("3")
    assert complaints(page) == []


def test_errors_are_shown_at_their_fields(visit: Visit, fleet: DockerFleet) -> None:
    page = visit.open()
    fill(page, docker_image="http://nowhere/x", cpu_required="0", memory_required="much", priority="7", env="9=1")
    send(page)
    errors = {name: page.locator(f"dialog [data-field={name}] .error") for name in ("docker_image", "cpu_required")}
    expect(errors["docker_image"]).to_contain_text("not a URL")
    expect(errors["cpu_required"]).to_have_text("must be at least 0.01")
    for name in ("docker_image", "cpu_required", "memory_required", "env"):
        expect(page.locator(f"dialog [name={name}]")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("dialog [name=priority]")).not_to_have_attribute("aria-invalid", "true")
    expect(page.locator("dialog [name=docker_image]")).to_be_focused()
    assert complaints(page) == []
    for name, value in {"docker_image": fleet.engine.image, "cpu_required": "0.1", "memory_required": "32"}.items():
        page.locator(f"dialog [name={name}]").fill(value)
    page.locator("dialog [name=env]").fill("")
    page.locator("dialog [name=name]").fill("right at last")
    send(page)
    expect(page.get_by_role("heading", name="right at last", level=1)).to_be_visible()


def test_advanced_fields_open_when_one_has_an_error(visit: Visit, fleet: DockerFleet) -> None:
    page = visit.open()
    fill(page, docker_image=fleet.engine.image, command="id -u", cpu_required="0.1", memory_required="32", name="fold")
    rare = {name: page.locator(f"dialog [name={name}]") for name in ("read_only", "network", "user")}
    expect(rare["user"]).to_be_hidden()
    page.get_by_text("Advanced").click()
    rare["read_only"].select_option("Read-only")
    rare["network"].select_option("None")
    rare["user"].fill("No Body")
    assert complaints(page) == []
    page.get_by_text("Advanced").click()
    expect(rare["user"]).to_be_hidden()
    send(page)
    expect(page.locator("dialog [data-field=user] .error")).to_contain_text("USER")
    expect(rare["user"]).to_be_focused()
    expect(rare["network"]).not_to_have_attribute("aria-invalid", "true")
    rare["user"].fill("65534")
    send(page)
    expect(page.locator(".lines")).to_have_text("65534\n")
    expect(page.locator(".facts")).to_contain_text("read-only root, user 65534, network none")
    task = fleet.master.json("/api/tasks?name=fold")[0]
    assert (task["read_only"], task["user"], task["network"]) == (True, "65534", "none")


def test_unset_policy_fields_are_not_sent(visit: Visit, fleet: DockerFleet) -> None:
    page = visit.open()
    fill(page, docker_image=fleet.engine.image, command="true", cpu_required="0.1", memory_required="32", name="left")
    page.get_by_text("Advanced").click()
    page.locator("dialog [name=read_only]").select_option("Writable")
    page.locator("dialog [name=read_only]").select_option("As the policies have it")
    send(page)
    expect(page.get_by_role("heading", name="left", level=1)).to_be_visible()
    task = fleet.master.json("/api/tasks?name=left")[0]
    assert (task["read_only"], task["user"], task["network"]) == (None, None, None)


def test_cancel_a_task_from_the_list(visit: Visit, fleet: DockerFleet) -> None:
    task_id = fleet.jobs.submit("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done", name="endless")
    fleet.jobs.when(task_id, "running")
    page = visit.open("/tasks?status=running")
    page.get_by_role("button", name="Cancel endless").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the task").click()
    expect(page.locator("tbody tr", has_text=task_id)).to_have_count(0)
    assert fleet.jobs.ended(task_id)["status"] == "cancelled"
    page.get_by_role("link", name="cancelled").click()
    expect(page.locator("tbody tr", has_text=task_id).locator(".status")).to_have_text("cancelled")


def test_queued_task_shows_its_queue_reason(visit: Visit, fleet: DockerFleet) -> None:
    task_id = fleet.jobs.submit(name="too large", memory_required=16_777_216)
    page = visit.open("/tasks?status=queued")
    row = page.locator("tbody tr", has_text=task_id)
    expect(row.locator(".why")).to_have_text(str(fleet.jobs.get(task_id)["queue_reason"]))
    row.get_by_role("link", name="too large").click()
    expect(page.locator(".why-line")).to_contain_text("memory", ignore_case=True)
    page.get_by_role("button", name="Cancel the task").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the task").click()
    expect(page.locator(".title-line .status")).to_have_text("cancelled")


def test_markup_in_names_and_logs_is_escaped(visit: Visit, fleet: DockerFleet) -> None:
    script = f"echo '{MARKUP}<script>window.isBroken=1</script>'"
    task_id = fleet.jobs.submit("sh", "-c", script, name=MARKUP, labels={"a": MARKUP}, env={"A": MARKUP})
    fleet.jobs.ended(task_id)
    page = visit.open(f"/tasks/{task_id}")
    expect(page.locator(".lines")).to_contain_text(f"{MARKUP}<script>window.isBroken=1</script>")
    expect(page.locator("main h1")).to_have_text(MARKUP)
    page.goto(f"{visit.url}/#/tasks")
    expect(page.get_by_role("link", name=MARKUP)).to_be_visible()
    page.goto(f"{visit.url}/#/workers/dock-page")
    expect(page.get_by_role("link", name=MARKUP)).to_be_visible()
    assert page.evaluate("window.isBroken") is None
    assert page.evaluate("document.querySelectorAll('main img, main script').length") == 0


def test_long_log_is_trimmed_at_its_start_and_keeps_the_scroll_position(visit: Visit, fleet: DockerFleet) -> None:
    script = "seq 20000; while [ ! -e /tmp/on ]; do sleep 0.1; done; seq 20001 20050"
    task_id = fleet.jobs.submit("sh", "-c", script, name="long")
    page = visit.open(f"/tasks/{task_id}")
    lines, log = page.locator(".lines"), page.locator(".log")
    expect(lines).to_contain_text("20000\n")
    expect(page.locator(".cut")).to_be_visible()
    text = str(lines.text_content())
    assert 4_000 <= text.count("\n") <= 5_200
    assert page.evaluate("document.querySelectorAll('.lines *').length") < 60
    assert log.evaluate("log => log.scrollHeight - log.scrollTop - log.clientHeight") < 30
    log.evaluate("log => { log.scrollTop = 2000; }")
    expect(page.locator(".jump")).to_be_visible()
    container = eventually(lambda: fleet.containers("dock-page", task_id))[0]
    with fleet.engine.client() as client:
        client.containers.get(str(container.id)).exec_run(["touch", "/tmp/on"])
    expect(lines).to_contain_text("20050\n")
    assert abs(log.evaluate("log => log.scrollTop") - 2000) < 1500
    expect(page.locator(".jump")).to_be_visible()
    page.locator(".jump").click()
    expect(page.locator(".jump")).to_be_hidden()
    assert log.evaluate("log => log.scrollHeight - log.scrollTop - log.clientHeight") < 30


def test_task_counts_link_to_the_tasks(visit: Visit, fleet: DockerFleet) -> None:
    task_id = fleet.jobs.submit("true", name="counted")
    fleet.jobs.ended(task_id)
    page = visit.open()
    count = json.dumps(fleet.master.json("/api/overview")["tasks"]["completed"])
    expect(page.locator('.tile[data-status="completed"] .tile-value')).to_have_text(count)
    page.locator('.tile[data-status="completed"]').click()
    expect(page.locator("tbody tr", has_text="counted")).to_be_visible()


# Unavailable logs


def test_log_is_retried_while_there_are_too_many_readers(visit: Visit, fleet: DockerFleet) -> None:
    task_id = fleet.jobs.submit("sh", "-c", "echo here; while :; do sleep 0.1; done", name="crowded")
    fleet.jobs.when(task_id, "running")
    with contextlib.ExitStack() as crowd:
        for _ in range(MAX_SUBSCRIBERS):
            reader = crowd.enter_context(RawConnection(fleet.master.http_port))
            assert reader.stream(f"/api/tasks/{task_id}/logs?follow=true") == 200
        page = visit.open(f"/tasks/{task_id}")
        detail = f"{MAX_SUBSCRIBERS} readers follow logs already, which is as many as the master serves"
        expect(page.locator(".log-head .note")).to_have_text(f"{detail}; trying again in 5 s")
        assert complaints(page) == []
    expect(page.locator(".lines")).to_have_text("here\n")
    expect(page.locator(".log-head .note")).to_have_text("follows")
    assert fleet.jobs.cancel(task_id).status_code == 202
    # Chromium reports the answers that this test provokes.
    visit.errors[:] = [error for error in visit.errors if "the server responded with a status of 503" not in error]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_log_continues_after_a_restart_of_the_master(visit: Visit, fleet: DockerFleet, number: signal.Signals) -> None:
    # U+2028 ends a line in JavaScript, but not in an event stream.
    loop = "n=0; while [ $n -lt 400 ]; do n=$((n+1)); echo line $n; sleep 0.02; done; sleep 2"
    script = f"printf 'a\\342\\200\\250b\\n'; {loop}"
    task_id = fleet.jobs.submit("sh", "-c", script, name="long lived")
    page = visit.open(f"/tasks/{task_id}")
    expect(page.locator(".lines")).to_contain_text("line 20\n")
    web = fleet.master.web_process()
    web.send_signal(number)
    expect(page.locator(".log-head .note")).to_have_text("reconnecting")
    expect(page.locator(".log-head .note")).to_have_text("completed, exit code 0")
    assert page.locator(".lines").text_content() == "a\u2028b\n" + "".join(f"line {n}\n" for n in range(1, 401))
    visit.errors[:] = [error for error in visit.errors if "net::ERR" not in error]


def test_expired_log_is_reported(browser: Browser, processes: Processes, docker_engine: Engine) -> None:
    master = started_master(processes, *FAST_LEASE_FLAGS, FLEETPULSE_LOG_RETENTION="0.001s")
    fleet = DockerFleet(processes, master, docker_engine)
    fleet.worker("dock-short")
    task_id = fleet.jobs.submit("echo", "here", name="forgotten")
    fleet.jobs.ended(task_id)
    master.web_process().kill()  # it looks for what is too old when it starts, and then every minute
    eventually(lambda: master.get(f"/api/tasks/{task_id}/logs").status_code == 410, 90.0)
    with visit_to(browser, master.url) as visit:
        page = visit.open(f"/tasks/{task_id}")
        expect(page.locator(".log-head .note")).to_have_text("deleted")
        expect(page.locator(".log")).to_have_text(
            f"There is no log: the log of {task_id} was deleted after the time for which logs are kept. "
            "The definition, events and attempts of the task are kept for longer."
        )
        expect(page.get_by_role("link", name="as text")).to_be_hidden()
        expect(page.get_by_role("table", name="Attempts")).to_contain_text("dock-short")
        assert complaints(page) == []
    fleet.close()
    master.close()
