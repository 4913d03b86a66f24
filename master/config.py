"""The master's settings, read once, by the composition root: flags, then environment, then a ``.env`` file."""

import ipaddress
import math
import re
import socket
import ssl
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from fleetpulse.master.access.store import TOKENS_FILE_NAME
from fleetpulse.master.errors import ConfigError
from fleetpulse.proto.policy import TaskPolicy

LOOPBACK = "127.0.0.1"
BEST_FIT = "best-fit"
"""FleetPulse's own policy of placement. No installed one can take its name."""

_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_UNIT_BYTES = {"": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_SIZE = re.compile(r"(?P<amount>[0-9]{1,12}) ?(?P<unit>KiB|MiB|GiB|)")
_DURATION = re.compile(r"(?P<amount>\d+(?:\.\d+)?)(?P<unit>ms|s|m|h|d)?")


class Address(NamedTuple):
    """Where to listen. ``str`` of it is what gunicorn, grpc and a browser understand."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class LeaseConfig(NamedTuple):
    """What the master grants every worker, and how much it takes on."""

    heartbeat_interval_seconds: float = 5.0
    inactivity_timeout_seconds: float = 30.0
    retention_seconds: float = 24 * 3600.0
    max_workers: int = 15_000
    queue_length: int = 8


class StoreConfig(NamedTuple):
    """Where tasks are kept, and for how long once they have ended."""

    data_dir: Path
    database_url: str | None = None
    """``None``: a SQLite file in ``data_dir``."""

    secret_key_file: Path | None = None
    """What seals the values of environments; ``None``: a file in ``data_dir``, made when it is not there."""

    log_retention_seconds: float = 7 * 24 * 3600.0
    task_retention_seconds: float = 90 * 24 * 3600.0


class HistoryConfig(NamedTuple):
    """For how long points of 15 seconds and of 5 minutes are kept of each reading; ``None``: none are.

    ``prometheus_url`` is of a Prometheus that scrapes this master, and answers instead of the store when it does.
    """

    short_seconds: float | None = 24 * 3600.0
    long_seconds: float | None = 30 * 24 * 3600.0
    prometheus_url: str | None = None


class TlsFiles(NamedTuple):
    """What the web server shows: a chain of certificates and its key, both PEM."""

    certificate: Path
    key: Path


class AccessConfig(NamedTuple):
    """Who may ask over HTTP."""

    tokens_file: Path | None = None
    """``None``: ``tokens.json`` in the data directory."""

    names: tuple[str, ...] = ()
    """Host names that the master goes by, beside ``localhost``, this machine's name and every IP address."""

    tls: TlsFiles | None = None
    is_network_trusted: bool = False
    """The operator says that whoever reaches the ports may use them, though tokens or TLS are missing."""


class TlsConfig(NamedTuple):
    """Of a master with a CA in its data directory: where machines join, and by what names workers reach it."""

    join: Address
    names: tuple[str, ...]
    certificate_lifetime_seconds: float = 30 * 86400.0
    """Of certificates for workers, and of the master's own."""


class Limits(NamedTuple):
    """What clients may take of HTTP. A client is an address, or a network of 64 bits of IPv6."""

    connections: int = 2000
    client_connections: int = 500
    client_readers: int = 100
    """Those who follow something: the stream of telemetry, or a log."""

    client_requests_per_second: int = 200
    """Twice as many may come at once; 0: as many as they like."""

    limit_loopback: bool = False
    """Whether what holds for one client holds for those of this machine too, which may be a proxy for many."""

    head_seconds: float = 10.0
    answer_seconds: float = 90.0
    """For a client to take one piece of its answer."""

    @property
    def client_burst(self) -> int:
        return 2 * self.client_requests_per_second


class MasterConfig(NamedTuple):
    """Everything that a master is told from outside."""

    store: StoreConfig
    http: Address = Address(LOOPBACK, 8080)
    grpc: Address = Address(LOOPBACK, 50051)
    terms: LeaseConfig = LeaseConfig()
    history: HistoryConfig = HistoryConfig()
    access: AccessConfig = AccessConfig()
    limits: Limits = Limits()
    log_level: str = "info"
    grafana_url: str | None = None
    """Where the page's links to dashboards lead."""

    audit_file_bytes: int = 64 * 1024**2
    """At this size a file of the audit trail is full, and a new one begun."""

    placement: str = BEST_FIT
    """Which policy decides where tasks run; see ``tasks.placement``."""

    task_policy: TaskPolicy = TaskPolicy()
    """Which tasks are taken at all."""

    tls: TlsConfig | None = None
    """``None``: there is no CA, and workers come without TLS."""

    @property
    def tokens_file(self) -> Path:
        """Where the tokens of this master are kept."""
        return self.access.tokens_file or self.store.data_dir / TOKENS_FILE_NAME

    @property
    def is_exposed(self) -> bool:
        """Whether other machines reach REST, over a network that nobody vouches for."""
        return not is_loopback(self.http.host) and not self.access.is_network_trusted


def check_tls(files: TlsFiles) -> TlsFiles:
    """Raise ``ConfigError`` for files that no server can show."""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files, password="")  # nosec B106 # so that nobody is asked for one
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ConfigError(f"{files.certificate} and {files.key} are no certificate with its key: {reason}") from error
    return files


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(config: MasterConfig, *, has_tokens: bool, has_worker_tls: bool) -> MasterConfig:
    """Raise ``ConfigError`` when other machines would reach a port that nothing guards."""
    if config.access.is_network_trusted:
        return config
    missing = []
    if not is_loopback(config.http.host):
        missing += [] if has_tokens else ["a token (`fleetpulse token create` makes one)"]
        missing += [] if config.access.tls else ["TLS (--tls-certificate and --tls-key)"]
    if missing:
        raise ConfigError(_exposed("HTTP_PORT", config.http, missing, "look at the fleet and start containers on it"))
    if not is_loopback(config.grpc.host) and not has_worker_tls:
        wanted = ["TLS for workers (`fleetpulse ca init` prepares it)"]
        raise ConfigError(_exposed("GRPC_PORT", config.grpc, wanted, "pass for a worker and be handed its tasks"))
    return config


