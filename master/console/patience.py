"""How whoever follows something goes on while nobody answers."""

import time
from collections.abc import Callable

from fleetpulse.master.console.errors import ConsoleError

_PAUSES_SECONDS = (0.5, 1.0, 2.0, 5.0)
PATIENCE_SECONDS = 60.0


class ReconnectPolicy:
    """Says once that it tries again, and gives up when that did not help for so long."""

    def __init__(
        self,
        note: Callable[[str], None],
        sleep: Callable[[float], object] = time.sleep,
        seconds: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._note, self._sleep, self._seconds, self._clock = note, sleep, seconds, clock
        self._failures, self._since = 0, clock()

    def heard(self) -> None:
        """Somebody answered."""
        self._failures = 0

    def wait(self, reason: ConsoleError) -> None:
        """Pause before the next try. Raises ``reason`` when it has waited for too long."""
        if self._failures == 0:
            self._since = self._clock()
            self._note(f"{reason.message.partition('. ')[0]}; trying again")
        elif self._clock() - self._since > self._seconds:
            raise reason
        self._sleep(_PAUSES_SECONDS[min(self._failures, len(_PAUSES_SECONDS) - 1)])
        self._failures += 1
