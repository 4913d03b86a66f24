"""Custom metrics from commands that print Prometheus' text format.

A command may take longer than a heartbeat waits, and costs a process. So each has a thread of its own, which runs it at
an interval; a heartbeat carries the result of the last run. A run has no shell, a process group of its own, a deadline
and bounded output.
"""

import contextlib
import os
import selectors
import shlex
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors.custom_metrics import (
    MAX_TEXT_BYTES,
    CustomMetricsBudget,
    InvalidMetrics,
    InvalidSource,
    check_source_name,
    metrics_from_text,
)

MAX_COMMANDS = 16
MAX_RUN_SECONDS = 10.0
_KILL_SECONDS = 5.0
_STOP_SECONDS = 1.0
_STDERR_BYTES = 500
"""Kept of the end of stderr, for the message of a command that failed."""


class CommandCollector:
    """``command:<name>``. Runs nothing before the first ``collect``, which returns nothing yet; ``close`` ends it."""

    def __init__(
        self,
        name: str,
        words: Sequence[str],
        interval_seconds: float,
        environment: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = f"command:{name}"
        self._words = list(words)
        self._environment = dict(environment)
        self._interval_seconds = interval_seconds
        self._deadline_seconds = min(interval_seconds, MAX_RUN_SECONDS)
        self._clock = clock
        self._latest: pb.Heartbeat | str = pb.Heartbeat()
        """The fields of the last run, or its error."""
        self._run_began: float | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._process_lock = threading.Lock()
        self._closing = threading.Event()
        # A daemon: a command that even SIGKILL does not end would keep the worker from ending.
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def collect(self) -> pb.Heartbeat:
        """The metrics of the last run. Raises ``InvalidMetrics`` if it failed."""
        if self._thread.ident is None and not self._closing.is_set():
            self._thread.start()
        latest, began = self._latest, self._run_began
        if began is not None and self._clock() - began > self._deadline_seconds + _KILL_SECONDS:
            raise InvalidMetrics(f"was killed after {self._deadline_seconds:g} s, and does not end")
        if isinstance(latest, str):
            raise InvalidMetrics(latest)
        return latest

    def close(self) -> None:
        """Kills a run under way, and starts no more. For any thread."""
        with self._process_lock:
            self._closing.set()
            if self._process is not None:
                _kill(self._process)
        if self._thread.ident is not None:
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        """Body of the thread. The interval lies between the starts of two runs."""
        while not self._closing.is_set():
            began = self._run_began = self._clock()
            self._latest = self._run_once()
            self._run_began = None
            self._closing.wait(max(self._interval_seconds - (self._clock() - began), 0.0))

    def _run_once(self) -> pb.Heartbeat | str:
        try:
            metrics = metrics_from_text(self.output(self._deadline_seconds))
            CustomMetricsBudget().add(metrics)
        except InvalidMetrics as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - reported by collect; the thread must go on
            return f"{type(error).__name__}: {error}"
        return pb.Heartbeat(custom=metrics)

    def output(self, deadline_seconds: float) -> bytes:
        """Runs the command and returns its stdout. Raises ``InvalidMetrics``, and ``OSError`` when it cannot start.

        At the deadline the command and its children are killed, unless a child leads a session of its own.
        """
        give_up_at = time.monotonic() + deadline_seconds
        with self._start() as process:
            try:
                out, err = _read(process, give_up_at)
                code = process.wait(max(give_up_at - time.monotonic(), 0.0))
            except (TimeoutError, subprocess.TimeoutExpired):
                raise InvalidMetrics(f"did not end within {deadline_seconds:g} s, and was killed") from None
            finally:
                with self._process_lock:
                    self._process = None
                    _kill(process)
        if code:
            problem = f"ended with status {code}" if code > 0 else f"was ended by {_signal_name(-code)}"
            details = err.decode(errors="replace").strip()
            raise InvalidMetrics(f"{problem}: {details}" if details else problem)
        return out

    def _start(self) -> subprocess.Popen[bytes]:
        with self._process_lock:
            if self._closing.is_set():
                raise InvalidMetrics("the worker stops")
            self._process = subprocess.Popen(
                self._words,
                bufsize=0,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment,
                start_new_session=True,
            )
            return self._process


def _read(process: subprocess.Popen[bytes], give_up_at: float) -> tuple[bytes, bytes]:
    """Stdout and the end of stderr, until all writers have closed them. Raises ``TimeoutError``, ``InvalidMetrics``."""
    assert process.stdout is not None and process.stderr is not None  # noqa: PT018 - for the type checker  # nosec B101 # for the type checker
    texts = {process.stdout.fileno(): b"", process.stderr.fileno(): b""}
    out, err = texts
    with selectors.DefaultSelector() as selector:
        for pipe in texts:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            if (left := give_up_at - time.monotonic()) <= 0.0:
                raise TimeoutError
            for key, _ in selector.select(left):
                if not (piece := os.read(key.fd, MAX_TEXT_BYTES)):
                    selector.unregister(key.fd)
                texts[key.fd] += piece
            if len(texts[out]) > MAX_TEXT_BYTES:
                raise InvalidMetrics(f"wrote more than {MAX_TEXT_BYTES} bytes, and was killed")
            texts[err] = texts[err][-_STDERR_BYTES:]
    return texts[out], texts[err]


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kills the process group, unless the command was reaped: until then its pid is not given to another process."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def configured_commands(assignments: Iterable[str], folder: Path | None) -> dict[str, tuple[str, ...]]:
    """By name, the words of each ``NAME=COMMAND`` and of each program in ``folder``. Raises ``InvalidSource``."""
    commands: dict[str, tuple[str, ...]] = {}
    programs = [(program.name, (str(program),)) for program in _programs(folder)] if folder else []
    for name, words in [*map(_parse_assignment, assignments), *programs]:
        check_source_name("command", name)
        if name in commands:
            raise InvalidSource(f"two commands have the name {name}")
        commands[name] = words
    if len(commands) > MAX_COMMANDS:
        raise InvalidSource(f"{len(commands)} commands are too many: at most {MAX_COMMANDS} are run")
    return commands


def _parse_assignment(text: str) -> tuple[str, tuple[str, ...]]:
    name, equals, line = text.partition("=")
    try:
        words = tuple(shlex.split(line))
    except ValueError as error:
        raise InvalidSource(f"{text!r}: {error}") from error
    if not equals or not words:
        raise InvalidSource(f"{text!r}: expected NAME=COMMAND, as raid='/usr/local/bin/raid-state --all'")
    return name, words


def _programs(folder: Path) -> list[Path]:
    try:
        _check_owner(folder)
        entries = sorted(folder.absolute().iterdir())
        programs = [
            entry for entry in entries if entry.is_file() and os.access(entry, os.X_OK) and entry.name[0] != "."
        ]
        for program in programs:
            _check_owner(program)
    except OSError as error:
        raise InvalidSource(f"{folder}: {error.strerror or error}") from error
    return programs


def _check_owner(path: Path) -> None:
    """Raises ``InvalidSource`` if a user other than root and this one decides what would be run."""
    status = path.stat()
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & stat.S_IWOTH:
        raise InvalidSource(f"{path}: other users may write it, and nothing of it is run. Say chown and chmod o-w")