def _exposed(name: str, address: Address, missing: list[str], risk: str) -> str:
    return (
        f"{name}={address}: other machines reach this, and there is no {' and no '.join(missing)}. "
        "Listen on 127.0.0.1, or add what is missing, or say --insecure-network: then whoever reaches the port "
        f"may {risk}"
    )


def parse_address(name: str, text: str) -> Address:
    """``:8080``, ``8080``, ``host:8080`` or ``[::1]:8080``. Without a host it is 127.0.0.1; port 0 means any free one.

    Raises ``ConfigError`` that names the setting.
    """
    host, colon, port = text.strip().rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ConfigError(f"{name}={text!r}: expected a port as 8080, :8080 or host:8080, from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"{name}={text!r}: write an IPv6 address in brackets, as [::1]:8080")
    if colon and host and not re.fullmatch(r"[A-Za-z0-9.:_%-]+", host):
        raise ConfigError(f"{name}={text!r}: {host!r} is not a host")
    return Address(host or LOOPBACK, int(port))


def parse_duration(name: str, text: str) -> float:
    """``5s``, ``500ms``, ``2m``, ``24h``, ``7d`` or plain seconds, in seconds. Raises ``ConfigError``."""
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match["amount"]) * _UNIT_SECONDS[match["unit"] or "s"] if match else 0.0
    if not 0.0 < seconds < math.inf:
        raise ConfigError(f"{name}={text!r}: expected a duration above 0 as 5s, 500ms, 2m or 24h")
    return seconds


def parse_size(name: str, text: str, least: int) -> int:
    """``64MiB``, ``512KiB``, ``1GiB`` or plain bytes, in bytes. Raises ``ConfigError``."""
    match = _SIZE.fullmatch(text.strip())
    size = int(match["amount"]) * _UNIT_BYTES[match["unit"]] if match else 0
    if size < least:
        raise ConfigError(f"{name}={text!r}: expected a size of {least} bytes at least, as 512KiB, 64MiB or 1GiB")
    return size


def parse_link(name: str, text: str) -> str | None:
    """The address of a site that a browser can go to, without a ``/`` at its end; ``None`` for an empty text.

    Raises ``ConfigError`` that names the setting.
    """
    text = text.strip().rstrip("/")
    if text and not re.fullmatch(r"https?://[^/\s\"'<>?#@]+(/[^\s\"'<>?#]*)?", text):
        raise ConfigError(f"{name}={text!r}: expected an address as https://grafana.example or http://localhost:3000")
    return text or None


def parse_retention(name: str, text: str) -> float | None:
    """A duration, or ``None`` for ``off``. Raises ``ConfigError``."""
    return None if text.strip().lower() == "off" else parse_duration(name, text)


def parse_http_url(name: str, text: str) -> str:
    """Raises ``ConfigError``, which does not repeat the URL: there may be a password in it."""
    try:
        parts = urlsplit(text.strip())
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or not text.strip().isprintable():
        raise ConfigError(f"{name}: expected a URL as http://prometheus.example:9090")
    return text.strip()


def parse_names(name: str, text: str) -> tuple[str, ...]:
    """Host names and addresses, separated by commas. Raises ``ConfigError`` that names the setting."""
    names = tuple(word.strip() for word in text.split(",") if word.strip())
    for word in names:
        if not re.fullmatch(r"[A-Za-z0-9.:_*-]{1,253}", word):
            raise ConfigError(f"{name}: {word!r} is neither a host name nor an address")
    return names


def tls_names(host: str, hostname: str, more: tuple[str, ...]) -> tuple[str, ...]:
    """By what names workers may reach a master that listens at ``host`` on the machine ``hostname``."""
    bound = () if host in ("0.0.0.0", "::") else (host,)  # nosec B104 # it is compared with, not listened on
    return tuple(dict.fromkeys(("localhost", LOOPBACK, "::1", hostname, *bound, *more)))


def check_terms(terms: LeaseConfig) -> LeaseConfig:
    """Raise ``ConfigError`` for terms under which no worker could stay active."""
    if terms.inactivity_timeout_seconds < 2.0 * terms.heartbeat_interval_seconds:
        raise ConfigError(
            f"INACTIVITY_TIMEOUT ({terms.inactivity_timeout_seconds:g} s) must be at least twice "
            f"HEARTBEAT_INTERVAL ({terms.heartbeat_interval_seconds:g} s), or a late heartbeat makes a worker inactive"
        )
    return terms


def claim_port(name: str, address: Address) -> Address:
    """The address with a port that is free now; raise ``ConfigError`` when the given one is not.

    Asked before any process is started, so that a port in use is one clear line and not a restart loop.
    """
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
            probe.listen()
            return Address(address.host, probe.getsockname()[1])
    except OSError as error:
        raise ConfigError(f"{name}: cannot listen on {address}: {error.strerror or error}") from error
    except UnicodeError as error:
        raise ConfigError(f"{name}: {address.host!r} is not a host: {error}") from error
