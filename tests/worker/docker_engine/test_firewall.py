"""What tasks may not reach: the rules, and real containers on a real Docker Engine with iptables."""

import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from fleetpulse.proto.policy import TaskPolicy
from fleetpulse.worker.docker_engine.engine import TASK_NETWORK, DockerEngine
from fleetpulse.worker.docker_engine.firewall import (
    CHAIN,
    Blocked,
    TaskFirewall,
    addresses_of,
    jump_for,
    rules_for,
    system_run,
)
from fleetpulse.worker.docker_engine.ownership import ContainerOwner
from tests.docker_engine import IsolatedEngine, isolated_engine
from tests.worker.docker_engine.test_worker_process import worker_at
from tests.worker.scripted import run
from tests.worker.tasks.fake_master import FakeMaster, running_executor

METADATA, OTHER_HOST = "169.254.169.254", "203.0.113.7"
DEVICES = [(1, "lo"), (7, "fleetpulse0"), (8, "br-0123456789ab")]
DEFAULTS = TaskPolicy()


class Table:
    """``iptables`` with a table ``mangle``: a ``Run`` that keeps what it is told."""

    def __init__(self, error: str = "") -> None:
        self.lines: list[str] = []
        self.calls: list[str] = []
        self.error = error

    def __call__(self, command: Sequence[str], text: str) -> str:
        self.calls.append(command[0])
        if self.error:
            raise OSError(self.error)
        if command[0].endswith("-restore"):
            assert text.startswith(f"*mangle\n:{CHAIN} - [0:0]\n")
            assert text.endswith("\nCOMMIT\n")
            self.lines = [line for line in self.lines if not line.startswith(f"-A {CHAIN} ")]
            for line in text.splitlines()[2:-1]:
                if line.startswith("-D "):
                    self.lines.remove(line.replace("-D", "-A", 1))
                elif line.startswith("-I PREROUTING 1 "):
                    self.lines.insert(0, line.replace("-I PREROUTING 1", "-A PREROUTING", 1))
                elif not line.startswith("-X "):
                    self.lines.append(line)
        return "-P PREROUTING ACCEPT\n" + "".join(f"{line}\n" for line in self.lines)


def firewall(table: Table, policy: TaskPolicy = DEFAULTS, master: str = "127.0.0.1") -> TaskFirewall:
    return TaskFirewall(policy, master, table, devices=lambda: DEVICES, resolve=lambda _host: ["198.51.100.1"])


def test_rules_block_what_the_policy_does_not_allow() -> None:
    both = rules_for(Blocked(host=True, metadata=True, addresses=["198.51.100.1", "2001:db8::1"]), 4)
    assert both[0] == "-m conntrack --ctdir REPLY -j RETURN"
    assert "-d 169.254.0.0/16 -j DROP" in both
    assert both[-2:] == ["-d 198.51.100.1 -j DROP", "-m addrtype --dst-type LOCAL -j DROP"]
    ipv6 = rules_for(Blocked(host=True, metadata=True, addresses=["198.51.100.1", "2001:db8::1"]), 6)
    assert {"-d fd00:ec2::/32 -j DROP", "-d 2001:db8::1 -j DROP", "-p ipv6-icmp -j RETURN"} <= set(ipv6)
    opened = rules_for(Blocked(host=True, metadata=False), 4)
    # An agent of the cloud may have given the machine this address.
    assert opened.index("-d 169.254.0.0/16 -j RETURN") < opened.index("-m addrtype --dst-type LOCAL -j DROP")
    assert rules_for(Blocked(host=False, metadata=False), 4) == []


def test_rules_are_set_once_and_repaired() -> None:
    table = Table()
    rules = firewall(table)
    assert rules.protect("fleetpulse0") == ""
    assert table.calls == ["iptables", "iptables-restore"]
    assert table.lines[0].startswith("-A PREROUTING -i fleetpulse0 ")
    assert rules.protect("fleetpulse0") == ""
    assert table.calls[2:] == ["iptables"]  # nothing to do
    written, table.lines = table.lines, []  # a reload of the machine's firewall
    rules.protect("fleetpulse0")
    assert table.lines == written
    table.lines = table.lines[:1]  # somebody emptied the chain
    rules.protect("fleetpulse0")
    assert table.lines == written
    rules.protect("br-0123456789ab")  # the operator made the network anew
    assert [line.split()[3] for line in table.lines if line.endswith(f"-j {CHAIN}")] == ["br-0123456789ab"]


