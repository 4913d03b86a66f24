"""master.config"""

import socket
from pathlib import Path

import pytest

from fleetpulse.master.config import (
    Address,
    LeaseConfig,
    MasterConfig,
    StoreConfig,
    check_terms,
    claim_port,
    parse_address,
    parse_duration,
    parse_http_url,
    parse_link,
    parse_names,
    parse_retention,
    parse_size,
    tls_names,
)
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
def test_addresses(text: str, expected: Address) -> None:
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
def test_what_is_no_address_is_named_with_its_setting(text: str) -> None:
    with pytest.raises(ConfigError, match="HTTP_PORT="):
        parse_address("HTTP_PORT", text)


@pytest.mark.parametrize(
    ("address", "text"),
    [(Address("127.0.0.1", 80), "127.0.0.1:80"), (Address("::1", 80), "[::1]:80"), (Address("host", 0), "host:0")],
)
def test_an_address_in_words_can_be_read_again(address: Address, text: str) -> None:
    assert str(address) == text
    assert parse_address("HTTP_PORT", text) == address


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5.0), ("500ms", 0.5), ("2m", 120.0), ("24h", 86400.0), ("7d", 604800.0), ("5", 5.0), ("0.25", 0.25),
        ("1.5h", 5400.0), (" 5s ", 5.0), ("0.001ms", 0.000001),
    ],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration("HEARTBEAT_INTERVAL", text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "0",
        "0s",
        "0.0ms",
        "-5s",
        "+5s",
        "5 s",
        "5S",
        "5sec",
        "1m30s",
        "1e3",
        "nan",
        "inf",
        ".5",
        "5.",
        "9" * 400,
    ],
    ids=lambda text: text[:10],
)
def test_what_is_no_duration_is_named_with_its_setting(text: str) -> None:
    with pytest.raises(ConfigError, match="HEARTBEAT_INTERVAL="):
        parse_duration("HEARTBEAT_INTERVAL", text)


def test_the_defaults_are_those_of_the_documentation() -> None:
    config = MasterConfig(StoreConfig(Path("state")))
    assert (str(config.http), str(config.grpc)) == ("127.0.0.1:8080", "127.0.0.1:50051")
    assert (config.terms.heartbeat_interval_seconds, config.terms.inactivity_timeout_seconds) == (5.0, 30.0)
    assert check_terms(config.terms) is config.terms


def test_terms_under_which_a_late_heartbeat_would_make_a_worker_inactive() -> None:
    check_terms(LeaseConfig(heartbeat_interval_seconds=5.0, inactivity_timeout_seconds=10.0))
    with pytest.raises(ConfigError, match=r"INACTIVITY_TIMEOUT \(9\.9 s\).* HEARTBEAT_INTERVAL \(5 s\)"):
        check_terms(LeaseConfig(heartbeat_interval_seconds=5.0, inactivity_timeout_seconds=9.9))


# Ports


def test_port_0_becomes_one_that_is_free() -> None:
    address = claim_port("HTTP_PORT", Address("127.0.0.1", 0))
    assert address.host == "127.0.0.1"
    assert address.port > 0
    with socket.create_server(address):
        pass


def test_a_port_that_is_free_stays() -> None:
    address = claim_port("HTTP_PORT", Address("127.0.0.1", 0))
    assert claim_port("HTTP_PORT", address) == address


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConfigError, match=f"GRPC_PORT: cannot listen on 127.0.0.1:{port}: Address already in use"):
            claim_port("GRPC_PORT", Address("127.0.0.1", port))


@pytest.mark.parametrize("host", ["host.invalid", "a..b", "a" * 64, "192.0.2.1"], ids=lambda host: host[:10])
def test_a_host_that_is_not_here(host: str) -> None:
    with pytest.raises(ConfigError, match="HTTP_PORT: "):
        claim_port("HTTP_PORT", Address(host, 0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://grafana.example/", "https://grafana.example"),
        (" http://localhost:3000/a/b ", "http://localhost:3000/a/b"),
        ("", None),
    ],
)
def test_links(text: str, expected: str | None) -> None:
    assert parse_link("FLEETPULSE_GRAFANA_URL", text) == expected


@pytest.mark.parametrize(
    "text", ["grafana.example", "javascript:alert(1)", "https://", "https://a b", "https://u:p@host"]
)
def test_what_is_no_link(text: str) -> None:
    with pytest.raises(ConfigError, match="FLEETPULSE_GRAFANA_URL"):
        parse_link("FLEETPULSE_GRAFANA_URL", text)


@pytest.mark.parametrize(
    ("text", "expected"), [("off", None), (" OFF ", None), ("24h", 86_400.0), ("30d", 2_592_000.0)]
)
def test_a_retention_may_be_off(text: str, expected: float | None) -> None:
    assert parse_retention("FLEETPULSE_HISTORY_RETENTION", text) == expected


@pytest.mark.parametrize("url", ["http://prometheus:9090", "https://user:pass@host/prefix/", "http://[::1]:9090"])
def test_a_url_of_prometheus(url: str) -> None:
    assert parse_http_url("FLEETPULSE_PROMETHEUS_URL", f" {url} ") == url


@pytest.mark.parametrize("url", ["prometheus:9090", "ftp://secret@host", "http://", "http://host:secret", "http://h\0"])
def test_a_bad_url_of_prometheus_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="FLEETPULSE_PROMETHEUS_URL: expected a URL") as raised:
        parse_http_url("FLEETPULSE_PROMETHEUS_URL", url)
    assert "secret" not in str(raised.value)


# Names for TLS


def test_a_master_is_reached_by_loopback_its_host_name_and_what_it_was_given() -> None:
    assert tls_names("0.0.0.0", "rack-1", parse_names("X", " fleet.example, 192.0.2.7 ,")) == (
        "localhost", "127.0.0.1", "::1", "rack-1", "fleet.example", "192.0.2.7",
    )  # fmt: skip
    assert "192.0.2.7" in tls_names("192.0.2.7", "rack-1", ())


@pytest.mark.parametrize("text", ["a b", "https://fleet.example", "fleet.example/x", "a\nb", "a" * 300])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^X: .* is neither a host name nor an address$"):
        parse_names("X", text)


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), (" 64MiB ", 64 * 1024**2), ("4 KiB", 4096), ("1GiB", 1024**3)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size("FLEETPULSE_AUDIT_FILE_SIZE", text, 4096) == size


@pytest.mark.parametrize(
    "text", ["", "4095", "3KiB", "-1", "64MB", "64mib", "1.5GiB", "MiB", "٤٠٩٦٠", "1" * 13], ids=ascii
)
def test_what_is_no_size_is_named_with_its_setting(text: str) -> None:
    with pytest.raises(ConfigError, match="FLEETPULSE_AUDIT_FILE_SIZE="):
        parse_size("FLEETPULSE_AUDIT_FILE_SIZE", text, 4096)
