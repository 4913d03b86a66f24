"""Whom the writer tells how it goes. Both are called by its thread, and must not wait."""

from collections.abc import Callable
from typing import NamedTuple


def _hear_nothing(*_: object) -> None:
    pass


class StoreObserver(NamedTuple):
    """Plain callables, so that the composition root can count on any instrument."""

    committed: Callable[[float, int], None] = _hear_nothing
    """Seconds that a transaction took, and how many writes were in it."""

    failed: Callable[[str], None] = _hear_nothing
    """A transaction came to nothing; why, as one of ``failures.KINDS``."""

    taken_over: Callable[[], None] = _hear_nothing
    """Another master has opened the database: nothing can be written any more, and what is in memory is outdated."""
