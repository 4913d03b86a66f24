"""What the many lines of a pull add up to. Pure."""

from collections.abc import Mapping
from typing import Any

_DONE = frozenset({"Pull complete", "Already exists"})
_MEGABYTE = 1_000_000


class PullProgress:
    """Of one image; lines in, one line for people out."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._layers: dict[str, tuple[int, int]] = {}
        """Bytes of each that are here, and in all."""
        self._done: set[str] = set()

    def add(self, line: Mapping[str, Any]) -> None:
        """One line of ``POST /images/create``."""
        layer, status = str(line.get("id", "")), str(line.get("status", ""))
        if status == "Pulling fs layer":
            self._layers.setdefault(layer, (0, 0))
        elif status == "Downloading":
            detail = line.get("progressDetail") or {}
            self._layers[layer] = (int(detail.get("current") or 0), int(detail.get("total") or 0))
        elif status in _DONE:
            _, size = self._layers.get(layer, (0, 0))
            self._layers[layer] = (size, size)
            self._done.add(layer)

    def __str__(self) -> str:
        text = f"pulling {self._image}"
        if self._layers:
            text += f": {len(self._done)} of {len(self._layers)} layers"
        size = sum(size for _, size in self._layers.values())
        if size:
            here = sum(min(here, size) for here, size in self._layers.values())
            text += f", {here / _MEGABYTE:.0f} of {size / _MEGABYTE:.0f} MB"
        return text
