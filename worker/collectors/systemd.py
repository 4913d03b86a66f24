"""How many units of systemd have failed. Off by default: it starts a program, ``busctl``, once a minute."""

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.collectors import CollectorError

BUSCTL = (
    *("busctl", "--system", "--timeout=5", "get-property", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"),
    *("org.freedesktop.systemd1.Manager", "NFailedUnits"),
)
"""Prints ``u 0``. Any user may ask."""

_ASK_SECONDS = 60.0
_ANSWER_SECONDS = 6.0


class SystemdUnavailable(CollectorError):
    """systemd runs this machine, and did not answer."""


class SystemdCollector:
    """``systemd_failed_units``; absent where systemd does not run the machine, as in most containers."""

    name = "systemd"

    def __init__(
        self,
        booted: Path = Path("/run/systemd/system"),
        command: Sequence[str] = BUSCTL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``booted`` exists where systemd is the init (sd_booted(3)). ``clock`` runs in seconds."""
        self._booted, self._command, self._clock = booted, command, clock
        self._asked_at: float | None = None
        self._failed_units: int | None = None

    def collect(self) -> pb.Heartbeat:
        """Raises ``SystemdUnavailable``, and asks again the next time."""
        if not self._booted.exists():
            return pb.Heartbeat()
        now = self._clock()
        if self._asked_at is None or now - self._asked_at >= _ASK_SECONDS:
            self._failed_units = self._ask()
            self._asked_at = now
        return pb.Heartbeat(systemd_failed_units=self._failed_units)

    def _ask(self) -> int:
        try:
            done = subprocess.run(  # nosec B603 # a constant, no shell
                self._command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_ANSWER_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SystemdUnavailable(f"{self._command[0]} does not answer: {error}") from error
        kind, _, number = done.stdout.decode(errors="replace").strip().partition(" ")
        if done.returncode != 0 or kind != "u" or not number.isdecimal():
            said = (done.stderr or done.stdout).decode(errors="replace").strip()[:100]
            raise SystemdUnavailable(f"{self._command[0]} gives no number of failed units: {said}")
        return int(number)
