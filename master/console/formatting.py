"""Text for people: readings with their units, and text from the fleet made safe for a terminal.

A missing value is a dash, never 0. Text from workers and tasks may hold escape sequences.
"""

import re
import time
from collections.abc import Mapping
from typing import Any

MISSING = "-"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_LAST_UNIX_SECONDS = 253_402_128_000.0  # 9999-12-30

_MAX_PENDING = 4096
"""Characters of an unfinished sequence that are held back. Longer ones are shown as text."""

_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, the cursor
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # strings: the title, the clipboard
    r"|\x1b[ -/]*[0-Z\\`-~]"  # the short ones
)
_UNFINISHED = re.compile(
    r"(?:\x1b(?:\[[0-?]*[ -/]*|[ -/]*|[\]PX^_][^\x07\x1b\x9c]*\x1b?)"
    r"|\x9b[0-?]*[ -/]*|[\x90\x98\x9d-\x9f][^\x07\x1b\x9c]*\x1b?)\Z"
)
_REORDERING = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def percent(value: Any) -> str:
    """0 to 100, as ``12.3%``."""
    return f"{value:.1f}%" if isinstance(value, int | float) else MISSING


def number(value: Any) -> str:
    """A number with two decimals at most."""
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value) if isinstance(value, int) else MISSING


def size(value: Any) -> str:
    """Bytes, as ``1.5 GiB``."""
    if not isinstance(value, int | float):
        return MISSING
    amount, unit = float(value), 0
    while abs(amount) >= 1024 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.0f} {_UNITS[unit]}" if unit == 0 or amount >= 100 else f"{amount:.1f} {_UNITS[unit]}"


def duration(seconds: Any) -> str:
    """Seconds in their largest unit: ``45s``, ``12m``, ``5h``, ``3d``."""
    if not isinstance(seconds, int | float):
        return MISSING
    whole = max(0, int(seconds))
    for length, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if whole >= 2 * length:
            return f"{whole // length}{unit}"
    return f"{whole}s"


def age(unix_seconds: Any, now: float) -> str:
    """The time since ``unix_seconds``."""
    return duration(now - unix_seconds) if isinstance(unix_seconds, int | float) else MISSING


def local_time(unix_seconds: Any, form: str = "%H:%M:%S") -> str:
    """A Unix time in this machine's time zone. Times after the year 9999 are cut to its last days."""
    if not isinstance(unix_seconds, int | float):
        return MISSING
    return time.strftime(form, time.localtime(min(unix_seconds, _LAST_UNIX_SECONDS)))


def text(value: Any) -> str:
    """Any value as text. ``None`` and the empty string are missing."""
    return MISSING if value is None or value == "" else str(value)


def labels(value: Mapping[str, Any] | None) -> str:
    """Labels and constraints, as ``zone=a,gpu=x|y``."""
    items = ((name, choice if isinstance(choice, list) else [choice]) for name, choice in (value or {}).items())
    return text(",".join(f"{name}={'|'.join(map(str, choices))}" for name, choices in items))


def one_line(value: object) -> str:
    """Removes escape sequences and line breaks. Other unprintable characters become a space or U+FFFD."""
    stripped = _SEQUENCE.sub("", str(value))
    return "".join(char if char.isprintable() else " " if char.isspace() else "\ufffd" for char in stripped)


class EscapeFilter:
    """Removes escape sequences from a text that comes in chunks. Line breaks and tabs stay; a lone CR breaks a line."""

    def __init__(self) -> None:
        self._pending = ""

    def feed(self, chunk: str) -> str:
        """Returns the text that is safe to show now. An unfinished sequence waits for the next chunk."""
        text = _SEQUENCE.sub("", self._pending + chunk)
        self._pending = ""
        if (unfinished := _UNFINISHED.search(text)) is not None and len(unfinished.group()) <= _MAX_PENDING:
            text, self._pending = text[: unfinished.start()], unfinished.group()
        elif text.endswith("\r"):
            text, self._pending = text[:-1], "\r"
        return _without_controls(text)

    def end(self) -> str:
        """Returns what is left after the last chunk."""
        text, self._pending = self._pending, ""
        return _without_controls(text)


def _without_controls(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _REORDERING.sub("\ufffd", _CONTROL.sub("", text))
