"""What a simulated container does: read off its command, or left to chance. Pure.

``sleep 3``, ``echo words``, ``head -c 100 /dev/zero``, ``exit 7``, ``true``, ``false`` and ``trap '' TERM`` are
understood, alone or as ``sh -c`` with several of them between ``;`` or ``&&``. Whatever else a command says takes a
while and most often ends well.
"""

import random
import re
import shlex
from collections.abc import Sequence
from typing import NamedTuple

_SEPARATORS = re.compile(r"\s*(?:;|&&|\n)\s*")
_MEDIAN_SECONDS = 5.0
_SPREAD = 0.8
_LONGEST_SECONDS = 60.0
_FAILING_SHARE = 0.05


class Step(NamedTuple):
    """Write ``output``, then wait for so long; ``exit_code`` ends it."""

    output: bytes = b""
    seconds: float = 0.0
    exit_code: int | None = None


class Script(NamedTuple):
    steps: Sequence[Step]
    ignores_sigterm: bool = False


def script_of(command: Sequence[str], rng: random.Random) -> Script:
    """Chance is drawn from ``rng`` only where the command leaves something to it."""
    lines = [list(command)]
    if list(command[:2]) == ["sh", "-c"] and len(command) > 2:
        lines = [_words(line) for line in _SEPARATORS.split(command[2]) if line.strip()]
    steps = [_step(words, rng) for words in lines]
    return Script(steps, ignores_sigterm=any(words[:1] == ["trap"] for words in lines))


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # a quote that is never closed
        return line.split()


def _step(words: Sequence[str], rng: random.Random) -> Step:
    name, rest = (words[0], words[1:]) if words else ("", ())
    number = _number(rest[0]) if rest else None
    if name == "sleep" and number is not None:
        return Step(seconds=number)
    if name == "exit":
        return Step(exit_code=int(number or 0) & 0xFF)
    if name == "echo":
        return Step(output=f"{' '.join(rest)}\n".encode())
    if name == "head" and list(rest[:1]) == ["-c"] and list(rest[2:]) == ["/dev/zero"]:
        return Step(output=bytes(int(_number(rest[1]) or 0)))
    if name in {"true", "trap", "false"}:
        return Step(exit_code=1 if name == "false" else None)
    return _by_chance(words, rng)


def _by_chance(words: Sequence[str], rng: random.Random) -> Step:
    seconds = min(rng.lognormvariate(0.0, _SPREAD) * _MEDIAN_SECONDS, _LONGEST_SECONDS)
    fails = rng.random() < _FAILING_SHARE
    return Step(f"simulated: {' '.join(words)}\n".encode(), seconds, exit_code=1 if fails else None)


def _number(text: str) -> float | None:
    try:
        return max(float(text), 0.0)
    except ValueError:
        return None
