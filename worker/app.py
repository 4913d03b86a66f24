"""The composition root of a worker: builds its collectors and its session, and runs them until a signal."""

import asyncio
import contextlib
import logging
import math
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import EntryPoints, entry_points, version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.cleaning import make
from fleetpulse.proto.join import JoinToken
from fleetpulse.proto.listeners import check_listener, is_loopback
from fleetpulse.proto.policy import TaskPolicy
from fleetpulse.worker.capacity import GpuAwareTasks, GpuRegistration, machine_capacity, observing_gpus
from fleetpulse.worker.collectors import SYS, Collector, NamePatterns
from fleetpulse.worker.collectors.commands import CommandCollector, configured_commands
from fleetpulse.worker.collectors.cores import CoreCollector
from fleetpulse.worker.collectors.cpu import CpuCollector
from fleetpulse.worker.collectors.custom_metrics import InvalidSource
from fleetpulse.worker.collectors.disk import DiskCollector
from fleetpulse.worker.collectors.drm import DrmGpus
from fleetpulse.worker.collectors.filesystem import FilesystemCollector
from fleetpulse.worker.collectors.gpu import GpuCollector
from fleetpulse.worker.collectors.memory import MemoryCollector
from fleetpulse.worker.collectors.network import NetworkCollector
from fleetpulse.worker.collectors.plugins import PLUGINS_GROUP, PluginCollector, enabled_plugins
from fleetpulse.worker.collectors.pressure import PressureCollector
from fleetpulse.worker.collectors.processes import ProcessNames
from fleetpulse.worker.collectors.sensors import SensorCollector
from fleetpulse.worker.collectors.system import LoadCollector, UptimeCollector
from fleetpulse.worker.collectors.systemd import SystemdCollector
from fleetpulse.worker.collectors.textfile import TextfileCollector
from fleetpulse.worker.connection import bypasses_proxy, open_channel
from fleetpulse.worker.credentials import BUNDLE_NAME, JoinEndpoint
from fleetpulse.worker.identity import new_incarnation_id, resolve_worker_id
from fleetpulse.worker.sampler import Sampler
from fleetpulse.worker.session import TaskExecutor, WorkerSession
from fleetpulse.worker.tasks.engine import PULL_TIMEOUT_SECONDS
from fleetpulse.worker.tasks.executor import DisabledExecutor, Executor

if TYPE_CHECKING:
    from fleetpulse.worker.credentials.renewer import CertificateRenewer
    from fleetpulse.worker.docker_engine.registries import RegistryLogins

_LOGGER = logging.getLogger(__name__)

CONTAINERS_FOLDER = "containers"
"""In the data directory: which containers are this worker's."""


class WorkerConfig(NamedTuple):
    """All settings of a worker, named as its flags. ``run_worker`` checks the id and the sources of custom metrics."""

    master: str
    worker_id: str | None
    data_dir: Path
    labels: Mapping[str, str]
    environment: Mapping[str, str] = MappingProxyType({})
    """Locates Docker (``DOCKER_HOST`` and the like), and is passed on to commands for custom metrics."""

    runs_tasks: bool = True
    task_policy: TaskPolicy = TaskPolicy()
    master_user: str = ""
    """A further user, name or number, whose master on this machine is trusted without TLS."""

    is_network_trusted: bool = False
    """Whether a master on another machine may be reached without TLS."""

    proxy: str | None = None
    """The URL of an HTTP proxy to the master, which ``NO_PROXY`` of the environment may exclude."""

    registry_logins: "RegistryLogins | None" = None
    pull_timeout_seconds: float = PULL_TIMEOUT_SECONDS
    """``None``: those of the docker command."""

    join_endpoint: JoinEndpoint | None = None
    join_token: JoinToken | None = None
    extra_collectors: Collection[str] = ()
    """Names of those that are off by default."""

    skipped_collectors: Collection[str] = ()
    names_gpu_processes: bool = True
    filesystem_include: Sequence[str] = ()
    """Patterns of mount points."""

    filesystem_exclude: Sequence[str] = ()
    disk_include: Sequence[str] = ()
    disk_exclude: Sequence[str] = ()
    network_include: Sequence[str] = ()
    network_exclude: Sequence[str] = ()
    uses_plugins: bool = True
    skipped_plugins: Collection[str] = ()
    metrics_commands: Sequence[str] = ()
    metrics_dir: Path | None = None
    metrics_interval_seconds: float = 15.0
    textfile_dir: Path | None = None
    textfile_max_age_seconds: float = 0.0
    """0: any age."""


