"""The rules for a history: about tasks, containers and the fleet. Pure."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.chaos.index import HistoryIndex


class Violation(NamedTuple):
    """``rule`` is the name of the rule; ``what`` describes the place and the expected behaviour."""

    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"


Rule = Callable[[HistoryIndex], Iterator[str]]
"""Yields a sentence for each violation."""
