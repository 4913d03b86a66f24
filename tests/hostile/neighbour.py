"""The client that must not be affected by an attack."""

import http.client
import time
from collections.abc import Callable

_PAUSE_SECONDS = 0.02
_TIMEOUT_SECONDS = 10.0
_PATHS = ("/health", "/telemetry", "/api/tasks?limit=10")


class Neighbour:
    """Sends a request every 20 ms, in turn on a kept connection and on a new one.

    A server may close a kept connection at any time. Like every HTTP client, this one then asks again on a new one.
    """

    def __init__(self, port: int, source: str, on_answer: Callable[[int], None] = lambda _count: None) -> None:
        """``on_answer`` is called with the number of answers so far, the failed ones included."""
        self._address = "127.0.0.1", port
        self._source = source
        self._on_answer = on_answer
        self._is_leaving = False
        self.seconds: list[float] = []
        """How long each answer took, with the connection where it was a new one."""

        self.failures: list[str] = []
        self.reconnects = 0
        """How often the kept connection was found closed."""

    def run(self) -> None:
        """Runs until ``stop`` is called."""
        kept = self._connection()
        number = 0
        while not self._is_leaving:
            number += 1
            path = _PATHS[number // 2 % len(_PATHS)]
            if number % 2:
                kept = self._ask(kept, path)
            else:
                self._ask(self._connection(), path).close()
            time.sleep(_PAUSE_SECONDS)
        kept.close()

    def stop(self) -> None:
        """Stops after this answer. May be called by a signal handler."""
        self._is_leaving = True

    def _ask(self, connection: http.client.HTTPConnection, path: str) -> http.client.HTTPConnection:
        started = time.perf_counter()
        is_kept = connection.sock is not None
        try:
            try:
                status = _status(connection, path)
            except ConnectionError:
                if not is_kept:
                    raise
                self.reconnects += 1
                connection.close()
                status = _status(connection, path)
            if status != http.client.OK:
                self.failures.append(f"{path}: {status}")
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(f"{path}: {error!r}")
            connection.close()
        self.seconds.append(time.perf_counter() - started)
        self._on_answer(len(self.seconds))
        return connection

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._address
        return http.client.HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS, source_address=(self._source, 0))


def _status(connection: http.client.HTTPConnection, path: str) -> int:
    connection.request("GET", path)  # connects where there is no connection
    answer = connection.getresponse()
    answer.read()
    return answer.status
