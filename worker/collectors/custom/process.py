"""One run of a command: no shell, a process group of its own, an end at the deadline, output within bounds."""

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

from fleetpulse.worker.collectors.custom.text import MAX_TEXT_BYTES
from fleetpulse.worker.collectors.custom.wire import BadMetrics

_STDERR_BYTES = 500
"""Its end is kept, to tell why a command failed."""


class CommandProcess:
    """Runs one command again and again; ``output`` on one thread, ``stop`` on any."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        self._words = list(words)
        self._environment = dict(environment)
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def output(self, deadline_seconds: float) -> bytes:
        """What it writes on stdout until it ends well. Raises ``BadMetrics``, and ``OSError`` when it cannot run.

        Whatever of it and its children is there at the deadline is killed; a child that leads a session of its own is
        not its child any more.
        """
        give_up_at = time.monotonic() + deadline_seconds
        with self._start() as process:
            try:
                out, err = _read(process, give_up_at)
                code = process.wait(max(give_up_at - time.monotonic(), 0.0))
            except (TimeoutError, subprocess.TimeoutExpired):
                raise BadMetrics(f"did not end within {deadline_seconds:g} s, and was killed") from None
            finally:
                with self._lock:
                    self._running = None
                    _kill(process)
        if code:
            how = f"ended with status {code}" if code > 0 else f"was ended by {_signal_name(-code)}"
            said = err.decode(errors="replace").strip()
            raise BadMetrics(f"{how}: {said}" if said else how)
        return out

    def stop(self) -> None:
        """Kill what runs, and run nothing any more."""
        with self._lock:
            self._stopped = True
            if self._running is not None:
                _kill(self._running)

    def _start(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._stopped:
                raise BadMetrics("the worker stops")
            self._running = subprocess.Popen(
                self._words,
                bufsize=0,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment,
                start_new_session=True,
            )
            return self._running


def _read(process: subprocess.Popen[bytes], give_up_at: float) -> tuple[bytes, bytes]:
    """Stdout, and the end of stderr, until nobody holds them open. Raises ``TimeoutError``, ``BadMetrics``."""
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
                raise BadMetrics(f"wrote more than {MAX_TEXT_BYTES} bytes, and was killed")
            texts[err] = texts[err][-_STDERR_BYTES:]
    return texts[out], texts[err]


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The command and its children, if it was not seen to end; its number is not given to another before it is."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
