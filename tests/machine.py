"""The state of the machine that a test run must not change."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs

from tests.docker_engine import ENGINE_PREFIX
from tests.tools import require_tool

_CGROUPS = Path("/sys/fs/cgroup")
_SYSCTLS = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "vm/overcommit_memory", "kernel/pid_max")
_ENGINE_PATHS = ("/run/docker", "/run/containerd", "/var/lib/docker", "/var/lib/containerd")
_HOME_PATHS = (".docker", ".config/chromium", ".cache/dconf", ".cache/fontconfig")


def machine_state() -> dict[str, Any]:
    """The state by kind, equal when nothing has changed. Includes firewall rules only for root."""
    return {
        "links": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "addresses": _lines("/proc/net/if_inet6") + _ip("address"),
        "routes": _lines("/proc/net/route") + _lines("/proc/net/ipv6_route"),
        "firewall": [_firewall_rules(table) for table in ("filter", "nat")] if os.geteuid() == 0 else [],
        "mounts": [line.split()[4] for line in _lines("/proc/self/mountinfo")],
        "users": _lines("/etc/passwd") + _lines("/etc/group"),
        "sysctls": {name: _lines(f"/proc/sys/{name}") for name in _SYSCTLS},
        "loop devices": sorted(path.parent.parent.name for path in Path("/sys/block").glob("loop*/loop/backing_file")),
        "cgroups": sorted(
            str(path)
            for root in (_CGROUPS, *_CGROUPS.glob("*/"))
            for path in root.glob("*/")
            if not path.name.startswith(ENGINE_PREFIX)  # an engine of another test may run at the same time
        ),
        "engines": {path: _entries(Path(path)) for path in _ENGINE_PATHS},
        "configuration": sorted(_files_below(Path("/etc"))),
        "home": {name: _entries(Path.home() / name) for name in _HOME_PATHS},
        "data directory": sorted(_files_below(platformdirs.user_state_path("fleetpulse"))),
    }


def marked_processes(marker: str) -> list[str]:
    """The command lines of all processes with ``marker`` in their environment, command line or cgroup."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            texts = [(folder / name).read_bytes() for name in ("environ", "cmdline", "cgroup")]
        except OSError:
            continue  # it has ended
        if any(marker.encode() in text for text in texts) and folder.name != str(os.getpid()):
            found.append(texts[1].replace(b"\0", b" ").decode(errors="replace"))
    return found


def _firewall_rules(table: str) -> str:
    command = [str(require_tool("iptables-nft")), "--table", table, "--list-rules"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _ip(kind: str) -> list[str]:
    """The IPv4 addresses without their remaining lifetime. Every Debian with a network has ``ip``."""
    output = subprocess.run(["ip", "-json", kind], capture_output=True, text=True, check=True).stdout
    return [f"{link['ifname']} {entry['local']}" for link in json.loads(output) for entry in link["addr_info"]]


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except FileNotFoundError:
        return []


def _entries(folder: Path) -> list[str] | None:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else None


def _files_below(folder: Path) -> Iterator[tuple[str, float]]:
    for path in folder.rglob("*"):
        yield str(path), path.lstat().st_mtime
