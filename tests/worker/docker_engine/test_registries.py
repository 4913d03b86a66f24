"""worker.docker_engine.registries, and pulls with logins from a real registry."""

import base64
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.docker_engine.engine import DockerEngine
from fleetpulse.worker.docker_engine.ownership import ContainerOwner
from fleetpulse.worker.docker_engine.registries import PullProgress, RegistryConfigError, RegistryLogins
from fleetpulse.worker.tasks.engine import EngineRefused
from tests.docker_engine import Engine
from tests.ports import LOCALHOST
from tests.registry import PASSWORD, USERNAME, Registry, login_file, running_registry
from tests.worker.scripted import run
from tests.worker.tasks.fake_master import running_executor, until

AUTH = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()


def logins(folder: Path, auths: object) -> RegistryLogins:
    path = folder / "config.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps({"auths": auths}))
    return RegistryLogins(path)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("https://index.docker.io/v1/", "busybox"),
        ("index.docker.io", "team/app:1"),
        ("docker.io", "docker.io/team/app"),
        ("registry.example:5000", "registry.example:5000/a/b:1"),
        ("https://registry.example/v2/", "registry.example/app"),
    ],
)
def test_login_is_found_by_registry(name: str, image: str, tmp_path: Path) -> None:
    found = logins(tmp_path, {name: {"auth": AUTH}, "other.example": {"auth": "eDp5"}}).login_for(image)
    assert found == {"username": USERNAME, "password": PASSWORD, "serveraddress": name}
    assert logins(tmp_path, {name: {"auth": AUTH}}).login_for("third.example/app") == {}


