"""worker.docker_engine.registries: the file, and pulls with it from a real registry that wants a password."""

import base64
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.docker_engine.engine import DockerEngine
from fleetpulse.worker.docker_engine.registries import RegistryConfigError, RegistryLogins
from fleetpulse.worker.tasks.engine import EngineRefused
from tests.docker_engine import Engine
from tests.registry import PASSWORD, USERNAME, Registry, login_file, own_registry
from tests.worker.scripted import run
from tests.worker.tasks.dialogue import executor_on

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
def test_the_login_of_an_image(name: str, image: str, tmp_path: Path) -> None:
    found = logins(tmp_path, {name: {"auth": AUTH}, "other.example": {"auth": "eDp5"}}).of(image)
    assert found == {"username": USERNAME, "password": PASSWORD, "serveraddress": name}
    assert logins(tmp_path, {name: {"auth": AUTH}}).of("third.example/app") == {}


def test_other_kinds_of_logins(tmp_path: Path) -> None:
    found = logins(tmp_path, {"a.example": {"username": "u", "password": "p:q"}, "b.example": {"identitytoken": "t"}})
    assert found.of("a.example/x") == {"username": "u", "password": "p:q", "serveraddress": "a.example"}
    assert found.of("b.example/x") == {"identitytoken": "t", "serveraddress": "b.example"}


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o610])
def test_a_file_that_others_may_read_is_refused(mode: int, tmp_path: Path) -> None:
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
def test_what_is_no_such_file(content: bytes, error: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(RegistryConfigError, match=error) as told:
        RegistryLogins(path)
    assert "hunter2" not in str(told.value)
    path.unlink()
    with pytest.raises(RegistryConfigError, match="No such file"):
        RegistryLogins(path)


def test_a_file_that_goes_while_the_worker_runs(tmp_path: Path) -> None:
    found = logins(tmp_path, {})
    os.unlink(tmp_path / "config.json")  # noqa: PTH108
    with pytest.raises(EngineRefused, match="No such file"):
        found.of("busybox")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with own_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def image(registry: Registry, docker_engine: Engine) -> Iterator[str]:
    """One that the registry alone has."""
    reference = registry.push(docker_engine, "private/app")
    yield reference
    with docker_engine.client() as client:
        if client.images.list(reference):
            client.images.remove(reference)


@pytest.mark.e2e
def test_a_pull_with_a_login(
    image: str, registry: Registry, docker_engine: Engine, worker_id: str, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    path = login_file(tmp_path / "config.json", registry.address, "wrong password")

    async def test() -> None:
        engine = DockerEngine(worker_id, docker_engine.env, RegistryLogins(path))
        async with executor_on(engine) as master:
            refused = await master.ends(master.start("wrong", image, "true"), 60.0)
            assert refused.reason in {"image_not_found", "image_pull_failed"}, refused
            login_file(path, registry.address)  # a new token, while the worker runs
            right = await master.ends(master.start("right", image, "true"), 60.0)
            assert right.phase == pb.ATTEMPT_PHASE_COMPLETED, right
            said = caplog.text + repr(master.updates)
            for secret in ("wrong password", PASSWORD, AUTH):
                assert secret not in said

    run(test())


@pytest.mark.e2e
def test_a_pull_without_a_login(image: str, docker_engine: Engine, worker_id: str, tmp_path: Path) -> None:
    async def test() -> None:
        engine = DockerEngine(worker_id, docker_engine.env, logins(tmp_path, {}))
        async with executor_on(engine) as master:
            refused = await master.ends(master.start("none", image, "true"), 60.0)
            assert refused.reason == "image_not_found"

    run(test())
