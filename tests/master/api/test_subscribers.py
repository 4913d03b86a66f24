"""master.api.subscribers"""

from collections.abc import Callable
from functools import partial

import pytest

from fleetpulse.master.addresses import Clients
from fleetpulse.master.api.problems import Rejection
from fleetpulse.master.api.subscribers import ENDED, STOPPING, Subscribers
from fleetpulse.master.errors import FleetPulseError, MasterStopping
from tests.master.fleet import wait_until


class FakeSubscriber:
    """Keeps the reason for which it is revoked."""

    reason = ""

    def revoke(self, reason: FleetPulseError) -> None:
        self.reason = str(reason)


def client(address: str, is_still_allowed: Callable[[], bool] = lambda: True) -> tuple[str, Callable[[], bool]]:
    return address, is_still_allowed


def refusal(subscribers: Subscribers, address: str) -> tuple[int, str]:
    with pytest.raises(Rejection) as refused:
        subscribers.add(FakeSubscriber(), *client(address))
    return refused.value.status_code, refused.value.reason


def test_total_number_is_limited() -> None:
    subscribers = Subscribers(2)
    readers = [FakeSubscriber(), FakeSubscriber()]
    for reader in readers:
        subscribers.add(reader, *client("203.0.113.1"))
    assert refusal(subscribers, "203.0.113.2") == (503, "readers")
    subscribers.remove(readers[0])
    subscribers.remove(readers[0])
    assert len(subscribers) == 1
    subscribers.add(FakeSubscriber(), *client("203.0.113.2"))


def test_number_per_client_is_limited() -> None:
    subscribers = Subscribers(10, limit_per_client=2)
    readers = [FakeSubscriber(), FakeSubscriber()]
    for reader in readers:
        subscribers.add(reader, *client("203.0.113.1"))
    assert refusal(subscribers, "203.0.113.1") == (429, "client_readers")
    subscribers.add(FakeSubscriber(), *client("203.0.113.2"))
    subscribers.remove(readers[0])
    subscribers.add(FakeSubscriber(), *client("203.0.113.1"))
    assert refusal(subscribers, "203.0.113.1") == (429, "client_readers")


@pytest.mark.parametrize("limits_loopback", [False, True])
def test_loopback_clients_are_limited_on_request(limits_loopback: bool) -> None:
    group = Subscribers(10, "read", Clients(limits_loopback=limits_loopback), 1).group(10, "follow")
    group.add(FakeSubscriber(), *client("127.0.0.1"))
    if limits_loopback:
        assert refusal(group, "127.0.0.1") == (429, "client_readers")
    else:
        group.add(FakeSubscriber(), *client("127.0.0.1"))


def test_close_revokes_all_and_refuses_new_ones() -> None:
    subscribers = Subscribers()
    group = subscribers.group(5, "follow")
    readers = [FakeSubscriber(), FakeSubscriber()]
    subscribers.add(readers[0], *client("203.0.113.1"))
    group.add(readers[1], *client("203.0.113.1"))
    subscribers.close()
    assert [reader.reason for reader in readers] == [STOPPING] * 2
    with pytest.raises(MasterStopping):
        group.add(FakeSubscriber(), *client("203.0.113.1"))


def test_only_subscribers_without_access_are_revoked(caplog: pytest.LogCaptureFixture) -> None:
    subscribers = Subscribers(check_seconds=0.01)
    group = subscribers.group(200, "read")
    allowed = [True]
    readers = [FakeSubscriber() for _ in range(150)]
    for reader in readers[1:]:
        group.add(reader, *client("127.0.0.1"))
    faulty = FakeSubscriber()
    group.add(faulty, *client("127.0.0.1", [].pop))
    group.add(readers[0], *client("127.0.0.1", lambda: allowed[0]))
    wait_until(lambda: "whether one may still read could not be checked" in caplog.text)
    assert {reader.reason for reader in readers} == {""}
    allowed[0] = False
    wait_until(lambda: readers[0].reason == ENDED)
    assert {reader.reason for reader in [*readers[1:], faulty]} == {""}
    for reader in [*readers, faulty]:
        group.remove(reader)


def test_access_is_not_checked_without_subscribers() -> None:
    subscribers, checks = Subscribers(check_seconds=0.01), [0]

    def check() -> bool:
        checks[0] += 1
        return True

    def has_checked(number: int) -> bool:
        return checks[0] >= number

    for number in range(1, 3):
        reader = FakeSubscriber()
        subscribers.add(reader, *client("127.0.0.1", check))
        wait_until(partial(has_checked, number))
        subscribers.remove(reader)
        assert subscribers._checking is None
