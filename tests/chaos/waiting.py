"""Waiting for a fleet that is being broken, without keeping it busy by asking."""

import time
from collections.abc import Callable

import requests

_POLL_SECONDS = 0.15


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether the condition came true in time. A master that does not answer is an answer that is not true yet."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return True
        except requests.RequestException:
            pass  # it is being started again
        time.sleep(_POLL_SECONDS)
    return False
