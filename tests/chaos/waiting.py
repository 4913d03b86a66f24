"""Waiting for conditions while the master may be down."""

import time
from collections.abc import Callable

import requests

_POLL_SECONDS = 0.15


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Returns whether the condition became true in time. A master that does not answer counts as false."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return True
        except requests.RequestException:
            pass  # it is restarting
        time.sleep(_POLL_SECONDS)
    return False
