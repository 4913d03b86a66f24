"""A real PostgreSQL for tests, in a folder of its own and on a Unix socket: nothing on the machine is touched.

The session fixture ``postgres`` starts it. It ends, and its folder is removed, with the session, also when that is
killed. Each test takes a database or a schema of its own.
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
    """One cluster. It may be stopped, killed and started again; every connection breaks then."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self.folder = programs, folder
        self._guardian = Guardian(folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)

    def initialise(self) -> None:
        """Make the cluster. Its own collation is not that of bytes, so that a test sees what relies on it."""
        said = ""
        for locale in (["--locale-provider=icu", "--icu-locale=en-US", "--locale=C"], []):
            flags = ["--username", USER, "--auth", "trust", "--encoding", "UTF8", "--no-sync", *locale]
            made = subprocess.run(
                self._command("initdb", "--pgdata", f"{self.folder}/data", *flags),
                cwd=self.folder, env=self._environment(), capture_output=True, text=True, check=False,
            )  # fmt: skip
            if made.returncode == 0:
                return
            said = made.stderr
        _without_postgres(f"initdb failed: {said[-1500:]}")

    def start(self) -> None:
        """Return when it answers."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "fsync": "off",  # a server that is killed loses nothing by that, only a machine would
            "jit": "off",  # its library may not have been fetched
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
                _without_postgres(f"it did not start; it said: {self.log[-1500:]}")
            time.sleep(_POLL_SECONDS)

    @property
    def log(self) -> str:
        """What it wrote."""
        return (self.folder / "log").read_text(errors="replace")

    def stop(self) -> None:
        """End it in order, without waiting for those who are connected."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it as a crash would: the next start recovers."""
        self._end(signal.SIGQUIT)

    def url(self, database: str) -> str:
        """What ``DATABASE_URL`` takes."""
        return f"postgresql://{USER}@/{database}?host={self.folder}"

    def create_schema(self) -> str:
        """The URL of an empty place in a database that others use too; made in a tenth of the time."""
        name = f"test_{next(self._numbers)}"
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        return f"{self.url('postgres')}&options=-csearch_path%3D{name}"

    def create_database(self) -> str:
        """The URL of a new and empty database."""
        name = f"test_{next(self._numbers)}"
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def connect(self, database: str) -> psycopg.Connection:
        """A connection without transactions, for what a test does behind the store's back."""
        return psycopg.connect(self.url(database), autocommit=True)

    def close(self) -> None:
        """End it, and leave nothing of it."""
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
        """PostgreSQL refuses to run as root. ``setpriv`` also lets it end with the process that started it."""
        user = pwd.getpwnam(_UNPRIVILEGED)
        switch = ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]
        as_whom = switch if os.geteuid() == 0 else []
        return ["setpriv", "--pdeathsig", "QUIT", *as_whom, str(self._programs / program), *flags]

    def _environment(self) -> dict[str, str]:
        """Where the libraries are, if PostgreSQL was fetched and not installed."""
        folders = [str(folder) for folder in _UNPACKED.glob("usr/lib/*-linux-*")]
        return {"PATH": os.environ.get("PATH", os.defpath), "LD_LIBRARY_PATH": os.pathsep.join(folders), "LC_ALL": "C"}


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server for all tests of a session."""
    with running_postgres() as server:
        yield server


@contextlib.contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A server of one's own. Skips, or in CI fails, where there is none to start."""
    programs = find_programs()
    if programs is None:
        _without_postgres("it is missing: `make tools` fetches it on Debian and Ubuntu")
    # Short, because the path of a socket has 107 characters at most.
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
    """The folder of PostgreSQL's programs, of the newest version: Debian does not put them on PATH."""
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
