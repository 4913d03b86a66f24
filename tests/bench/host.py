"""The machine and the software versions of a run."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil

from tests.bench.processes import ROOT, BenchError, find_tool

_LIBRARIES = ("gevent", "grpcio", "gunicorn", "falcon", "orjson", "protobuf", "prometheus-client")


def describe_host() -> dict[str, str]:
    """The lines above the table, by heading."""
    return {
        "cpu": f"{_cpu_model()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()} ({platform.machine()})",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": ", ".join(f"{name} {version(name)}" for name in _LIBRARIES),
        "fleetpulse": f"{version('fleetpulse')}, commit {_commit()}",
        "pushgateway": _pushgateway_version(),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _commit() -> str:
    try:
        return _output("git", "-C", str(ROOT), "describe", "--always", "--dirty")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _pushgateway_version() -> str:
    try:
        first_line = _output(str(find_tool("prometheus-pushgateway")), "--version").splitlines()[0]
    except BenchError:
        return "none"
    return first_line.removeprefix("pushgateway, version ").split(" ")[0]


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return (done.stdout or done.stderr).strip()
