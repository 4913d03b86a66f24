"""A cgroup that limits the CPU time of some processes, so that a test has a slow master and fast workers.

It is made at the root of cgroup v2, or of the CPU controller of v1, and named after the test run. The run's guardian
(``tests.guardian``) removes it, also after a killed run.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.guardian import RUN_VARIABLE

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_MICROSECONDS = 50_000
_REMOVE_SECONDS = 5.0


class CpuCapError(Exception):
    """The machine has no cgroup for it; the message says why."""


class CpuCap:
    """Limits the sum of its processes. At first without a limit. Raises ``CpuCapError``."""

    def __init__(self, name: str, root: Path = _ROOT) -> None:
        self._is_v2 = (root / "cgroup.controllers").exists()
        parent = root if self._is_v2 else root / "cpu"
        if self._is_v2 and "cpu" not in (root / "cgroup.subtree_control").read_text().split():
            raise CpuCapError("the root of cgroup v2 delegates no CPU controller")
        self._folder = parent / name
        try:
            self._folder.mkdir()
        except OSError as error:
            raise CpuCapError(f"{self._folder}: {error.strerror}") from error
        try:
            self.limit(None)
        except OSError as error:
            self.close()
            raise CpuCapError(f"{self._folder}: {error.strerror}") from error

    def limit(self, cores: float | None) -> None:
        """Sets how much CPU time they get, in seconds a second; ``None``: no limit."""
        quota = None if cores is None else round(cores * _PERIOD_MICROSECONDS)
        if self._is_v2:
            (self._folder / "cpu.max").write_text(f"{'max' if quota is None else quota} {_PERIOD_MICROSECONDS}")
        else:
            (self._folder / "cpu.cfs_period_us").write_text(str(_PERIOD_MICROSECONDS))
            (self._folder / "cpu.cfs_quota_us").write_text(str(-1 if quota is None else quota))

    @property
    def prefix(self) -> Sequence[str]:
        """A command line that runs another one, and its children, in the cgroup."""
        return "sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self._folder / "cgroup.procs")

    def close(self) -> None:
        """Removes the cgroup once its processes have ended."""
        deadline = time.monotonic() + _REMOVE_SECONDS
        while self._folder.exists() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self._folder.rmdir()
            time.sleep(0.01)


@contextlib.contextmanager
def cpu_cap() -> Iterator[CpuCap]:
    """The one of this test run. Skips where there can be none."""
    try:
        cap = CpuCap(os.environ[RUN_VARIABLE])
    except (CpuCapError, OSError) as error:
        pytest.skip(f"needs a cgroup that limits CPU time: {error}")
    try:
        yield cap
    finally:
        cap.close()
