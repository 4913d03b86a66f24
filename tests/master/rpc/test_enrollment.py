"""master.rpc.enrollment: who is refused too often waits"""

import pytest

from fleetpulse.master.errors import TooManyAttempts
from fleetpulse.master.rpc.enrollment import MAX_REFUSALS, Attempts


def test_who_is_refused_too_often_waits_a_minute_and_nobody_else_does() -> None:
    now = 100.0
    attempts = Attempts(lambda: now)
    for _ in range(MAX_REFUSALS):
        attempts.check("ipv4:192.0.2.7")
        attempts.refused("ipv4:192.0.2.7")
    with pytest.raises(TooManyAttempts):
        attempts.check("ipv4:192.0.2.7")
    attempts.check("ipv4:192.0.2.8")
    now += 60.0
    attempts.check("ipv4:192.0.2.7")


def test_what_is_remembered_is_bounded() -> None:
    attempts = Attempts(lambda: 0.0)
    for number in range(5000):
        attempts.refused(f"ipv4:{number}")
    assert len(attempts._refusals) == 1024
