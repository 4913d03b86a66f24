"""``--wait``: a task's log on stdout, what it waits for on stderr, its exit code as the command's own."""

import threading
from typing import Any

from fleetpulse.master.console.client import MasterClient, segment
from fleetpulse.master.console.command import ClientContext
from fleetpulse.master.console.errors import CANCELLED, FAILED_WITHOUT_CODE, ConsoleError
from fleetpulse.master.console.logs import LogWriter, ending, is_end
from fleetpulse.master.console.screen import Screen
from fleetpulse.master.console.sse import follow
from fleetpulse.master.console.tasks import TERMINAL, event_text

_LOOK_SECONDS = 1.0
_ANSWER_SECONDS = 3.0
"""Whoever leaves waits for it no longer."""

_TOLD_ELSEWHERE = frozenset({"submitted", "completed", "failed", "cancelled"})


def wait(session: ClientContext, task_id: str, *, raw: bool) -> int:
    """Follow a task to its end; the exit code that stands for it. On Ctrl-C it says that the task goes on."""
    story = _Story(session.client.another(), session.screen, task_id)
    try:
        return _follow(session, task_id, LogWriter(session.screen, raw=raw), story)
    except KeyboardInterrupt:
        session.screen.note(
            f"{task_id} goes on: `fleetpulse logs -f {task_id}` follows it, `fleetpulse cancel {task_id}` ends it"
        )
        raise
    finally:
        story.stop()


def _follow(session: ClientContext, task_id: str, writer: LogWriter, story: "_Story") -> int:
    path = f"/api/tasks/{segment(task_id, 'task')}/logs"
    for event in follow(session.client, path, {"follow": "true"}, is_last=is_end, note=session.screen.note):
        if event.kind == "status":
            story.heard(event.data)
        elif event.kind == "message":
            writer.write(event.data["logs"])
        elif event.kind == "end":
            writer.end()
            story.stop()
            session.screen.note(f"{task_id} {ending(event.data)}")
            return exit_code(event.data)
    raise ConsoleError(f"the log of {task_id} ended without its end; `fleetpulse task {task_id}` shows how it is")


def exit_code(end: dict[str, Any]) -> int:
    """What the command ends with for the end of a task."""
    if end.get("status") == "cancelled":
        return CANCELLED
    code = end.get("exit_code")
    if not isinstance(code, int) or (code == 0 and end.get("status") != "completed"):
        return 0 if end.get("status") == "completed" else FAILED_WITHOUT_CODE
    return code & 0xFF if code & 0xFF or code == 0 else FAILED_WITHOUT_CODE


class _Story:
    """Tells on stderr what happens before there is a log: why the task waits, where it goes, how far the pull is."""

    def __init__(self, client: MasterClient, screen: Screen, task_id: str) -> None:
        self._client = client
        self._screen = screen
        self._task_id = task_id
        self._told = 0
        self._last = ""
        self._stopping = threading.Event()
        self._waiting = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"story of {task_id}", daemon=True)
        self._thread.start()

    def heard(self, status: dict[str, Any]) -> None:
        """The stream said what the task does now."""
        reason = status.get("queue_reason")
        if reason and reason != self._last:
            self._screen.note(f"{self._task_id} waits: {reason}")
        self._last = reason or ""
        if status.get("status") in {"running", *TERMINAL}:
            self._waiting.clear()
        else:
            self._waiting.set()

    def stop(self) -> None:
        """Say no more."""
        self._stopping.set()
        self._waiting.set()
        self._thread.join()
        self._client.close()

    def _watch(self) -> None:
        while self._waiting.wait() and not self._stopping.is_set():
            try:
                task = self._client.get(f"/api/tasks/{segment(self._task_id, 'task')}", timeout=_ANSWER_SECONDS)
            except ConsoleError:
                task = None  # the stream says the same, and better
            if isinstance(task, dict):
                self._tell(task.get("events") or [])
            self._stopping.wait(_LOOK_SECONDS)

    def _tell(self, events: list[dict[str, Any]]) -> None:
        for event in events[self._told :]:
            if event.get("kind") not in _TOLD_ELSEWHERE and not self._stopping.is_set():
                self._screen.note(f"{self._task_id} {event_text(event)}")
        self._told = max(self._told, len(events))
