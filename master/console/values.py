"""Readings as people write them. What is missing is a dash, never 0."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

MISSING = "-"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_LAST_UNIX_SECONDS = 253_402_128_000.0  # 9999-12-30
_BARS = "▁▂▃▄▅▆▇█"


def percent(value: Any) -> str:
    """0 to 100, as ``12.3%``."""
    return f"{value:.1f}%" if isinstance(value, int | float) else MISSING


def number(value: Any) -> str:
    """A count or an amount, without needless digits."""
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
    """Seconds by their largest unit: ``45s``, ``12m``, ``5h``, ``3d``."""
    if not isinstance(seconds, int | float):
        return MISSING
    whole = max(0, int(seconds))
    for length, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if whole >= 2 * length:
            return f"{whole // length}{unit}"
    return f"{whole}s"


def age(then: Any, now: float) -> str:
    """How long ago a Unix time is."""
    return duration(now - then) if isinstance(then, int | float) else MISSING


def moment(unix_seconds: float) -> str:
    """A date and a time, by the clock of this machine; what is after the year 9999 is in its last days."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(min(unix_seconds, _LAST_UNIX_SECONDS)))


def text(value: Any) -> str:
    """A text, or a dash."""
    return MISSING if value is None or value == "" else str(value)


def labels(value: Mapping[str, Any] | None) -> str:
    """Labels as they are given: ``zone=a,rack=7``."""
    return text(",".join(f"{name}={_joined(choice)}" for name, choice in (value or {}).items()))


def _joined(choice: Any) -> str:
    return "|".join(map(str, choice)) if isinstance(choice, list) else str(choice)


def sparkline(readings: Iterable[float | None], full: float = 100.0) -> str:
    """One character a reading, from nothing to full; a space where there was none."""
    return "".join(
        " " if reading is None else _BARS[min(len(_BARS) - 1, max(0, int(reading / full * len(_BARS))))]
        for reading in readings
    )
