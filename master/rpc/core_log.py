"""What grpc's core writes to standard error, the only place where it tells that a handshake failed.

Standard error of the web process becomes a pipe. A thread reads it: the core's records about handshakes are taken out
and told, everything else goes on to where it would have gone. The pipe is made before the fork, so that the arbiter can
pass on what a process that was killed had left in it.
"""

import logging
import os
import re
import threading
from collections.abc import Callable, Iterable

from fleetpulse.master.rpc.handshakes import FailedHandshake, failure_from

_LOGGER = logging.getLogger(__name__)

Failed = Callable[[list[FailedHandshake]], None]

_STDERR = 2
_READ_BYTES = 256 * 1024
_TRACER = "handshaker"
_RELEASE_SECONDS = 1.0
_END = b"\0"
_QUIET_LEVELS = {"ERROR", "NONE"}
"""Values of ``GRPC_VERBOSITY`` with which the core would not tell."""

_HEAD = re.compile(rb"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ (\S+):\d+\] ")
_MORE = re.compile(rb"=== Source Location Trace|\S+\.(?:cc|h):\d+\n| shutdown=|\n")
"""A line that goes on with a record of the core."""

_ABOUT_HANDSHAKES = {b"channel_trace.h", b"handshaker.cc", b"ssl_transport_security.cc", b"trace.cc"}


class CoreLog:
    """One for each web process. Made and drained in the arbiter, captured and released in the web process."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._stderr = _STDERR
        self._records = Records()
        self._on_failed: Failed = _untold
        self._thread = threading.Thread(target=self._run, name="grpc-core-log", daemon=True)

    def capture(self) -> None:
        """Take standard error over, and have the core tell of handshakes. Before grpc is loaded, which looks once."""
        tracers = os.environ.get("GRPC_TRACE")
        os.environ["GRPC_TRACE"] = f"{tracers},{_TRACER}" if tracers else _TRACER
        if os.environ.get("GRPC_VERBOSITY", "").upper() in _QUIET_LEVELS:
            del os.environ["GRPC_VERBOSITY"]
        self._stderr = os.dup(_STDERR)
        os.dup2(self._writer, _STDERR)
        self._thread.start()

    def tell(self, on_failed: Failed) -> None:
        """``on_failed`` is called from now on as failures come, in a thread of this object."""
        self._on_failed = on_failed

    def release(self) -> None:
        """Give standard error back, with all that was written to it. Before the web process ends."""
        os.dup2(self._stderr, _STDERR)
        os.write(self._writer, _END)
        self._thread.join(_RELEASE_SECONDS)

    def drain(self) -> None:
        """Pass on what a web process that is gone has left. In the arbiter, once."""
        os.close(self._writer)
        while data := os.read(self._reader, _READ_BYTES):
            _write(_STDERR, self._records.feed(data)[0])
        os.close(self._reader)

    def _run(self) -> None:
        try:
            is_over = False
            while not is_over:
                data = os.read(self._reader, _READ_BYTES)
                is_over = data.endswith(_END)
                rest, failures = self._records.feed(data.removesuffix(_END))
                _write(self._stderr, rest)
                if failures:
                    self._on_failed(failures)
        except Exception:
            os.dup2(self._stderr, _STDERR)
            _LOGGER.exception("the log of grpc's core is not read any more; handshakes that fail are not counted")


def _untold(_failures: list[FailedHandshake]) -> None:
    """Before the master is built."""


class Records:
    """Tells the core's records about handshakes, of several lines each, from everything else."""

    def __init__(self) -> None:
        self._torn = b""
        self._record: list[bytes] = []

    def feed(self, data: bytes) -> tuple[bytes, list[FailedHandshake]]:
        """What is to go on to standard error, and the failures that were told.

        The core writes a record at once, and a pipe keeps that together, so that none goes on in the next ``data``.
        """
        lines = (self._torn + data).splitlines(keepends=True)
        self._torn = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        if self._torn and not _HEAD.match(self._torn) and not self._record:
            lines.append(self._torn)
            self._torn = b""
        rest: list[bytes] = []
        failures: list[FailedHandshake] = []
        for line in lines:
            if self._record and _MORE.match(line):
                self._record.append(line)
                continue
            failures += self._end()
            head = _HEAD.match(line)
            if head is not None and head[1] in _ABOUT_HANDSHAKES:
                self._record.append(line)
            else:
                rest.append(line)
        if not self._torn:
            failures += self._end()
        return b"".join(rest), failures

    def _end(self) -> Iterable[FailedHandshake]:
        record, self._record = b"".join(self._record), []
        failure = failure_from(record) if record else None
        return () if failure is None else (failure,)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
