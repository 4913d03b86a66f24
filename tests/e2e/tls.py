"""A master that requires client certificates, and workers with certificates."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.credentials.bundle import Bundle, read_bundle
from tests.certificates import channel_credentials, issued_bundle, new_authority
from tests.e2e.grpc_client import GrpcClient, Refusal, Stream, a_heartbeat
from tests.e2e.masters import FAST_LEASE_FLAGS, READY_SECONDS, started_master
from tests.e2e.processes import FLEETPULSE, Processes, RunningProcess
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST, free_port

QUIET = ("--no-tasks", "--no-plugins")

ids = map("by-hand-{}".format, itertools.count(1))
"""The ids of workers without a process; the test is their client."""


class TlsMaster:
    """A master with a CA, and the commands of its administrator."""

    def __init__(self, processes: Processes, *flags: str, host: str = LOCALHOST, prefix: Sequence[str] = ()) -> None:
        """``flags`` win over those of a short lease; ``prefix`` is a command line that runs the master's."""
        self.processes = processes
        self.data_dir = processes.folder / "data"
        self.authority = new_authority(self.data_dir)
        self.join_port = free_port()
        flags = (*FAST_LEASE_FLAGS, "--join-port", f"{host}:{self.join_port}", *flags)
        self.master = started_master(processes, *flags, prefix=prefix)

    @property
    def target(self) -> str:
        return self.master.target

    def token(self, worker_id: str | None = None, lifetime: float = 60.0, uses: int = 1) -> str:
        return self.authority.new_join_token(lifetime, worker_id, uses)

    def worker(self, worker_id: str, token: str | None = None, *flags: str) -> RunningProcess:
        """A worker with a data directory of its own."""
        env = {"FLEETPULSE_DATA_DIR": str(self.folder(worker_id)), "FLEETPULSE_WORKER_ID": worker_id}
        if token is not None:
            env["FLEETPULSE_JOIN_TOKEN"] = token
        address = ("--join-address", f"{LOCALHOST}:{self.join_port}")
        return self.processes.worker(self.target, *address, *QUIET, *flags, name=worker_id, **env)

    def folder(self, worker_id: str) -> Path:
        return self.processes.folder / f"data-{worker_id}"

    def bundle(self, worker_id: str) -> Bundle:
        """The worker's own certificate and key."""
        bundle = read_bundle(self.folder(worker_id) / "tls.pem")
        assert bundle is not None
        return bundle

    def issued_bundle(self, worker_id: str, lifetime: float = 3600.0, age: float = 0.0) -> Bundle:
        """A certificate and key for a worker without a process, issued ``age`` seconds ago."""
        return issued_bundle(self.data_dir, worker_id, lifetime, age)

    def connect(self, bundle: Bundle) -> GrpcClient:
        return GrpcClient(self.target, channel_credentials(bundle))

    def ca(self, *words: str) -> str:
        """Runs ``fleetpulse ca`` and returns its stdout."""
        ended = self.processes.run(FLEETPULSE, "ca", *words)
        assert ended.code == 0, ended.err
        return ended.out

    def is_active(self, worker_id: str) -> bool:
        return self.master.workers().get(worker_id, False)

    def refused(self, what: str, reason: str) -> float:
        return self.master.sample(f"fleetpulse_{what}_total", reason)

    def audited(self, action: str) -> list[dict[str, Any]]:
        """The audit entries of an action, the newest first."""
        entries: list[dict[str, Any]] = self.master.json(f"/api/audit?action={action}")
        return entries

    def restart(self, *flags: str) -> None:
        """Stops the master and starts it again on the same ports, with these flags in addition."""
        self.master.restart(*flags)
        eventually(self.master.is_healthy, READY_SECONDS)

    def close(self) -> None:
        self.master.close()
        self.master.assert_no_errors()


def registered(client: GrpcClient, worker_id: str, *held: pb.AttemptId) -> Stream:
    """A stream of a registered worker that can run tasks and has sent one heartbeat."""
    stream = client.stream()
    register = pb.Register(
        worker_id=worker_id,
        incarnation_id="one",
        capacity=pb.Capacity(cpu_cores=4, memory_bytes=8 << 30),
        task_support=pb.TaskSupport(available=True),
        attempts_held=held,
    )
    stream.send(pb.WorkerMessage(register=register))
    assert next(stream._call).WhichOneof("message") == "registered"
    stream.beat(a_heartbeat(worker_id))
    return stream


def has_registered(worker: RunningProcess) -> bool:
    return "registered at" in worker.err


def refusal(client: GrpcClient, worker_id: str) -> Refusal:
    """Sends Register and returns the status that ends the stream."""
    with client:
        stream = client.stream()
        stream.send(pb.WorkerMessage(register=pb.Register(worker_id=worker_id, incarnation_id="one")))
        return stream.refusal()
