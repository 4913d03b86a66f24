"""master.addresses"""

import socket

import pytest

from fleetpulse.master.addresses import Address, Clients, claim_port, host_of_peer, parse_address
from fleetpulse.master.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":8080", Address("127.0.0.1", 8080)),
        ("8080", Address("127.0.0.1", 8080)),
        (" 8080 ", Address("127.0.0.1", 8080)),
        ("0", Address("127.0.0.1", 0)),
        ("65535", Address("127.0.0.1", 65535)),
        ("host:8080", Address("host", 8080)),
        ("master.example.com:8080", Address("master.example.com", 8080)),
        ("0.0.0.0:8080", Address("0.0.0.0", 8080)),
        ("[::1]:8080", Address("::1", 8080)),
        ("[::]:8080", Address("::", 8080)),
        ("[fe80::1%eth0]:8080", Address("fe80::1%eth0", 8080)),
    ],
)
def test_parse_address(text: str, expected: Address) -> None:
    assert parse_address("HTTP_PORT", text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ":", "abc", ":abc", "host:", "host", "99999", "65536", ":65536", "-1", ":-1", "+80", "8080.0", "8_080",
        "0x50", "1" * 5000, "8080\x00", "80 80", "٨٠٨٠", "::1:8080", "::1", "[::1]", "[::1]8080", "http://host:8080",
        "ho st:8080", "host/:8080", 'ho"st:8080', "a\nb:8080", ":8080:",
    ],
    ids=lambda text: ascii(text[:20]),
)  # fmt: skip
def test_invalid_address_is_named_with_its_setting(text: str) -> None:
    with pytest.raises(ConfigError, match="HTTP_PORT="):
        parse_address("HTTP_PORT", text)


@pytest.mark.parametrize(
    ("address", "text"),
    [(Address("127.0.0.1", 80), "127.0.0.1:80"), (Address("::1", 80), "[::1]:80"), (Address("host", 0), "host:0")],
)
def test_address_text_is_parsed_back(address: Address, text: str) -> None:
    assert str(address) == text
    assert parse_address("HTTP_PORT", text) == address


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
def test_client_key_of_an_address(address: str, name: str) -> None:
    assert Clients().name(address) == Clients(limits_loopback=True).name(address) == name


@pytest.mark.parametrize("address", ["127.0.0.1", "127.200.0.9", "::1", "::ffff:127.0.0.1", "no address", ""])
def test_loopback_clients_are_counted_on_request(address: str) -> None:
    assert Clients().name(address) is None
    assert Clients(limits_loopback=True).name(address) is not None


# Ports


def test_port_0_becomes_a_free_port() -> None:
    address = claim_port("HTTP_PORT", Address("127.0.0.1", 0))
    assert address.host == "127.0.0.1"
    assert address.port > 0
    with socket.create_server(address):
        pass


def test_free_port_is_kept() -> None:
    address = claim_port("HTTP_PORT", Address("127.0.0.1", 0))
    assert claim_port("HTTP_PORT", address) == address


def test_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConfigError, match=f"GRPC_PORT: cannot listen on 127.0.0.1:{port}: Address already in use"):
            claim_port("GRPC_PORT", Address("127.0.0.1", port))


@pytest.mark.parametrize("host", ["host.invalid", "a..b", "a" * 64, "192.0.2.1"], ids=lambda host: host[:10])
def test_unknown_host_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="HTTP_PORT: "):
        claim_port("HTTP_PORT", Address(host, 0))


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:192.0.2.7:40000", "192.0.2.7"),
        ("ipv6:%5B2001:db8::7%5D:40000", "2001:db8::7"),
        ("ipv6:[::1]:40000", "::1"),
        ("unix:/run/fleetpulse.sock", "unix:/run/fleetpulse.sock"),
        ("", ""),
    ],
)
def test_host_of_a_grpc_peer(peer: str, host: str) -> None:
    assert host_of_peer(peer) == host
