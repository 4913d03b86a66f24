"""master.rpc.enrollment: hosts that are refused too often wait"""

import pytest

from fleetpulse.master.errors import TooManyAttempts
from fleetpulse.master.rpc.enrollment import MAX_REFUSALS, AttemptLimiter


def test_host_that_is_refused_too_often_waits_a_minute() -> None:
    now = 100.0
    limiter = AttemptLimiter(lambda: now)
    for _ in range(MAX_REFUSALS):
        limiter.check("ipv4:192.0.2.7")
        limiter.add_refusal("ipv4:192.0.2.7")
    with pytest.raises(TooManyAttempts):
        limiter.check("ipv4:192.0.2.7")
    limiter.check("ipv4:192.0.2.8")
    now += 60.0
    limiter.check("ipv4:192.0.2.7")


def test_remembered_hosts_are_bounded() -> None:
    limiter = AttemptLimiter(lambda: 0.0)
    for number in range(5000):
        limiter.add_refusal(f"ipv4:{number}")
    assert len(limiter._refusals) == 1024
