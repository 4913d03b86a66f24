"""``submit``: run a task on the fleet. With ``--wait`` it follows the task to its end."""

import os
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from fleetpulse.master.console.client import MasterClient
from fleetpulse.master.console.command import (
    DURATION,
    MEMORY,
    NOT_EMPTY,
    NUMBER,
    ClientContext,
    ConsoleCommand,
    console_command,
    multiple_pairs,
    pairs,
)
from fleetpulse.master.console.errors import ConsoleError, ExitCode, Unreachable
from fleetpulse.master.console.logs import LogPrinter, end_text
from fleetpulse.master.console.screen import Screen
from fleetpulse.master.console.stream import ReconnectPolicy, follow_stream
from fleetpulse.master.console.tasks import TERMINAL, event_text, task_path

_RETRY_PAUSES_SECONDS = (0.5, 1.0, 2.0)
_POLL_SECONDS = 1.0
_POLL_TIMEOUT_SECONDS = 3.0
"""Leaving the command waits for an answer no longer than this."""

_SHOWN_BY_THE_STREAM = frozenset({"submitted", *TERMINAL})


class SubmitCommand(ConsoleCommand):
    """Explains a missing ``--`` before the task's command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses as click does."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            hint = "" if "--" in args else "; if it belongs to the task's command, put -- before that"
            raise click.UsageError(f"{error.format_message().rstrip('.')}{hint}", ctx) from error


@console_command("submit", cls=SubmitCommand)
@click.argument("docker_image", metavar="IMAGE")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- CMD...]")
@click.option("--name", default="", help="A name for people.")
@click.option("--cpu", "cpu_required", type=NUMBER, help="Cores.  [default: 1]")
@click.option("--memory", "memory_required", type=MEMORY, help="MiB, or 512M, 2G.  [default: 512]")
@click.option("--gpu", "gpu_required", type=NUMBER, help="Whole GPUs.  [default: 0]")
@click.option("--priority", type=int, help="0 to 100; the highest goes first.  [default: 0]")
@click.option("--max-retries", type=int, help="How often a failed attempt is repeated.  [default: 0]")
@click.option("--timeout", "timeout_seconds", type=DURATION, help="From its start: 90s, 15m, 2h.")
@click.option("-e", "--env", "env", multiple=True, metavar="NAME[=VALUE]", help="Repeatable; NAME alone: as here.")
@click.option("--env-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="As of docker run.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="A label of your own; repeatable.")
@click.option(
    "--constraint", "constraints", multiple=True, metavar="LABEL=VALUE",
    help="Only on workers with this label; worker_id is one. Repeated for one label: any of its values.",
)  # fmt: skip
@click.option("--read-only/--read-write", default=None, help="Its root filesystem.  [default: as the policies say]")
@click.option("--user", type=NOT_EMPTY, help="USER or USER:GROUP that it runs as.  [default: as the policies say]")
@click.option("--network", type=click.Choice(("none", "bridge")), help="Its network.  [default: as the policies say]")
@click.option("--idempotency-key", help="Submits with the same key are one task.  [default: a new one]")
@click.option("--wait", "waits", is_flag=True, help="Print its log as it comes, and end with its exit code.")
@click.option("--raw", is_flag=True, help="With --wait: pass escape sequences on to the terminal, too.")
def submit_command(
    context: ClientContext,
    env: tuple[str, ...],
    env_file: Path | None,
    labels: tuple[str, ...],
    constraints: tuple[str, ...],
    idempotency_key: str | None,
    waits: bool,
    raw: bool,
    **fields: Any,
) -> None:
    """Submit a task: an image, and the command to run in it.

    The command comes after --. Without one the image's own command runs.
    """
    body = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
    body |= {"env": _environment(env, env_file), "labels": pairs("--label", labels)}
    body["constraints"] = multiple_pairs("--constraint", constraints)
    given = {name: value for name, value in body.items() if value not in (None, "", {}, []) or name == "docker_image"}
    task = _post(context, given, idempotency_key or str(uuid.uuid4()))
    task_id, screen = str(task["task_id"]), context.screen
    if waits:
        screen.note(f"{task_id} submitted")
        if code := _wait(context, task_id, raw=raw):
            click.get_current_context().exit(code)
    elif screen.is_json:
        screen.json(task)
    else:
        screen.line(task_id)
        if sys.stderr.isatty():
            screen.note(f"`fleetpulse logs -f {task_id}` follows it")


def _environment(given: tuple[str, ...], file: Path | None) -> dict[str, str]:
    env = {} if file is None else read_env_file(file.read_bytes(), str(file), os.environ)
    for text in given:
        name, sign, value = text.partition("=")
        if not sign and name not in os.environ:
            raise click.UsageError(f"--env {name}: there is no such variable here; give it as {name}=VALUE")
        env[name] = value if sign else os.environ[name]
    return env


def read_env_file(content: bytes, file_name: str, here: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables of a file in the grammar of ``docker run --env-file``: lines of ``NAME=VALUE``, where the
    value is all that follows, quotes too; ``NAME`` alone takes its value from ``here``; a line that begins with ``#``
    is a comment.

    Raises ``click.UsageError`` with the line's number.
    """
    env = {}
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        where = f"--env-file {file_name}, line {number}:"
        try:
            line = raw.decode().lstrip()
        except UnicodeDecodeError as error:
            raise click.UsageError(f"{where} it is not UTF-8") from error
        if not line or line.startswith("#"):
            continue
        name, sign, value = line.partition("=")
        if not name or any(map(str.isspace, name)):
            raise click.UsageError(f"{where} {name!r} cannot be the name of a variable")
        if not sign and name not in here:
            raise click.UsageError(f"{where} there is no variable {name} here; give it as {name}=VALUE")
        env[name] = value if sign else here[name]
    return env


