"""A terminal that somebody types into and looks at: a real pty, and what a screen would show of it."""

import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import cast

import pexpect
import pyte

from tests.e2e.waiting import POLL_SECONDS

PATIENCE_SECONDS = 60.0

CTRL_C, CTRL_D, TAB, ENTER, UP = "\x03", "\x04", "\t", "\r", "\x1b[A"


class Terminal:
    """A program on a terminal of its own. What it writes is only read while somebody waits for it."""

    def __init__(self, *command: str, env: Mapping[str, str], columns: int = 100, rows: int = 30) -> None:
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        # A terminal that is only looked at does not tell where its cursor is.
        self._child = pexpect.spawn(
            command[0], list(command[1:]), dimensions=(rows, columns),
            env={**env, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"},
        )  # fmt: skip
        self.raw = b""
        """All that came, with its escape sequences."""

    @property
    def pid(self) -> int:
        assert self._child.pid is not None
        return self._child.pid

    @property
    def text(self) -> str:
        """What the screen shows."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    @property
    def line(self) -> str:
        """What is in the line of the cursor."""
        return self._screen.display[self._screen.cursor.y].rstrip()

    def type(self, keys: str) -> None:
        self._child.send(keys)

    def shows(self, text: str, timeout: float = PATIENCE_SECONDS) -> None:
        """Wait until the text is on the screen."""
        self.until(lambda: text in self.text, f"{text!r} on the screen", timeout)

    def shows_no_more(self, text: str, timeout: float = PATIENCE_SECONDS) -> None:
        """Wait until it is not."""
        self.until(lambda: text not in self.text, f"no {text!r} on the screen", timeout)

    def prompts(self, line: str, timeout: float = PATIENCE_SECONDS) -> None:
        """Wait until the line of the cursor is this one."""
        self.until(lambda: self.line == line.rstrip(), f"the line {line!r}", timeout)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def ends(self, timeout: float = PATIENCE_SECONDS) -> int:
        """Wait for the end of the program; its exit code."""
        self.until(lambda: not self._child.isalive(), "the end of the program", timeout)
        self._read()
        assert self._child.exitstatus is not None, self._child.signalstatus
        return self._child.exitstatus

    def close(self) -> None:
        self._child.close(force=True)

    def until(self, condition: Callable[[], object], what: str, timeout: float = PATIENCE_SECONDS) -> None:
        """Read what comes until something is true."""
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
