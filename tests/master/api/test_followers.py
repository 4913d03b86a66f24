"""master.api.followers"""

from collections.abc import Callable
from functools import partial

import pytest

from fleetpulse.master.api.followers import ENDED, STOPPING, ClientIdentity, Subscribers
from fleetpulse.master.api.problems import Rejection
from fleetpulse.master.clients import Clients
from fleetpulse.master.errors import FleetPulseError, MasterStopping
from tests.master.fleet import wait_until


class Reader:
    """Notes why it is told to end."""

    why = ""

    def end(self, why: FleetPulseError) -> None:
        self.why = str(why)


def asker(address: str, is_still_allowed: Callable[[], bool] = lambda: True) -> ClientIdentity:
    return ClientIdentity(address, is_still_allowed)


def refusal(followers: Subscribers, address: str) -> tuple[int, str]:
    with pytest.raises(Rejection) as refused:
        followers.admit(Reader(), asker(address))
    return refused.value.status_code, refused.value.reason


def test_so_many_in_all() -> None:
    followers = Subscribers(2)
    readers = [Reader(), Reader()]
    for reader in readers:
        followers.admit(reader, asker("203.0.113.1"))
    assert refusal(followers, "203.0.113.2") == (503, "readers")
    followers.leave(readers[0])
    followers.leave(readers[0])
    assert len(followers) == 1
    followers.admit(Reader(), asker("203.0.113.2"))


def test_so_many_of_a_client() -> None:
    followers = Subscribers(10, most_of_client=2)
    readers = [Reader(), Reader()]
    for reader in readers:
        followers.admit(reader, asker("203.0.113.1"))
    assert refusal(followers, "203.0.113.1") == (429, "client_readers")
    followers.admit(Reader(), asker("203.0.113.2"))
    followers.leave(readers[0])
    followers.admit(Reader(), asker("203.0.113.1"))
    assert refusal(followers, "203.0.113.1") == (429, "client_readers")


@pytest.mark.parametrize("limits_loopback", [False, True])
def test_of_this_machine_when_asked_for(limits_loopback: bool) -> None:
    group = Subscribers(10, "read", Clients(limits_loopback=limits_loopback), 1).group(10, "follow")
    group.admit(Reader(), asker("127.0.0.1"))
    if limits_loopback:
        assert refusal(group, "127.0.0.1") == (429, "client_readers")
    else:
        group.admit(Reader(), asker("127.0.0.1"))


def test_all_end_and_nobody_is_admitted_any_more() -> None:
    followers = Subscribers()
    group = followers.group(5, "follow")
    readers = [Reader(), Reader()]
    followers.admit(readers[0], asker("203.0.113.1"))
    group.admit(readers[1], asker("203.0.113.1"))
    followers.end()
    assert [reader.why for reader in readers] == [STOPPING] * 2
    with pytest.raises(MasterStopping):
        group.admit(Reader(), asker("203.0.113.1"))


def test_who_may_not_follow_any_more_is_told_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    followers = Subscribers(look_seconds=0.01)
    group = followers.group(200, "read")
    allowed = [True]
    readers = [Reader() for _ in range(150)]
    for reader in readers[1:]:
        group.admit(reader, asker("127.0.0.1"))
    faulty = Reader()
    group.admit(faulty, asker("127.0.0.1", [].pop))
    group.admit(readers[0], asker("127.0.0.1", lambda: allowed[0]))
    wait_until(lambda: "whether one may still read could not be told" in caplog.text)
    assert {reader.why for reader in readers} == {""}
    allowed[0] = False
    wait_until(lambda: readers[0].why == ENDED)
    assert {reader.why for reader in [*readers[1:], faulty]} == {""}
    for reader in [*readers, faulty]:
        group.leave(reader)


def test_nobody_looks_while_nobody_follows() -> None:
    followers, looks = Subscribers(look_seconds=0.01), [0]

    def look() -> bool:
        looks[0] += 1
        return True

    def has_looked(number: int) -> bool:
        return looks[0] >= number

    for number in range(1, 3):
        reader = Reader()
        followers.admit(reader, asker("127.0.0.1", look))
        wait_until(partial(has_looked, number))
        followers.leave(reader)
        assert followers._looking is None
