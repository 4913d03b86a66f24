"""A master, its workers and the network between them, with the faults to inject."""

import contextlib
import os
import re
import signal
from collections.abc import Iterator, Sequence

import psutil

from tests.chaos import history
from tests.chaos.history import Recorder, now
from tests.chaos.plan import HEARTBEAT_SECONDS, TIMEOUT_SECONDS
from tests.chaos.proxy import Link, Network
from tests.chaos.rest import RestClient
from tests.chaos.waiting import within
from tests.e2e.masters import started_master
from tests.e2e.processes import Processes, RunningProcess
from tests.ports import LOCALHOST

LEASE_FLAGS = ("--heartbeat-interval", f"{HEARTBEAT_SECONDS}s", "--inactivity-timeout", f"{TIMEOUT_SECONDS}s")
RECOVERY_SECONDS = 30.0
_ERROR_PATTERN = re.compile("Traceback|never retrieved|Exception ignored")
_CONTEXT_LINES = 12


class ChaosWorker:
    """A worker. Its id, data and link stay the same over all of its processes."""

    def __init__(self, worker_id: str, link: Link) -> None:
        self.worker_id = worker_id
        self.link = link
        self.processes: list[RunningProcess] = []

    @property
    def process(self) -> RunningProcess:
        """The newest process."""
        return self.processes[-1]


class ChaosFleet:
    """Real processes. A fault is recorded before it is injected, a repair after it."""

    def __init__(self, processes: Processes, network: Network, recorder: Recorder, engine_env: dict[str, str]) -> None:
        self._processes = processes
        self._network = network
        self._recorder = recorder
        self._env = engine_env
        self.master = started_master(processes, *LEASE_FLAGS)
        self.client = RestClient(self.master.url)
        self.workers: list[ChaosWorker] = []

    def start_workers(self, worker_ids: Sequence[str]) -> None:
        """Starts workers and waits until all of them are active."""
        for worker_id in worker_ids:
            worker = ChaosWorker(worker_id, self._network.link(self.master.grpc_port))
            self.workers.append(worker)
            self._start(worker)
        if not within(RECOVERY_SECONDS, lambda: self.heartbeats().keys() == set(worker_ids)):
            raise AssertionError(f"the workers did not register: {[worker.process.err for worker in self.workers]}")

    # Faults

    def kill_master(self, round_number: int) -> None:
        """``kill -9`` of the web process; the arbiter starts another one."""
        pid = self.master.web_process().pid
        self._record(round_number, "kill master")
        os.kill(pid, signal.SIGKILL)

    def kill_worker(self, round_number: int, worker: ChaosWorker) -> None:
        """``kill -9``."""
        self._record(round_number, "kill worker", worker)
        worker.process.send(signal.SIGKILL)
        worker.process.wait()

    def start_worker(self, round_number: int, worker: ChaosWorker) -> None:
        """Starts a killed worker again, with the same id and data."""
        self._start(worker)
        self._record(round_number, "start worker", worker)

    def break_link(self, round_number: int, worker: ChaosWorker, *, stalls: bool) -> None:
        self._record(round_number, "stall" if stalls else "cut", worker)
        self._network.do(worker.link.stall if stalls else worker.link.cut)

    def heal_link(self, round_number: int, worker: ChaosWorker) -> None:
        self._network.do(worker.link.heal)
        self._record(round_number, "heal", worker)

    # Observation

    def heartbeats(self) -> dict[str, int]:
        """The number of heartbeats of each active worker."""
        return {
            worker["worker_id"]: worker["heartbeats"]["received"]
            for worker in self.client.json("/api/workers")
            if worker["is_active"]
        }

    def wait_for_recovery(self) -> bool:
        """Waits for a new heartbeat of every worker. Returns whether all came in time."""
        before: dict[str, int] = {}

        def all_beat() -> bool:
            after = self.heartbeats()
            if not before:
                before.update(after)
            return all(after.get(w.worker_id, 0) not in {0, before.get(w.worker_id, 0)} for w in self.workers)

        return within(RECOVERY_SECONDS, all_beat)

    def watched_processes(self) -> Iterator[tuple[str, psutil.Process]]:
        """The processes whose open files are counted."""
        for web in self.master.process.children()[:1]:
            yield "master", web
        for worker in self.workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                yield worker.worker_id, psutil.Process(worker.process.pid)

    def anomalies(self) -> Iterator[str]:
        """Processes that have ended, and tracebacks in their logs."""
        if not self.master.process.is_running:
            yield f"the master ended:\n{self.master.process.err[-2000:]}"
        for worker in self.workers:
            if not worker.process.is_running:
                yield f"{worker.worker_id} ended:\n{worker.process.err[-2000:]}"
        for process in (self.master.process, *(process for worker in self.workers for process in worker.processes)):
            lines = process.err.splitlines()
            for number, line in enumerate(lines):
                if _ERROR_PATTERN.search(line):
                    context = "\n".join(lines[max(number - 1, 0) : number + _CONTEXT_LINES])
                    yield f"in the log of {process.name}:\n{context}"

    def _start(self, worker: ChaosWorker) -> None:
        data = self._processes.folder / worker.worker_id
        flags = ("--worker-id", worker.worker_id, "--data-dir", str(data))
        target = f"{LOCALHOST}:{worker.link.port}"
        worker.processes.append(self._processes.worker(target, *flags, name=worker.worker_id, **self._env))

    def _record(self, round_number: int, what: str, worker: ChaosWorker | None = None) -> None:
        self._recorder.add(history.Fault(now(), round_number, what, worker.worker_id if worker else ""))
