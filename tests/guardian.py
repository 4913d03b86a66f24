"""A process that cleans up after a test run, even after a killed one.

``Guardian`` starts this file as a program in a separate session. The program waits until its standard input closes,
which happens when the test run ends, however it ends. Then it kills all processes in its namespaces and all with its
folder's name as ``TEST_RUN`` in the environment, and removes its cgroups and its folder. It uses only the standard
library, because it is run by path.

With ``isolated``, it creates network, mount and process namespaces. In them the loopback device is up, /run is empty,
/etc is a copy, and the root filesystem is read-only except for the folder. A program started there with ``command``
cannot change anything else on the machine, and its processes, mounts, links and firewall rules end with the guardian.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

RUN_VARIABLE = "TEST_RUN"

_CGROUPS = Path("/sys/fs/cgroup")
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_REMOVE_SECONDS = 5.0


@contextlib.contextmanager
def guarded_run(prefix: str) -> Iterator[Path]:
    """A folder for temporary files. At the end the folder is removed and all child processes are killed."""
    previous = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o711)  # PostgreSQL runs unprivileged and has a folder in it
    guardian = Guardian(folder)
    tempfile.tempdir = str(folder)
    os.environ |= {"TMPDIR": str(folder), RUN_VARIABLE: folder.name}
    try:
        yield folder
    finally:
        tempfile.tempdir = previous
        os.environ["TMPDIR"] = previous
        del os.environ[RUN_VARIABLE]
        guardian.close()


class GuardianError(Exception):
    """The namespaces cannot be created; the message has the reason."""


class Guardian:
    """Owns ``folder`` until ``close``. Raises ``GuardianError``."""

    def __init__(self, folder: Path, *, isolated: bool = False) -> None:
        self.folder = folder
        self.cgroup = folder.name
        """The cgroup at the root of each hierarchy that is removed with the folder."""

        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__, str(folder), *(["--isolated"] if isolated else [])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            env={name: value for name, value in os.environ.items() if name != RUN_VARIABLE},
        )  # fmt: skip
        assert self._process.stdout is not None
        ready = self._process.stdout.readline().split()
        if not ready:
            raise GuardianError(self._finish())
        self._init_pid = int(ready[0])

    def command(self, *words: str, only_network: bool = False) -> list[str]:
        """A command line that runs ``words`` in the namespaces, or only in the network namespace."""
        kinds = ["--net"] if only_network else ["--net", "--mount", "--pid"]
        return ["nsenter", "--target", str(self._init_pid), *kinds, "--", *words]

    @property
    def network(self) -> Path:
        """The network namespace, as a file for ``setns``."""
        return Path(f"/proc/{self._init_pid}/ns/net")

    def close(self) -> None:
        """Kills all processes in the namespaces and removes the folder."""
        self._finish()

    def _finish(self) -> str:
        _, stderr = self._process.communicate()
        return stderr.decode(errors="replace").strip()


def main(folder: Path, *, isolated: bool) -> None:
    """Waits for the end of the test run, then cleans up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the test run handles them and ends in order
    init = _start_namespaces(folder) if isolated else None
    print(0 if init is None else _child_of(init.pid), flush=True)
    sys.stdin.buffer.read()
    if init is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(_child_of(init.pid), signal.SIGKILL)
        init.wait()
    _kill_marked_processes(folder.name)
    _remove_cgroups(folder.name)
    shutil.rmtree(folder, ignore_errors=True)


def _start_namespaces(folder: Path) -> "subprocess.Popen[bytes]":
    """Waits until the namespaces are set up. Their first process ends with this one."""
    process = subprocess.Popen(
        [
            "setpriv", "--pdeathsig", "KILL", "--",
            "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
            sys.executable, "-I", __file__, str(folder), "--inside",
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    if process.stdout.readline() != b"ready\n":
        shutil.rmtree(folder, ignore_errors=True)
        sys.exit(f"no namespaces: unshare ended with status {process.wait()}")
    return process


def _child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def inside(folder: Path) -> None:
    """Runs as the first process of the namespaces: sets them up and reaps orphaned processes."""
    _raise_loopback()
    etc = folder / "etc"
    shutil.copytree("/etc", etc, symlinks=True, ignore_dangling_symlinks=True)
    for mount in (
        ("--bind", str(folder), str(folder)),
        ("--bind", str(etc), "/etc"),
        ("-t", "tmpfs", "tmpfs", "/run"),
        ("-o", "remount,bind,ro", "/"),
    ):
        subprocess.run(["mount", *mount], check=True)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    print("ready", flush=True)
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        signal.sigwait({signal.SIGCHLD})


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack("16xh14x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def _kill_marked_processes(run: str) -> None:
    """Repeats until none is left, because a process may start another before it is killed."""
    entry = f"{RUN_VARIABLE}={run}".encode()
    deadline = time.monotonic() + _REMOVE_SECONDS
    while time.monotonic() < deadline:
        marked = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if entry in (folder / "environ").read_bytes().split(b"\0"):
                    marked.append(int(folder.name))
        if not marked:
            return
        for pid in marked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _remove_cgroups(name: str) -> None:
    """Removes the cgroup in every hierarchy of v1 and in v2, which is possible after its last process has ended."""
    deadline = time.monotonic() + _REMOVE_SECONDS
    for root in (_CGROUPS / name, *_CGROUPS.glob(f"*/{name}")):
        while root.exists() and time.monotonic() < deadline:
            for folder, _, _ in os.walk(root, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
            if root.exists():
                time.sleep(0.01)


if __name__ == "__main__":
    if "--inside" in sys.argv:
        inside(Path(sys.argv[1]))
    else:
        main(Path(sys.argv[1]), isolated="--isolated" in sys.argv)
