"""``logs``: what a task wrote, or writes."""

import codecs
import sys
from typing import Any

import click

from fleetpulse.master.console.clean import EscapeFilter
from fleetpulse.master.console.client import MasterClient, segment
from fleetpulse.master.console.command import ClientContext, console_command
from fleetpulse.master.console.near import TASK_ID, task_named
from fleetpulse.master.console.screen import Screen
from fleetpulse.master.console.sse import Event, follow


class LogWriter:
    """Writes a log to stdout: bytes as they are into a pipe, without escape sequences onto a terminal."""

    def __init__(self, screen: Screen, *, raw: bool) -> None:
        self._filter = EscapeFilter() if screen.is_terminal and not raw else None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write_bytes(self, data: bytes) -> None:
        """A piece; characters may be cut anywhere."""
        if self._filter is None:
            self._put(data)
        else:
            self._put(self._filter.feed(self._decoder.decode(data)).encode())

    def write(self, text: str) -> None:
        """A piece of whole characters."""
        self._put((self._filter.feed(text) if self._filter is not None else text).encode(errors="replace"))

    def end(self) -> None:
        """Nothing will come any more."""
        if self._filter is not None:
            self._put((self._filter.feed(self._decoder.decode(b"", final=True)) + self._filter.end()).encode())

    def _put(self, data: bytes) -> None:
        if data:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()


def is_end(event: Event) -> bool:
    """Whether it is the last one of a log."""
    return event.kind == "end"


@console_command("logs")
@click.argument("task_id", metavar="ID", type=TASK_ID)
@click.option("-f", "--follow", "follows", is_flag=True, help="Go on as the task writes, until it has ended.")
@click.option("--tail", type=click.IntRange(min=1, max=100_000), help="Only so many lines from the end.")
@click.option("--attempt", type=click.IntRange(min=1), help="Which attempt; the newest if not given.")
@click.option("--raw", is_flag=True, help="Pass escape sequences on to the terminal, too.")
def logs_command(
    session: ClientContext, task_id: str, follows: bool, tail: int | None, attempt: int | None, raw: bool
) -> None:
    """Print what a task wrote."""
    query = {"tail": tail, "attempt": attempt}
    path = f"/api/tasks/{segment(task_id, 'task')}/logs"
    with task_named(session.client, task_id):
        if follows:
            _follow(session, path, query, LogWriter(session.screen, raw=raw))
        elif session.screen.is_json:
            session.screen.json(session.client.get_dict(path, query))
        else:
            _print(session.client, path, query, LogWriter(session.screen, raw=raw))


def _print(client: MasterClient, path: str, query: dict[str, Any], writer: LogWriter) -> None:
    with client.stream(path, {**query, "format": "text"}) as response:
        for piece in client.pieces(response):
            writer.write_bytes(piece)
    writer.end()


def _follow(session: ClientContext, path: str, query: dict[str, Any], writer: LogWriter) -> None:
    for event in follow(session.client, path, {**query, "follow": "true"}, is_last=is_end, note=session.screen.note):
        if session.screen.is_json:
            session.screen.json({"event": event.kind, "data": event.data}, indent=None)
            sys.stdout.flush()
        elif event.kind == "message":
            writer.write(event.data["logs"])
        elif event.kind == "attempt" and event.data["attempt"] > 1:
            session.screen.note(f"attempt {event.data['attempt']} on {event.data['worker_id']}")
        elif event.kind == "end":
            writer.end()
            session.screen.note(ending(event.data))


def ending(data: dict[str, Any]) -> str:
    """How something ended, in a line."""
    code, error = data.get("exit_code"), data.get("error") or data.get("reason")
    told = f"{data.get('status')}{'' if code is None else f' with exit code {code}'}"
    return f"{told}: {error}" if error else told
