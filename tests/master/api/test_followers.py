"""master.api.followers"""

import pytest

from master.api.followers import Followers
from master.api.problems import Rejection
from master.clients import Clients
from master.errors import MasterStopping


class Reader:
    """Notes that it is told to end."""

    has_ended = False

    def end(self) -> None:
        self.has_ended = True


def refusal(followers: Followers, address: str) -> tuple[int, str]:
    with pytest.raises(Rejection) as refused:
        followers.admit(Reader(), address)
    return refused.value.status_code, refused.value.reason


def test_so_many_in_all() -> None:
    followers = Followers(2)
    readers = [Reader(), Reader()]
    for reader in readers:
        followers.admit(reader, "203.0.113.1")
    assert refusal(followers, "203.0.113.2") == (503, "readers")
    followers.leave(readers[0])
    followers.leave(readers[0])
    assert len(followers) == 1
    followers.admit(Reader(), "203.0.113.2")


def test_so_many_of_a_client() -> None:
    followers = Followers(10, most_of_client=2)
    readers = [Reader(), Reader()]
    for reader in readers:
        followers.admit(reader, "203.0.113.1")
    assert refusal(followers, "203.0.113.1") == (429, "client_readers")
    followers.admit(Reader(), "203.0.113.2")
    followers.leave(readers[0])
    followers.admit(Reader(), "203.0.113.1")
    assert refusal(followers, "203.0.113.1") == (429, "client_readers")


@pytest.mark.parametrize("limits_loopback", [False, True])
def test_of_this_machine_when_asked_for(limits_loopback: bool) -> None:
    group = Followers(10, "read", Clients(limits_loopback=limits_loopback), 1).group(10, "follow")
    group.admit(Reader(), "127.0.0.1")
    if limits_loopback:
        assert refusal(group, "127.0.0.1") == (429, "client_readers")
    else:
        group.admit(Reader(), "127.0.0.1")


def test_all_end_and_nobody_is_admitted_any_more() -> None:
    followers = Followers()
    group = followers.group(5, "follow")
    readers = [Reader(), Reader()]
    followers.admit(readers[0], "203.0.113.1")
    group.admit(readers[1], "203.0.113.1")
    followers.end()
    assert all(reader.has_ended for reader in readers)
    with pytest.raises(MasterStopping):
        group.admit(Reader(), "203.0.113.1")
