"""Ids of workers and tasks: those that a shell may offer, and the nearest to one that there is not."""

import contextlib
import difflib
import time
from collections.abc import Callable, Iterator
from typing import Any

import click
from click.shell_completion import CompletionItem

from fleetpulse.master.console.address import DEFAULT_URL, base_url
from fleetpulse.master.console.clean import one_line
from fleetpulse.master.console.client import MasterClient
from fleetpulse.master.console.credentials import token_for
from fleetpulse.master.console.errors import ConsoleError, UnknownId

_NEWEST_TASKS = 1000
_OFFERED_TASKS = 100
_COMPLETION_SECONDS = 2.0
_CACHED_SECONDS = 5.0

Ids = Callable[[MasterClient], dict[str, str]]
"""Asks a master for ids, each with a few words about it."""


def worker_ids(client: MasterClient) -> dict[str, str]:
    """Every worker, with its state."""
    workers = client.get("/workers", timeout=_COMPLETION_SECONDS)
    if not isinstance(workers, dict):
        return {}
    return {worker_id: "active" if worker.get("is_active") else "inactive" for worker_id, worker in workers.items()}


def task_ids(client: MasterClient) -> dict[str, str]:
    """The newest tasks, with what they are."""
    tasks = client.get("/api/tasks", {"limit": _OFFERED_TASKS}, timeout=_COMPLETION_SECONDS)
    return {task["task_id"]: f"{task['status']} {task['name'] or task['docker_image']}" for task in tasks}


def _many_task_ids(client: MasterClient) -> dict[str, str]:
    return {task["task_id"]: "" for task in client.get_list("/api/tasks", {"limit": _NEWEST_TASKS})}


@contextlib.contextmanager
def worker_named(client: MasterClient, worker_id: str) -> Iterator[None]:
    """Tell the nearest worker when the master knows none of this id."""
    with _nearest(client, worker_id, worker_ids, "`fleetpulse workers` lists all"):
        yield


@contextlib.contextmanager
def task_named(client: MasterClient, task_id: str) -> Iterator[None]:
    """Tell the nearest task when the master knows none of this id."""
    with _nearest(client, task_id, _many_task_ids, "`fleetpulse tasks` lists the newest"):
        yield


@contextlib.contextmanager
def _nearest(client: MasterClient, given: str, ids: Ids, otherwise: str) -> Iterator[None]:
    try:
        yield
    except UnknownId as error:
        try:
            near = difflib.get_close_matches(given, ids(client), n=1, cutoff=0.6)
        except ConsoleError:
            near = []
        hint = f"did you mean {near[0]!r}?" if near else otherwise
        raise UnknownId(f"{error.message}; {hint}") from error


class IdType(click.ParamType):  # type: ignore[type-arg] # not generic before click 8.5
    """An id on the command line, which a shell completes by asking the master."""

    def __init__(self, name: str, ids: Ids, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._ids = ids
        self._clock = clock
        self._cached: dict[str, tuple[float, dict[str, str]]] = {}

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The ids that begin so. A master that does not answer offers none."""
        try:
            known = self._known(str(ctx.params.get("url") or DEFAULT_URL), ctx.params.get("token"))
        except (click.ClickException, KeyError, TypeError):
            return []
        return [
            CompletionItem(one, help=one_line(words))
            for one, words in known.items()
            if one.startswith(incomplete) and one.isprintable()
        ]

    def _known(self, url: str, token: Any) -> dict[str, str]:
        made, known = self._cached.get(url, (-_CACHED_SECONDS, {}))
        if self._clock() - made < _CACHED_SECONDS:
            return known
        client = MasterClient(base_url(url), token_for(base_url(url), token))
        try:
            known = self._ids(client)
        finally:
            client.close()
        self._cached[url] = self._clock(), known
        return known


WORKER_ID = IdType("worker", worker_ids)
TASK_ID = IdType("task", task_ids)
