"""A real Chromium without a window, and pages in it that tell what went wrong in them."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.tools import require_tool

ARGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE_MS = 20_000
REFUSED = "Failed to load resource: the server responded with a status of 4"
"""What Chromium writes for an answer that the page expects and shows."""


_FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig><cachedir>{folder}</cachedir><include ignore_missing="yes">/etc/fonts/fonts.conf</include></fontconfig>
"""
"""The fonts of the machine; what is read of them is kept in the first cache that can be written."""


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Chromium with a home of its own. Skips, or in CI fails, where there is none."""
    program = require_tool("chromium")
    expect.set_options(timeout=PATIENCE_MS)
    with tempfile.TemporaryDirectory(prefix="fleetpulse-browser-") as home, sync_playwright() as playwright:
        (fonts := Path(home) / "fonts.conf").write_text(_FONTS.format(folder=home))
        env: dict[str, str | float | bool] = {
            **os.environ,
            "HOME": home,
            "XDG_CONFIG_HOME": home,
            "XDG_CACHE_HOME": home,
            "FONTCONFIG_FILE": str(fonts),
        }
        browser = playwright.chromium.launch(executable_path=program, args=ARGS, env=env)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Ends with the module: what gevent does in other tests would not go together with it."""
    with running_browser() as browser:
        yield browser


class Visit:
    """A page of one master, and what it did that it should not."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.errors: list[str] = []
        self.foreign: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self._hear(message.type, message.text))
        page.on("request", lambda request: self._watch(request.url))

    def open(self, view: str = "/") -> Page:
        """Go to a view by its address after the ``#``."""
        self.page.goto(f"{self.url}/#{view}")
        return self.page

    def assert_no_errors(self) -> None:
        assert self.errors == []
        assert self.foreign == []

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not text.startswith(REFUSED):
            self.errors.append(text)

    def _watch(self, url: str) -> None:
        if urlsplit(url).netloc != urlsplit(self.url).netloc:
            self.foreign.append(url)


@contextmanager
def visit_to(browser: Browser, url: str, width: int = 1280, scheme: str = "light") -> Iterator[Visit]:
    """A visit with nothing left of others, by a reader of ``scheme`` with a screen so wide."""
    with browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
    ) as context:
        visit = Visit(context.new_page(), url)
        yield visit
        visit.assert_no_errors()
