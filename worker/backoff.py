"""How long to wait before the next try to reach the master."""

import random


class Backoff:
    """Delays that grow by a factor up to a cap, each shortened at random by up to half.

    The jitter keeps a fleet that lost its master at one moment from coming back at one moment.
    """

    def __init__(
        self,
        initial_seconds: float = 0.25,
        factor: float = 1.6,
        cap_seconds: float = 15.0,
        rng: random.Random | None = None,
    ) -> None:
        self._initial_seconds = initial_seconds
        self._factor = factor
        self._cap_seconds = cap_seconds
        self._rng = rng or random.Random()  # nosec B311 # chance without a secret
        self._limit_seconds = cap_seconds
        self._next_seconds = initial_seconds

    def limit(self, seconds: float) -> None:
        """No delay is longer than this from now on, nor than the cap. Less than the first delay counts as that."""
        self._limit_seconds = max(self._initial_seconds, seconds)

    def next_delay_seconds(self) -> float:
        """The delay before the next try."""
        delay = min(self._next_seconds, self._limit_seconds)
        self._next_seconds = min(delay * self._factor, self._cap_seconds)
        return delay * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        """The last try lasted: start over."""
        self._next_seconds = self._initial_seconds
