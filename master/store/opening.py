"""Opening and closing a database. Both are done by the writer's thread."""

import logging
import sqlite3
import time
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError

from fleetpulse.master.errors import ConfigError, StoreUnavailable
from fleetpulse.master.store.engines import Engines
from fleetpulse.master.store.failures import blames_row, in_words
from fleetpulse.master.store.files import FileLock, make_private
from fleetpulse.master.store.mastership import Mastership
from fleetpulse.master.store.reading import last_event_id
from fleetpulse.master.store.resealing import seal_all
from fleetpulse.master.store.schema import bring_up_to_date, is_current
from fleetpulse.master.store.sealing import Encryptor
from fleetpulse.master.store.url import DatabaseUrl

_LOGGER = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.25


class Opening:
    """Waits for a database that is starting, and for the end of a master that is stopping, but not for ever."""

    def __init__(
        self,
        database: DatabaseUrl,
        engines: Engines,
        seal: Encryptor,
        patience_seconds: float,
        on_taken_over: Callable[[str], None],
    ) -> None:
        self._database, self._engines, self._patience_seconds = database, engines, patience_seconds
        self._seal = seal
        path = database.path
        self._lock = FileLock(path.with_name(f"{path.name}.lock")) if path is not None else None
        writer = engines.writer
        self._mastership = Mastership(writer, on_taken_over) if path is None else None

    def open(self) -> int:
        """The largest number of an event that is stored. Raise ``ConfigError`` or ``StoreUnavailable``."""
        if self._database.path is not None and self._lock is not None:
            make_private(self._database.path)
            self._lock.acquire(self._patience_seconds)
        deadline = time.monotonic() + self._patience_seconds
        is_first = True
        while True:
            try:
                return self._open()
            except (StoreUnavailable, DBAPIError) as error:
                if isinstance(error, DBAPIError) and _is_final(error):
                    raise ConfigError(f"the database {self._database} is not usable: {in_words(error)}") from error
                if time.monotonic() >= deadline:
                    raise StoreUnavailable(f"the database {self._database}: {in_words(error)}") from error
                if is_first:
                    _LOGGER.warning("waiting for the database %s: %s", self._database, in_words(error))
                is_first = False
            time.sleep(_PAUSE_SECONDS)

    def _open(self) -> int:
        with self._engines.writer.begin() as connection:
            has_tables = is_current(connection, str(self._database))
        if not has_tables:
            _LOGGER.info("bringing the tables of %s up to date", self._database)
            bring_up_to_date(self._database.url)
        if self._mastership is not None:
            self._mastership.claim()
        seal_all(self._engines.writer, self._seal)
        with self._engines.writer.begin() as connection:
            return last_event_id(connection)

    def close(self) -> None:
        """Let go of the connections, then of the file."""
        self._engines.close()
        if self._lock is not None:
            self._lock.release()


def _is_final(error: DBAPIError) -> bool:
    """Whether waiting is no use: a wrong parameter, or a file that is no database."""
    return blames_row(error) or type(error.orig) is sqlite3.DatabaseError
