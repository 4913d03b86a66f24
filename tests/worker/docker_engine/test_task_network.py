"""The network of tasks, on a real Docker Engine with bridges and firewall rules."""

import pytest
from docker.models.containers import Container

from fleetpulse.worker.docker_engine.engine import TASK_NETWORK, DockerEngine
from fleetpulse.worker.docker_engine.ownership import ContainerOwner
from tests.docker_engine import isolated_engine
from tests.worker.scripted import run
from tests.worker.tasks.fake_master import running_executor, until

pytestmark = pytest.mark.e2e

SERVE = "echo up; while true; do echo hello | nc -l -p 7000; done"


def test_tasks_do_not_reach_each_other(worker_id: str) -> None:
    async def test() -> None:
        with isolated_engine(bridge=True) as engine:
            async with running_executor(DockerEngine(ContainerOwner(worker_id), engine.env)) as master:
                server = master.start("server", engine.image, "sh", "-c", SERVE)
                await until(lambda: master.logs.get(server) == b"up\n")
                (container,) = engine.containers(worker_id)
                address = address_of(container)
                # From the network of the machine the port is open, so it is the isolation that closes it.
                with engine.client() as client:
                    options = client.networks.get(TASK_NETWORK).attrs["Options"]
                    assert options["com.docker.network.bridge.enable_icc"] == "false"
                    knock = ["sh", "-c", f"nc -w 5 {address} 7000 < /dev/null"]
                    assert client.containers.run(engine.image, knock, network_mode="host", remove=True) == b"hello\n"
                script = f"nc -w 2 {address} 7000 < /dev/null 2> /dev/null || echo closed; ip route | grep -c default"
                client_key = master.start("client", engine.image, "sh", "-c", script)
                assert (await master.wait_for_end(client_key)).exit_code == 0
                assert master.logs[client_key] == b"closed\n1\n"
                master.stop(server, 0.0)
                await master.wait_for_end(server)

    run(test())


def address_of(container: Container) -> str:
    """The container's address on the network of tasks, its only one."""
    networks = container.attrs["NetworkSettings"]["Networks"]
    assert list(networks) == [TASK_NETWORK]
    return str(networks[TASK_NETWORK]["IPAddress"])
