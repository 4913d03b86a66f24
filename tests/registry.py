"""A real image registry (Debian's) that requires a username and password, on a free port of 127.0.0.1.

Docker Engines use plain HTTP for registries in 127.0.0.0/8 by default.
"""

import base64
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.docker_engine import Engine
from tests.ports import LOCALHOST, free_port
from tests.tools import require_tool

USERNAME = "robot"
PASSWORD = "correct horse battery"
_HTPASSWD = f"{USERNAME}:$2y$04$abcdefghijklmnopqrstuuqREtd3VJD2QVZbuFskFSLk6eRIrQoOS\n"
"""The credentials with a bcrypt hash."""

_CONFIG = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}/images}}}}
http: {{addr: "{address}"}}
auth: {{htpasswd: {{realm: fleetpulse, path: {folder}/htpasswd}}}}
log: {{level: error, accesslog: {{disabled: true}}}}
"""
_START_SECONDS = 20.0
_CONNECT = f"""
import socket, sys, time
deadline = time.monotonic() + {_START_SECONDS}
while socket.socket().connect_ex((sys.argv[1], int(sys.argv[2]))):
    if time.monotonic() > deadline:
        sys.exit("the port is closed")
    time.sleep(0.02)
"""


class Registry:
    """A registry at ``address``."""

    def __init__(self, address: str) -> None:
        self.address = address

    def push(self, engine: Engine, name: str) -> str:
        """Pushes the engine's image, removes the local tag, and returns the reference in the registry."""
        reference = f"{self.address}/{name}"
        with engine.client() as client:
            client.images.get(engine.image).tag(reference, "1")
            login = {"username": USERNAME, "password": PASSWORD}
            for line in client.api.push(reference, "1", stream=True, decode=True, auth_config=login):
                assert "error" not in line, line
            client.images.remove(f"{reference}:1")
        return f"{reference}:1"


def login_file(path: Path, address: str, password: str = PASSWORD) -> Path:
    """Writes a Docker config file with credentials, like ``docker login``."""
    auth = base64.b64encode(f"{USERNAME}:{password}".encode()).decode()
    path.touch(mode=0o600)
    path.write_text(json.dumps({"auths": {address: {"auth": auth}}}))
    return path


@contextlib.contextmanager
def running_registry(engine: Engine, folder: Path) -> Iterator[Registry]:
    """Runs a registry that ``engine`` can reach. Skips the test without the program."""
    program = require_tool("docker-registry")
    address = f"{LOCALHOST}:{free_port()}"
    (folder / "htpasswd").write_text(_HTPASSWD)
    config = folder / "registry.yml"
    config.write_text(_CONFIG.format(folder=folder, address=address))
    with (folder / "registry.log").open("wb") as log:
        serve = engine.in_network([str(program), "serve", str(config)])
        process = subprocess.Popen(serve, stdout=log, stderr=log)
    try:
        _wait_for(engine, address)
        yield Registry(address)
    finally:
        process.kill()
        process.wait()


def _wait_for(engine: Engine, address: str) -> None:
    host, port = address.split(":")
    command = engine.in_network([sys.executable, "-c", _CONNECT, host, port])
    assert subprocess.run(command, check=False, timeout=2 * _START_SECONDS).returncode == 0, (
        "the registry does not answer"
    )
