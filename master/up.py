"""``fleetpulse up``: a master and this machine's worker as two child processes that live and die together.

With a prompt in the same terminal they write to a file, and end when somebody leaves the prompt.
"""

import contextlib
import http.client
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

from fleetpulse.master.audit.files import record_command
from fleetpulse.master.config import AccessConfig, Address, MasterConfig

LOG_NAME = "up.log"

_ANY_IPV4 = "0.0.0.0"  # nosec B104 # it is compared with, not listened on
_READY_SECONDS = 20.0
_STOP_SECONDS = 12.0
_JOIN_SECONDS = 300.0
_POLL_SECONDS = 0.05
_WATCH_SECONDS = 0.25
_STOPPED = (0, -signal.SIGTERM)
"""Exit codes of a child that was asked to stop; one that had no time yet to catch the signal ends by it."""

_PASSED_ON = (
    *("heartbeat_interval", "inactivity_timeout", "retention", "max_workers", "log_level", "placement"),
    *("grafana_url", "data_dir", "log_retention", "task_retention"),
    *("history_retention", "history_long_retention", "certificate_lifetime", "audit_file_size"),
    *("max_connections", "client_connections", "client_rate"),
)


class Supervisor:
    """Starts both processes, tells where to look, and stops both when one ends or a signal comes."""

    def __init__(
        self,
        config: MasterConfig,
        settings: dict[str, Any],
        worker_id: str | None,
        echo: Callable[[str], None],
        *,
        is_open: bool = True,
        has_worker: bool = True,
        prompt: Callable[[str], object] | None = None,
    ) -> None:
        """``is_open``: nobody needs a token.

        ``prompt`` has the terminal while both run; called with the master's URL, it returns when one leaves it."""
        self._config = config
        self._echo = echo
        self._is_open = is_open
        self._has_worker = has_worker
        self._prompt = prompt
        self._log = None if prompt is None else config.store.data_dir / LOG_NAME
        self._stop_signal: int | None = None
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        # Not as a flag: everybody on the machine may read those, and a password may be in it.
        database_url = config.store.database_url
        self._environment = os.environ | ({} if database_url is None else {"DATABASE_URL": database_url})
        self._environment["FLEETPULSE_PROMETHEUS_URL"] = config.history.prometheus_url or ""
        tls, self._worker_id = config.tls, worker_id
        # Under the name that settings have; as flags they are --tls-name and --join-port.
        self._environment["FLEETPULSE_TLS_NAMES"] = settings["tls_names"]
        self._environment["JOIN_PORT"] = "" if tls is None else str(tls.join)
        for name in ("task_policy", "secret_key_file"):
            if settings[name] is not None:
                self._environment[f"FLEETPULSE_{name.upper()}"] = str(settings[name])
        self._commands = {
            "master": [
                *("-m", "fleetpulse.master", "--http-port", str(config.http), "--grpc-port", str(config.grpc)),
                *(word for name in _PASSED_ON for word in (f"--{name.replace('_', '-')}", str(settings[name]))),
                *_access_flags(config.access),
                "--limit-loopback" if settings["limit_loopback"] else "--no-limit-loopback",
            ],
            "worker": [
                *("-m", "fleetpulse.worker", "--master", str(_reachable(config.grpc)), "--log-level", config.log_level),
                *("--data-dir", str(config.store.data_dir)),
                *(("--worker-id", worker_id) if worker_id else ()),
                *(("--join-address", str(_reachable(tls.join))) if tls is not None else ()),
            ],
        }

    def run(self) -> int:
        """Supervise until the end; the exit code: 0 after a signal, 1 when a child ended by itself."""
        # The children do not hear a terminal that is closed, so SIGHUP must stop them as Ctrl-C does.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            self._start("master")
            if self._wait_until_ready():
                if self._has_worker:
                    self._let_worker_join()
                    self._start("worker")
                self._say_where_to_look()
                if self._prompt is not None:
                    self._talk(self._prompt)
            ended = self._wait_for_an_end()
        finally:
            failures = self._stop_all()
        if self._stop_signal is None:
            where = "its messages above say" if self._log is None else f"{self._log} says"
            self._echo(f"The {ended} ended by itself; {where} why.")
            return 1
        return 1 if failures else 0

    @property
    def _url(self) -> str:
        scheme = "http" if self._config.access.tls is None else "https"
        return f"{scheme}://{_reachable(self._config.http)}"

    def _on_signal(self, number: int, _frame: object) -> None:
        self._stop_signal = number

    def _start(self, name: str) -> None:
        with contextlib.ExitStack() as files:
            output = None if self._log is None else files.enter_context(_opened(self._log))
            # A session of its own: Ctrl-C reaches this process alone, which then stops each child once and in order.
            self._children[name] = subprocess.Popen(
                [sys.executable, *self._commands[name]],
                env=self._environment, start_new_session=True, stdout=output, stderr=output,
                stdin=None if output is None else subprocess.DEVNULL,
            )  # fmt: skip

    def _let_worker_join(self) -> None:
        """Make a join token for this machine's worker, if workers need a certificate."""
        if self._config.tls is not None:
            from fleetpulse.master.pki.authority import Authority  # noqa: PLC0415 - heavy, and mostly not needed

            authority = Authority(self._config.store.data_dir)
            whose = self._worker_id or "*"
            self._environment["FLEETPULSE_JOIN_TOKEN"] = authority.new_join_token(_JOIN_SECONDS, whose)
            with contextlib.suppress(OSError):  # the master says so of its own entries
                record_command(self._config.store.data_dir, "create_join_token", whose, "for the worker of up")

    def _talk(self, prompt: Callable[[str], object]) -> None:
        """Hand the terminal over, until somebody leaves the prompt, a signal comes or a child ends."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._leave_prompt)
        is_over = threading.Event()
        watch = threading.Thread(target=self._end_prompt_with_children, args=(is_over,), name="children", daemon=True)
        watch.start()
        try:
            prompt(self._url)
            self._stop_signal = signal.SIGTERM
        except SystemExit:
            pass  # _leave_prompt says why
        finally:
            is_over.set()
            watch.join()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, self._on_signal)

    def _leave_prompt(self, number: int, _frame: object) -> None:
        if self._first_ended() is None:
            self._stop_signal = number
        # Of all exceptions the one that passes through an event loop and puts the terminal in order.
        raise SystemExit

    def _end_prompt_with_children(self, is_over: threading.Event) -> None:
        while not is_over.wait(_WATCH_SECONDS):
            if self._first_ended() is not None:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def _wait_until_ready(self) -> bool:
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline and self._first_ended() is None and self._stop_signal is None:
            if _is_healthy(_reachable(self._config.http), is_tls=self._config.access.tls is not None):
                break
            time.sleep(_POLL_SECONDS)
        # One that takes longer, or is not well, is no reason to give up: the worker waits for it, and people may look.
        return self._first_ended() is None and self._stop_signal is None

    def _wait_for_an_end(self) -> str | None:
        while self._stop_signal is None and self._first_ended() is None:
            time.sleep(_WATCH_SECONDS)
        return self._first_ended()

    def _first_ended(self) -> str | None:
        return next((name for name, child in self._children.items() if child.poll() is not None), None)

    def _stop_all(self) -> list[str]:
        """Stop the worker, so that it can say goodbye, then the master; the names of those that failed."""
        failures = []
        for name, child in reversed(self._children.items()):
            child.terminate()
            try:
                if child.wait(_STOP_SECONDS) not in _STOPPED:
                    failures.append(name)
            except subprocess.TimeoutExpired:
                self._echo(f"The {name} did not stop within {_STOP_SECONDS:.0f} s and is killed.")
                child.kill()
                child.wait()
                failures.append(name)
        return failures

    def _say_where_to_look(self) -> None:
        url = self._url
        lines = [
            f"\nFleetPulse {version('fleetpulse')} is up.",
            f"  telemetry   curl -s {url}/telemetry",
            f"  metrics     curl -s {url}/metrics",
            f"  tasks       curl -s {url}/api/tasks",
            f"  health      curl -s {url}/health",
            f"  live        fleetpulse top --url {url}",
            f"  workers connect to {self._config.grpc}",
            "  access      open to this machine; `fleetpulse token create NAME` closes it"
            if self._is_open
            else "  access      with a token; the command line here has its owner's",
        ]
        both = "the master and the worker" if self._has_worker else "the master"
        if self._log is None:
            lines.append(f"Ctrl-C stops {both}.\n")
        else:
            lines += [f"  log in {self._log}", f"Leaving the prompt stops {both}.\n"]
        self._echo("\n".join(lines))


def _opened(log: Path) -> BinaryIO:
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.fdopen(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab")


def _reachable(address: Address) -> Address:
    """An address to connect to for one to listen on."""
    host = {_ANY_IPV4: "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    return Address(host, address.port)


def _access_flags(access: AccessConfig) -> list[str]:
    return [
        *(("--tokens-file", str(access.tokens_file)) if access.tokens_file else ()),
        *(word for name in access.names for word in ("--allowed-host", name)),
        *(("--tls-certificate", str(access.tls.certificate), "--tls-key", str(access.tls.key)) if access.tls else ()),
        *(("--insecure-network",) if access.is_network_trusted else ()),
    ]


def _is_healthy(address: Address, *, is_tls: bool) -> bool:
    connection = http.client.HTTPConnection(*address, timeout=1.0)
    if is_tls:
        # Only whether it answers is asked, and nothing said; its name is hardly this machine's own address.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(*address, timeout=1.0, context=context)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()
