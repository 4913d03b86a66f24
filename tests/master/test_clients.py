"""master.clients"""

import pytest

from fleetpulse.master.clients import Clients


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_who_counts_as_one(address: str, name: str) -> None:
    assert Clients().name(address) == Clients(limits_loopback=True).name(address) == name


@pytest.mark.parametrize("address", ["127.0.0.1", "127.200.0.9", "::1", "::ffff:127.0.0.1", "no address", ""])
def test_clients_of_this_machine_are_counted_when_asked_for(address: str) -> None:
    assert Clients().name(address) is None
    assert Clients(limits_loopback=True).name(address) is not None
