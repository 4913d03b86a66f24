"""A real Docker Engine for tests, with an image that needs no registry.

The session fixture ``docker_engine`` is the running engine (``DOCKER_HOST``, or Docker's default socket), or else a new
one. A new engine has its own folder, cgroup and namespaces (``tests.guardian``): it cannot change anything else on the
machine, and nothing of it remains after the tests, even when they are killed. On a running engine tests clean up by
label.
"""

import contextlib
import http
import io
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import docker
import psutil
import pytest
from docker.errors import DockerException
from docker.models.containers import Container

from tests.guardian import Guardian, GuardianError
from tests.port_forwarder import PortForwarder
from tests.tools import ROOT, require_tool

IMAGE = "fleetpulse-busybox:test"
"""Busybox with all its commands. The default command is ``sh``."""

WORKER_LABEL = "fleetpulse.worker_id"

_UNPACKED = ROOT / ".tools" / "root"
ENGINE_PREFIX = "fleetpulse-engine-"
"""The prefix of the folder and the cgroup of each engine that tests start."""

_WITHOUT_NETWORKS = ("--bridge", "none", "--iptables=false", "--ip-forward=false", "--ip-masq=false")

_START_SECONDS = 30.0
_STOP_SECONDS = 15.0
_POLL_SECONDS = 0.02


class Engine:
    """A Docker Engine at ``host`` that has ``image``."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.image = IMAGE

    @property
    def env(self) -> dict[str, str]:
        """The environment variables of a process that uses this engine."""
        return {"DOCKER_HOST": self.host}

    def in_network(self, command: list[str]) -> list[str]:
        """A command line that runs ``command`` in the engine's network namespace."""
        return command

    def forward(self, port: int) -> None:
        """Forwards ``port`` of the tests' loopback device to that of the engine."""

    @contextlib.contextmanager
    def client(self) -> Iterator[docker.DockerClient]:
        """A client for the block."""
        client = docker.DockerClient(self.host, timeout=30)
        try:
            yield client
        finally:
            client.close()

    def containers(self, worker_id: str) -> list[Container]:
        """The containers of one worker in any state. Read-only: their client is closed."""
        with self.client() as client:
            label = f"{WORKER_LABEL}={worker_id}"
            return client.containers.list(all=True, filters={"label": label}, ignore_removed=True)

    def remove_containers(self, worker_id: str) -> None:
        """Removes all containers of one worker."""
        with self.client() as client:
            label = f"{WORKER_LABEL}={worker_id}"
            for container in client.containers.list(all=True, filters={"label": label}, ignore_removed=True):
                try:
                    container.remove(force=True)
                except docker.errors.NotFound:
                    continue
                except docker.errors.APIError as error:
                    # The engine is already removing it for a killed worker.
                    if error.status_code != http.HTTPStatus.CONFLICT:
                        raise

    def answers(self) -> bool:
        """Whether the engine answers."""
        if not _listens(self.host):
            return False  # the SDK leaks the socket of a failed connection
        try:
            with self.client() as client:
                return bool(client.ping())
        except DockerException:
            return False

    def load_image(self) -> None:
        """Imports the image unless it exists."""
        with self.client() as client:
            try:
                client.images.get(self.image)
            except docker.errors.ImageNotFound:
                repository, tag = self.image.split(":")
                client.api.import_image_from_data(_root_filesystem(), repository, tag, changes=['CMD ["sh"]'])