def test_login_with_password_or_token(tmp_path: Path) -> None:
    found = logins(tmp_path, {"a.example": {"username": "u", "password": "p:q"}, "b.example": {"identitytoken": "t"}})
    assert found.login_for("a.example/x") == {"username": "u", "password": "p:q", "serveraddress": "a.example"}
    assert found.login_for("b.example/x") == {"identitytoken": "t", "serveraddress": "b.example"}


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o610])
def test_file_readable_by_others_is_refused(mode: int, tmp_path: Path) -> None:
    path = login_file(tmp_path / "config.json", "registry.example")
    path.chmod(mode)
    with pytest.raises(RegistryConfigError, match=rf"{path}: others may read it \(mode {mode:04o}\); run: chmod 600"):
        RegistryLogins(path)
    path.chmod(0o400)
    RegistryLogins(path)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"{", r"is not JSON: .* at line 1, column 2"),
        (b"\xff", "is not UTF-8"),
        (b"[]", 'must be an object with "auths" in it'),
        (b'{"auths": {"r": "hunter2"}}', r"auths\.'r' must be an object"),
        (b'{"auths": {"r": {}}}', "has no auth: a login that a helper program keeps cannot be used"),
        (b'{"auths": {"r": {"auth": "hunter2!"}}}', "is not base64 of USER:PASSWORD"),
        (b'{"auths": {"r": {"auth": "aHVudGVyMg=="}}}', "is not base64 of USER:PASSWORD"),
    ],
)
def test_invalid_file_is_refused(content: bytes, error: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(RegistryConfigError, match=error) as caught:
        RegistryLogins(path)
    assert "hunter2" not in str(caught.value)
    path.unlink()
    with pytest.raises(RegistryConfigError, match="No such file"):
        RegistryLogins(path)


def test_file_removed_later_refuses_the_pull(tmp_path: Path) -> None:
    found = logins(tmp_path, {})
    os.unlink(tmp_path / "config.json")  # noqa: PTH108
    with pytest.raises(EngineRefused, match="No such file"):
        found.login_for("busybox")


@pytest.fixture(scope="module")
def registry(docker_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(docker_engine, tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def image(registry: Registry, docker_engine: Engine) -> Iterator[str]:
    """An image that only the registry has."""
    reference = registry.push(docker_engine, "private/app")
    yield reference
    with docker_engine.client() as client:
        if client.images.list(reference):
            client.images.remove(reference)


@pytest.mark.e2e
def test_pull_with_login(
    image: str, registry: Registry, docker_engine: Engine, worker_id: str, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    path = login_file(tmp_path / "config.json", registry.address, "wrong password")

    async def test() -> None:
        engine = DockerEngine(ContainerOwner(worker_id), docker_engine.env, RegistryLogins(path))
        async with running_executor(engine) as master:
            refused = await master.wait_for_end(master.start("wrong", image, "true"), 60.0)
            assert refused.reason in {"image_not_found", "image_pull_failed"}, refused
            login_file(path, registry.address)  # a new token, while the worker runs
            right = await master.wait_for_end(master.start("right", image, "true"), 60.0)
            assert right.phase == pb.ATTEMPT_PHASE_COMPLETED, right
            output = caplog.text + repr(master.updates)
            for secret in ("wrong password", PASSWORD, AUTH):
                assert secret not in output

    run(test())


@pytest.mark.e2e
def test_pull_without_login(image: str, docker_engine: Engine, worker_id: str, tmp_path: Path) -> None:
    async def test() -> None:
        engine = DockerEngine(ContainerOwner(worker_id), docker_engine.env, logins(tmp_path, {}))
        async with running_executor(engine) as master:
            refused = await master.wait_for_end(master.start("none", image, "true"), 60.0)
            assert refused.reason == "image_not_found"

    run(test())


_SILENT = """
import socket, sys
listener = socket.create_server((sys.argv[1], 0))
print(listener.getsockname()[1], flush=True)
taken = []
while True:
    taken.append(listener.accept())
"""


@pytest.fixture
def silent_registry(docker_engine: Engine) -> Iterator[str]:
    """The address of a registry that takes connections and never answers."""
    command = docker_engine.in_network([sys.executable, "-c", _SILENT, LOCALHOST])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"{LOCALHOST}:{int(process.stdout.readline())}"
        finally:
            process.kill()


@pytest.mark.e2e
def test_cancelled_hung_pulls_free_their_places(
    image: str, silent_registry: str, registry: Registry, docker_engine: Engine, worker_id: str, tmp_path: Path
) -> None:
    async def test() -> None:
        login = RegistryLogins(login_file(tmp_path / "config.json", registry.address))
        engine = DockerEngine(ContainerOwner(worker_id), docker_engine.env, login)
        async with running_executor(engine) as master:
            hung = [master.start(f"hung-{n}", f"{silent_registry}/image-{n}:1", "true") for n in range(8)]
            for key in hung:
                await master.wait_for_phase(key, "preparing")
            works = await master.wait_for_end(master.start("works", image, "true"), 60.0)
            assert works.phase == pb.ATTEMPT_PHASE_COMPLETED, works
            # None of the others had to give up first.
            assert not any("trying again" in update.message for key in hung for update in master.updates_of(key))
            for key in hung:
                master.stop(key)
            for key in hung:
                assert (await master.wait_for_end(key)).phase == pb.ATTEMPT_PHASE_STOPPED

    run(test())


@pytest.mark.e2e
def test_hung_pull_is_given_up(silent_registry: str, docker_engine: Engine, worker_id: str, tmp_path: Path) -> None:
    async def test() -> None:
        engine = DockerEngine(ContainerOwner(worker_id), docker_engine.env, logins(tmp_path, {}))
        async with running_executor(engine, pull_timeout_seconds=0.5) as master:
            end = await master.wait_for_end(master.start("hung", f"{silent_registry}/image:1", "true"), 60.0)
            assert end.reason == "image_pull_failed"
            assert end.message == f"the pull of {silent_registry}/image:1 made no progress for 0.5 s"
            # The thread ends, too.
            await until(lambda: engine._pull_threads._open_calls == 0)

    run(test())


MEGABYTE = 1_000_000


def downloading(layer: str, current: int, total: int) -> dict[str, object]:
    return {"id": layer, "status": "Downloading", "progressDetail": {"current": current, "total": total}}


def test_pull_progress_sums_layers_and_bytes() -> None:
    progress = PullProgress("busybox:1.37")
    assert str(progress) == "pulling busybox:1.37"
    progress.add({"status": "Pulling from library/busybox", "id": "1.37"})
    assert str(progress) == "pulling busybox:1.37"
    for layer in ("a", "b", "c"):
        progress.add({"id": layer, "status": "Pulling fs layer", "progressDetail": {}})
    assert str(progress) == "pulling busybox:1.37: 0 of 3 layers"
    progress.add(downloading("a", 10 * MEGABYTE, 50 * MEGABYTE))
    progress.add(downloading("b", 31 * MEGABYTE, 40 * MEGABYTE))
    assert str(progress) == "pulling busybox:1.37: 0 of 3 layers, 41 of 90 MB"
    progress.add({"id": "a", "status": "Pull complete", "progressDetail": {}})
    progress.add({"id": "c", "status": "Already exists", "progressDetail": {}})
    assert str(progress) == "pulling busybox:1.37: 2 of 3 layers, 81 of 90 MB"


def test_pull_progress_without_sizes() -> None:
    progress = PullProgress("x")
    progress.add({"id": "a", "status": "Downloading"})
    progress.add(downloading("a", 5, 0))
    progress.add({"status": "Status: Downloaded newer image for x"})
    assert str(progress) == "pulling x: 0 of 1 layers"
