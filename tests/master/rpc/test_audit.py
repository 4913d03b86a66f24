"""master.rpc.audit"""

import pytest

from fleetpulse.master.rpc.audit import client_of


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        ("ipv4:192.0.2.7:40000", "192.0.2.7"),
        ("ipv6:%5B2001:db8::7%5D:40000", "2001:db8::7"),
        ("ipv6:[::1]:40000", "::1"),
        ("unix:/run/fleetpulse.sock", "unix:/run/fleetpulse.sock"),
        ("", ""),
    ],
)
def test_the_address_of_a_peer(peer: str, client: str) -> None:
    assert client_of(peer) == client