class IsolatedEngine(Engine):
    """An engine in its own namespaces. Tests may kill, stop and restart it."""

    def __init__(self, *, live_restore: bool = False, bridge: bool = False, disk_mib: int | None = None) -> None:
        """``live_restore``: containers keep running while the engine is down. ``bridge``: they have Docker's networks,
        with rules of iptables. ``disk_mib``: its data is on a disk of this size. Raises ``GuardianError``.
        """
        # Not TMPDIR, which may be long: a socket path is limited to 104 characters.
        self.folder = Path(tempfile.mkdtemp(prefix=ENGINE_PREFIX, dir="/tmp"))
        super().__init__(f"unix://{self.folder}/docker.sock")
        self._live_restore = live_restore
        self._has_bridge = bridge
        self._disk_mib = disk_mib
        self._guardian = Guardian(self.folder, isolated=True)
        self._forwarder: PortForwarder | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def iptables(self) -> dict[str, str]:
        """The environment in which programs find the engine's iptables."""
        return _iptables(self.folder)

    @property
    def log(self) -> str:
        """The engine's output."""
        return (self.folder / "log").read_text(errors="replace")

    def in_network(self, command: list[str]) -> list[str]:
        """As in ``Engine``."""
        return self._guardian.command(*command, only_network=True)

    def forward(self, port: int) -> None:
        """As in ``Engine``."""
        if self._forwarder is None:
            self._forwarder = PortForwarder(self._guardian.network)
        self._forwarder.forward(port)

    def start(self) -> None:
        """Starts the engine and waits until it answers."""
        if self._disk_mib is not None and self._process is None and not self._data.exists():
            self._data.mkdir()
            self._inside("mount", "-t", "tmpfs", "-o", f"size={self._disk_mib}m", "tmpfs", str(self._data))
        command = self._guardian.command(
            str(require_tool("dockerd")), "--host", self.host, "--pidfile", f"{self.folder}/pid",
            "--data-root", str(self._data), "--exec-root", f"{self.folder}/exec",
            "--cgroup-parent", f"/{self._guardian.cgroup}",
            # Containers have only a loopback device, unless a test creates a network.
            *([] if self._has_bridge else _WITHOUT_NETWORKS),
            *(["--live-restore"] if self._live_restore else []),
        )  # fmt: skip
        # A killed engine leaves pid files, and the next one may find another process with that pid.
        for name in ("pid", "exec/containerd/containerd.pid"):
            (self.folder / name).unlink(missing_ok=True)
        (self.folder / "tmp").mkdir(exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=_environment(self.folder / "tmp") | (_iptables(self.folder) if self._has_bridge else {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if not self._answers_within(_START_SECONDS):
            _without_engine(f"dockerd did not start: {self.log[-1500:]}")

    def _answers_within(self, seconds: float) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + seconds
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def stop(self) -> None:
        """Stops the engine with SIGTERM. Its containers stop too, unless it has ``live_restore``."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """``kill -9``. Its containers keep running."""
        containerd = [process for process in self._daemon().children() if process.name() == "containerd"]
        self._end(signal.SIGKILL)
        for process in containerd:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def fill_disk(self) -> None:
        """Leaves no room on the disk of its data. Only with ``disk_mib``."""
        self._inside("sh", "-c", f"head -c {self._disk_mib}m /dev/zero > {self._data}/filler || true")

    def empty_disk(self) -> None:
        """Takes back ``fill_disk``."""
        self._inside("rm", f"{self._data}/filler")

    def host_pid(self, container: Container) -> int:
        """The pid of a container's first process outside the engine's pid namespace."""
        pid = container.attrs["State"]["Pid"]
        for process in psutil.process_iter():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                names = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
                if str(pid) in names[1:2] and self.folder.name in Path(f"/proc/{process.pid}/cgroup").read_text():
                    return process.pid
        raise AssertionError(f"no process of {container.name} is running")

    def close(self) -> None:
        """Kills the engine and its containers, and removes its folder."""
        if self._forwarder is not None:
            self._forwarder.close()
        self._guardian.close()
        if self._process is not None:
            self._process.wait()

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _inside(self, *command: str) -> None:
        """Runs a command where the engine's mounts are."""
        subprocess.run(self._guardian.command(*command), check=True, stderr=subprocess.DEVNULL)

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            self._daemon().send_signal(number)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._daemon().kill()
            self._process.wait()
        self._process = None

    def _daemon(self) -> psutil.Process:
        """dockerd, the child of the process that entered the namespaces."""
        assert self._process is not None
        (daemon,) = psutil.Process(self._process.pid).children()
        return daemon


@contextlib.contextmanager
def isolated_engine(
    *, live_restore: bool = False, bridge: bool = False, disk_mib: int | None = None
) -> Iterator[IsolatedEngine]:
    """An engine for a single test, which may kill it. Starts in about a second. Skips where dockerd cannot run."""
    if os.geteuid() != 0:
        _without_engine("only root can start dockerd")
    try:
        engine = IsolatedEngine(live_restore=live_restore, bridge=bridge, disk_mib=disk_mib)
    except GuardianError as error:
        _without_engine(str(error))
    try:
        engine.start()
        engine.load_image()
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[Engine]:
    """The shared engine of all tests."""
    engine = Engine(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    if engine.answers():
        engine.load_image()
        yield engine
    else:
        with isolated_engine() as engine:
            yield engine


def _listens(host: str) -> bool:
    """Whether the Unix socket accepts connections. True for any other address."""
    if not host.startswith("unix://"):
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(host.removeprefix("unix://")) == 0


def _without_engine(why: str) -> NoReturn:
    reason = f"needs a Docker Engine: none answers, and {why}"
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _environment(temporary: Path) -> dict[str, str]:
    """An environment in which dockerd finds fetched copies of containerd, runc and docker-init."""
    folders = [str(_UNPACKED / "usr/sbin"), str(_UNPACKED / "usr/bin"), os.environ.get("PATH", os.defpath), "/usr/sbin"]
    return os.environ | {"PATH": os.pathsep.join(folders), "TMPDIR": str(temporary)}


def _iptables(folder: Path) -> dict[str, str]:
    """An environment in which dockerd finds the legacy iptables: inside a namespace both kinds work, and mix badly."""
    names = [_UNPACKED / "usr/sbin/xtables-legacy-multi", Path("/usr/sbin/xtables-legacy-multi")]
    program = next((path for path in names if path.exists()), None)
    if program is None:
        _without_engine("iptables is missing")
    programs, libraries = folder / "bin", sorted(_UNPACKED.glob("usr/lib/*-linux-gnu"))
    programs.mkdir(exist_ok=True)
    for name in ("iptables", "iptables-restore", "ip6tables", "ip6tables-restore"):
        with contextlib.suppress(FileExistsError):
            (programs / name).symlink_to(program)
    env = {"PATH": os.pathsep.join([str(programs), _environment(folder)["PATH"]])}
    if program.is_relative_to(_UNPACKED):
        env |= {"LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)), "XTABLES_LIBDIR": f"{libraries[0]}/xtables"}
    return env


def _root_filesystem() -> bytes:
    """A tar with a static busybox and a link for each of its commands."""
    candidates = [_UNPACKED / "bin/busybox", Path(shutil.which("busybox") or "/bin/busybox")]
    busybox = next(
        (path for path in candidates if path.exists() and b"/ld-linux" not in path.read_bytes()[:4096]), None
    )
    if busybox is None:
        _without_engine("a static busybox is missing: `make tools` fetches it for root on Debian and Ubuntu")
    names = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        program = tarfile.TarInfo("bin/busybox")
        program.size, program.mode = busybox.stat().st_size, 0o755
        tar.addfile(program, io.BytesIO(busybox.read_bytes()))
        for name in names:
            if name != "busybox":
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        tmp = tarfile.TarInfo("tmp")
        tmp.type, tmp.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(tmp)
    return content.getvalue()
