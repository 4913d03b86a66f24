"""A real Docker Engine for tests, and an image that it has without any registry.

The session fixture ``docker_engine`` gives the engine that answers already (``DOCKER_HOST``, or Docker's usual socket),
else one that it starts. That one lives in a folder, a cgroup and namespaces of its own (``tests.guardian``): it cannot
change anything else on the machine, and nothing of it is left when the tests end, even when they are killed. On the
machine's engine tests clean up by label.
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
"""Busybox with all its commands, and ``sh`` for who names none."""

WORKER_LABEL = "fleetpulse.worker_id"

_UNPACKED = ROOT / ".tools" / "root"
ENGINE_PREFIX = "fleetpulse-engine-"
"""Begins the name of the folder, and of the cgroup, of each engine that tests start."""

_START_SECONDS = 30.0
_STOP_SECONDS = 15.0
_POLL_SECONDS = 0.02


class Engine:
    """A Docker Engine that answers at ``host``, and has ``image``."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.image = IMAGE

    @property
    def env(self) -> dict[str, str]:
        """What a process must have in its environment to use this engine."""
        return {"DOCKER_HOST": self.host}

    def in_network(self, command: list[str]) -> list[str]:
        """A command line that runs ``command`` where the engine reaches it by the loopback device."""
        return command

    def forward(self, port: int) -> None:
        """Make what containers publish on ``port`` of the engine's loopback device reachable on that of the tests."""

    @contextlib.contextmanager
    def client(self) -> Iterator[docker.DockerClient]:
        """A client that is closed at the end."""
        client = docker.DockerClient(self.host, timeout=30)
        try:
            yield client
        finally:
            client.close()

    def containers(self, worker_id: str) -> list[Container]:
        """The containers of one worker, whatever their state. Good for reading; their client is closed."""
        with self.client() as client:
            label = f"{WORKER_LABEL}={worker_id}"
            return client.containers.list(all=True, filters={"label": label}, ignore_removed=True)

    def remove_containers(self, worker_id: str) -> None:
        """Remove what one worker left."""
        with self.client() as client:
            label = f"{WORKER_LABEL}={worker_id}"
            for container in client.containers.list(all=True, filters={"label": label}, ignore_removed=True):
                try:
                    container.remove(force=True)
                except docker.errors.NotFound:
                    continue
                except docker.errors.APIError as error:
                    # A worker that was killed had asked for the same, and the engine is at it.
                    if error.status_code != http.HTTPStatus.CONFLICT:
                        raise

    def answers(self) -> bool:
        """Whether it answers now."""
        if not _listens(self.host):
            return False  # the SDK does not close a socket that could not be connected
        try:
            with self.client() as client:
                return bool(client.ping())
        except DockerException:
            return False

    def load_image(self) -> None:
        """Make the image, unless it is there."""
        with self.client() as client:
            try:
                client.images.get(self.image)
            except docker.errors.ImageNotFound:
                repository, tag = self.image.split(":")
                client.api.import_image_from_data(_root_filesystem(), repository, tag, changes=['CMD ["sh"]'])


class OwnEngine(Engine):
    """An engine that was started here, so it may be killed, stopped and started again."""

    def __init__(self, *, live_restore: bool = False) -> None:
        """``live_restore``: containers go on while the engine is away. Raises ``GuardianError``."""
        # Short, because the path of a socket has 104 characters at most; TMPDIR may be anything.
        self.folder = Path(tempfile.mkdtemp(prefix=ENGINE_PREFIX, dir="/tmp"))
        super().__init__(f"unix://{self.folder}/docker.sock")
        self._live_restore = live_restore
        self._guardian = Guardian(self.folder, isolated=True)
        self._forwarder: PortForwarder | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What it wrote."""
        return (self.folder / "log").read_text(errors="replace")

    def in_network(self, command: list[str]) -> list[str]:
        """As ``Engine`` says: the network namespace is the engine's own."""
        return self._guardian.command(*command, only_network=True)

    def forward(self, port: int) -> None:
        """As ``Engine`` says."""
        if self._forwarder is None:
            self._forwarder = PortForwarder(self._guardian.network)
        self._forwarder.forward(port)

    def start(self) -> None:
        """Return when it answers."""
        command = self._guardian.command(
            str(require_tool("dockerd")), "--host", self.host, "--pidfile", f"{self.folder}/pid",
            "--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec",
            "--cgroup-parent", f"/{self._guardian.cgroup}",
            # Containers have the loopback device alone, unless a test makes a network.
            "--bridge", "none", "--iptables=false", "--ip-forward=false", "--ip-masq=false",
            *(["--live-restore"] if self._live_restore else []),
        )  # fmt: skip
        # An engine that was killed leaves these behind, and the next one takes another process with this pid for it.
        for name in ("pid", "exec/containerd/containerd.pid"):
            (self.folder / name).unlink(missing_ok=True)
        (self.folder / "tmp").mkdir(exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=_environment(self.folder / "tmp"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if not self._answers_within(_START_SECONDS):
            _without_engine(f"dockerd did not start; it said: {self.log[-1500:]}")

    def _answers_within(self, seconds: float) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + seconds
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def stop(self) -> None:
        """End it in order: unless it restores, its containers end with it."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """``kill -9``. Its containers go on."""
        containerd = [process for process in self._daemon().children() if process.name() == "containerd"]
        self._end(signal.SIGKILL)
        for process in containerd:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def host_pid(self, container: Container) -> int:
        """The pid of a container's first process on the machine; the engine knows that of its own namespace."""
        pid = container.attrs["State"]["Pid"]
        for process in psutil.process_iter():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                names = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
                if str(pid) in names[1:2] and self.folder.name in Path(f"/proc/{process.pid}/cgroup").read_text():
                    return process.pid
        raise AssertionError(f"no process of {container.name} is running")

    def close(self) -> None:
        """End it, whatever runs on it, and leave nothing of it."""
        if self._forwarder is not None:
            self._forwarder.close()
        self._guardian.close()
        if self._process is not None:
            self._process.wait()

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
def own_engine(*, live_restore: bool = False) -> Iterator[OwnEngine]:
    """An engine for one test alone, which may kill it. Takes about a second. Skips where none can be started."""
    if os.geteuid() != 0:
        _without_engine("only root can start dockerd")
    try:
        engine = OwnEngine(live_restore=live_restore)
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
    """The engine that all tests share."""
    engine = Engine(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    if engine.answers():
        engine.load_image()
        yield engine
    else:
        with own_engine() as engine:
            yield engine


def _listens(host: str) -> bool:
    """Whether somebody takes connections there; an address that is no Unix socket is taken for one that does."""
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
    """Where dockerd finds containerd, runc and docker-init, if they were fetched and not installed."""
    folders = [str(_UNPACKED / "usr/sbin"), str(_UNPACKED / "usr/bin"), os.environ.get("PATH", os.defpath), "/usr/sbin"]
    return os.environ | {"PATH": os.pathsep.join(folders), "TMPDIR": str(temporary)}


def _root_filesystem() -> bytes:
    """A tar of busybox, which must be static, and a link to it for each of its commands."""
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
