"""A store in a process to be killed or starved: ``python -m tests.master.store.child WHAT DATABASE_URL``."""

import os
import resource
import sys
from collections.abc import Callable

import gevent

from fleetpulse.master.errors import StoreUnavailable
from fleetpulse.master.store.database import parse_database_url
from fleetpulse.master.store.store import SqlTaskStore
from fleetpulse.master.tasks.records import Changes, LogChunk
from tests.master.store.builders import open_store, submit


def submit_for_ever(store: SqlTaskStore, _url: str) -> None:
    """Prints the id of every accepted task."""

    def submit_some(name: str) -> None:
        number = 0
        while True:
            # One write, so that a kill cannot leave half of an id.
            os.write(1, f"{submit(store, f'{name}-{number}').task_id}\n".encode())
            number += 1

    gevent.joinall([gevent.spawn(submit_some, f"{os.getpid()}-{number}") for number in range(8)], raise_error=True)


def fill_the_disk(store: SqlTaskStore, url: str) -> None:
    """Write a log until no file may grow, see what the store says, and then let it have more."""
    path = parse_database_url(url).path
    assert path is not None
    submit(store, "before")
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512 * 1024, most))
    saved: list[int] = []
    for number in range(100):
        chunk = LogChunk("before", 1, number * 65536, bytes([number]) * 65536)
        store.append_log(chunk, lambda number=number: saved.append(number))  # type: ignore[misc]  # mypy knows no lambda with a default
    _wait_until(lambda: store.health_error() is not None)
    print("wrong:", store.health_error())
    try:
        submit(store, "during")
    except StoreUnavailable as error:
        print("unavailable:", error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    _wait_until(lambda: len(saved) == 100)
    assert saved == sorted(saved)
    print("right:", store.health_error())
    submit(store, "after")
    store.save(Changes())


def only_open(_store: SqlTaskStore, _url: str) -> None:
    """Hold the database."""
    print("open", flush=True)
    sys.stdin.read()


def _wait_until(condition: Callable[[], bool]) -> None:
    with gevent.Timeout(60.0):
        while not condition():
            gevent.sleep(0.01)


if __name__ == "__main__":
    _, what, database_url = sys.argv
    with open_store(database_url, write_timeout_seconds=0.5, open_timeout_seconds=1.0) as opened:
        {"submit": submit_for_ever, "fill": fill_the_disk, "hold": only_open}[what](opened, database_url)
