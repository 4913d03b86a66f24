"""A terminal for tests: a real pty and an emulated screen."""

import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import cast

import pexpect
import pyte

from tests.e2e.waiting import POLL_SECONDS

TIMEOUT_SECONDS = 60.0

CTRL_C, CTRL_D, TAB, ENTER, UP = "\x03", "\x04", "\t", "\r", "\x1b[A"


class Terminal:
    """A program on its own terminal. Its output is read only while a method waits."""

    def __init__(self, *command: str, env: Mapping[str, str], columns: int = 100, rows: int = 30) -> None:
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        # The emulated screen does not report its cursor position.
        self._child = pexpect.spawn(
            command[0], list(command[1:]), dimensions=(rows, columns),
            env={**env, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"},
        )  # fmt: skip
        self.raw = b""
        """The whole output, with escape sequences."""

    @property
    def pid(self) -> int:
        assert self._child.pid is not None
        return self._child.pid

    @property
    def text(self) -> str:
        """The text on the screen."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    @property
    def line(self) -> str:
        """The line of the cursor."""
        return self._screen.display[self._screen.cursor.y].rstrip()

    def type(self, keys: str) -> None:
        self._child.send(keys)

    def shows(self, text: str, timeout: float = TIMEOUT_SECONDS) -> None:
        """Waits until the text is on the screen."""
        self.until(lambda: text in self.text, f"{text!r} on the screen", timeout)

    def shows_no_more(self, text: str, timeout: float = TIMEOUT_SECONDS) -> None:
        """Waits until the text is not on the screen."""
        self.until(lambda: text not in self.text, f"no {text!r} on the screen", timeout)

    def prompts(self, line: str, timeout: float = TIMEOUT_SECONDS) -> None:
        """Waits for this line at the cursor."""
        self.until(lambda: self.line == line.rstrip(), f"the line {line!r}", timeout)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def ends(self, timeout: float = TIMEOUT_SECONDS) -> int:
        """Waits for the end of the program and returns its exit code."""
        self.until(lambda: not self._child.isalive(), "the end of the program", timeout)
        self._read()
        assert self._child.exitstatus is not None, self._child.signalstatus
        return self._child.exitstatus

    def close(self) -> None:
        self._child.close(force=True)

    def until(self, condition: Callable[[], object], what: str, timeout: float = TIMEOUT_SECONDS) -> None:
        """Reads output until the condition is true."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"waited {timeout:g} s in vain for {what}; it shows:\n{self.text}"
            self._read()

    def _read(self) -> None:
        try:
            data = cast(
                "bytes", self._child.read_nonblocking(65536, POLL_SECONDS)
            )  # bytes, as no encoding was asked for
        except pexpect.TIMEOUT:
            return
        except pexpect.EOF:
            time.sleep(POLL_SECONDS)
            return
        self.raw += data
        self._stream.feed(data)
