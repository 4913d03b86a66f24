"""Automatic checks of accessibility: keyboard, names, contrast."""

from pathlib import Path
from typing import cast

from playwright.sync_api import Page

_CHECK = (Path(__file__).parent / "a11y.js").read_text(encoding="utf-8")


def complaints(page: Page) -> list[str]:
    """Returns the problems of the page as shown now, or of its open dialog."""
    return cast("list[str]", page.evaluate(_CHECK))
