"""master.config"""

from pathlib import Path

import pytest

from fleetpulse.master.config import (
    LeaseConfig,
    MasterConfig,
    StoreConfig,
    check_lease,
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
    ("text", "seconds"),
    [
        ("5s", 5.0), ("500ms", 0.5), ("2m", 120.0), ("24h", 86400.0), ("7d", 604800.0), ("5", 5.0), ("0.25", 0.25),
        ("1.5h", 5400.0), (" 5s ", 5.0), ("0.001ms", 0.000001),
    ],
)  # fmt: skip
def test_parse_duration(text: str, seconds: float) -> None:
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
def test_invalid_duration_is_named_with_its_setting(text: str) -> None:
    with pytest.raises(ConfigError, match="HEARTBEAT_INTERVAL="):
        parse_duration("HEARTBEAT_INTERVAL", text)


def test_defaults_match_the_documentation() -> None:
    config = MasterConfig(StoreConfig(Path("state")))
    assert (str(config.http), str(config.grpc)) == ("127.0.0.1:8080", "127.0.0.1:50051")
    assert (config.lease.heartbeat_interval_seconds, config.lease.inactivity_timeout_seconds) == (5.0, 30.0)
    assert check_lease(config.lease) is config.lease


def test_timeout_below_two_heartbeat_intervals_is_refused() -> None:
    check_lease(LeaseConfig(heartbeat_interval_seconds=5.0, inactivity_timeout_seconds=10.0))
    with pytest.raises(ConfigError, match=r"INACTIVITY_TIMEOUT \(9\.9 s\).* HEARTBEAT_INTERVAL \(5 s\)"):
        check_lease(LeaseConfig(heartbeat_interval_seconds=5.0, inactivity_timeout_seconds=9.9))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://grafana.example/", "https://grafana.example"),
        (" http://localhost:3000/a/b ", "http://localhost:3000/a/b"),
        ("", None),
    ],
)
def test_parse_link(text: str, expected: str | None) -> None:
    assert parse_link("FLEETPULSE_GRAFANA_URL", text) == expected


@pytest.mark.parametrize(
    "text", ["grafana.example", "javascript:alert(1)", "https://", "https://a b", "https://u:p@host"]
)
def test_invalid_link_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="FLEETPULSE_GRAFANA_URL"):
        parse_link("FLEETPULSE_GRAFANA_URL", text)


@pytest.mark.parametrize(
    ("text", "expected"), [("off", None), (" OFF ", None), ("24h", 86_400.0), ("30d", 2_592_000.0)]
)
def test_parse_retention(text: str, expected: float | None) -> None:
    assert parse_retention("FLEETPULSE_HISTORY_RETENTION", text) == expected


@pytest.mark.parametrize("url", ["http://prometheus:9090", "https://user:pass@host/prefix/", "http://[::1]:9090"])
def test_parse_http_url(url: str) -> None:
    assert parse_http_url("FLEETPULSE_PROMETHEUS_URL", f" {url} ") == url


@pytest.mark.parametrize("url", ["prometheus:9090", "ftp://secret@host", "http://", "http://host:secret", "http://h\0"])
def test_invalid_http_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="FLEETPULSE_PROMETHEUS_URL: expected a URL") as raised:
        parse_http_url("FLEETPULSE_PROMETHEUS_URL", url)
    assert "secret" not in str(raised.value)


# Names for TLS


def test_tls_names() -> None:
    assert tls_names("0.0.0.0", "rack-1", parse_names("X", " fleet.example, 192.0.2.7 ,")) == (
        "localhost", "127.0.0.1", "::1", "rack-1", "fleet.example", "192.0.2.7",
    )  # fmt: skip
    assert "192.0.2.7" in tls_names("192.0.2.7", "rack-1", ())


@pytest.mark.parametrize("text", ["a b", "https://fleet.example", "fleet.example/x", "a\nb", "a" * 300])
def test_invalid_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^X: .* is neither a host name nor an address$"):
        parse_names("X", text)


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), (" 64MiB ", 64 * 1024**2), ("4 KiB", 4096), ("1GiB", 1024**3)]
)
def test_parse_size(text: str, size: int) -> None:
    assert parse_size("FLEETPULSE_AUDIT_FILE_SIZE", text, 4096) == size


@pytest.mark.parametrize(
    "text", ["", "4095", "3KiB", "-1", "64MB", "64mib", "1.5GiB", "MiB", "٤٠٩٦٠", "1" * 13], ids=ascii
)
def test_invalid_size_is_named_with_its_setting(text: str) -> None:
    with pytest.raises(ConfigError, match="FLEETPULSE_AUDIT_FILE_SIZE="):
        parse_size("FLEETPULSE_AUDIT_FILE_SIZE", text, 4096)