class UnprotectedMaster(ValueError):
    """The worker would send its messages over a network without TLS. The message is one line for the operator."""


class UnknownCollector(ValueError):
    """The operator named a collector that there is not. The message is one line."""


OFF_BY_DEFAULT = frozenset({"systemd"})
"""Collectors that cost more than they tell on most machines."""


def machine_collectors(config: WorkerConfig) -> list[Collector]:
    """The collectors of the machine's own readings that are switched on; the others are not made.

    Raises ``UnknownCollector``.
    """
    makers: dict[str, Callable[[], Collector]] = {
        "cpu": CpuCollector,
        "memory": MemoryCollector,
        "filesystem": lambda: FilesystemCollector(
            patterns=NamePatterns(config.filesystem_include, config.filesystem_exclude)
        ),
        "disk": lambda: DiskCollector(patterns=NamePatterns(config.disk_include, config.disk_exclude)),
        "network": lambda: NetworkCollector(patterns=NamePatterns(config.network_include, config.network_exclude)),
        "load": LoadCollector,
        "uptime": UptimeCollector,
        "pressure": PressureCollector,
        "sensors": SensorCollector,
        "systemd": SystemdCollector,
        "cores": CoreCollector,
        "gpu": lambda: GpuCollector(
            process_names=ProcessNames() if config.names_gpu_processes else None, others=DrmGpus(SYS, time.monotonic)
        ),
    }
    for name in (*config.extra_collectors, *config.skipped_collectors):
        if name not in makers:
            raise UnknownCollector(f"there is no collector {name!a}: choose of {', '.join(makers)}")
    off = OFF_BY_DEFAULT.difference(config.extra_collectors).union(config.skipped_collectors)
    return [build() for name, build in makers.items() if name not in off]


def run_worker(config: WorkerConfig) -> None:
    """Reports this machine until a signal.

    Raises ``InvalidWorkerId``, ``InvalidSource``, ``UnknownCollector``, ``CredentialsError``, ``UnprotectedMaster``.
    """
    hostname = socket.gethostname()
    machine = machine_collectors(config)
    gpu = next((collector for collector in machine if isinstance(collector, GpuCollector)), None)
    cores = next((collector for collector in machine if isinstance(collector, CoreCollector)), None)
    custom = custom_collectors(config, entry_points(group=PLUGINS_GROUP))
    sampler = Sampler([*machine, *custom])
    worker_id = resolve_worker_id(config.worker_id, config.data_dir, hostname)
    renewer = _certificate_renewer(config, worker_id)
    if renewer is None:
        check_network(config.master, is_network_trusted=config.is_network_trusted)
    sampler.start()
    try:
        # A round whose readings are not sent: CPU use needs an earlier reading, and GPUs are known after it or later.
        sampler.sample()
        register = make(
            pb.Register,
            worker_id=worker_id,
            incarnation_id=new_incarnation_id(),
            hostname=hostname,
            version=version("fleetpulse"),
            boot_time_unix_seconds=UptimeCollector().boot_time(),
            capacity=machine_capacity(None if gpu is None else gpu.inventory),
            labels=config.labels,
        )
        asyncio.run(_run_session(config, register, sampler, gpu, cores, renewer))
    finally:
        sampler.stop()
        for collector in custom:
            if isinstance(collector, CommandCollector):
                collector.close()
        if gpu is not None:
            gpu.shutdown()


def custom_collectors(config: WorkerConfig, installed: EntryPoints) -> list[Collector]:
    """The collectors of custom metrics. Where two contradict each other, the first wins. Raises ``InvalidSource``."""
    interval, max_age = config.metrics_interval_seconds, config.textfile_max_age_seconds
    if math.isnan(interval) or math.isnan(max_age):
        raise InvalidSource("nan is no number of seconds")
    plugins = enabled_plugins(installed, config.skipped_plugins) if config.uses_plugins else {}
    commands = configured_commands(config.metrics_commands, config.metrics_dir)
    environment = command_environment(config.environment)
    return [
        *(PluginCollector(name, load) for name, load in plugins.items()),
        *(CommandCollector(name, words, interval, environment) for name, words in commands.items()),
        *([TextfileCollector(config.textfile_dir, max_age or None)] if config.textfile_dir else ()),
    ]


def command_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of commands for custom metrics: without FleetPulse's settings, which may hold secrets."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("FLEETPULSE_") and name != "DATABASE_URL"
    }


