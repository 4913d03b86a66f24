"""Making what comes from a fleet safe for a terminal: there may be escape sequences in it, and what reorders a line."""

import re

_MOST_PENDING = 4096
"""Characters of a sequence that has no end yet; what is longer is no sequence but somebody's trick."""

_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, the cursor
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # strings: the title, the clipboard
    r"|\x1b[ -/]*[0-Z\\`-~]"  # the short ones
)
_BEGUN = re.compile(
    r"(?:\x1b(?:\[[0-?]*[ -/]*|[ -/]*|[\]PX^_][^\x07\x1b\x9c]*\x1b?)"
    r"|\x9b[0-?]*[ -/]*|[\x90\x98\x9d-\x9f][^\x07\x1b\x9c]*\x1b?)\Z"
)
_REORDERING = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def one_line(text: object) -> str:
    """A text as part of one line: without escape sequences, every other unprintable character as a space or U+FFFD."""
    stripped = _SEQUENCE.sub("", str(text))
    return "".join(char if char.isprintable() else " " if char.isspace() else "\ufffd" for char in stripped)


class EscapeFilter:
    """Takes the sequences out of a text that comes in pieces; line breaks and tabs stay, a lone CR breaks a line."""

    def __init__(self) -> None:
        self._pending = ""

    def feed(self, piece: str) -> str:
        """What may be shown of all that came so far, and was not shown yet."""
        text = self._pending + piece
        self._pending = ""
        text = _SEQUENCE.sub("", text)
        if (begun := _BEGUN.search(text)) is not None and len(begun.group()) <= _MOST_PENDING:
            text, self._pending = text[: begun.start()], begun.group()
        elif text.endswith("\r"):
            text, self._pending = text[:-1], "\r"
        return _plain(text)

    def end(self) -> str:
        """What is left when nothing will come any more."""
        text, self._pending = self._pending, ""
        return _plain(text)


def _plain(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _REORDERING.sub("\ufffd", _CONTROL.sub("", text))
