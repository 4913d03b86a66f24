"""``tasks.engine.ContainerEngine`` on a Docker Engine. Touches only this worker's containers."""

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from docker import APIClient
from docker.errors import APIError, ImageNotFound

from fleetpulse.proto.rules import TASK_DEVICE
from fleetpulse.worker.docker_engine.connection import DockerConnection, DockerEvents, DockerLog, refusal
from fleetpulse.worker.docker_engine.containers import (
    OWNER_LABEL,
    attempt_key,
    container_info,
    container_settings,
    container_usage,
    containers_of_worker,
    host_config,
)
from fleetpulse.worker.docker_engine.firewall import TaskFirewall
from fleetpulse.worker.docker_engine.ownership import ContainerOwner
from fleetpulse.worker.docker_engine.registries import PullProgress, RegistryLogins, pull_messages
from fleetpulse.worker.tasks.container_spec import ContainerSpec
from fleetpulse.worker.tasks.engine import (
    ContainerInfo,
    ContainerStatus,
    ContainerUsage,
    EngineRefused,
    EngineUnavailable,
    LogStream,
    NoSuchContainer,
    Progress,
)

T = TypeVar("T")

_CALL_THREADS, _USAGE_THREADS = 8, 2
_PULL_THREADS = 64
"""More than pulls: a thread stays with a pull that was cancelled until the engine says something, or its timeout."""

_CONFLICT = 409
_MAX_VOLUMES = 32

_QUOTA_DRIVERS = frozenset({"overlay2", "zfs"})
"""Storage drivers that may limit what a container writes. That of btrfs would count its image as well."""

_NO_QUOTA = re.compile(r"storage.?opt|quota", re.IGNORECASE)
"""In Docker's answer, where it has none: for overlay2 this takes xfs with the mount option pquota."""

TASK_NETWORK = "fleetpulse-tasks"
_DEVICE = "com.docker.network.bridge.name"
_BRIDGE_OPTIONS = {
    _DEVICE: TASK_DEVICE,
    "com.docker.network.bridge.enable_icc": "false",  # no traffic between its containers
}
_MTU = "com.docker.network.driver.mtu"


