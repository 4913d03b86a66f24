"""``logs``: the output of a task."""

import codecs
import sys
from typing import Any

import click

from fleetpulse.master.console.command import ClientContext, console_command
from fleetpulse.master.console.completion import TASK_ID, suggest_task
from fleetpulse.master.console.formatting import EscapeFilter
from fleetpulse.master.console.screen import Screen
from fleetpulse.master.console.stream import ReconnectPolicy, follow_stream
from fleetpulse.master.console.tasks import task_path


class LogPrinter:
    """Writes a log to stdout: unchanged bytes to a pipe, without escape sequences to a terminal."""

    def __init__(self, screen: Screen, *, raw: bool) -> None:
        self._filter = EscapeFilter() if screen.is_terminal and not raw else None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write_bytes(self, data: bytes) -> None:
        """Writes a chunk, which may end within a character."""
        if self._filter is None:
            self._put(data)
        else:
            self.write(self._decoder.decode(data))

    def write(self, text: str) -> None:
        """Writes a chunk of whole characters."""
        self._put((text if self._filter is None else self._filter.feed(text)).encode(errors="replace"))

    def end(self) -> None:
        """Writes what is held back."""
        if self._filter is not None:
            self.write(self._decoder.decode(b"", final=True))
            self._put(self._filter.end().encode())

    def _put(self, data: bytes) -> None:
        if data:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()


@console_command("logs")
@click.argument("task_id", metavar="ID", type=TASK_ID)
@click.option("-f", "--follow", "follows", is_flag=True, help="Go on until the task has ended.")
@click.option("--tail", type=click.IntRange(min=1, max=100_000), help="Only this many lines from the end.")
@click.option("--attempt", type=click.IntRange(min=1), help="Which attempt; the newest if not given.")
@click.option("--raw", is_flag=True, help="Pass escape sequences on to the terminal, too.")
def logs_command(
    context: ClientContext, task_id: str, follows: bool, tail: int | None, attempt: int | None, raw: bool
) -> None:
    """Print the output of a task."""
    query = {"tail": tail, "attempt": attempt}
    path, writer = f"{task_path(task_id)}/logs", LogPrinter(context.screen, raw=raw)
    with suggest_task(context.client, task_id):
        if follows:
            _follow(context, path, query, writer)
        elif context.screen.is_json:
            context.screen.json(context.client.get_dict(path, query))
        else:
            with context.client.stream(path, {**query, "format": "text"}) as response:
                for chunk in context.client.chunks(response):
                    writer.write_bytes(chunk)
            writer.end()


def _follow(context: ClientContext, path: str, query: dict[str, Any], writer: LogPrinter) -> None:
    policy = ReconnectPolicy(context.screen.note)
    for event in follow_stream(context.client, path, {**query, "follow": "true"}, policy, last="end"):
        if context.screen.is_json:
            context.screen.json_line({"event": event.kind, "data": event.data})
        elif event.kind == "message":
            writer.write(event.data["logs"])
        elif event.kind == "attempt" and event.data["attempt"] > 1:
            context.screen.note(f"attempt {event.data['attempt']} on {event.data['worker_id']}")
        elif event.kind == "end":
            writer.end()
            context.screen.note(end_text(event.data))


def end_text(data: dict[str, Any]) -> str:
    """How a task ended, as ``failed with exit code 7: out of memory``."""
    code, error = data.get("exit_code"), data.get("error") or data.get("reason")
    ended = f"{data.get('status')}{'' if code is None else f' with exit code {code}'}"
    return f"{ended}: {error}" if error else ended
