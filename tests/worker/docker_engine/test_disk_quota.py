"""The limit of the storage driver on what a container writes, with an engine that has one and one that has none."""

import contextlib
import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleetpulse.worker.docker_engine.engine import DockerEngine
from fleetpulse.worker.docker_engine.ownership import ContainerOwner
from fleetpulse.worker.tasks.container_spec import AttemptKey, ContainerSpec
from fleetpulse.worker.tasks.engine import EngineRefused
from tests.worker.scripted import run

MIB = 2**20
NO_PQUOTA = "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"


class Docker:
    """The few answers of a Docker Engine that a creation takes. ``refusal``: to a container with a storage option."""

    def __init__(self, driver: str, refusal: str = "") -> None:
        self.driver, self.refusal = driver, refusal
        self.sizes: list[str | None] = []
        """The limit that each creation had."""

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        if path.endswith("/version"):
            return 200, {"ApiVersion": "1.41"}
        if path.endswith("/info"):
            return 200, {"Driver": self.driver}
        if "/images/" in path:
            return 200, {"Config": {}}
        size = (body["HostConfig"].get("StorageOpt") or {}).get("size")
        self.sizes.append(size)
        if size is not None and self.refusal:
            return 500, {"message": self.refusal}
        return 201, {"Id": f"{len(self.sizes):064x}"}


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextlib.contextmanager
def engine_of(docker: Docker, folder: Path) -> Iterator[DockerEngine]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            status, answer = docker.answer(self.path.partition("?")[0], body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET  # noqa: N815 - http.server's name

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with UnixServer(str(folder / "docker.sock"), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield DockerEngine(ContainerOwner("worker"), {"DOCKER_HOST": f"unix://{folder}/docker.sock"})
        finally:
            server.shutdown()
            thread.join()


def create(docker: Docker, folder: Path, *attempts: int) -> None:
    async def test() -> None:
        with engine_of(docker, folder) as engine:
            try:
                for attempt in attempts:
                    spec = ContainerSpec(AttemptKey("t", attempt), "busybox", disk_limit_bytes=5 * MIB, network="none")
                    await engine.create(spec)
            finally:
                await engine.close()

    run(test())


@pytest.mark.parametrize("driver", ["overlay2", "zfs"])
def test_storage_driver_with_quotas_limits_the_disk(driver: str, tmp_path: Path) -> None:
    docker = Docker(driver)
    create(docker, tmp_path, 1, 2)
    assert docker.sizes == [str(5 * MIB)] * 2


def test_driver_without_quotas_is_asked_once(tmp_path: Path) -> None:
    docker = Docker("overlay2", NO_PQUOTA)
    create(docker, tmp_path, 1, 2)
    assert docker.sizes == [str(5 * MIB), None, None]


def test_driver_that_counts_the_image_is_not_asked(tmp_path: Path) -> None:
    docker = Docker("btrfs")
    create(docker, tmp_path, 1)
    assert docker.sizes == [None]


def test_other_refusals_are_not_taken_for_a_missing_quota(tmp_path: Path) -> None:
    docker = Docker("overlay2", "no space left on device")
    with pytest.raises(EngineRefused, match="disk that Docker keeps its data on is full"):
        create(docker, tmp_path, 1)
    assert docker.sizes == [str(5 * MIB)]
