"""How often each client may ask: a bucket of tokens each, and bounded memory for however many clients there are."""

MAX_CLIENTS = 10_000
"""Of each of the two generations."""


class Buckets:
    """Tokens come back at ``per_second`` up to ``burst``; a request takes one. All on the hub.

    A client that has been away for as long as an empty bucket takes to fill is like a new one. So two generations are
    enough to remember: those seen lately, and those before them. Where there are more clients than that, some get a
    full bucket too early; none is refused wrongly.
    """

    def __init__(self, per_second: float, burst: float, max_clients: int = MAX_CLIENTS) -> None:
        self._per_second = per_second
        self._burst = burst
        self._max_clients = max_clients
        self._fill_seconds = burst / per_second
        self._generation_began = 0.0
        self._lately: dict[str, tuple[float, float]] = {}
        """Tokens, and when there were so many."""

        self._before: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._lately) + len(self._before)

    def take(self, client: str, now: float) -> bool:
        """Whether the client may ask now, by the monotonic clock."""
        if now - self._generation_began > self._fill_seconds or len(self._lately) >= self._max_clients:
            self._before, self._lately, self._generation_began = self._lately, {}, now
        known = self._lately.get(client)
        if known is None:
            known = self._before.pop(client, (self._burst, now))
        tokens, since = known
        tokens = min(tokens + (now - since) * self._per_second, self._burst)
        allowed = tokens >= 1.0
        self._lately[client] = (tokens - 1.0 if allowed else tokens), now
        return allowed
