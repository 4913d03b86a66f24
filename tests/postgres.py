"""A real PostgreSQL for tests, in its own folder and on a Unix socket. It changes nothing else on the machine.

The session fixture ``postgres`` starts it. The server ends and its folder is removed with the session, even when the
session is killed. Each test uses its own database or schema.
"""

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import psycopg
import pytest

from tests.guardian import Guardian
from tests.tools import ROOT, find_tool

USER = "fleetpulse"

_UNPACKED = ROOT / ".tools" / "root"
_PREFIX = "fleetpulse-postgres-"
_UNPRIVILEGED = "nobody"
_SECONDS = 30.0
_POLL_SECONDS = 0.02


class PostgresServer:
    """One cluster. Tests may stop, kill and restart it, which breaks every connection."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self.folder = programs, folder
        self._guardian = Guardian(folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)

    def initialise(self) -> None:
        """Creates the cluster. Its collation differs from byte order, so that tests find code that relies on it."""
        stderr = ""
        for locale in (["--locale-provider=icu", "--icu-locale=en-US", "--locale=C"], []):
            flags = ["--username", USER, "--auth", "trust", "--encoding", "UTF8", "--no-sync", *locale]
            made = subprocess.run(
                self._command("initdb", "--pgdata", f"{self.folder}/data", *flags),
                cwd=self.folder, env=self._environment(), capture_output=True, text=True, check=False,
            )  # fmt: skip
            if made.returncode == 0:
                return
            stderr = made.stderr
        _without_postgres(f"initdb failed: {stderr[-1500:]}")

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "fsync": "off",  # only a crash of the machine would lose data
            "jit": "off",  # its library may be missing
        }
        flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command("postgres", "-D", f"{self.folder}/data", *flags),
                cwd=self.folder, env=self._environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + _SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                _without_postgres(f"it did not start: {self.log[-1500:]}")
            time.sleep(_POLL_SECONDS)

    @property
    def log(self) -> str:
        """The server's output."""
        return (self.folder / "log").read_text(errors="replace")

    def stop(self) -> None:
        """Stops the server in order, without waiting for its clients."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Stops the server like a crash: the next start runs recovery."""
        self._end(signal.SIGQUIT)

    def url(self, database: str) -> str:
        """The ``DATABASE_URL`` of a database."""
        return f"postgresql://{USER}@/{database}?host={self.folder}"

    def create_schema(self) -> str:
        """The URL of a new schema in a shared database, ten times faster than a new database."""
        name = f"test_{next(self._numbers)}"
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        return f"{self.url('postgres')}&options=-csearch_path%3D{name}"

    def create_database(self) -> str:
        """The URL of a new database."""
        name = f"test_{next(self._numbers)}"
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def connect(self, database: str) -> psycopg.Connection:
        """A connection with autocommit, for changes that bypass the store."""
        return psycopg.connect(self.url(database), autocommit=True)

    def close(self) -> None:
        """Stops the server and removes its folder."""
        if self._process is not None:
            self.kill()
        self._guardian.close()

    def _answers(self) -> bool:
        try:
            self.connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        try:
            self._process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _command(self, program: str, *flags: str) -> Sequence[str]:
        """Switches the user, as PostgreSQL refuses root. ``setpriv`` also ends it with its parent process."""
        user = pwd.getpwnam(_UNPRIVILEGED)
        switch = ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]
        user_flags = switch if os.geteuid() == 0 else []
        return ["setpriv", "--pdeathsig", "QUIT", *user_flags, str(self._programs / program), *flags]

    def _environment(self) -> dict[str, str]:
        """An environment with the libraries of a fetched PostgreSQL."""
        folders = [str(folder) for folder in _UNPACKED.glob("usr/lib/*-linux-*")]
        return {"PATH": os.environ.get("PATH", os.defpath), "LD_LIBRARY_PATH": os.pathsep.join(folders), "LC_ALL": "C"}


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The shared server of a test session."""
    with running_postgres() as server:
        yield server


@contextlib.contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Runs a server. Skips the test, or fails it in CI, without PostgreSQL."""
    programs = find_programs()
    if programs is None:
        _without_postgres("it is missing: `make tools` fetches it on Debian and Ubuntu")
    # A socket path is limited to 107 characters.
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    if os.geteuid() == 0:
        shutil.chown(folder, _UNPRIVILEGED)
    server = PostgresServer(programs, folder)
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        server.close()


def find_programs() -> Path | None:
    """The folder of the newest PostgreSQL programs, which Debian does not put on PATH."""
    found = [
        (int(path.parent.parent.name), path.parent)
        for root in (Path("/"), _UNPACKED)
        for path in root.glob("usr/lib/postgresql/*/bin/initdb")
    ]
    if found:
        return max(found)[1]
    on_path = find_tool("initdb", Path("/usr/local/pgsql/bin"), os.environ.get("PATH", os.defpath))
    return on_path.resolve().parent if on_path else None


def _without_postgres(why: str) -> NoReturn:
    reason = f"needs PostgreSQL: {why}"
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
