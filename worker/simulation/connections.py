"""Connections that simulated workers share, and the open files that connections need. All on one asyncio loop."""

import resource
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import grpc

from fleetpulse.worker.connection import OpenChannel, open_channel

_OTHER_FILES = 200
"""Of the process itself, and of connections that end while others are opened in their place."""


class TooFewFiles(Exception):
    """The process may not open as many files as the fleet has connections. The message gives the number."""


class SharedConnections:
    """One connection for so many workers. It is open while one of them uses it."""

    def __init__(self, streams_per_connection: int) -> None:
        """With 1 every worker has connections of its own, as in a real fleet."""
        self._streams_per_connection = streams_per_connection
        self._channels: dict[int, grpc.aio.Channel] = {}
        self._users: dict[int, int] = {}

    def opener(self, number: int) -> OpenChannel:
        """For the worker with this number, from 0. Neighbours share a connection."""
        if self._streams_per_connection == 1:
            return open_channel
        place = number // self._streams_per_connection

        def share(
            target: str, credentials: grpc.ChannelCredentials | None
        ) -> AbstractAsyncContextManager[grpc.aio.Channel]:
            return self._share(place, target, credentials)

        return share

    @asynccontextmanager
    async def _share(
        self, place: int, target: str, credentials: grpc.ChannelCredentials | None
    ) -> AsyncIterator[grpc.aio.Channel]:
        if place not in self._channels:
            self._channels[place], self._users[place] = open_channel(target, credentials), 0
        channel = self._channels[place]
        self._users[place] += 1
        try:
            yield channel
        finally:
            self._users[place] -= 1
            if not self._users[place]:
                del self._channels[place]
                await channel.close()


def allow_connections(connections: int) -> None:
    """Raises the process's own limit of open files as far as it may. Raises ``TooFewFiles``."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = connections + _OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise TooFewFiles(
            f"{connections} connections need {needed} open files, and this process may open {hard} at most: raise that"
            f" limit (ulimit -Hn {needed}), or share connections with --streams-per-connection"
        )
