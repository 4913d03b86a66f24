"""Reading lines from a terminal, with history and completion."""

from collections.abc import Callable, Iterable
from pathlib import Path

from click.shell_completion import CompletionItem
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from fleetpulse.master.console.clean import one_line

Complete = Callable[[str], tuple[str, list[CompletionItem]]]


def reader(prompt: str, history: Path | None, complete: Complete) -> Callable[[], str]:
    """A function that reads a line. It raises ``KeyboardInterrupt`` for Ctrl-C, ``EOFError`` for Ctrl-D."""
    kept: History = InMemoryHistory() if history is None else _FileHistory(str(history))
    session: PromptSession[str] = PromptSession(
        prompt, history=kept, completer=_Completer(complete), complete_in_thread=True, complete_while_typing=False
    )
    return session.prompt


class _Completer(Completer):
    def __init__(self, complete: Complete) -> None:
        self._complete = complete

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        incomplete, items = self._complete(document.text_before_cursor)
        plain = [item for item in items if item.type == "plain"]
        for item in plain:
            # With the only one that fits, the word is complete.
            text = f"{item.value} " if len(plain) == 1 else item.value
            about = one_line(item.help or "")
            yield Completion(text, -len(incomplete), display=item.value, display_meta=about)


class _FileHistory(FileHistory):
    """Keeps no line that begins with a space, as shells do."""

    def append_string(self, string: str) -> None:
        if not string.startswith(" "):
            super().append_string(string)
