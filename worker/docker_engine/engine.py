"""``tasks.engine.ContainerEngine`` on a Docker Engine. Touches only containers with this worker's label."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from docker import APIClient
from docker.errors import APIError, ImageNotFound

from fleetpulse.worker.docker_engine.connection import DockerConnection
from fleetpulse.worker.docker_engine.containers import (
    WORKER_LABEL,
    container_name,
    host_limits,
    inspected,
    key_of,
    labels_of,
    listed,
    usage_of,
)
from fleetpulse.worker.docker_engine.errors import refused
from fleetpulse.worker.docker_engine.progress import PullProgress
from fleetpulse.worker.docker_engine.registries import RegistryLogins
from fleetpulse.worker.docker_engine.streams import DockerEvents, DockerLog
from fleetpulse.worker.docker_engine.threads import CallThreads
from fleetpulse.worker.tasks.engine import (
    Container,
    ContainerSpec,
    EngineRefused,
    EngineUnavailable,
    LogStream,
    NoSuchContainer,
    Progress,
    Status,
    Usage,
)
from fleetpulse.worker.tasks.images import MAX_PARALLEL_PULLS

T = TypeVar("T")

_THREADS = 8
_CONFLICT = 409


class DockerEngine:
    """For one worker, on one asyncio loop. ``environment`` says where Docker is, as for the docker command."""

    def __init__(self, worker_id: str, environment: Mapping[str, str], logins: RegistryLogins | None = None) -> None:
        """Without ``logins`` those of the docker command are taken, if this user has any."""
        self._worker_id = worker_id
        self._logins = logins
        self._connection = DockerConnection(environment)
        self._threads = CallThreads("docker", _THREADS)
        # Readings must not wait behind a container that is hard to remove, nor it behind them.
        self._usage_threads = CallThreads("docker-usage", 2)
        self._pull_threads = CallThreads("docker-pull", MAX_PARALLEL_PULLS)
        self._news: DockerEvents | None = None

    async def containers(self) -> Sequence[Container]:
        label = f"{WORKER_LABEL}={self._worker_id}"
        summaries = await self._call(lambda client: client.containers(all=True, filters={"label": label}))
        return listed(summaries, self._worker_id)

    async def has_image(self, image: str) -> bool:
        def look(client: APIClient) -> bool:
            try:
                client.inspect_image(image)  # type: ignore[no-untyped-call]  # its stub says nothing
            except ImageNotFound:
                return False
            return True

        return await self._call(look)

    async def pull(self, image: str, progress: Progress) -> None:
        loop, gone = asyncio.get_running_loop(), False

        def pull() -> None:
            state = PullProgress(image)
            login = None if self._logins is None else self._logins.of(image)
            with self._connection.client(pulling=True) as client:
                for line in client.pull(image, stream=True, decode=True, auth_config=login):
                    if gone:
                        return  # the engine ends a pull that nobody listens to
                    if "error" in line:
                        raise refused(str(line["error"]), pulling=True)
                    state.add(line)
                    loop.call_soon_threadsafe(progress, str(state))

        try:
            await self._pull_threads.run(pull)
        finally:
            gone = True

    async def create(self, spec: ContainerSpec) -> str:
        def create(client: APIClient) -> str:
            name = container_name(spec.key)
            try:
                made = client.create_container(
                    spec.image,
                    list(spec.command) or None,
                    name=name,
                    environment=dict(spec.env),
                    user=spec.user,
                    labels=labels_of(spec, self._worker_id),
                    host_config=client.create_host_config(**host_limits(spec)),
                )
            except APIError as error:
                if error.status_code != _CONFLICT:
                    raise
                return self._already_made(client, name, spec)
            return str(made["Id"])

        return await self._call(create)

    def _already_made(self, client: APIClient, name: str, spec: ContainerSpec) -> str:
        details = client.inspect_container(name)
        if key_of(details["Config"].get("Labels") or {}, self._worker_id) != spec.key:
            raise EngineRefused(f"there is a container {name} already, which is not this worker's")
        return str(details["Id"])

    async def start(self, container_id: str) -> None:
        def start(client: APIClient) -> None:
            container = self._inspected(client, container_id)
            if container.status is Status.CREATED and container.started_at is None:
                client.start(container_id)

        await self._call(start, container_id)

    async def inspect(self, container_id: str) -> Container:
        return await self._call(lambda client: self._inspected(client, container_id), container_id)

    def _inspected(self, client: APIClient, container_id: str) -> Container:
        details = client.inspect_container(container_id)
        key = key_of(details["Config"].get("Labels") or {}, self._worker_id)
        if key is None:
            raise EngineRefused(f"container {container_id[:12]} is not this worker's")
        return inspected(details, key)

    async def signal(self, container_id: str, name: str) -> bool:
        def kill(client: APIClient) -> bool:
            try:
                client.kill(container_id, name)
            except APIError as error:
                if error.status_code == _CONFLICT:
                    return False
                raise
            return True

        return await self._call(kill, container_id)

    async def remove(self, container_id: str) -> None:
        def remove(client: APIClient) -> None:
            try:
                client.remove_container(container_id, v=True, force=True)
            except APIError as error:
                # Somebody removes it at this moment.
                if error.status_code != _CONFLICT:
                    raise

        with contextlib.suppress(NoSuchContainer):
            await self._call(remove, container_id)

    async def usage(self, container_id: str) -> Usage:
        def read() -> Usage:
            with self._connection.client(container_id) as client:
                stats = client.stats(container_id, stream=False, one_shot=True)
                return usage_of(stats, time.monotonic())

        return await self._usage_threads.run(read)

    def open_log(self, container_id: str, *, follow: bool) -> LogStream:
        return DockerLog(self._connection, container_id, follow=follow)

    def listen(self, changed: Callable[[str], None]) -> None:
        self._news = DockerEvents(self._connection, self._worker_id, changed)

    async def close(self) -> None:
        if self._news is not None:
            self._news.close()
        for threads in (self._threads, self._usage_threads, self._pull_threads):
            threads.close()
        self._connection.close()

    async def _call(self, call: Callable[[APIClient], T], container_id: str = "") -> T:
        def run() -> T:
            with self._connection.client(container_id) as client:
                return call(client)

        try:
            return await self._threads.run(run)
        except EngineUnavailable:
            self._connection.renew()
            raise