def _certificate_renewer(config: WorkerConfig, worker_id: str) -> "CertificateRenewer | None":
    """Joins the master first, if a new token is configured. ``None``: no TLS. Raises ``CredentialsError``."""
    if config.join_token is None and not (config.data_dir / BUNDLE_NAME).exists():
        return None
    from fleetpulse.worker.credentials.renewer import CertificateRenewer, load_or_join  # noqa: PLC0415 - heavy, mostly not needed

    bundle = load_or_join(worker_id, config.data_dir, config.join_token, config.join_endpoint, time.time(), time.sleep)
    return None if bundle is None else CertificateRenewer(config.data_dir, bundle)


async def _run_session(
    config: WorkerConfig,
    register: pb.Register,
    sampler: Sampler,
    gpu: GpuCollector | None,
    cores: CoreCollector | None,
    renewer: "CertificateRenewer | None",
) -> None:
    loop = asyncio.get_running_loop()
    gpus = GpuRegistration(register.capacity)
    # One thread: the sampler takes one round at a time.
    threads = ThreadPoolExecutor(1, thread_name_prefix="sampler-rounds")

    sample = partial(loop.run_in_executor, threads, sampler.sample)

    async with _task_executor(config, register.worker_id) as tasks:
        check_master = partial(check_plain_master, config.master, config.master_user) if renewer is None else _no_check
        session = WorkerSession(
            config.master,
            register,
            sample if gpu is None else observing_gpus(sample, gpu, gpus),
            tasks=tasks if gpu is None else GpuAwareTasks(tasks, gpu, gpus),
            credentials=renewer,
            check_master=check_master,
            open_channel=partial(open_channel, proxy=master_proxy(config)),
        )
        if cores is not None:
            session.report_cores = cores.report_for
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, session.stop, signal.Signals(number).name)
        try:
            await session.run()
        finally:
            threads.shutdown(wait=False)


def master_proxy(config: WorkerConfig) -> str | None:
    """The proxy through which the master is reached; ``None``: directly. Both spellings of ``NO_PROXY`` count."""
    exceptions = ",".join(config.environment.get(name, "") for name in ("NO_PROXY", "no_proxy"))
    is_direct = bypasses_proxy(config.master.rpartition(":")[0], exceptions)
    return None if is_direct else config.proxy


def check_network(target: str, *, is_network_trusted: bool) -> None:
    """Raises ``UnprotectedMaster`` for a worker without a certificate whose master is on another machine."""
    if is_loopback(target.rpartition(":")[0].strip("[]")):
        return
    if not is_network_trusted:
        raise UnprotectedMaster(
            f"FLEETPULSE_MASTER={target} is another machine, and this worker has no certificate: whoever is on the "
            "network between may read its tasks with their secrets, and have it run containers. Get a certificate with "
            "--join-file (`fleetpulse ca join-token` makes the token), or say --insecure-network"
        )
    _LOGGER.warning("no certificate, and a trusted network is declared: %s is reached without TLS", target)


def check_plain_master(target: str, master_user: str) -> None:
    """Raises ``ForeignListener`` if another user of this machine listens in place of the master. Without TLS nothing
    else would show it.
    """
    host, _, port = target.rpartition(":")
    if is_loopback(host.strip("[]")):
        check_listener(int(port), master_user)


def _no_check() -> None:
    """For a master that its certificate identifies."""


@contextlib.asynccontextmanager
async def _task_executor(config: WorkerConfig, worker_id: str) -> AsyncIterator[TaskExecutor]:
    """Runs the tasks of this worker. Its containers go on when it is closed."""
    if not config.runs_tasks:
        yield DisabledExecutor("tasks are switched off on this worker")
        return
    from fleetpulse.worker.docker_engine.engine import DockerEngine  # noqa: PLC0415 - heavy, and not needed without tasks
    from fleetpulse.worker.docker_engine.firewall import TaskFirewall, system_run  # noqa: PLC0415 - the same
    from fleetpulse.worker.docker_engine.ownership import ContainerOwner  # noqa: PLC0415 - the same

    docker = {name: value for name, value in config.environment.items() if name.startswith("DOCKER_")}
    owner = ContainerOwner(worker_id, config.data_dir / CONTAINERS_FOLDER)
    firewall = TaskFirewall(
        config.task_policy,
        config.master.rpartition(":")[0].strip("[]"),
        system_run(command_environment(config.environment)),
    )
    engine = DockerEngine(owner, docker, config.registry_logins, firewall)
    executor = Executor(engine, config.task_policy, pull_timeout_seconds=config.pull_timeout_seconds)
    executor.start()
    try:
        yield executor
    finally:
        await executor.close()
