"""The state of the machine that a test run must not change."""

import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import platformdirs

from tests.docker_engine import ENGINE_PREFIX
from tests.tools import require_tool

_OF_CONTAINERS = re.compile(r"veth|br-[0-9a-f]{12}|-s (\S+/32) -d \1 ")
"""Links of containers, bridges of their networks, and rules with these or with the address of a container."""

_CGROUPS = Path("/sys/fs/cgroup")
_OF_TESTS = (ENGINE_PREFIX, "fleetpulse-tests-", "fleetpulse-chaos-")
"""Prefixes of the cgroups of tests."""

_SYSCTLS = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "vm/overcommit_memory", "kernel/pid_max")
_ENGINE_PATHS = ("/run/docker", "/run/containerd", "/var/lib/docker", "/var/lib/containerd")
_HOME_PATHS = (".docker", ".config/chromium", ".cache/dconf", ".cache/fontconfig")


def machine_state() -> dict[str, Any]:
    """The state by kind, equal when nothing has changed. Includes firewall rules only for root.

    What a Docker Engine of the machine makes for its containers is left out, because they may come and go meanwhile.
    """
    is_root = os.geteuid() == 0
    return {
        "links": sorted(_not_of_containers(path.name for path in Path("/sys/class/net").iterdir())),
        "addresses": _not_of_containers(_addresses()),
        "routes": _not_of_containers(_routes()),
        "firewall": _not_of_containers(_firewall_rules("filter") + _firewall_rules("nat")) if is_root else [],
        "mounts": list(_mounts()),
        "users": _lines("/etc/passwd") + _lines("/etc/group"),
        "sysctls": {name: _lines(f"/proc/sys/{name}") for name in _SYSCTLS},
        "loop devices": sorted(path.parent.parent.name for path in Path("/sys/block").glob("loop*/loop/backing_file")),
        "cgroups": sorted(
            str(path)
            for root in (_CGROUPS, *_CGROUPS.glob("*/"))
            for path in root.glob("*/")
            if not path.name.startswith(_OF_TESTS)  # another test may run at the same time
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


def _not_of_containers(lines: Iterable[str]) -> list[str]:
    return [line for line in lines if not _OF_CONTAINERS.search(line)]


def _firewall_rules(table: str) -> list[str]:
    command = [str(require_tool("iptables-nft")), "--table", table, "--list-rules"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def _addresses() -> list[str]:
    """Interface and address, without the remaining lifetime. Every Debian with a network has ``ip``."""
    output = subprocess.run(["ip", "-json", "address"], capture_output=True, text=True, check=True).stdout
    return [f"{link['ifname']} {entry['local']}" for link in json.loads(output) for entry in link["addr_info"]]


def _routes() -> Iterator[str]:
    """Interface, destination and gateway, without the counters of use."""
    for line in _lines("/proc/net/route")[1:]:
        interface, destination, gateway, *_ = line.split()
        yield f"{interface} {destination} {gateway}"
    for line in _lines("/proc/net/ipv6_route"):
        destination, length, _, _, gateway, *_, interface = line.split()
        yield f"{interface} {destination}/{length} {gateway}"


def _mounts() -> Iterator[str]:
    for line in _lines("/proc/self/mountinfo"):
        mount_point, filesystem = line.split()[4], line.partition(" - ")[2].split()[0]
        is_of_container = filesystem in {"overlay", "nsfs"} or mount_point.endswith("/mounts/shm")
        if ENGINE_PREFIX in mount_point or not is_of_container:
            yield mount_point


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
