"""The composition root of a worker: builds its collectors and its session, and runs them until a signal."""

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import psutil
import pynvml

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.join import JoinToken
from fleetpulse.proto.policy import TaskPolicy
from fleetpulse.worker.capacity import machine_capacity
from fleetpulse.worker.collectors.cpu import CpuCollector
from fleetpulse.worker.collectors.custom.sources import CustomMetrics, own_collectors
from fleetpulse.worker.collectors.disk import DiskCollector
from fleetpulse.worker.collectors.filesystem import FilesystemCollector
from fleetpulse.worker.collectors.gpu import GpuCollector
from fleetpulse.worker.collectors.load import LoadCollector
from fleetpulse.worker.collectors.memory import MemoryCollector
from fleetpulse.worker.collectors.network import NetworkCollector
from fleetpulse.worker.collectors.uptime import UptimeCollector
from fleetpulse.worker.credentials import BUNDLE_NAME, JoinEndpoint
from fleetpulse.worker.identity import new_incarnation_id, resolve_worker_id
from fleetpulse.worker.sampler import Sampler
from fleetpulse.worker.session import Credentials, Tasks, WorkerSession
from fleetpulse.worker.tasks.absent import NoTasks
from fleetpulse.worker.tasks.executor import Executor

_LOGGER = logging.getLogger(__name__)


GPU_SECONDS = 10.0
GPU_AGAIN_SECONDS = 0.2


class WorkerConfig(NamedTuple):
    """Everything that a worker is told from outside. Raises nothing; ``worker_id`` is checked when it is resolved."""

    master: str
    worker_id: str | None
    data_dir: Path
    labels: dict[str, str]
    runs_tasks: bool = True
    docker: Mapping[str, str] = MappingProxyType({})
    """The environment by which Docker is found: ``DOCKER_HOST`` and its like."""

    own_metrics: CustomMetrics = CustomMetrics()
    join: JoinEndpoint | None = None
    """Where a certificate is to be had, if one is needed."""

    join_token: JoinToken | None = None
    task_policy: TaskPolicy = TaskPolicy()
    registry_config: Path | None = None
    """A file with logins at registries; without one those of the docker command."""


def run_worker(config: WorkerConfig) -> None:
    """Report this machine until SIGTERM or SIGINT. Raises ``InvalidWorkerId``, ``CredentialsError``."""
    hostname = socket.gethostname()
    gpu = GpuCollector(pynvml)
    own, commands = own_collectors(config.own_metrics)
    sampler = Sampler(
        [
            CpuCollector(),
            MemoryCollector(),
            FilesystemCollector(),
            DiskCollector(),
            NetworkCollector(),
            LoadCollector(),
            UptimeCollector(),
            gpu,
            *own,
        ]
    )
    worker_id = resolve_worker_id(config.worker_id, config.data_dir, hostname)
    keeper = _keeper(config, worker_id)
    sampler.start()
    try:
        gpus = _first_round(sampler, gpu)
        register = _register(config, worker_id, hostname, gpu.device_count, [device.uuid for device in gpus])
        asyncio.run(_report(config, register, sampler, keeper))
    finally:
        sampler.stop()
        for command in commands:
            command.close()
        gpu.shutdown()


def _first_round(sampler: Sampler, gpu: GpuCollector) -> Sequence[pb.Gpu]:
    """Which GPUs there are; the readings are not sent. A driver that wakes its devices up takes a few seconds."""
    give_up_at = time.monotonic() + GPU_SECONDS
    while True:
        heartbeat = sampler.sample()
        report = next(report for report in heartbeat.collectors if report.collector == gpu.name)
        is_slow = not report.success and report.duration_seconds >= sampler.deadline_seconds
        if not is_slow or time.monotonic() >= give_up_at:
            return heartbeat.gpus
        time.sleep(GPU_AGAIN_SECONDS)


def _register(
    config: WorkerConfig, worker_id: str, hostname: str, gpu_count: int | None, gpu_uuids: Sequence[str]
) -> pb.Register:
    return pb.Register(
        worker_id=worker_id,
        incarnation_id=new_incarnation_id(),
        hostname=hostname,
        version=version("fleetpulse"),
        boot_time_unix_seconds=psutil.boot_time(),
        capacity=machine_capacity(gpu_count, gpu_uuids),
        labels=config.labels,
    )


def _keeper(config: WorkerConfig, worker_id: str) -> Credentials | None:
    """What the worker shows to its master; it joins first, if it has to. Raises ``CredentialsError``."""
    if config.join_token is None and not (config.data_dir / BUNDLE_NAME).exists():
        return None
    from fleetpulse.worker.credentials.keeper import CertificateRenewer, credentials_for  # noqa: PLC0415 - heavy, mostly not needed

    bundle = credentials_for(worker_id, config.data_dir, config.join_token, config.join, time.time(), time.sleep)
    return None if bundle is None else CertificateRenewer(config.data_dir, bundle)


async def _report(config: WorkerConfig, register: pb.Register, sampler: Sampler, keeper: Credentials | None) -> None:
    loop = asyncio.get_running_loop()
    # One thread: a round of readings is taken from one place, one at a time.
    rounds = ThreadPoolExecutor(1, thread_name_prefix="sampler-rounds")

    async def sample() -> pb.Heartbeat:
        return await loop.run_in_executor(rounds, sampler.sample)

    async with _tasks(config, register.worker_id) as tasks:
        session = WorkerSession(config.master, register, sample, tasks=tasks, credentials=keeper)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, session.stop, signal.Signals(number).name)
        try:
            await session.run()
        finally:
            rounds.shutdown(wait=False)


@contextlib.asynccontextmanager
async def _tasks(config: WorkerConfig, worker_id: str) -> AsyncIterator[Tasks]:
    """What runs tasks here, if anything does. Containers go on when it ends."""
    if not config.runs_tasks:
        yield NoTasks("tasks are switched off on this worker")
        return
    from fleetpulse.worker.docker_engine.engine import DockerEngine  # noqa: PLC0415 - heavy, and not needed without tasks
    from fleetpulse.worker.docker_engine.registries import RegistryLogins  # noqa: PLC0415

    logins = None if config.registry_config is None else RegistryLogins(config.registry_config)
    executor = Executor(DockerEngine(worker_id, config.docker, logins), config.task_policy)
    executor.open()
    try:
        yield executor
    finally:
        await executor.close()
