"""A real headless Chromium. Its pages record script errors and requests to other servers."""

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
TIMEOUT_MS = 20_000
REFUSED = "Failed to load resource: the server responded with a status of 4"
"""The start of Chromium's message for a 4xx answer, which pages handle themselves."""


_FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig><cachedir>{folder}</cachedir><include ignore_missing="yes">/etc/fonts/fonts.conf</include></fontconfig>
"""
"""The machine's fonts, with a cache in ``folder``: fontconfig uses the first writable cache."""


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Runs Chromium with a temporary home. Skips the test, or fails it in CI, without Chromium."""
    program = require_tool("chromium")
    expect.set_options(timeout=TIMEOUT_MS)
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
    """A browser for one module. It must not run during tests that use gevent."""
    with running_browser() as browser:
        yield browser


class Visit:
    """A page of one master, with its errors and its requests to other servers."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.errors: list[str] = []
        self.foreign: list[str] = []
        page.set_default_timeout(TIMEOUT_MS)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self._on_console(message.type, message.text))
        page.on("request", lambda request: self._on_request(request.url))

    def open(self, view: str = "/") -> Page:
        """Opens a view by the part of its address after the ``#``."""
        self.page.goto(f"{self.url}/#{view}")
        return self.page

    def assert_no_errors(self) -> None:
        assert self.errors == []
        assert self.foreign == []

    def _on_console(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not text.startswith(REFUSED):
            self.errors.append(text)

    def _on_request(self, url: str) -> None:
        if urlsplit(url).netloc != urlsplit(self.url).netloc:
            self.foreign.append(url)


@contextmanager
def visit_to(browser: Browser, url: str, width: int = 1280, scheme: str = "light") -> Iterator[Visit]:
    """A visit in a new browser context, with a colour scheme and a screen width in pixels."""
    with browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
    ) as context:
        visit = Visit(context.new_page(), url)
        yield visit
        visit.assert_no_errors()
