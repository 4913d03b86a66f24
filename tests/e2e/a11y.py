"""Whether a view can be used without a mouse, without eyes and without good ones, as far as a program can tell."""

from pathlib import Path
from typing import cast

from playwright.sync_api import Page

_CHECK = (Path(__file__).parent / "a11y.js").read_text(encoding="utf-8")


def complaints(page: Page) -> list[str]:
    """What is wrong with the page as it is shown now, or with the dialog that is open."""
    return cast("list[str]", page.evaluate(_CHECK))
