"""Waiting for what must happen, and for no longer."""

import time
from collections.abc import Callable
from typing import TypeVar

import requests

Answer = TypeVar("Answer")

POLL_SECONDS = 0.02
PATIENCE_SECONDS = 30.0
"""Far more than what must happen takes, so that a busy machine is no failure."""


def eventually(condition: Callable[[], Answer], timeout: float = PATIENCE_SECONDS) -> Answer:
    """The first true answer of ``condition``, which is asked until then; ``AssertionError`` after ``timeout`` seconds.

    An HTTP server that cannot be reached is an answer that is not true yet.
    """
    deadline = time.monotonic() + timeout
    last = ""
    while time.monotonic() < deadline:
        try:
            if answer := condition():
                return answer
            last = repr(answer)
        except requests.RequestException as error:
            last = repr(error)
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"waited {timeout:g} s in vain; the last answer was {last}")
