"""Opens a database: waits for it, locks it, migrates its tables, and encrypts what older versions stored in the clear.

``python -m fleetpulse.master.store.schema``, with a database's URL on stdin, runs the migrations that are due. It is a
process of its own, because Alembic would take 9 MB of every master.
"""

import contextlib
import json
import logging
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from sqlalchemy import URL, Connection, Engine, bindparam, func, inspect, select, text, update
from sqlalchemy.exc import DBAPIError

from fleetpulse.master.errors import ConfigError, StoreUnavailable
from fleetpulse.master.store.database import (
    Engines,
    FileLock,
    MasterLock,
    create_private_file,
    error_message,
    is_row_error,
    open_engines,
    parse_database_url,
)
from fleetpulse.master.store.encryption import Encryptor
from fleetpulse.master.store.tables import events, tasks

_LOGGER = logging.getLogger(__name__)

VERSIONS = ("0001", "0002", "0003", "0004", "0005", "0006")
"""The versions of the schema, oldest first. This code needs the last."""

_RETRY_SECONDS = 0.25
_MIGRATION_SECONDS = 600.0

# Held on PostgreSQL for the length of the migrations. The number is arbitrary and used nowhere else.
_MIGRATION_LOCK = 4_201_702

_ROWS_ENCRYPTED_AT_ONCE = 1_000


class DatabaseOpener:
    """Opens and closes the database, on the writer's thread.

    Waits ``timeout_seconds`` for a database that is starting and for a master that is stopping.
    """

    def __init__(
        self, engines: Engines, encryptor: Encryptor, timeout_seconds: float, on_replaced: Callable[[str], None]
    ) -> None:
        self._database, self._engines = engines.url, engines
        self._encryptor, self._timeout_seconds = encryptor, timeout_seconds
        path = engines.url.path
        self._file_lock = FileLock(path.with_name(f"{path.name}.lock")) if path is not None else None
        self._master_lock = MasterLock(engines.writer, on_replaced) if path is None else None

    def open(self) -> int:
        """Returns the largest id of a stored event. Raises ``ConfigError`` or ``StoreUnavailable``."""
        if self._database.path is not None and self._file_lock is not None:
            create_private_file(self._database.path)
            self._file_lock.acquire(self._timeout_seconds)
        deadline = time.monotonic() + self._timeout_seconds
        has_warned = False
        while True:
            try:
                return self._try_open()
            except (StoreUnavailable, DBAPIError) as error:
                message = error_message(error)
                # Waiting is no use for a wrong parameter, or a file that is no database.
                if isinstance(error, DBAPIError) and (is_row_error(error) or type(error.orig) is sqlite3.DatabaseError):
                    raise ConfigError(f"the database {self._database} is not usable: {message}") from error
                if time.monotonic() >= deadline:
                    raise StoreUnavailable(f"the database {self._database}: {message}") from error
                if not has_warned:
                    _LOGGER.warning("waiting for the database %s: %s", self._database, message)
                has_warned = True
            time.sleep(_RETRY_SECONDS)

    def _try_open(self) -> int:
        with self._engines.writer.begin() as connection:
            is_current = _is_current(connection, str(self._database))
        if not is_current:
            _LOGGER.info("bringing the tables of %s up to date", self._database)
            _migrate_in_child(self._database.url)
        if self._master_lock is not None:
            self._master_lock.write_token()
        encrypt_old_rows(self._engines.writer, self._encryptor)
        with self._engines.writer.begin() as connection:
            return connection.scalar(select(func.max(events.c.event_id))) or 0

    def close(self) -> None:
        """Closes the connections, then releases the file."""
        self._engines.close()
        if self._file_lock is not None:
            self._file_lock.release()


def _is_current(connection: Connection, database: str) -> bool:
    """Raises ``ConfigError`` for the schema of a newer version, which may hold what this one does not understand."""
    if not inspect(connection).has_table("alembic_version"):
        return False
    found = set(connection.scalars(text("SELECT version_num FROM alembic_version")))
    if unknown := found - set(VERSIONS):
        raise ConfigError(
            f"{database} was written by a newer version of FleetPulse (its schema is {', '.join(sorted(unknown))}, "
            f"this version knows up to {VERSIONS[-1]}): run that version, or restore an older copy"
        )
    return found == {VERSIONS[-1]}


def _migrate_in_child(url: URL) -> None:
    """Raises ``StoreUnavailable`` with the child's last words when it fails."""
    child = subprocess.run(
        # -P: nothing is imported from the working directory, which may be anybody's.
        [sys.executable, "-P", "-m", "fleetpulse.master.store.schema"],
        # Others can read flags and variables, and the URL may hold a password.
        input=url.render_as_string(hide_password=False),
        capture_output=True,
        text=True,
        timeout=_MIGRATION_SECONDS,
        check=False,
    )
    if child.returncode != 0:
        raise StoreUnavailable(f"the tables could not be brought up to date: {child.stderr.strip()[-500:]}")


def migrate(connection: Connection) -> None:
    """Runs the migrations that are due, in the caller's transaction."""
    from alembic import command  # noqa: PLC0415 - in a process of its own, see above
    from alembic.config import Config  # noqa: PLC0415

    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(files("fleetpulse.master.store") / "migrations").replace("%", "%%"))
    command.upgrade(config, "head")


def encrypt_old_rows(engine: Engine, encryptor: Encryptor) -> None:
    """Encrypts the environments and keys the digests of rows without ``env_names``: an older version stored them in
    the clear. Alembic cannot do it: its process has no key. Being killed between two transactions harms nothing."""
    columns = (tasks.c.sequence, tasks.c.env, tasks.c.idempotency_digest)
    old = select(*columns).where(tasks.c.env_names.is_(None)).order_by(tasks.c.sequence).limit(_ROWS_ENCRYPTED_AT_ONCE)
    new: dict[str, Any] = {name: bindparam(f"new_{name}") for name in ("env", "env_names", "idempotency_digest")}
    change = update(tasks).where(tasks.c.sequence == bindparam("row")).values(new)
    count = 0
    while True:
        rows = []
        with engine.begin() as connection:
            for sequence, json_text, digest in connection.execute(old):
                env: dict[str, str] = json.loads(json_text)
                keyed = None if digest is None else encryptor.digest(digest)
                encrypted = {"new_env": encryptor.encrypt(env), "new_env_names": list(env)}
                rows.append({"row": sequence, **encrypted, "new_idempotency_digest": keyed})
            if rows:
                connection.execute(change, rows)
        if not rows:
            break
        count += len(rows)
    if count:
        _LOGGER.info("encrypted the environments and digests of %d tasks", count)
        _erase_free_pages(engine)


def _erase_free_pages(engine: Engine) -> None:
    """Old values may still be in the free pages of the file, and in its journal."""
    if engine.dialect.name != "sqlite":
        _LOGGER.warning("older versions of these rows stay on the server's disk until somebody runs VACUUM FULL tasks")
        return
    try:
        with contextlib.closing(engine.raw_connection()) as connection:
            for statement in ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
                connection.cursor().execute(statement).close()
    except sqlite3.Error as error:
        _LOGGER.warning("the database could not be vacuumed, so it may still hold unencrypted values: %s", error)


def main() -> int:
    """Returns the exit status: 1 when the database cannot be migrated now."""
    engines = open_engines(parse_database_url(sys.stdin.read()), 1)
    try:
        with engines.writer.begin() as connection:
            migrate(connection)
    except DBAPIError as error:
        print(error_message(error), file=sys.stderr)
        return 1
    finally:
        engines.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
