"""The page of a master that requires tokens, in a real browser."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browser import Visit, visit_to
from tests.e2e.a11y import complaints
from tests.e2e.masters import FAST_LEASE_FLAGS, Master, started_master
from tests.e2e.processes import FLEETPULSE, Processes
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def secrets(shared_processes: Processes) -> dict[str, str]:
    """The tokens by role."""
    made = {}
    for role in ("read", "admin"):
        ended = shared_processes.run(FLEETPULSE, "token", "create", role, "--role", role)
        assert ended.code == 0, ended.err
        made[role] = ended.out.strip()
    return made


@pytest.fixture(scope="module")
def fleet(shared_processes: Processes, secrets: dict[str, str]) -> Iterator[Master]:
    master = started_master(shared_processes, *FAST_LEASE_FLAGS)
    master.session.headers["Authorization"] = f"Bearer {secrets['read']}"
    shared_processes.simulate(master.target, 3)
    eventually(lambda: master.active() == 3)
    yield master
    master.close()
    master.assert_no_errors()


@pytest.fixture
def visit(browser: Browser, fleet: Master) -> Iterator[Visit]:
    with visit_to(browser, fleet.url) as visit:
        yield visit


def sign_in(visit: Visit, secret: str) -> None:
    visit.page.get_by_label("Token").fill(secret)
    visit.page.keyboard.press("Enter")


def test_nothing_is_shown_before_sign_in(visit: Visit, secrets: dict[str, str]) -> None:
    page = visit.open()
    dialog = page.get_by_role("dialog", name="Sign in")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_visible()
    assert complaints(page) == []
    sign_in(visit, secrets["read"][:-1])
    expect(page.get_by_role("alert")).to_contain_text("unknown, expired or revoked")
    expect(page.locator(".cell")).to_have_count(0)
    sign_in(visit, secrets["read"])
    expect(page.locator(".cell")).to_have_count(3)
    expect(page.locator("#connection")).to_have_text("live")
    page.reload()
    expect(page.locator(".cell")).to_have_count(3)
    page.get_by_role("button", name="Sign out").click()
    expect(dialog).to_be_visible()


def test_page_offers_what_the_role_allows(visit: Visit, secrets: dict[str, str], fleet: Master) -> None:
    page = visit.open("/workers/sim-1")
    sign_in(visit, secrets["read"])
    page.get_by_role("button", name="Drain").click()
    page.get_by_role("dialog").get_by_role("button", name="Drain").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("takes the role admin")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Sign out").click()
    sign_in(visit, secrets["admin"])
    page.get_by_role("button", name="Drain").click()
    page.get_by_role("dialog").get_by_role("button", name="Drain").click()
    eventually(lambda: fleet.json("/api/workers/sim-1")["tasks"]["draining"] is True)


def test_cookie_is_hidden_from_scripts_and_other_sites(
    browser: Browser, fleet: Master, secrets: dict[str, str]
) -> None:
    with visit_to(browser, fleet.url) as visit:
        page = visit.open()
        sign_in(visit, secrets["admin"])
        expect(page.locator(".cell")).to_have_count(3)
        assert page.evaluate("document.cookie") == ""
        (cookie,) = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        # Another site, as a browser sees it: the same machine under another name.
        foreign = page.context.new_page()
        foreign.goto(fleet.url.replace("127.0.0.1", "localhost"))
        read = foreign.evaluate(
            """async (url) => {
                const options = { method: 'POST', mode: 'no-cors', credentials: 'include', body: '{}' };
                const [done, blocked] = [() => 'done', () => 'blocked'];
                await fetch(url + '/api/workers/sim-2/drain', options).then(done, blocked);
                return fetch(url + '/workers', { credentials: 'include' }).then(done, blocked);
            }""",
            fleet.url,
        )
        assert read == "blocked"
        assert fleet.json("/api/workers/sim-2")["tasks"]["draining"] is False
