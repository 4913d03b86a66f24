"""Waiting for conditions."""

import time
from collections.abc import Callable
from typing import TypeVar

import requests

Answer = TypeVar("Answer")

POLL_SECONDS = 0.02
TIMEOUT_SECONDS = 30.0
"""Long enough for a busy machine."""


def eventually(condition: Callable[[], Answer], timeout: float = TIMEOUT_SECONDS) -> Answer:
    """Polls ``condition`` and returns its first true value. Raises ``AssertionError`` after ``timeout`` seconds.

    An HTTP server that cannot be reached counts as false.
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
