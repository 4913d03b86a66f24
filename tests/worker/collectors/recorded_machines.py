"""Machines as trees of ``/proc`` and ``/sys``, written down by hand: what the kernel shows the collectors there.

A machine is a text file in ``machines/``. A line that begins with ``== `` begins an entry, a path with

    == proc/meminfo                     the lines up to the next entry are the file's content
    == sys/class/net/eno1/ifindex: 2    a file of one line
    == sys/class/net/eno1/device -> ../../../devices/pci0000:00/0000:00:1f.6
                                        a symbolic link; a target inside the tree is made too, as a folder
    == sys/class/net/vmbr0/bridge/      an empty folder

Lines before the first entry say what the machine is.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

_FOLDER = Path(__file__).parent / "machines"
_ENTRY = re.compile(r"== (?P<path>\S+?)(?P<folder>/)?(?:: (?P<line>.*)| -> (?P<target>\S+))?")

NAMES = tuple(sorted(path.stem for path in _FOLDER.glob("*.txt")))


class Machine(NamedTuple):
    """The roots that a collector takes in place of ``/proc`` and ``/sys``."""

    proc: Path
    sys: Path


def build(name: str, folder: Path) -> Machine:
    """Makes the tree of a machine under ``folder``. ``ValueError`` for a line that is no entry."""
    for number, (path, lines) in enumerate(_entries((_FOLDER / f"{name}.txt").read_text(encoding="utf-8"))):
        match = _ENTRY.fullmatch(path)
        if match is None:
            raise ValueError(f"{name}: entry {number} is {path!r}")
        _make(folder, folder / match["path"], match, "".join(lines))
    machine = Machine(folder / "proc", folder / "sys")
    for root in machine:
        root.mkdir(parents=True, exist_ok=True)
    return machine


def _entries(text: str) -> list[tuple[str, list[str]]]:
    entries: list[tuple[str, list[str]]] = []
    for line in text.splitlines(keepends=True):
        if line.startswith("== "):
            entries.append((line.rstrip("\n"), []))
        elif entries:
            entries[-1][1].append(line)
    return entries


def _make(root: Path, path: Path, entry: re.Match[str], content: str) -> None:
    if entry["folder"]:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if entry["target"]:
        path.symlink_to(entry["target"])
        target = Path(os.path.normpath(path.parent / entry["target"]))
        if target.is_relative_to(root):
            target.mkdir(parents=True, exist_ok=True)
    else:
        path.write_text(content if entry["line"] is None else entry["line"] + "\n", encoding="utf-8")
