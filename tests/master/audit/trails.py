"""Audit trails for tests."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from fleetpulse.master.audit.trail import AuditTrail
from fleetpulse.master.instruments import AuditInstruments, Instruments

MIB = 1024**2
NOWHERE = Path("/nonexistent/audit.jsonl")


def unwritten_trail(instruments: Instruments) -> AuditTrail:
    """A trail that takes entries and has no file."""
    return AuditTrail(NOWHERE, instruments.audit, MIB)


class Trail:
    """A trail with a file, and its counters."""

    def __init__(self, path: Path, max_file_bytes: int = MIB, **options: Any) -> None:
        self.path = path
        self._registry = CollectorRegistry()
        self.trail = AuditTrail(path, AuditInstruments(self._registry), max_file_bytes, **options)

    def count(self, name: str, **labels: str) -> float | None:
        return self._registry.get_sample_value(f"fleetpulse_audit_{name}_total", labels)


@contextmanager
def running_trail(path: Path, **options: Any) -> Iterator[Trail]:
    """Yields a trail; at the end it is stopped, so that everything is written."""
    trail = Trail(path, **options)
    trail.trail.start()
    try:
        yield trail
    finally:
        trail.trail.stop()


def written(path: Path) -> list[dict[str, Any]]:
    """Returns the entries of a file, which must all be complete."""
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def whole_lines(path: Path) -> int:
    """Returns the number of complete lines in a file."""
    return path.read_bytes().count(b"\n") if path.exists() else 0
