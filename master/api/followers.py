"""Everybody who follows something now: so many at most, and none any more when the master stops."""

from collections import Counter
from typing import Protocol

from master.api.problems import RETRY_AFTER_SECONDS, Rejection
from master.clients import Clients
from master.errors import MasterStopping

MAX_FOLLOWERS = 500
"""Each holds a connection and a greenlet."""

MAX_OF_CLIENT = 100

STOPPING = "the master is stopping; come back in a moment"


class Endable(Protocol):
    """One who follows."""

    def end(self) -> None:
        """Let it have a last word and go. Does not wait."""
        ...


class Followers:
    """On the hub. ``doing`` is what they do, in words; ``clients`` says who is counted as one."""

    def __init__(
        self,
        most: int = MAX_FOLLOWERS,
        doing: str = "follow logs",
        clients: Clients = Clients(),  # noqa: B008 - it keeps nothing
        most_of_client: int = MAX_OF_CLIENT,
    ) -> None:
        self._most = most
        self._doing = doing
        self._clients = clients
        self._most_of_client = most_of_client
        self._following: dict[Endable, str | None] = {}
        self._by_client: Counter[str] = Counter()
        self._groups: list[Followers] = []
        self._is_ending = False

    def __len__(self) -> int:
        return len(self._following)

    def group(self, most: int, doing: str) -> "Followers":
        """Others, with a limit of their own, who end with these."""
        group = Followers(most, doing, self._clients, self._most_of_client)
        self._groups.append(group)
        return group

    def admit(self, follower: Endable, address: str) -> None:
        """Raise ``MasterStopping``, or ``Rejection`` when there are as many as there may be, or so many of a client."""
        if self._is_ending:
            raise MasterStopping(STOPPING)
        if len(self._following) >= self._most:
            told = f"{len(self._following)} readers {self._doing} already, which is as many as the master serves"
            raise Rejection(503, "readers", told, RETRY_AFTER_SECONDS)
        client = self._clients.name(address)
        if client is not None:
            if self._by_client[client] >= self._most_of_client:
                told = f"{self._most_of_client} readers of this client {self._doing} already, as many as one may have"
                raise Rejection(429, "client_readers", told, RETRY_AFTER_SECONDS)
            self._by_client[client] += 1
        self._following[follower] = client

    def leave(self, follower: Endable) -> None:
        """It follows no more; said twice, it changes nothing."""
        client = self._following.pop(follower, None)
        if client is not None:
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]

    def end(self) -> None:
        """Admit nobody any more, and end those who are there. Does not wait."""
        self._is_ending = True
        for follower in list(self._following):
            follower.end()
        for group in self._groups:
            group.end()
