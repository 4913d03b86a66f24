"""The master's settings, and parsers for their text. Read once, from flags, then the environment."""

import math
import re
import ssl
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from fleetpulse.master.access.store import STATE_FILE_NAME, TOKENS_FILE_NAME, TokenFile
from fleetpulse.master.addresses import LOOPBACK, Address, is_loopback
from fleetpulse.master.errors import ConfigError
from fleetpulse.proto.policy import TaskPolicy

BEST_FIT = "best-fit"
"""The built-in placement policy. An installed policy cannot take its name."""

_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_UNIT_BYTES = {"": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_SIZE = re.compile(r"(?P<amount>[0-9]{1,12}) ?(?P<unit>KiB|MiB|GiB|)")
_DURATION = re.compile(r"(?P<amount>\d+(?:\.\d+)?)(?P<unit>ms|s|m|h|d)?")


class LeaseConfig(NamedTuple):
    """How long workers count as active without a heartbeat, and how many the master serves."""

    heartbeat_interval_seconds: float = 5.0
    inactivity_timeout_seconds: float = 30.0
    retention_seconds: float = 24 * 3600.0
    max_workers: int = 15_000
    queue_length: int = 8


class QueueLimits(NamedTuple):
    """How much may wait in the queue of tasks, for the master and for each token. Bytes are those of the requests."""

    tasks: int = 100_000
    size_bytes: int = 1024**3
    token_tasks: int = 50_000
    token_bytes: int = 512 * 1024**2


class StoreConfig(NamedTuple):
    """Where tasks are stored, and how long after their end."""

    data_dir: Path
    database_url: str | None = None
    """``None``: a SQLite file in ``data_dir``."""

    secret_key_file: Path | None = None
    """The key that encrypts the values of environments; ``None``: a file in ``data_dir``, made if missing."""

    log_retention_seconds: float = 7 * 24 * 3600.0
    task_retention_seconds: float = 90 * 24 * 3600.0


class HistoryConfig(NamedTuple):
    """How long points of 15 seconds and of 5 minutes are kept of each reading; ``None``: not at all.

    ``prometheus_url`` is a Prometheus that scrapes this master; it answers instead of the store while it is reachable.
    """

    short_seconds: float | None = 24 * 3600.0
    long_seconds: float | None = 30 * 24 * 3600.0
    prometheus_url: str | None = None


class TlsFiles(NamedTuple):
    """The web server's certificate chain and key, both PEM."""

    certificate: Path
    key: Path


class AccessConfig(NamedTuple):
    """Who may use the HTTP API."""

    tokens_file: Path | None = None
    """``None``: ``tokens.json`` in the data directory."""

    names: tuple[str, ...] = ()
    """Host names of the master, beside ``localhost``, this machine's name and every IP address."""

    tls: TlsFiles | None = None
    is_network_trusted: bool = False
    """The operator accepts that whoever reaches the ports may use them without tokens or TLS."""

    serves_any_local_user: bool = False
    """Whether every user of this machine is served while there is no token, not only the master's own and root."""

    @property
    def serves_anybody(self) -> bool:
        """Whether whoever reaches the ports is served while there is no token."""
        return self.is_network_trusted or self.serves_any_local_user


class TlsConfig(NamedTuple):
    """Settings of a master with a CA: where machines join, and the names by which workers reach it."""

    join: Address
    names: tuple[str, ...]
    certificate_lifetime_seconds: float = 30 * 86400.0
    """Of workers' certificates, and of the master's own."""


class Limits(NamedTuple):
    """Limits on HTTP clients. A client is an IPv4 address, or a network of 64 bits of IPv6."""

    connections: int = 2000
    client_connections: int = 500
    client_readers: int = 100
    """Open streams per client: of telemetry, or of a log."""

    client_requests_per_second: int = 200
    """Twice as many may come at once; 0: no limit."""

    limit_loopback: bool = False
    """Whether the limits per client apply to this machine's clients too, which may be a proxy for many."""

    idle_seconds: float = 20.0
    """How long a connection may wait for its next request."""

    head_seconds: float = 10.0
    answer_seconds: float = 90.0
    """How long a client may take to read one piece of its answer."""

    @property
    def client_burst(self) -> int:
        return 2 * self.client_requests_per_second


class MasterConfig(NamedTuple):
    """All settings of a master."""

    store: StoreConfig
    http: Address = Address(LOOPBACK, 8080)
    grpc: Address = Address(LOOPBACK, 50051)
    lease: LeaseConfig = LeaseConfig()
    history: HistoryConfig = HistoryConfig()
    access: AccessConfig = AccessConfig()
    limits: Limits = Limits()
    log_level: str = "info"
    grafana_url: str | None = None
    """Where the page's links to dashboards point."""

    audit_file_bytes: int = 64 * 1024**2
    """The size at which a file of the audit trail is rotated."""

    placement: str = BEST_FIT
    """The placement policy; see ``tasks.placement``."""

    task_policy: TaskPolicy = TaskPolicy()
    """The tasks that are allowed at all."""

    queue: QueueLimits = QueueLimits()
    tls: TlsConfig | None = None
    """``None``: there is no CA, and workers connect without TLS."""

    @property
    def token_file(self) -> TokenFile:
        """The tokens, and whether one has closed the master."""
        data_dir = self.store.data_dir
        return TokenFile(self.access.tokens_file or data_dir / TOKENS_FILE_NAME, data_dir / STATE_FILE_NAME)

    @property
    def is_exposed(self) -> bool:
        """Whether other machines reach the HTTP port over a network that is not trusted."""
        return not is_loopback(self.http.host) and not self.access.is_network_trusted


def check_tls(files: TlsFiles) -> TlsFiles:
    """Returns the files. Raises ``ConfigError`` if they are no certificate with its key."""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files, password="")  # nosec B106 # so that OpenSSL does not prompt
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ConfigError(f"{files.certificate} and {files.key} are no certificate with its key: {reason}") from error
    return files