def _post(context: ClientContext, body: dict[str, Any], key: str) -> dict[str, Any]:
    """Submits the task. Retries when the answer is lost: the idempotency key prevents a second task."""
    for pause in (*_RETRY_PAUSES_SECONDS, None):
        try:
            task = context.client.post("/api/tasks", body, {"Idempotency-Key": key})
        except Unreachable as error:
            if not error.was_sent:
                raise
            if pause is None:
                raise Unreachable(f"{error.message}. With --idempotency-key {key} it is safe to try again") from error
            context.screen.note("no answer to the submit; trying again, which cannot make a second task")
            time.sleep(pause)
        else:
            if not isinstance(task.get("task_id"), str):
                raise ConsoleError(f"{context.client.url} took the task without giving it an id")
            return task
    raise AssertionError("the last try ends above")


def _wait(context: ClientContext, task_id: str, *, raw: bool) -> int:
    """Prints the log to its end and returns the exit code that stands for the task."""
    progress = _Progress(context.client.clone(), context.screen, task_id)
    try:
        return _follow(context, task_id, LogPrinter(context.screen, raw=raw), progress)
    except KeyboardInterrupt:
        context.screen.note(
            f"{task_id} goes on: `fleetpulse logs -f {task_id}` follows it, `fleetpulse cancel {task_id}` ends it"
        )
        raise
    finally:
        progress.stop()


def _follow(context: ClientContext, task_id: str, writer: LogPrinter, progress: "_Progress") -> int:
    policy = ReconnectPolicy(context.screen.note)
    for event in follow_stream(context.client, f"{task_path(task_id)}/logs", {"follow": "true"}, policy, last="end"):
        if event.kind == "status":
            progress.on_status(event.data)
        elif event.kind == "message":
            writer.write(event.data["logs"])
        elif event.kind == "end":
            writer.end()
            progress.stop()
            context.screen.note(f"{task_id} {end_text(event.data)}")
            return exit_code(event.data)
    raise ConsoleError(f"the log of {task_id} ended without its end; `fleetpulse task {task_id}` shows how it is")


def exit_code(end: dict[str, Any]) -> int:
    """The exit code of the command for the end of a task."""
    if end.get("status") == "cancelled":
        return ExitCode.TASK_CANCELLED
    code, is_completed = end.get("exit_code"), end.get("status") == "completed"
    if not isinstance(code, int) or (code == 0 and not is_completed):
        return ExitCode.DONE if is_completed else ExitCode.TASK_FAILED
    return code & 0xFF if code & 0xFF or code == 0 else ExitCode.TASK_FAILED


class _Progress:
    """Says on stderr what happens before there is a log: why the task waits, where it goes, how far the pull is.

    Its thread polls the task's events while the task is not running.
    """

    def __init__(self, client: MasterClient, screen: Screen, task_id: str) -> None:
        self._client = client
        self._screen = screen
        self._task_id = task_id
        self._events_shown = 0
        self._queue_reason = ""
        self._stopping = threading.Event()
        self._polling = threading.Event()
        self._thread = threading.Thread(target=self._poll, name=f"progress of {task_id}", daemon=True)
        self._thread.start()

    def on_status(self, status: dict[str, Any]) -> None:
        """The stream told the task's status."""
        reason = status.get("queue_reason") or ""
        if reason and reason != self._queue_reason:
            self._screen.note(f"{self._task_id} waits: {reason}")
        self._queue_reason = reason
        if status.get("status") in {"running", *TERMINAL}:
            self._polling.clear()
        else:
            self._polling.set()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopping.set()
        self._polling.set()
        self._thread.join()
        self._client.close()

    def _poll(self) -> None:
        while self._polling.wait() and not self._stopping.is_set():
            try:
                task = self._client.get(task_path(self._task_id), timeout=_POLL_TIMEOUT_SECONDS)
            except ConsoleError:
                task = None  # the stream reports the same error
            if isinstance(task, dict):
                self._show(task.get("events") or [])
            self._stopping.wait(_POLL_SECONDS)

    def _show(self, events: list[dict[str, Any]]) -> None:
        for event in events[self._events_shown :]:
            if event.get("kind") not in _SHOWN_BY_THE_STREAM and not self._stopping.is_set():
                self._screen.note(f"{self._task_id} {event_text(event)}")
        self._events_shown = max(self._events_shown, len(events))
