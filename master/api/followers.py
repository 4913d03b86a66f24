"""Everybody who follows something now: so many at most, as long as they may, and none when the master stops."""

import logging
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, Protocol

import falcon
import gevent

from fleetpulse.master.api.problems import RETRY_AFTER_SECONDS, Rejection
from fleetpulse.master.clients import Clients
from fleetpulse.master.errors import AccessEnded, FleetPulseError, MasterStopping

_LOGGER = logging.getLogger(__name__)

MAX_FOLLOWERS = 500
"""Each holds a connection and a greenlet."""

MAX_OF_CLIENT = 100

LOOK_SECONDS = 1.0
"""Between two looks at who may still follow."""

STOPPING = "the master is stopping; come back in a moment"
ENDED = "what this was asked with is not good any more: it was revoked, has expired or was signed out"

_ASKED_IN_A_ROW = 64
"""Subscribers after which other greenlets have their turn."""


class Revocable(Protocol):
    """One who follows."""

    def end(self, why: FleetPulseError) -> None:
        """Let it have a last word and go. Does not wait, and means nothing when said again."""
        ...


class ClientIdentity(NamedTuple):
    """Whose follower it is."""

    address: str
    is_still_allowed: Callable[[], bool]
    """Quick: it is asked on the hub, for every follower in a row."""

    @classmethod
    def of(cls, req: falcon.Request) -> "ClientIdentity":
        """As the request and the guard that let it in say."""
        return cls(req.remote_addr, req.context.get("is_still_allowed") or _always)


def _always() -> bool:
    return True


class _Entry(NamedTuple):
    client: str | None
    is_still_allowed: Callable[[], bool]


class Subscribers:
    """On the hub. ``doing`` is what they do, in words; ``clients`` says who is counted as one.

    While there are any a greenlet runs, which ends those who may not follow any more.
    """

    def __init__(
        self,
        most: int = MAX_FOLLOWERS,
        doing: str = "follow logs",
        clients: Clients = Clients(),  # noqa: B008 - it keeps nothing
        most_of_client: int = MAX_OF_CLIENT,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._most = most
        self._doing = doing
        self._clients = clients
        self._most_of_client = most_of_client
        self._look_seconds = look_seconds
        self._following: dict[Revocable, _Entry] = {}
        self._by_client: Counter[str] = Counter()
        self._groups: list[Subscribers] = []
        self._looking: gevent.Greenlet[..., None] | None = None
        self._is_ending = False

    def __len__(self) -> int:
        return len(self._following)

    def group(self, most: int, doing: str) -> "Subscribers":
        """Others, with a limit of their own, who end with these."""
        group = Subscribers(most, doing, self._clients, self._most_of_client, self._look_seconds)
        self._groups.append(group)
        return group

    def admit(self, follower: Revocable, asker: ClientIdentity) -> None:
        """Raise ``MasterStopping``, or ``Rejection`` when there are as many as there may be, or so many of a client."""
        if self._is_ending:
            raise MasterStopping(STOPPING)
        if len(self._following) >= self._most:
            told = f"{len(self._following)} readers {self._doing} already, which is as many as the master serves"
            raise Rejection(503, "readers", told, RETRY_AFTER_SECONDS)
        client = self._clients.name(asker.address)
        if client is not None:
            if self._by_client[client] >= self._most_of_client:
                told = f"{self._most_of_client} readers of this client {self._doing} already, as many as one may have"
                raise Rejection(429, "client_readers", told, RETRY_AFTER_SECONDS)
            self._by_client[client] += 1
        self._following[follower] = _Entry(client, asker.is_still_allowed)
        if self._looking is None:
            self._looking = gevent.spawn(self._look)
            self._looking.name = "followers-look"

    def leave(self, follower: Revocable) -> None:
        """It follows no more; said twice, it changes nothing."""
        entry = self._following.pop(follower, None)
        if entry is not None and entry.client is not None:
            self._by_client[entry.client] -= 1
            if not self._by_client[entry.client]:
                del self._by_client[entry.client]
        if not self._following and self._looking is not None:
            self._looking.kill(block=False)
            self._looking = None

    def end(self) -> None:
        """Admit nobody any more, and end those who are there. Does not wait."""
        self._is_ending = True
        for follower in list(self._following):
            follower.end(MasterStopping(STOPPING))
        for group in self._groups:
            group.end()

    def _look(self) -> None:
        """Body of the greenlet."""
        while True:
            gevent.sleep(self._look_seconds)
            for number, (follower, entry) in enumerate(list(self._following.items()), start=1):
                try:
                    if not entry.is_still_allowed():
                        follower.end(AccessEnded(ENDED))
                except Exception:
                    _LOGGER.exception("whether one may still %s could not be told", self._doing)
                if number % _ASKED_IN_A_ROW == 0:
                    gevent.sleep(0)
