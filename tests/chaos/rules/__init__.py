"""The rules that a history must keep: about tasks, about containers, about the fleet. Pure."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.chaos.story import Story


class Violation(NamedTuple):
    """``rule`` is the name of the function that found it; ``what`` says where, and what was expected."""

    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"


Rule = Callable[[Story], Iterator[str]]
"""Yields a sentence for every time that the rule was broken."""