def test_changed_policy_replaces_the_rules_and_an_open_one_removes_them() -> None:
    table = Table()
    firewall(table).protect("fleetpulse0")
    firewall(table, TaskPolicy(allow_metadata=True)).protect("fleetpulse0")
    assert sum(line.endswith(f"-j {CHAIN}") for line in table.lines) == 1
    assert "-A FLEETPULSE-TASKS -d 169.254.0.0/16 -j DROP" not in table.lines
    table.lines.append("-A PREROUTING -i eth0 -j ACCEPT")
    firewall(table, TaskPolicy(allow_metadata=True, allow_host=True, allow_master=True)).protect("fleetpulse0")
    assert table.lines == ["-A PREROUTING -i eth0 -j ACCEPT"]


def test_masters_machine_is_blocked_under_every_address_that_it_had_last() -> None:
    table, found = Table(), ["198.51.100.1"]
    rules = TaskFirewall(TaskPolicy(), "master.example", table, devices=lambda: DEVICES, resolve=lambda _host: [*found])
    rules.protect("fleetpulse0")
    assert f"-A {CHAIN} -d 198.51.100.1 -j DROP" in table.lines
    found[:] = []  # no resolver answers
    rules.protect("fleetpulse0")
    assert f"-A {CHAIN} -d 198.51.100.1 -j DROP" in table.lines
    firewall(table, TaskPolicy(allow_master=True)).protect("fleetpulse0")
    assert f"-A {CHAIN} -d 198.51.100.1 -j DROP" not in table.lines
    assert addresses_of("127.0.0.1") == addresses_of("no.such.host.invalid") == []
    assert addresses_of("192.0.2.1") == ["192.0.2.1"]


def test_worker_that_cannot_set_rules_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    rules = firewall(Table("iptables: Permission denied (you must be root)"))
    assert "you must be root" in rules.protect("fleetpulse0")
    assert "you must be root" in rules.protect("fleetpulse0")
    assert "not in this worker's network" in rules.protect("br-0")
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    with pytest.raises(OSError, match="is not installed"):
        system_run({})(["no-such-program"], "")
    with pytest.raises(OSError, match="false: status 1"):
        system_run(dict(os.environ))(["false"], "")


def test_open_policy_needs_no_rules() -> None:
    table = Table("iptables is not installed")
    policy = TaskPolicy(allow_host=True, allow_metadata=True, allow_master=True)
    assert firewall(table, policy).protect("fleetpulse0") == firewall(table, policy).protect("br-1") == ""


def test_jump_has_a_comment_that_changes_with_the_rules() -> None:
    assert jump_for("fleetpulse0", ["a"]) != jump_for("fleetpulse0", ["b"])
    assert " --comment fleetpulse-" in jump_for("fleetpulse0", ["a"])


# On a real engine

SERVER = """
import socket, threading
def serve(address):
    with socket.create_server(address) as server:
        while True:
            connection, _ = server.accept()
            connection.sendall(b"hello\\n")
            connection.close()
threading.Thread(target=serve, args=(("0.0.0.0", 7000),), daemon=True).start()
print("up", flush=True)
import time
time.sleep(1000)
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[IsolatedEngine]:
    """An engine whose machine has a cloud's metadata address, another address, and a server on all of them."""
    with isolated_engine(bridge=True) as engine:
        for address in (METADATA, OTHER_HOST):
            subprocess.run(engine.in_network(["ip", "address", "add", f"{address}/32", "dev", "lo"]), check=True)
        command = engine.in_network([sys.executable, "-c", SERVER])
        with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == b"up\n"
                yield engine
            finally:
                server.kill()


@contextlib.asynccontextmanager
async def tasks_at(
    engine: IsolatedEngine, worker_id: str, policy: TaskPolicy, master_host: str = "127.0.0.1"
) -> AsyncIterator[FakeMaster]:
    """An executor whose firewall is the engine's machine's."""
    in_engine = system_run(os.environ | engine.iptables)
    rules = TaskFirewall(
        policy,
        master_host,
        lambda command, text: in_engine(engine.in_network(list(command)), text),
        devices=lambda: DEVICES,
    )
    async with running_executor(DockerEngine(ContainerOwner(worker_id), engine.env, firewall=rules), policy) as master:
        yield master