class CallThreads:
    """Daemon threads for calls that block: unlike those of ``ThreadPoolExecutor`` they do not delay the process's end.

    They are named ``<name>-<number>`` and started as they are needed.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._open_calls = 0

    async def run(self, call: Callable[[], T]) -> T:
        """Returns or raises what the call does. From one asyncio loop. A call that has begun cannot be cancelled."""
        future: Future[T] = Future()
        self._open_calls += 1
        if self._open_calls > len(self._threads) and len(self._threads) < self._size:
            thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._calls.put((future, call))
        try:
            return await asyncio.wrap_future(future)
        finally:
            self._open_calls -= 1

    def close(self) -> None:
        """Ends the threads; one that hangs is left behind."""
        for _ in self._threads:
            self._calls.put(None)

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            future, call = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except Exception as error:  # noqa: BLE001 - raised by ``run``
                future.set_exception(error)


class DockerEngine:
    """The engine of one worker, on one asyncio loop."""

    def __init__(
        self,
        owner: ContainerOwner,
        environment: Mapping[str, str],
        logins: RegistryLogins | None = None,
        firewall: TaskFirewall | None = None,
    ) -> None:
        """``environment``: ``DOCKER_HOST`` and the like. Without ``logins`` this user's logins of docker are used.
        ``firewall``: for the network of tasks.
        """
        self._owner = owner
        self._firewall = firewall
        self._has_disk_quota: bool | None = None
        self._logins = logins
        self._connection = DockerConnection(environment)
        self._call_threads = CallThreads("docker", _CALL_THREADS)
        # Readings and slow calls, such as removals, must not wait for each other.
        self._usage_threads = CallThreads("docker-usage", _USAGE_THREADS)
        self._disk_threads = CallThreads("docker-disk", 1)
        self._pull_threads = CallThreads("docker-pull", _PULL_THREADS)
        self._events: DockerEvents | None = None

    async def containers(self) -> Sequence[ContainerInfo]:
        label = f"{OWNER_LABEL}={self._owner.secret}"
        summaries = await self._call(lambda client: client.containers(all=True, filters={"label": label}))
        return containers_of_worker(summaries, self._owner)

    async def has_image(self, image: str) -> bool:
        def look(client: APIClient) -> bool:
            try:
                client.inspect_image(image)  # type: ignore[no-untyped-call]  # its stub has no types
            except ImageNotFound:
                return False
            return True

        return await self._call(look)

    async def pull(self, image: str, progress: Progress, timeout_seconds: float) -> None:
        loop, is_cancelled = asyncio.get_running_loop(), False

        def pull() -> None:
            state = PullProgress(image)
            login = None if self._logins is None else self._logins.login_for(image)
            with self._connection.client(pulling=True) as client:
                for line in pull_messages(client, image, login, timeout_seconds):
                    if is_cancelled:
                        return  # the engine ends a pull that nobody listens to
                    if "error" in line:
                        raise refusal(str(line["error"]), pulling=True)
                    state.add(line)
                    loop.call_soon_threadsafe(progress, str(state))

        try:
            await self._pull_threads.run(pull)
        finally:
            is_cancelled = True

    async def create(self, spec: ContainerSpec) -> str:
        def create(client: APIClient) -> str:
            settings = container_settings(spec, self._owner)
            bridge = "none" if spec.network == "none" else _task_network(client, self._firewall, spec)
            limits = host_config(spec, _volumes(client, spec), bridge)
            try:
                created = self._created(client, settings, limits, spec.disk_limit_bytes)
            except APIError as error:
                if error.status_code != _CONFLICT:
                    raise
                created = client.inspect_container(settings["name"])
                if attempt_key(created, self._owner) != spec.key:
                    text = f"there is a container {settings['name']} already, which is not this worker's"
                    raise EngineRefused(text) from error
            self._owner.note(container_id := str(created["Id"]))
            return container_id

        return await self._call(create)

    def _created(
        self, client: APIClient, settings: Mapping[str, Any], limits: Mapping[str, Any], disk_bytes: int | None
    ) -> dict[str, Any]:
        """What Docker answers. With a limit on the disk if the storage driver has one, which only a try shows."""

        def create(**quota: Any) -> dict[str, Any]:
            config = client.create_host_config(**limits, **quota)
            return dict(client.create_container(**settings, host_config=config))

        if self._has_disk_quota is None:
            self._has_disk_quota = client.info().get("Driver") in _QUOTA_DRIVERS
        if self._has_disk_quota and disk_bytes is not None:
            try:
                return create(storage_opt={"size": str(disk_bytes)})
            except APIError as error:
                if not _NO_QUOTA.search(str(error.explanation)):
                    raise
                self._has_disk_quota = False
        return create()

    async def start(self, container_id: str) -> None:
        def start(client: APIClient) -> None:
            container = self._inspect(client, container_id)
            if container.status is ContainerStatus.CREATED and container.started_at is None:
                self._owner.note(container_id)  # its creator may have died too early
                client.start(container_id)

        await self._call(start, container_id)

    async def inspect(self, container_id: str) -> ContainerInfo:
        return await self._call(lambda client: self._inspect(client, container_id), container_id)

    def _inspect(self, client: APIClient, container_id: str) -> ContainerInfo:
        details = client.inspect_container(container_id)
        key = attempt_key(details, self._owner)
        if key is None:
            raise EngineRefused(f"container {container_id[:12]} is not this worker's")
        return container_info(details, key)

    async def signal(self, container_id: str, name: str) -> bool:
        return await self._call(_unless_conflict(lambda client: client.kill(container_id, name)), container_id)

    async def remove(self, container_id: str) -> None:
        def remove(client: APIClient) -> None:
            # Nothing but the container, if this worker cannot tell that the volumes are of its making.
            client.remove_container(container_id, v=self._owner.has_noted(container_id), force=True)

        is_gone = True
        with contextlib.suppress(NoSuchContainer):
            is_gone = await self._call(_unless_conflict(remove), container_id)  # a conflict: it is being removed
        if is_gone:
            self._owner.forget(container_id)

    async def usage(self, container_id: str) -> ContainerUsage:
        def read() -> ContainerUsage:
            with self._connection.client(container_id) as client:
                stats = client.stats(container_id, stream=False, one_shot=True)
                return container_usage(stats, time.monotonic())

        return await self._usage_threads.run(read)

    async def written_bytes(self, container_id: str) -> int:
        def read() -> int:
            with self._connection.client(container_id) as client:
                found = client.containers(all=True, size=True, filters={"id": container_id})
                return int(found[0].get("SizeRw") or 0) if found else 0

        return await self._disk_threads.run(read)

    def open_log(self, container_id: str, *, follow: bool) -> LogStream:
        return DockerLog(self._connection, container_id, follow=follow)

    def listen(self, on_exit: Callable[[str], None]) -> None:
        self._events = DockerEvents(self._connection, self._owner.secret, on_exit)

    async def close(self) -> None:
        if self._events is not None:
            self._events.close()
        for threads in (self._call_threads, self._usage_threads, self._disk_threads, self._pull_threads):
            threads.close()
        self._connection.close()

    async def _call(self, call: Callable[[APIClient], T], container_id: str = "") -> T:
        def run() -> T:
            with self._connection.client(container_id) as client:
                return call(client)

        try:
            return await self._call_threads.run(run)
        except EngineUnavailable:
            self._connection.close()
            raise


def _task_network(client: APIClient, firewall: TaskFirewall | None, spec: ContainerSpec) -> str:
    """The network mode of tasks with a network: a bridge of their own, which is made when it is missing.

    An engine without Docker's bridge gives only a loopback device. Raises ``EngineRefused`` where the firewall cannot
    be set, and must be.
    """
    # Docker finds names that contain these.
    found = {network["Name"]: network for network in client.networks(names=["bridge", TASK_NETWORK])}
    network = found.get(TASK_NETWORK)
    if network is None and "bridge" not in found:
        return "default"
    if network is None:
        mtu = (found["bridge"].get("Options") or {}).get(_MTU)
        options = _BRIDGE_OPTIONS | ({_MTU: mtu} if mtu else {})
        try:
            client.create_network(TASK_NETWORK, "bridge", options, check_duplicate=True, labels={TASK_NETWORK: "true"})
        except APIError as error:
            if error.status_code != _CONFLICT:  # another worker was faster
                raise
        network = client.inspect_network(TASK_NETWORK)
    if firewall is not None:
        device = (network.get("Options") or {}).get(_DEVICE) or f"br-{network['Id'][:12]}"
        problem = firewall.protect(device, has_ipv6=bool(network.get("EnableIPv6")))
        if problem and spec.requires_firewall:
            text = f"this worker refuses it by its rule require_firewall, and could not set one: {problem}"
            raise EngineRefused(text, "policy_refused")
    return TASK_NETWORK


def _volumes(client: APIClient, spec: ContainerSpec) -> list[str]:
    """The ``VOLUME``s of the image. Raises ``EngineRefused`` where the policy wants nothing to be written."""
    image = client.inspect_image(spec.image)  # type: ignore[no-untyped-call]  # its stub has no types
    volumes = list((image.get("Config") or {}).get("Volumes") or ())
    if volumes and spec.refuses_volumes:
        text = ", ".join(sorted(volumes)[:_MAX_VOLUMES])[:200]
        rule = "this worker refuses it by its rule read_only_root"
        raise EngineRefused(f"{rule}: the image has a VOLUME, which is writable: {text!a}", "policy_refused")
    if len(volumes) > _MAX_VOLUMES:
        raise EngineRefused(
            f"the image has {len(volumes)} VOLUMEs; at most {_MAX_VOLUMES} are allowed", "image_invalid"
        )
    return volumes


def _unless_conflict(call: Callable[[APIClient], None]) -> Callable[[APIClient], bool]:
    """Returns whether Docker did it; ``False`` when the state of the container does not allow it."""

    def run(client: APIClient) -> bool:
        try:
            call(client)
        except APIError as error:
            if error.status_code != _CONFLICT:
                raise
            return False
        return True

    return run