def check_exposure(config: MasterConfig, *, has_tokens: bool, has_worker_tls: bool) -> MasterConfig:
    """Returns the settings. Raises ``ConfigError`` when other machines would reach an unprotected port."""
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


def parse_duration(name: str, text: str) -> float:
    """Parses ``5s``, ``500ms``, ``2m``, ``24h``, ``7d`` or plain seconds. Returns seconds. Raises ``ConfigError``."""
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match["amount"]) * _UNIT_SECONDS[match["unit"] or "s"] if match else 0.0
    if not 0.0 < seconds < math.inf:
        raise ConfigError(f"{name}={text!r}: expected a duration above 0 as 5s, 500ms, 2m or 24h")
    return seconds


def parse_size(name: str, text: str, least: int) -> int:
    """Parses ``64MiB``, ``512KiB``, ``1GiB`` or plain bytes. Returns bytes. Raises ``ConfigError``."""
    match = _SIZE.fullmatch(text.strip())
    size = int(match["amount"]) * _UNIT_BYTES[match["unit"]] if match else 0
    if size < least:
        raise ConfigError(f"{name}={text!r}: expected a size of {least} bytes at least, as 512KiB, 64MiB or 1GiB")
    return size


def parse_link(name: str, text: str) -> str | None:
    """Parses a URL for browsers; strips a ``/`` at its end; returns ``None`` for empty text. Raises ``ConfigError``."""
    text = text.strip().rstrip("/")
    if text and not re.fullmatch(r"https?://[^/\s\"'<>?#@]+(/[^\s\"'<>?#]*)?", text):
        raise ConfigError(f"{name}={text!r}: expected an address as https://grafana.example or http://localhost:3000")
    return text or None


def parse_retention(name: str, text: str) -> float | None:
    """Parses a duration, or ``off`` as ``None``. Raises ``ConfigError``."""
    return None if text.strip().lower() == "off" else parse_duration(name, text)


def parse_http_url(name: str, text: str) -> str:
    """Checks a URL. Raises ``ConfigError``, which does not quote the URL: it may contain a password."""
    try:
        parts = urlsplit(text.strip())
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or not text.strip().isprintable():
        raise ConfigError(f"{name}: expected a URL as http://prometheus.example:9090")
    return text.strip()


def parse_names(name: str, text: str) -> tuple[str, ...]:
    """Parses host names and addresses, separated by commas. Raises ``ConfigError``."""
    names = tuple(word.strip() for word in text.split(",") if word.strip())
    for word in names:
        if not re.fullmatch(r"[A-Za-z0-9.:_*-]{1,253}", word):
            raise ConfigError(f"{name}: {word!r} is neither a host name nor an address")
    return names


def tls_names(host: str, hostname: str, more: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names by which workers may reach a master that listens at ``host`` on the machine ``hostname``."""
    bound = () if host in ("0.0.0.0", "::") else (host,)  # nosec B104 # compared with, not listened on
    return tuple(dict.fromkeys(("localhost", LOOPBACK, "::1", hostname, *bound, *more)))


def check_lease(lease: LeaseConfig) -> LeaseConfig:
    """Returns the settings. Raises ``ConfigError`` for those under which no worker could stay active."""
    if lease.inactivity_timeout_seconds < 2.0 * lease.heartbeat_interval_seconds:
        raise ConfigError(
            f"INACTIVITY_TIMEOUT ({lease.inactivity_timeout_seconds:g} s) must be at least twice "
            f"HEARTBEAT_INTERVAL ({lease.heartbeat_interval_seconds:g} s), or a late heartbeat makes a worker inactive"
        )
    return lease