def reached(engine: IsolatedEngine, worker_id: str, policy: TaskPolicy, master_host: str = "127.0.0.1") -> set[str]:
    """Which of the machine's addresses a task reaches, on a port that is open on all of them."""
    script = (
        "gateway=$(ip route | sed -n 's/default via \\([^ ]*\\) .*/\\1/p'); "
        f"for a in gateway=$gateway metadata={METADATA} other={OTHER_HOST}; do "
        "nc -w 2 ${a#*=} 7000 < /dev/null 2> /dev/null | grep -q hello && echo ${a%%=*}; done; echo end"
    )

    found = set()

    async def test() -> None:
        async with tasks_at(engine, worker_id, policy, master_host) as master:
            key = master.start("task", engine.image, "sh", "-c", script)
            assert (await master.wait_for_end(key, 60.0)).exit_code == 0
            assert master.logs[key].endswith(b"end\n")
            found.update(master.logs[key].decode().split()[:-1])

    run(test())
    return found


@pytest.mark.e2e
def test_task_reaches_neither_its_machine_nor_metadata(machine: IsolatedEngine, worker_id: str) -> None:
    assert reached(machine, worker_id, TaskPolicy()) == set()
    # The server is there, so it is the rules that stop the task.
    assert reached(machine, worker_id, TaskPolicy(allow_host=True, allow_metadata=True)) == {
        "gateway", "metadata", "other",
    }  # fmt: skip


@pytest.mark.e2e
def test_policy_opens_one_without_the_other(machine: IsolatedEngine, worker_id: str) -> None:
    assert reached(machine, worker_id, TaskPolicy(allow_metadata=True)) == {"metadata"}
    assert reached(machine, worker_id, TaskPolicy(allow_host=True)) == {"gateway", "other"}


@pytest.mark.e2e
def test_task_does_not_reach_the_masters_machine(machine: IsolatedEngine, worker_id: str) -> None:
    policy = TaskPolicy(allow_host=True)
    assert reached(machine, worker_id, policy, OTHER_HOST) == {"gateway"}
    assert reached(machine, worker_id, policy._replace(allow_master=True), OTHER_HOST) == {"gateway", "other"}


@pytest.mark.e2e
def test_machine_still_reaches_a_task_and_dns_passes(machine: IsolatedEngine, worker_id: str) -> None:
    async def test() -> None:
        async with tasks_at(machine, worker_id, TaskPolicy()) as master:
            key = master.start("server", machine.image, "sh", "-c", "echo hello | nc -l -p 7000; nslookup a.test; true")
            await master.wait_for_phase(key, "running")
            (container,) = machine.containers(worker_id)
            address = container.attrs["NetworkSettings"]["Networks"][TASK_NETWORK]["IPAddress"]
            with machine.client() as client:
                knock = ["sh", "-c", f"until nc -w 5 {address} 7000 < /dev/null; do sleep 0.1; done"]
                assert client.containers.run(machine.image, knock, network_mode="host", remove=True) == b"hello\n"
            await master.wait_for_end(key, 60.0)

    run(test())


@pytest.mark.e2e
def test_forced_rules_refuse_a_task_where_they_cannot_be_set(machine: IsolatedEngine, worker_id: str) -> None:
    async def test() -> None:
        policy = TaskPolicy(require_firewall=True)
        rules = TaskFirewall(policy, "", Table("iptables is not installed"), devices=lambda: DEVICES)
        engine = DockerEngine(ContainerOwner(worker_id), machine.env, firewall=rules)
        async with running_executor(engine, policy) as master:
            end = await master.wait_for_end(master.start("refused", machine.image, "true"))
            assert (end.reason, "require_firewall" in end.message) == ("policy_refused", True)

    run(test())


@pytest.mark.e2e
def test_worker_elsewhere_says_once_that_it_cannot_protect(
    machine: IsolatedEngine, worker_id: str, tmp_path: Path
) -> None:
    """A real worker in the network of the tests, with an engine in another one."""

    async def test() -> None:
        async with worker_at(machine, worker_id, tmp_path) as (master, worker):
            for task_id in ("one", "two"):
                key = await master.start(machine.image, "true", task_id=task_id)
                assert (await master.wait_for_end(key)).exit_code == 0
            assert worker.log.read_text().count("tasks with a network may reach") == 1

    run(test())
