"""``fleetpulse up``: a master and this machine's worker as two child processes that start and stop together.

With a prompt in the same terminal the children log to a file, and leaving the prompt stops them.
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
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

from fleetpulse.master.addresses import Address
from fleetpulse.master.audit.entries import record_command
from fleetpulse.master.config import MasterConfig
from fleetpulse.proto import env_file
from fleetpulse.proto.rules import is_worker_id

LOG_NAME = "up.log"

_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # nosec B104 # it is compared with, not listened on
_READY_SECONDS = 20.0
_STOP_SECONDS = 12.0
_JOIN_TOKEN_SECONDS = 300.0
_POLL_SECONDS = 0.05
_WATCH_SECONDS = 0.25
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STOPPED = (0, -signal.SIGTERM)
"""Exit codes of a child that was asked to stop. The signal itself ends a child that has not caught it yet."""


class Supervisor:
    """Starts the children, says where to look, and stops both when one ends or a signal comes."""

    def __init__(
        self,
        config: MasterConfig,
        environment: Mapping[str, str],
        worker_id: str | None,
        echo: Callable[[str], None],
        *,
        is_open: bool = True,
        has_worker: bool = True,
        prompt: Callable[[str], object] | None = None,
    ) -> None:
        """``environment``: the master's settings. ``is_open``: requests need no token.

        ``prompt`` is called with the master's URL while both run, and returns when the user leaves it.
        """
        self._config, self._worker_id = config, worker_id
        self._echo, self._prompt = echo, prompt
        self._is_open = is_open
        self._has_worker = has_worker
        self._log = None if prompt is None else config.store.data_dir / LOG_NAME
        self._stop_signal: int | None = None
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = {
            **os.environ, **environment, "FLEETPULSE_MASTER": str(_reachable(config.grpc)), env_file.SWITCH: "1",
        }  # fmt: skip
        if worker_id:
            self._environment["FLEETPULSE_WORKER_ID"] = worker_id
        if config.tls is not None:
            self._environment["FLEETPULSE_JOIN_ADDRESS"] = str(_reachable(config.tls.join))

    def run(self) -> int:
        """Runs until the end. Returns the exit code: 0 after a signal, 1 when a child ended by itself."""
        # A closed terminal does not reach the children, so SIGHUP stops them as Ctrl-C does.
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)
        try:
            self._start("master")
            if self._wait_until_ready():
                if self._has_worker:
                    self._make_join_token()
                    self._start("worker")
                self._echo(self._welcome())
                if self._prompt is not None:
                    self._run_prompt(self._prompt)
            while self._stop_signal is None and self._ended_child() is None:
                time.sleep(_WATCH_SECONDS)
            ended = self._ended_child()
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
            output = None if self._log is None else files.enter_context(open_log(self._log))
            # -P: nothing is imported from the working directory, which may be anybody's.
            # In a session of its own: Ctrl-C reaches only this process, which stops each child once and in order.
            self._children[name] = subprocess.Popen(
                [sys.executable, "-P", "-m", f"fleetpulse.{name}"],
                env=self._environment, start_new_session=True, stdout=output, stderr=output,
                stdin=None if output is None else subprocess.DEVNULL,
            )  # fmt: skip

    def _make_join_token(self) -> None:
        """Makes a join token for this machine's worker, if workers need a certificate."""
        if self._config.tls is not None:
            from fleetpulse.master.pki.authority import Authority  # noqa: PLC0415 - heavy, and rarely needed

            data_dir = self._config.store.data_dir
            # By its exact id if it has one: such a token also replaces a certificate that was lost.
            worker_id = self._worker_id or _kept_worker_id(data_dir) or "*"
            token = Authority(data_dir).new_join_token(_JOIN_TOKEN_SECONDS, worker_id)
            self._environment["FLEETPULSE_JOIN_TOKEN"] = token
            with contextlib.suppress(OSError):  # the master reports the same of its own entries
                record_command(data_dir, "create_join_token", worker_id, "for the worker of up")

    def _run_prompt(self, prompt: Callable[[str], object]) -> None:
        """Gives the terminal to the prompt, until the user leaves it, a signal comes or a child ends."""
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
            pass  # from _leave_prompt
        finally:
            is_over.set()
            watch.join()
            for number in _SIGNALS:
                signal.signal(number, self._on_signal)

    def _leave_prompt(self, number: int, _frame: object) -> None:
        if self._ended_child() is None:
            self._stop_signal = number
        # The one exception that passes through an event loop and restores the terminal.
        raise SystemExit

    def _end_prompt_with_children(self, is_over: threading.Event) -> None:
        while not is_over.wait(_WATCH_SECONDS):
            if self._ended_child() is not None:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def _wait_until_ready(self) -> bool:
        """Waits for a healthy master. A slow one is no reason to give up. Returns whether to go on."""
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline and self._ended_child() is None and self._stop_signal is None:
            if _is_healthy(_reachable(self._config.http), is_tls=self._config.access.tls is not None):
                break
            time.sleep(_POLL_SECONDS)
        return self._ended_child() is None and self._stop_signal is None

    def _ended_child(self) -> str | None:
        return next((name for name, child in self._children.items() if child.poll() is not None), None)

    def _stop_all(self) -> list[str]:
        """Stops the worker, then the master, which so hears its goodbye. Returns the names of those that failed."""
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

    def _welcome(self) -> str:
        url = self._url
        access = "with a token; the command line here has its owner's"
        if self._is_open:
            access = "open to this user and root; `fleetpulse token create NAME` closes it"
        children = "the master and the worker" if self._has_worker else "the master"
        end = f"Ctrl-C stops {children}.\n"
        if self._log is not None:
            end = f"  log in {self._log}\nLeaving the prompt stops {children}.\n"
        return "\n".join(
            [
                f"\nFleetPulse {version('fleetpulse')} is up.",
                f"  telemetry   curl -s {url}/telemetry",
                f"  metrics     curl -s {url}/metrics",
                f"  tasks       curl -s {url}/api/tasks",
                f"  health      curl -s {url}/health",
                f"  live        fleetpulse top --url {url}",
                f"  workers connect to {self._config.grpc}",
                f"  access      {access}",
                end,
            ]
        )


def _kept_worker_id(data_dir: Path) -> str | None:
    """The id that this machine's worker chose at its first start; ``None`` before."""
    try:
        text = (data_dir / "worker_id").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if is_worker_id(text) else None


def open_log(path: Path) -> BinaryIO:
    """Opens the log to append to it. Only this user may read it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab")


def _reachable(address: Address) -> Address:
    """The address to connect to for an address to listen on."""
    return Address(_ANY_HOST.get(address.host, address.host), address.port)


def _is_healthy(address: Address, *, is_tls: bool) -> bool:
    connection = http.client.HTTPConnection(*address, timeout=1.0)
    if is_tls:
        # The certificate may not name this address, and nothing secret is sent.
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
