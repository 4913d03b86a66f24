"""``submit``: give the fleet a task."""

import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import click

from fleetpulse.master.console.client import MasterClient
from fleetpulse.master.console.command import ClientContext, ConsoleCommand, console_command
from fleetpulse.master.console.errors import ConsoleError, Unreachable
from fleetpulse.master.console.options import DURATION, MEMORY, choices, pairs
from fleetpulse.master.console.waiting import wait

_PAUSES_SECONDS = (0.5, 1.0, 2.0)


class SubmitCommand(ConsoleCommand):
    """Tells those who forgot it where the command of the task begins."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            hint = "" if "--" in args else "; if it belongs to the task's command, put -- before that"
            raise click.UsageError(f"{error.format_message().rstrip('.')}{hint}", ctx) from error


@console_command("submit", cls=SubmitCommand)
@click.argument("docker_image", metavar="IMAGE")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- CMD...]")
@click.option("--name", default="", help="What people call it.")
@click.option("--cpu", "cpu_required", type=float, help="Cores.  [default: 1]")
@click.option("--memory", "memory_required", type=MEMORY, help="MiB, or 512M, 2G.  [default: 512]")
@click.option("--gpu", "gpu_required", type=float, help="Whole GPUs.  [default: 0]")
@click.option("--priority", type=int, help="0 to 100; the highest goes first.  [default: 0]")
@click.option("--max-retries", type=int, help="How often a failed attempt is followed by another.  [default: 0]")
@click.option("--timeout", "timeout_seconds", type=DURATION, help="From its start: 90s, 15m, 2h.")
@click.option("-e", "--env", "env", multiple=True, metavar="NAME[=VALUE]", help="Repeatable; NAME alone: as here.")
@click.option("--env-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Lines of NAME=VALUE.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Your own; repeatable.")
@click.option(
    "--constraint", "constraints", multiple=True, metavar="LABEL=VALUE",
    help="Only on workers with this label; worker_id is one. Repeated for one label: any of its values.",
)  # fmt: skip
@click.option("--read-only/--read-write", default=None, help="Its root filesystem.  [default: as the policies say]")
@click.option("--user", help="USER or USER:GROUP that it runs as.  [default: as the policies say]")
@click.option("--network", type=click.Choice(("none", "bridge")), help="Its network.  [default: as the policies say]")
@click.option("--idempotency-key", help="Submits with the same key are one task.  [default: a new one]")
@click.option("--wait", "waits", is_flag=True, help="Print its log as it comes, and end with its exit code.")
@click.option("--raw", is_flag=True, help="With --wait: pass escape sequences on to the terminal, too.")
def submit_command(
    session: ClientContext,
    env: tuple[str, ...],
    env_file: Path | None,
    labels: tuple[str, ...],
    constraints: tuple[str, ...],
    idempotency_key: str | None,
    waits: bool,
    raw: bool,
    **fields: Any,
) -> None:
    """Give the fleet a task: an image, and the command to run in it.

    The command comes after --; without one the image's own is run.
    """
    body = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
    body |= {"env": _environment(env, env_file), "labels": pairs("--label", labels)}
    body["constraints"] = choices("--constraint", constraints)
    sent = {name: value for name, value in body.items() if value not in (None, "", {}, []) or name == "docker_image"}
    task = _post(session, sent, idempotency_key or str(uuid.uuid4()))
    _show(session, task, waits=waits)
    if waits and (code := wait(session, str(task.get("task_id")), raw=raw)):
        click.get_current_context().exit(code)


def _environment(given: tuple[str, ...], file: Path | None) -> dict[str, str]:
    from dotenv import dotenv_values  # noqa: PLC0415 - only where there is a file

    found = {name: value or "" for name, value in dotenv_values(file, interpolate=False).items()} if file else {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign and name not in os.environ:
            raise click.UsageError(f"--env {name}: there is no such variable here; give it as {name}=VALUE")
        found[name] = value if sign else os.environ[name]
    return found


def _post(session: ClientContext, body: dict[str, Any], key: str) -> dict[str, Any]:
    """Submit; again when the answer is lost, for with its key that makes no second task."""
    for pause in (*_PAUSES_SECONDS, None):
        try:
            return _posted(session.client, body, key)
        except Unreachable as error:
            if not error.was_sent:
                raise
            if pause is None:
                raise Unreachable(f"{error.message}. With --idempotency-key {key} it is safe to try again") from error
            session.screen.note("no answer to the submit; trying again, which cannot make a second task")
            time.sleep(pause)
    raise AssertionError("the last try ends above")


def _posted(client: MasterClient, body: dict[str, Any], key: str) -> dict[str, Any]:
    task = client.post("/api/tasks", body, {"Idempotency-Key": key})
    if not isinstance(task.get("task_id"), str):
        raise ConsoleError(f"{client.url} took the task without giving it an id")
    return task


def _show(session: ClientContext, task: dict[str, Any], *, waits: bool) -> None:
    task_id = str(task.get("task_id"))
    if waits:
        session.screen.note(f"{task_id} submitted")
    elif session.screen.is_json:
        session.screen.json(task)
    else:
        session.screen.line(task_id)
        if sys.stderr.isatty():
            session.screen.note(f"`fleetpulse logs -f {task_id}` follows it")
