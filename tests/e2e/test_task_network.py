"""A master on a trusted network, and a task on its machine: a process behind the bridge of tasks, here one end of a
veth pair in namespaces of the test."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleetpulse.proto.rules import TASK_DEVICE
from tests.e2e.masters import READY_SECONDS, Master
from tests.e2e.processes import Processes, RunningProcess
from tests.e2e.stranger import needs_root
from tests.e2e.waiting import eventually
from tests.guardian import Guardian, GuardianError
from tests.port_forwarder import PortForwarder

pytestmark = [pytest.mark.e2e, needs_root]

TASK, NEIGHBOUR = "10.77.1", "10.77.2"


class ExposedMaster(Master):
    """A master on all addresses."""

    @property
    def port_flags(self) -> tuple[str, ...]:
        return "--http-port", f"0.0.0.0:{self.http_port}", "--grpc-port", f"0.0.0.0:{self.grpc_port}"


class Machine:
    """Network namespaces: a machine, and those of a task and of a neighbour on its other network."""

    def __init__(self, guardian: Guardian, processes: Processes) -> None:
        self.guardian, self._processes = guardian, processes
        self._pids: dict[str, int] = {}
        for subnet, device in ((TASK, TASK_DEVICE), (NEIGHBOUR, "lan0")):
            unshared = "import time; print('in', flush=True); time.sleep(1000)"
            inner = processes.start("inside", *self.here("unshare", "-n", sys.executable, "-c", unshared))
            wait_for_output(inner)
            self._pids[subnet] = inner.pid
            self._ip("link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", str(inner.pid))
            for side, number, name in (((), 1, device), (self._into(subnet), 2, "eth0")):
                for words in (("address", "add", f"{subnet}.{number}/24", "dev", name), ("link", "set", name, "up")):
                    self._ip(*words, into=side)

    def here(self, *words: str) -> list[str]:
        """A command line in the machine's network."""
        return self.guardian.command(*words, only_network=True)

    def answers(self, subnet: str, master: Master) -> Any:
        """What a client in this network gets from the master; see ``task_client``."""
        client = (sys.executable, "-m", "tests.e2e.task_client", f"{subnet}.1", str(master.http_port))
        command = (*self._into(subnet), *client, str(master.grpc_port))
        done = self._processes.run(*command, PYTHONPATH=":".join(sys.path))
        assert done.code == 0, done.err
        return json.loads(done.out)

    def _into(self, subnet: str) -> tuple[str, ...]:
        return "nsenter", "--target", str(self._pids[subnet]), "--net", "--"

    def _ip(self, *words: str, into: tuple[str, ...] = ()) -> None:
        subprocess.run([*(into or self.here()), "ip", *words], check=True)


def wait_for_output(process: RunningProcess) -> None:
    eventually(lambda: process.out)


@pytest.fixture
def machine(processes: Processes) -> Iterator[Machine]:
    try:
        guardian = Guardian(Path(tempfile.mkdtemp(prefix="fleetpulse-net-", dir="/tmp")), isolated=True)
    except GuardianError as error:
        pytest.skip(f"needs network namespaces: {error}")
    try:
        yield Machine(guardian, processes)
    finally:
        guardian.close()


def test_task_of_the_masters_machine_is_not_the_trusted_network(machine: Machine, processes: Processes) -> None:
    flags = ("--insecure-network", "--heartbeat-interval", "1s")
    forwarder = PortForwarder(machine.guardian.network)
    try:
        master = ExposedMaster(processes, *flags, prefix=machine.here())
        forwarder.forward(master.http_port)
        eventually(lambda: master.is_healthy() or not master.process.is_running, READY_SECONDS)
        neighbour, task = machine.answers(NEIGHBOUR, master), machine.answers(TASK, master)
        assert (neighbour["http"], neighbour["grpc"]) == ([200, 200, 201], ["OK", ""])
        assert task["http"] == [200, 401, 401]
        assert "network of this machine's tasks" in task["detail"]
        assert task["grpc"][0] == "UNAUTHENTICATED"
        assert "network of this machine's tasks" in task["grpc"][1]
        assert master.get("/telemetry").status_code == 200  # loopback
        master.close()
    finally:
        forwarder.close()
    master.assert_no_errors()
