"""Shell completion, the ids that it offers, and "did you mean" for ids that the master does not know."""

import contextlib
import difflib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from fleetpulse.master.console.client import MasterClient
from fleetpulse.master.console.command import ConsoleCommand
from fleetpulse.master.console.connection import DEFAULT_URL, base_url, token_source
from fleetpulse.master.console.errors import ConsoleError, UnknownId
from fleetpulse.master.console.formatting import one_line

_COMPARED_TASKS = 1000
_OFFERED_TASKS = 100
_TIMEOUT_SECONDS = 2.0
_CACHE_SECONDS = 5.0

FetchIds = Callable[[MasterClient], dict[str, str]]
"""Asks a master for ids, each with a short description."""


def worker_ids(client: MasterClient) -> dict[str, str]:
    """Every worker, with its state."""
    workers = client.get("/workers", timeout=_TIMEOUT_SECONDS)
    if not isinstance(workers, dict):
        return {}
    return {worker_id: "active" if worker.get("is_active") else "inactive" for worker_id, worker in workers.items()}


def task_ids(client: MasterClient, limit: int = _OFFERED_TASKS) -> dict[str, str]:
    """The newest tasks, with status and name."""
    tasks = client.get("/api/tasks", {"limit": limit}, timeout=_TIMEOUT_SECONDS)
    return {task["task_id"]: f"{task['status']} {task['name'] or task['docker_image']}" for task in tasks}


@contextlib.contextmanager
def suggest_worker(client: MasterClient, worker_id: str) -> Iterator[None]:
    """Adds the most similar worker's id to an ``UnknownId``."""
    try:
        yield
    except UnknownId as error:
        raise _with_hint(error, worker_id, lambda: worker_ids(client), "`fleetpulse workers` lists all") from error


@contextlib.contextmanager
def suggest_task(client: MasterClient, task_id: str) -> Iterator[None]:
    """Adds the most similar task's id to an ``UnknownId``."""
    try:
        yield
    except UnknownId as error:
        hint = "`fleetpulse tasks` lists the newest"
        raise _with_hint(error, task_id, lambda: task_ids(client, _COMPARED_TASKS), hint) from error


def _with_hint(error: UnknownId, given: str, fetch: Callable[[], Iterable[str]], otherwise: str) -> UnknownId:
    with contextlib.suppress(ConsoleError):
        for similar in difflib.get_close_matches(given, fetch(), n=1, cutoff=0.6):
            otherwise = f"did you mean {similar!r}?"
    return UnknownId(f"{error.message}; {otherwise}")


class IdType(click.ParamType):  # type: ignore[type-arg] # not generic before click 8.5
    """An id on the command line. A shell completes it by asking the master."""

    def __init__(self, name: str, fetch: FetchIds, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._fetch = fetch
        self._clock = clock
        self._cache: dict[str, tuple[float, dict[str, str]]] = {}

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offers the ids with this prefix; none if the master does not answer."""
        try:
            known = self._known(str(ctx.params.get("url") or DEFAULT_URL), ctx.params.get("token"))
        except (click.ClickException, KeyError, TypeError):
            return []
        return [
            CompletionItem(found, help=one_line(description))
            for found, description in known.items()
            if found.startswith(incomplete) and found.isprintable()
        ]

    def _known(self, url: str, token: Any) -> dict[str, str]:
        fetched_at, known = self._cache.get(url, (-_CACHE_SECONDS, {}))
        if self._clock() - fetched_at < _CACHE_SECONDS:
            return known
        client = MasterClient(base_url(url), token_source(base_url(url), token))
        try:
            known = self._fetch(client)
        finally:
            client.close()
        self._cache[url] = self._clock(), known
        return known


WORKER_ID = IdType("worker", worker_ids)
TASK_ID = IdType("task", task_ids)


@click.command("completion", cls=ConsoleCommand)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion_command(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  eval "$(fleetpulse completion bash)"        in ~/.bashrc
    zsh:   eval "$(fleetpulse completion zsh)"         in ~/.zshrc
    fish:  fleetpulse completion fish | source         in ~/.config/fish/config.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # click has one for each of these  # nosec B101 # for the type checker
    completion = kind(click.Group(), {}, "fleetpulse", "_FLEETPULSE_COMPLETE")
    # Not source(), which would run bash to find out its version.
    click.echo(completion.source_template % completion.source_vars())
