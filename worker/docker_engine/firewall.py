"""Rules of iptables for the bridge of tasks: what a task may not reach, whatever it listens on.

They stand in the table ``mangle``, before anything of Docker, of a firewall or of a cloud's agent can redirect a
packet, in a chain of their own: one jump from ``PREROUTING`` for the bridge's device, with a comment that holds a
digest of the rules. The chain belongs to the machine: its workers share it, and the last one that starts a task writes
it.
"""

import hashlib
import logging
import os
import shutil
import socket
import subprocess  # nosec B404
import threading
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import NamedTuple

from fleetpulse.proto.policy import TaskPolicy

_log = logging.getLogger(__name__)

CHAIN = "FLEETPULSE-TASKS"

_METADATA: Mapping[int, Sequence[str]] = {
    4: ("169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32"),
    6: ("fe80::/10", "fd00:ec2::/32", "fd20:ce::254/128"),
}
"""Of most clouds; then Alibaba's, and Azure's for agents; of Amazon and of Google."""

_PROGRAMS = {4: "iptables", 6: "ip6tables"}
_PROGRAM_FOLDERS = "/usr/sbin:/sbin"
_CALL_SECONDS = 10.0
_WAIT_FOR_LOCK = ("-w", "5")

Run = Callable[[Sequence[str], str], str]
"""Runs a program with this standard input and returns its output. Raises ``OSError`` whose text says what failed."""


class FirewallRefused(Exception):
    """The rules cannot be set. The message says why."""


class Blocked(NamedTuple):
    """What tasks may not reach."""

    host: bool
    metadata: bool
    addresses: Sequence[str] = ()
    """Further addresses, of the master's machine."""


class TaskFirewall:
    """The rules of one worker. ``apply`` may be called from any thread."""

    def __init__(
        self,
        policy: TaskPolicy,
        master_host: str,
        run: Run,
        *,
        devices: Callable[[], Sequence[tuple[int, str]]] = socket.if_nameindex,
        resolve: Callable[[str], Sequence[str]] | None = None,
    ) -> None:
        """``master_host``: name or address, whose machine tasks may not reach either. ``devices``: of this machine."""
        self._policy = policy
        self._master_host = "" if policy.allow_master else master_host
        self._run, self._devices, self._resolve = run, devices, resolve or addresses_of
        self._addresses: Sequence[str] = ()
        self._lock = threading.Lock()
        self._warned = ""

    def protect(self, device: str, *, has_ipv6: bool = False) -> str:
        """Sets the rules for a bridge. Returns why it could not, which is logged once; empty: they hold."""
        try:
            with self._lock:
                self._apply(device, has_ipv6=has_ipv6)
        except FirewallRefused as error:
            if self._warned != (text := str(error)):
                self._warned = text
                _log.warning(
                    "tasks with a network may reach the services of this machine, the master and a cloud's metadata: "
                    "no rules of iptables can be set: %s",
                    text,
                )
            return str(error)
        return ""

    def _apply(self, device: str, *, has_ipv6: bool) -> None:
        if self._master_host:
            # A name that is not found now had the same addresses before.
            self._addresses = self._resolve(self._master_host) or self._addresses
        blocked = Blocked(not self._policy.allow_host, not self._policy.allow_metadata, self._addresses)
        if device not in {name for _, name in self._devices()}:
            if rules_for(blocked, 4):
                raise FirewallRefused(f"the device {device} of the Docker Engine is not in this worker's network")
            return
        for version in (4, 6) if has_ipv6 else (4,):
            self._write(device, version, rules_for(blocked, version))

    def _write(self, device: str, version: int, rules: Sequence[str]) -> None:
        program = _PROGRAMS[version]
        jump = jump_for(device, rules)
        try:
            found = self._run([program, *_WAIT_FOR_LOCK, "-t", "mangle", "-S"], "").splitlines()
            jumps = [line for line in found if line.startswith("-A PREROUTING ") and line.endswith(f" -j {CHAIN}")]
            filled = sum(line.startswith(f"-A {CHAIN} ") for line in found)
            if jumps == ([jump] if rules else []) and filled == len(rules):
                return
            self._run([f"{program}-restore", "--noflush", *_WAIT_FOR_LOCK], _table(jumps, jump, rules))
        except OSError as error:
            if rules:
                raise FirewallRefused(str(error)) from error


def rules_for(blocked: Blocked, version: int) -> list[str]:
    """Returns the rules of the chain, for IPv4 or IPv6. Pure. Empty if nothing is blocked.

    Answers to what the machine itself began pass, and DNS: a resolver may be the machine's or the cloud's.
    """
    dropped = [f"-d {network}" for network in _METADATA[version] if blocked.metadata]
    dropped += [f"-d {address}" for address in blocked.addresses if ip_address(address).version == version]
    if blocked.host:
        dropped.append("-m addrtype --dst-type LOCAL")
    if not dropped:
        return []
    passed = ["-m conntrack --ctdir REPLY", "-p udp -m udp --dport 53", "-p tcp -m tcp --dport 53"]
    if version == 6:
        passed.append("-p ipv6-icmp")  # without it the bridge finds no neighbour
    if not blocked.metadata:
        passed += [f"-d {network}" for network in _METADATA[version]]
    return [f"{match} -j RETURN" for match in passed] + [f"{match} -j DROP" for match in dropped]


def jump_for(device: str, rules: Sequence[str]) -> str:
    """Returns the rule that leads to the chain, as ``iptables -S`` prints it."""
    digest = hashlib.sha256("\n".join(rules).encode()).hexdigest()[:16]
    return f"-A PREROUTING -i {device} -m comment --comment fleetpulse-{digest} -j {CHAIN}"


def _table(old_jumps: Sequence[str], jump: str, rules: Sequence[str]) -> str:
    """Returns the input of ``iptables-restore``, which does all of it or nothing."""
    return "\n".join(
        [
            "*mangle",
            f":{CHAIN} - [0:0]",
            *("-D" + line.removeprefix("-A") for line in old_jumps),
            *(f"-A {CHAIN} {rule}" for rule in rules),
            *([jump.replace("-A PREROUTING", "-I PREROUTING 1", 1)] if rules else [f"-X {CHAIN}"]),
            "COMMIT",
            "",
        ]
    )


def addresses_of(host: str) -> list[str]:
    """Returns the addresses of a host, sorted, without those that are only this machine's. Empty if it has none now."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return []
    return sorted(str(one).partition("%")[0] for one in found if not ip_address(str(one).partition("%")[0]).is_loopback)


def system_run(environment: Mapping[str, str]) -> Run:
    """Returns a ``Run`` with this environment; programs are also looked for where only root's ``PATH`` leads."""
    path = os.pathsep.join([*filter(None, [environment.get("PATH")]), _PROGRAM_FOLDERS])

    def run(command: Sequence[str], text: str) -> str:
        program = shutil.which(command[0], path=path)
        if program is None:
            raise OSError(f"{command[0]} is not installed")
        try:
            done = subprocess.run(  # nosec B603 # fixed words
                [program, *command[1:]], input=text, capture_output=True, text=True, check=False,
                env=dict(environment), timeout=_CALL_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise OSError(f"{command[0]} did not end within {_CALL_SECONDS:g} s") from error
        if done.returncode:
            raise OSError(f"{command[0]}: {' '.join(done.stderr.split())[:300] or f'status {done.returncode}'}")
        return done.stdout

    return run
